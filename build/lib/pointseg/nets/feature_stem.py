"""Tokens from a convolutional network's maps: what a small ViT stands on where it has no pixels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.stem import sine_grid
from pointseg.nets.timm_backbone import TimmBackbone
from pointseg.structures import InputError

STRIDES = (8, 16, 32)  # of the maps; tokens have one of the first two


class FeatureStem(nn.Module):
    """Maps of a pretrained network brought to one stride, normed each, joined and projected.

    DEVIATION [AS Sec. 5.1]: a hybrid ViT, a few young blocks on ImageNet's features; an MAE of a
    plain ViT-S is in no public hub. Attributes are those timm asks of a patch embedding.
    """

    def __init__(self, network: str, weights: str | None, stride: int, embed_dim: int, side: int):
        super().__init__()
        if stride not in STRIDES[:2]:
            raise InputError(f"patch: tokens of features have stride 8 or 16, not {stride}")
        self.stride = stride
        self.backbone = TimmBackbone(network, STRIDES, weights)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in self.backbone.channels)
        self.project = nn.Linear(sum(self.backbone.channels), embed_dim)
        self.grid_size = (side // stride,) * 2
        self.num_patches = self.grid_size[0] ** 2

    def feat_ratio(self) -> int:
        return self.stride

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [b, 3, H, W] -> [b, H / s, W / s, D], fixed positions added."""
        maps = self.backbone.of_pixels(pixels)
        grid = maps[STRIDES.index(self.stride)].shape[-2:]
        alike = (resized(each, grid).permute(0, 2, 3, 1) for each in maps)
        normed = [norm(each) for norm, each in zip(self.norms, alike)]
        tokens = self.project(torch.cat(normed, -1))
        return tokens + sine_grid(*tokens.shape[1:], tokens.device)


def resized(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps [b, C, h, w] on a grid: means of finer ones, coarser ones in between."""
    if maps.shape[-2] > grid[0]:
        return F.adaptive_avg_pool2d(maps, grid)
    return F.interpolate(maps, grid, mode="bilinear")


def feature_stem(network: str, weights: str | None) -> Any:
    """What timm is given as `embed_layer`."""

    def layer(img_size: int, patch_size: int, embed_dim: int, **_ignored: Any) -> FeatureStem:
        side = img_size if isinstance(img_size, int) else img_size[0]
        return FeatureStem(network, weights, patch_size, embed_dim, side)

    return layer
