"""Heads of a labeller on the encoded image: a semantic, a boundary and a feature map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.nets.mask_decoder import ClassQueries
from pointseg.nets.point_head import TokenClassifier


@dataclass(frozen=True)
class LabelMaps:
    """Maps of a batch, on one grid over the padded canvas."""

    logits: Tensor  # [l, b, C, h, w] of every layer, all classes: things, then stuff
    presence: Tensor  # [l, b, C]
    features: Tensor | None = None  # [b, D, h, w], of unit length
    boundary: Tensor | None = None  # [b, 1, h, w] in 0..1

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(self.logits.shape[-2:])

    def of_image(self, row: int, size: tuple[int, int], canvas: tuple[int, int]) -> ImageMaps:
        """The last layer's maps of one image, detached and without padding."""
        h, w = (
            max(1, round(part * cells / whole))
            for part, cells, whole in zip(size, self.grid, canvas)
        )
        maps = (self.logits[-1], self.features, self.boundary)
        return ImageMaps(*(None if m is None else m[row, :, :h, :w].detach() for m in maps))


@dataclass(frozen=True)
class ImageMaps:
    """Maps of one image alone."""

    logits: Tensor  # [C, h, w]
    features: Tensor | None  # [D, h, w]
    boundary: Tensor | None  # [1, h, w]


class QueriedClasses(nn.Module):
    """One query a class; its mask, scaled, counts as far as its class is present.

    UNSTATED [P2M Sec. 3.4]: queries, sizes, scale and shift are the official code's.
    """

    def __init__(self, queries: ClassQueries):
        super().__init__()
        self.queries, classes = queries, len(queries.content)
        self.scale = nn.Parameter(torch.ones(classes))
        self.shift = nn.Parameter(torch.zeros(classes))

    def forward(self, memory: Memory) -> LabelMaps:
        presence, masks = self.queries(memory)
        scaled = masks.float() * self.scale[:, None, None] + self.shift[:, None, None]
        return LabelMaps(scaled * presence.float().sigmoid()[..., None, None], presence.float())


class CellClasses(nn.Module):
    """DEVIATION [P2M Sec. 3.4]: one linear map of each cell of the finest level, as a single layer.

    Points teach it in a few hundred steps what queries and their decoder learn in many thousands.
    A class is present as far as its logits are, averaged in the manner of a soft maximum.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.classifier = TokenClassifier(width, classes)

    def forward(self, memory: Memory) -> LabelMaps:
        logits = self.classifier(memory.level(0).flatten(2).transpose(1, 2)).transpose(1, 2)
        inside = torch.ones_like(logits[:, :1])  # [b, 1, h * w]
        if memory.padding is not None:
            inside = (~memory.padding_of(0)).flatten(1)[:, None].to(logits.dtype)
        presence = (logits + inside.log()).logsumexp(-1) - inside.sum(-1).log()
        return LabelMaps(logits.unflatten(2, memory.shapes[0])[None], presence[None])


def pixel_net(width: int, outward: int) -> nn.Sequential:
    """Two layers a cell, on the detached memory. UNSTATED [P2M Sec. 3.4]: the official code."""
    return nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, outward, 1))


def joined_levels(memory: Memory, levels: int) -> Tensor:
    """[b, D, h, w] sum of the first levels with their positions, on the finest grid."""
    placed = replace(memory, tokens=memory.tokens + memory.position)
    total = placed.level(0)
    for k in range(1, levels):
        total = total + F.interpolate(
            placed.level(k), size=memory.shapes[0], mode="bilinear", align_corners=False
        )
    return total
