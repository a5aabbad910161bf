"""The branch that turns points into labels, used in training only: a semantic, a boundary and an instance map."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.ops.point_labels import LabelMaps
from pointseg.papers.semantic_heads import CellClasses, QueriedClasses
from pointseg.students.panoptic_segformer.network import PanopticSegFormer


class LabelBranch(nn.Module):
    """A head for the semantic map; two small nets on the detached memory for the others.

    UNSTATED [P2M Sec. 3.4]: heads, sizes and detaching are the official code's; PSPS has the same without boundary.
    """

    def __init__(
        self,
        student: PanopticSegFormer,
        classes: int,
        semantic: str,
        feature_width: int,
        boundary: bool,
    ):
        super().__init__()
        width = student.architecture.width
        self.semantic = (CellClasses if semantic == "cells" else QueriedClasses)(student, classes)
        self.levels = student.architecture.mask_levels
        self.feature_head = pixel_net(width, feature_width)
        self.boundary_head = pixel_net(width, 1) if boundary else None

    def forward(self, memory: Memory) -> LabelMaps:
        logits, presence = self.semantic(memory)
        joined = joined_levels(memory, self.levels).detach()
        features = F.normalize(self.feature_head(joined).float(), dim=1)
        boundary = (
            None if self.boundary_head is None else self.boundary_head(joined).float().sigmoid()
        )
        return LabelMaps(logits, presence, features, boundary)


def pixel_net(width: int, outward: int) -> nn.Sequential:
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
