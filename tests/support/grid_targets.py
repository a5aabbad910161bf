"""Points and target tables of small grids, drawn or written down."""

import torch
from torch import Tensor

from pointseg.papers.epld.queries import Targets, targets_on_grid
from pointseg.structures import Points


def points_of(*rows: tuple[float, float, int, int], things: int = 2) -> Points:
    """Points from rows (x, y, label, target); labels from `things` on are stuff."""
    xy = torch.tensor([row[:2] for row in rows]).float().reshape(-1, 2)
    label, target = (torch.tensor([row[k] for row in rows], dtype=torch.int64) for k in (2, 3))
    return Points(xy, label, target, label < things)


def drawn_points(rng: torch.Generator, count: int, side: float) -> Points:
    """`count` things of classes 0 and 1 at random places of a square."""
    xy = (torch.rand(count, 2, generator=rng) * side).tolist()
    label = torch.randint(0, 2, (count,), generator=rng).tolist()
    return points_of(*((x, y, c, k + 1) for k, ((x, y), c) in enumerate(zip(xy, label))))


def table(points: list[Points], grid: tuple[int, int], inside: Tensor | None = None) -> Targets:
    """Targets on a grid of cells of one pixel."""
    if inside is None:
        inside = torch.ones(len(points), *grid, dtype=torch.bool)
    return targets_on_grid(points, inside, grid)
