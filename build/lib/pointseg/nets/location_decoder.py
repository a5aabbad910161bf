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
    """Outputs of the location decoder; boxes are centre and size in parts of the padded image."""

    logits: Tensor  # [l, b, q, T] thing classes
    boxes: Tensor  # [l, b, q, 4]
    queries: Tensor  # [b, q, D] after the last layer
    cells: tuple[Tensor, Tensor] | None = None  # logits [b, N, T], boxes [b, N, 4] of proposals


def rows_of(values: Tensor, chosen: Tensor) -> Tensor:
    """[b, k, D] rows chosen [b, k] of values [b, q, D]."""
    return values.gather(1, chosen[..., None].expand(-1, -1, values.shape[-1]))


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
        self.self_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.attention = DeformableAttention(width, heads, levels, points)
        self.ffn = feedforward_net(width, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Tensor, position: Tensor, references: Tensor, memory: Memory
    ) -> Tensor:
        placed = queries + position
        mixed = self.self_attention(placed, placed, queries, need_weights=False)[0]
        queries = self.norms[0](queries + self.dropout(mixed))
        attended = self.attention(queries + position, references, memory)
        queries = self.norms[1](queries + self.dropout(attended))
        return self.norms[2](queries + self.ffn(queries))


@dataclass(frozen=True)
class QueryStart:
    """What the queries are before the first layer."""

    content: Tensor  # [b, q, D]
    position: Tensor  # [b, q, D]
    reference: Tensor  # [b, q, 2 or 4] (x, y) or (x, y, w, h)
    cells: tuple[Tensor, Tensor] | None = None  # as in Located


class LearntStart(nn.Module):
    """Queries alike for every image: content and position, a linear map to the first reference."""

    def __init__(self, width: int, queries: int):
        super().__init__()
        self.content, self.position = (nn.Parameter(torch.randn(queries, width)) for _ in range(2))
        self.reference = nn.Linear(width, 2)

    def forward(self, memory: Memory) -> QueryStart:
        reference = self.reference(self.position).float().sigmoid()
        parts = (self.content, self.position, reference)
        return QueryStart(*(part.expand(len(memory.tokens), -1, -1) for part in parts))


class CellStart(nn.Module):
    """Every cell of the coarser levels proposes a class and a box; the surest become the queries.

    DEVIATION [PSF Sec. 3.3]: the two-stage start of Deformable DETR. Learnt queries need tens of
    epochs to spread out.
    """

    def __init__(self, width: int, queries: int, classes: int, skip: int):
        super().__init__()
        self.queries, self.skip = queries, skip
        self.logits, self.boxes = class_head(width, classes), box_head(width, (0.0, 0.0))
        self.content = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.position = nn.Linear(width, width)

    def forward(self, memory: Memory) -> QueryStart:
        n = sum(memory.areas[: self.skip])
        tokens = memory.tokens[:, n:] + memory.position[n:]
        logits, shifts = self.logits(tokens), self.boxes(tokens)
        boxes = (shifts.float() + self._anchors(memory)).sigmoid()
        sure = logits.detach().amax(-1)
        if memory.padding is not None:
            sure = sure.masked_fill(memory.padding[:, n:], -torch.inf)
        best = sure.topk(min(self.queries, sure.shape[1]), dim=1).indices
        reference = rows_of(boxes, best).detach()
        code = sine_code(reference, tokens.shape[-1], memory.waves)
        position = self.position(code.to(tokens.dtype))
        return QueryStart(self.content(rows_of(tokens, best)), position, reference, (logits, boxes))

    def _anchors(self, memory: Memory) -> Tensor:
        """[N, 4] before the sigmoid: each cell's centre, and a size of four cells of its level."""
        shapes = memory.shapes[self.skip :]
        centres = cell_centres(shapes, memory.tokens.device)
        size = torch.cat([centres.new_tensor([4 / w, 4 / h]).expand(h * w, 2) for h, w in shapes])
        return inverse_sigmoid(torch.cat([centres, size.clamp(max=0.9)], -1))


class LocationDecoder(nn.Module):
    """Iterative boxes: a layer shifts the detached box of the layer before. [PSF Sec. 3.3]"""

    def __init__(self, start: nn.Module, layers: list[LocationLayer], width: int, classes: int):
        super().__init__()
        self.start, self.layers = start, nn.ModuleList(layers)
        first = 0.0 if isinstance(start, CellStart) else -2.0  # w, h: sigmoid(-2) of the image
        self.boxes = nn.ModuleList(
            box_head(width, (0.0, first if k == 0 else 0.0)) for k in range(len(layers))
        )
        self.logits = nn.ModuleList(class_head(width, classes) for _ in layers)

    def forward(self, memory: Memory) -> Located:
        start = self.start(memory)
        queries, reference, logits, boxes = start.content, start.reference, [], []
        for layer, to_box, to_logits in zip(self.layers, self.boxes, self.logits):
            queries = layer(queries, start.position, reference, memory)
            logits.append(to_logits(queries))
            boxes.append(shifted(reference, to_box(queries).float()))
            reference = boxes[-1].detach()
        return Located(torch.stack(logits).float(), torch.stack(boxes), queries, start.cells)


def shifted(reference: Tensor, shift: Tensor) -> Tensor:
    """Boxes [b, q, 4]: a reference of 2 or 4 numbers in 0..1 whose logits are shifted [b, q, 4]."""
    before = inverse_sigmoid(reference)
    k = before.shape[-1]
    return torch.cat([shift[..., :k] + before, shift[..., k:]], -1).sigmoid()
