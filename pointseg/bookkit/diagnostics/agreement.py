"""Agreement of labellers as a confidence that needs no truth."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor


def agreement(masks: Tensor) -> Tensor:
    """[n] mean IoU of each target's masks [k, n, h, w] over all pairs of k labellers.

    Two empty masks agree in nothing: 0.
    """
    flat = masks.flatten(2).float()
    pairs = [overlap(flat[i], flat[j]) for i, j in combinations(range(len(masks)), 2)]
    return torch.stack(pairs).mean(0)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """[n] IoU of flat masks [n, m] of 0 and 1, row by row."""
    both = (first * second).sum(-1)
    return both / (first + second).clamp(max=1).sum(-1).clamp(min=1)


def overlap_by_agreement(confidence: Tensor, iou: Tensor, groups: int = 3) -> np.ndarray:
    """[groups, 3] of equally many targets, the least agreed on first: mean agreement, mean IoU
    with the truth, count."""
    order = confidence.argsort(stable=True)
    parts = [part for part in order.tensor_split(groups) if len(part)]
    return np.array([(float(confidence[p].mean()), float(iou[p].mean()), len(p)) for p in parts])
