"""Two ways from the encoded picture to a semantic map: a learnt query a class, or a look at every cell."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.nets.point_head import TokenClassifier
from pointseg.students.panoptic_segformer.network import PanopticSegFormer


class QueriedClasses(nn.Module):
    """One query a class; its mask, scaled, counts as far as the query finds its class in the picture.

    UNSTATED [P2M Sec. 3.4]: queries, sizes, scale and shift are the official code's.
    """

    def __init__(self, student: PanopticSegFormer, classes: int):
        super().__init__()
        self.queries = student.class_queries(classes, student.architecture.stuff_layers)
        self.scale, self.shift = (
            nn.Parameter(torch.ones(classes)),
            nn.Parameter(torch.zeros(classes)),
        )

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Class logits [l, b, C, h, w] and presence logits [l, b, C] of every layer."""
        presence, masks = self.queries(memory)
        scaled = masks.float() * self.scale[:, None, None] + self.shift[:, None, None]
        return scaled * presence.float().sigmoid()[..., None, None], presence.float()


class CellClasses(nn.Module):
    """DEVIATION [P2M Sec. 3.4]: one linear look at each cell of the finest level, as a single layer.

    Points teach it in a few hundred steps what queries and their decoder learn in many thousands. A class is present
    as far as its logits say so, averaged over the picture in the manner of a soft maximum.
    """

    def __init__(self, student: PanopticSegFormer, classes: int):
        super().__init__()
        self.classifier = TokenClassifier(student.architecture.width, classes)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """Class logits [1, b, C, h, w] and presence logits [1, b, C]."""
        logits = self.classifier(memory.level(0).flatten(2).transpose(1, 2)).transpose(
            1, 2
        )  # [b, C, h * w]
        padding = memory.padding_of(0)
        inside = (
            torch.ones_like(logits[:, :1])
            if padding is None
            else (~padding).flatten(1)[:, None].to(logits.dtype)
        )
        presence = (logits + inside.log()).logsumexp(-1) - inside.sum(-1).log()
        return logits.unflatten(2, memory.shapes[0])[None], presence[None]
