"""Multi-scale deformable attention: a query samples a few points of its choice on every level."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = list[tuple[int, int]]


def deformable_attention(values: Tensor, shapes: Shapes, points: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples; outside the image everything is 0.

    values [b, N, heads, d] with N = sum of h * w over shapes; points [b, q, heads, levels, points,
    2] as (x, y) in 0..1 of the image; weights [b, q, heads, levels, points] -> [b, q, heads * d].
    Summed level by level, so that no copy of all samples is held at once.
    """
    b, q, heads = points.shape[:3]
    grid = (2 * points - 1).transpose(1, 2).flatten(0, 1)  # [b * heads, q, levels, points, 2]
    share = weights.transpose(1, 2).flatten(0, 1)
    total = 0
    for level, (plane, (h, w)) in enumerate(
        zip(values.split([h * w for h, w in shapes], dim=1), shapes)
    ):
        image = plane.permute(0, 2, 3, 1).reshape(b * heads, -1, h, w)
        sampled = F.grid_sample(
            image, grid[:, :, level], align_corners=False
        )  # [b * heads, d, q, points]
        total = total + (sampled * share[:, None, :, level].to(sampled.dtype)).sum(-1)
    return total.reshape(b, -1, q).transpose(1, 2)


def cell_centres(shapes: Shapes, device=None) -> Tensor:
    """[N, 2] (x, y) in 0..1 of the middle of every cell of every level."""
    planes = []
    for h, w in shapes:
        y = (torch.arange(h, device=device) + 0.5) / h
        x = (torch.arange(w, device=device) + 0.5) / w
        planes.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1))
    return torch.cat(planes)
