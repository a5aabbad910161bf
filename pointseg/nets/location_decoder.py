"""Queries that find things: a class and a box each, refined layer by layer. [PSF Sec. 3.3]"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import DeformableAttention, Memory, feedforward_net, sine_code
from pointseg.ops.deformable import cell_centres

RARE = -math.log(99.0)  # sigmoid(RARE) = 0.01: at the start nothing is a thing


@dataclass(frozen=True)
class Located:
    """What the location decoder says; boxes are (x, y, w, h) about their centre as parts of the padded picture."""

    logits: Tensor  # [l, b, q, T] thing classes
    boxes: Tensor  # [l, b, q, 4]
    queries: Tensor  # [b, q, D] after the last layer
    cells: tuple[Tensor, Tensor] | None = (
        None  # of every cell, where cells propose: logits [b, N, T], boxes [b, N, 4]
    )


def inverse_sigmoid(x: Tensor) -> Tensor:
    x = x.float().clamp(1e-5, 1 - 1e-5)
    return (x / (1 - x)).log()


def box_head(width: int, start: tuple[float, float]) -> nn.Sequential:
    """Two hidden layers and a last one that says `start` = (centre, size) shift at first."""
    head = nn.Sequential(
        nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    )
    nn.init.zeros_(head[-1].weight)
    with torch.no_grad():
        head[-1].bias.copy_(torch.tensor([start[0]] * 2 + [start[1]] * 2))
    return head


def class_head(width: int, classes: int) -> nn.Linear:
    head = nn.Linear(width, classes)
    nn.init.constant_(head.bias, RARE)
    return head


class LocationLayer(nn.Module):
    """Self-attention of the queries, deformable attention to the memory, a two-layer net."""

    def __init__(
        self, width: int, heads: int, levels: int, points: int, feedforward: int, dropout: float
    ):
        super().__init__()
        self.among = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.attention = DeformableAttention(width, heads, levels, points)
        self.between = feedforward_net(width, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, position: Tensor, references: Tensor, memory: Memory
    ) -> Tensor:
        placed = queries + position
        among = self.among(placed, placed, queries, need_weights=False)[0]
        queries = self.norms[0](queries + self.dropout(among))
        looked = self.attention(queries + position, references, memory)
        queries = self.norms[1](queries + self.dropout(looked))
        return self.norms[2](queries + self.between(queries))


class LearntStart(nn.Module):
    """Queries that are the same for every picture: content and position, a linear map to the first place."""

    def __init__(self, width: int, queries: int):
        super().__init__()
        self.content, self.position = (nn.Parameter(torch.randn(queries, width)) for _ in range(2))
        self.reference = nn.Linear(width, 2)

    def forward(self, memory: Memory):
        b = len(memory.tokens)
        place = self.reference(self.position).float().sigmoid()
        expand = lambda x: x.expand(b, -1, -1)  # noqa: E731
        return expand(self.content), expand(self.position), expand(place), None


class CellStart(nn.Module):
    """Every cell of the coarser levels proposes a class and a box; the surest cells become the queries.

    DEVIATION [PSF Sec. 3.3]: the two-stage start of Deformable DETR. Learnt queries need tens of epochs to spread out.
    """

    def __init__(self, width: int, queries: int, classes: int, skip: int):
        super().__init__()
        self.queries, self.skip = queries, skip
        self.logits, self.boxes = class_head(width, classes), box_head(width, (0.0, 0.0))
        self.content = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.position = nn.Linear(width, width)

    def forward(self, memory: Memory):
        n = sum(memory.areas[: self.skip])
        tokens = memory.tokens[:, n:] + memory.position[n:]
        logits, shifts = self.logits(tokens), self.boxes(tokens)
        boxes = (shifts.float() + self._anchors(memory)).sigmoid()
        sure = logits.detach().amax(-1)
        if memory.padding is not None:
            sure = sure.masked_fill(memory.padding[:, n:], -torch.inf)
        best = sure.topk(min(self.queries, sure.shape[1]), dim=1).indices[..., None]
        pick = lambda x: x.gather(1, best.expand(-1, -1, x.shape[-1]))  # noqa: E731
        reference = pick(boxes).detach()
        position = self.position(
            sine_code(reference, tokens.shape[-1], memory.waves).to(tokens.dtype)
        )
        return self.content(pick(tokens)), position, reference, (logits, boxes)

    def _anchors(self, memory: Memory) -> Tensor:
        """[N, 4] before the sigmoid: each cell's centre, and a size of four cells of its level."""
        shapes = memory.shapes[self.skip :]
        centres = cell_centres(shapes, memory.tokens.device)
        size = torch.cat([centres.new_tensor([4 / w, 4 / h]).expand(h * w, 2) for h, w in shapes])
        return inverse_sigmoid(torch.cat([centres, size.clamp(max=0.9)], -1))


class LocationDecoder(nn.Module):
    """Iterative boxes: every layer shifts the box of the layer before, which is detached. [PSF Sec. 3.3]"""

    def __init__(self, start: nn.Module, layers: list[LocationLayer], width: int, classes: int):
        super().__init__()
        self.start, self.layers = start, nn.ModuleList(layers)
        first = (
            0.0 if isinstance(start, CellStart) else -2.0
        )  # w and h start at sigmoid(-2) of the picture
        self.boxes = nn.ModuleList(
            box_head(width, (0.0, first if k == 0 else 0.0)) for k in range(len(layers))
        )
        self.logits = nn.ModuleList(class_head(width, classes) for _ in layers)

    def forward(self, memory: Memory) -> Located:
        queries, position, reference, cells = self.start(memory)
        logits, boxes = [], []
        for layer, to_box, to_logits in zip(self.layers, self.boxes, self.logits):
            queries = layer(queries, position, reference, memory)
            box = to_box(queries).float()
            known = inverse_sigmoid(reference)
            box = torch.cat(
                [box[..., : known.shape[-1]] + known, box[..., known.shape[-1] :]], -1
            ).sigmoid()
            logits.append(to_logits(queries))
            boxes.append(box)
            reference = box.detach()
        return Located(torch.stack(logits).float(), torch.stack(boxes), queries, cells)
