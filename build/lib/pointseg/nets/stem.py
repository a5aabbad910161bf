"""From pixels to a grid of tokens: a small stack of convolutions, and fixed sine positions."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class ConvStem(nn.Module):
    """Convolutions 3x3 with stride 2 down to the token grid, then a linear map to the token width.

    Signature and attributes are those timm asks of a patch embedding, so that a timm ViT can be
    built on it. Norms are taken per position (GroupNorm's statistics would change with the share
    of hidden pixels, and masked pretraining would then train another network than the one that is
    used).
    """

    def __init__(
        self, img_size=128, patch_size=8, in_chans=3, embed_dim=192, positions="sine", **_ignored
    ):
        super().__init__()
        steps = int(math.log2(patch_size))
        if 2**steps != patch_size:
            raise ValueError(
                f"a stem of stride-2 convolutions needs a power of two, not patch {patch_size}"
            )
        # thin where the map is large: the first layers cost memory traffic, not arithmetic
        widths = [in_chans, *(embed_dim // shrink for shrink in (32, 16, 8, 3, 1)[-steps:])]
        layers = [_halve(a, b, normed=step > 0) for step, (a, b) in enumerate(pairwise(widths))]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.project = nn.Linear(embed_dim, embed_dim)
        self.stride, self.positions = patch_size, positions
        side = img_size if isinstance(img_size, int) else img_size[0]
        self.grid_size = (side // patch_size, side // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self) -> int:
        return self.stride

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, H, W] -> [b, H / stride, W / stride, D]; the fixed positions are added here."""
        images = images.contiguous(memory_format=torch.channels_last)
        tokens = self.project(self.layers(images).permute(0, 2, 3, 1))
        if self.positions == "sine":
            tokens = tokens + sine_grid(*tokens.shape[1:], tokens.device)
        return tokens


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map, at every position by itself."""

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _halve(inward: int, outward: int, normed: bool) -> nn.Sequential:
    norm = ChannelNorm(outward) if normed else nn.Identity()
    return nn.Sequential(nn.Conv2d(inward, outward, 3, 2, 1, bias=not normed), norm, nn.GELU())


def sine_positions(xy: Tensor, dim: int, longest: float = 100.0) -> Tensor:
    """[..., 2] coordinates in tokens -> [..., dim] sines and cosines, wavelengths 2 pi to 2 pi *
    `longest`."""
    quarter = dim // 4
    steps = torch.arange(quarter, device=xy.device, dtype=torch.float32) / max(quarter - 1, 1)
    phase = xy.float().unsqueeze(-1) * longest**-steps  # [..., 2, dim / 4]
    waves = torch.cat([phase.sin(), phase.cos()], -1).flatten(-2)
    return nn.functional.pad(waves, (0, dim - waves.shape[-1]))


def sine_grid(height: int, width: int, dim: int, device=None) -> Tensor:
    """[h, w, dim] the sine positions of a token grid; they do not depend on its size."""
    rows = torch.arange(height, device=device).view(-1, 1).expand(height, width)
    columns = torch.arange(width, device=device).view(1, -1).expand(height, width)
    return sine_positions(torch.stack([columns, rows], -1), dim)
