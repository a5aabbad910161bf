"""Which of the instances a network finds is the one that a point means."""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.structures import Instances


def meant_by_points(found: Instances, place: Tensor, label: Tensor) -> Tensor:
    """[n] row of the best-scored instance of the point's class whose mask holds the point, -1 where there is none.

    `place` [n, 2] in pixels, `label` [n].
    """
    if not len(found.scores):
        return torch.full_like(label, -1)
    h, w = found.masks.shape[-2:]
    column, row = place[:, 0].long().clamp(0, w - 1), place[:, 1].long().clamp(0, h - 1)
    holds = found.masks[:, row, column].T & (found.label == label[:, None])
    best = found.scores.masked_fill(~holds, -1.0).argmax(1)
    return torch.where(holds.any(1), best, -1)


def replaced_rows(known: Instances, found: Instances, row: Tensor) -> Instances:
    """`known` with every row that has one (`row` [n] >= 0) replaced by its row of `found`."""
    if not len(found.scores):
        return known
    taken, use = row.clamp(min=0), row >= 0
    masks = torch.where(use[:, None, None], found.masks[taken], known.masks)
    boxes = torch.where(use[:, None], found.boxes[taken], known.boxes)
    return Instances(masks, torch.where(use, found.scores[taken], known.scores), known.label, boxes)
