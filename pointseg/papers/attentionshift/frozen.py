"""Features of a pretrained convolutional network, frozen, in place of what AttentionShift learns.

On photographs from ImageNet weights, without any training: a bed for the label path alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.timm_backbone import TimmBackbone
from pointseg.ops.processes import draws_of
from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.instance_map import unit_range
from pointseg.papers.attentionshift.labeller import Evidence, Labeller, Labels, label_path
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.querying import Queried, point_maps
from pointseg.papers.attentionshift.tokens import Tokens
from pointseg.structures import Batch

STRIDE = 8  # of the tokens
LEVELS = {8: 0.5, 16: 1.0, 32: 0.7}  # stride -> length of its part of a token


class FrozenTokens(nn.Module):
    """Maps of three strides brought to the finest, each as directions from its mean, joined."""

    def __init__(self, network: str, weights: str | None):
        super().__init__()
        self.backbone = TimmBackbone(network, tuple(LEVELS), weights).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FrozenTokens:
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        """[b, h, w, D] tokens of images [b, 3, H, W]; each as if alone, padding 0."""
        grid = grid_of(tuple(images.shape[-2:]))
        rows = [self.alone(image[None, :, :h, :w]) for image, (h, w) in zip(images, sizes)]
        tokens = images.new_zeros(len(rows), *grid, rows[0].shape[-1])
        for canvas, row in zip(tokens, rows):
            canvas[: row.shape[0], : row.shape[1]] = row
        return tokens

    def alone(self, image: Tensor) -> Tensor:
        """[h, w, D] tokens of one image [1, 3, H, W] without padding."""
        h, w = grid_of(tuple(image.shape[-2:]))
        side = max(LEVELS)
        margin = (0, -image.shape[-1] % side, 0, -image.shape[-2] % side)
        maps = self.backbone(F.pad(image, margin, mode="replicate"))
        fine = tuple(maps[0].shape[-2:])
        joined = [
            factor * centred(F.interpolate(each, fine, mode="bilinear")[0, :, :h, :w])
            for each, factor in zip(maps, LEVELS.values())
        ]
        return torch.cat(joined).permute(1, 2, 0)


def grid_of(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens that hold at least one pixel of an image (h, w)."""
    return -(-size[0] // STRIDE), -(-size[1] // STRIDE)


def centred(maps: Tensor) -> Tensor:
    """Unit directions of maps [C, h, w] less their mean over the image."""
    return F.normalize(maps - maps.mean((1, 2), keepdim=True), dim=0)


class FrozenLabeller(nn.Module):
    """The label path on frozen features. It learns nothing and needs no student's features.

    DEVIATION [AS Sec. 3.1]: the likeness of every token to the labelled one stands for the
    self-attention map A^S of a matched query token, so there is no token querying and no MIL head.
    """

    ASSIGNING = (*Labeller.ASSIGNING, "foreground", "box_rule")

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.stride = config, STRIDE
        self.tokens = FrozenTokens(config.frozen_network, config.frozen_weights)

    def evidence(self, features: Any, batch: Batch) -> Evidence:
        tokens = self.tokens(batch.images.float(), batch.sizes)
        grid = tuple(tokens.shape[1:3])
        objects = Objects.of(batch.points, batch.sizes, grid, STRIDE)
        tokens = Tokens.of(tokens.flatten(1, 2), objects.counts)
        likeness = unit_range(point_maps(tokens, objects)[:, 0], objects.valid)[:, None]
        single = torch.zeros_like(objects.label)
        return Evidence(Queried(objects, None, None, None), tokens, likeness, None, single)

    def assign(self, evidence: Evidence, batch: Batch, keep_path: bool = False) -> Labels:
        """Boxes, parts and points of every object, as `Labeller` finds them."""
        return label_path(evidence.tokens, evidence.objects, evidence.attention, self.config,
                          draws_of(batch), keep_path)  # fmt: skip

    def losses(self, evidence: Evidence, labels: Labels, batch: Batch) -> dict[str, Tensor]:
        return {}
