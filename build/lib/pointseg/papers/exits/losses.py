"""What pseudo points teach: cross-entropy at the middle of their tokens. [EXITS Sec. B]"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from pointseg.papers.exits.retrieval import Retrieved, Seeds


def token_values(prob: Tensor, grid: int) -> Tensor:
    """[n, N] maps [n, m, m] read at the centres of grid x grid tokens.

    UNSTATED [EXITS Sec. B]: where the map is read.
    """
    return F.interpolate(prob[:, None], size=(grid, grid), mode="bilinear").flatten(1)


def point_loss(values: Tensor, seeds: Seeds, points: Retrieved, balanced: bool = True) -> Tensor:
    """[n] binary cross-entropy of probabilities [n, N] at seeds and pseudo points.

    UNSTATED [EXITS Sec. B]: seeds are taught too. `balanced` takes the mean over each side first,
    since tokens outside the box are hundreds; otherwise every point counts alike.
    """
    sides = (
        (seeds.foreground | points.foreground, values),
        (seeds.background | points.background, 1 - values),
    )
    sums = [(-(v.clamp(min=1e-6).log()) * side).sum(1) for side, v in sides]
    counts = [side.sum(1).clamp(min=1) for side, _ in sides]
    if balanced:
        return sum(total / count for total, count in zip(sums, counts)) / 2
    return sum(sums) / sum(side.sum(1) for side, _ in sides).clamp(min=1)
