"""Prices of steps on the 8-neighbour grid and the cheapest paths from points. [P2M Eq. 3]

Steps are kept as planes [8, h, w]: plane k holds the price of going from a pixel to the pixel
STEPS[k] away.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from pointseg.ops.colour import pairs

HALF = (
    (0, 1),
    (1, 0),
    (1, 1),
    (1, -1),
)  # right, down, and both diagonals down; the other four are their reverse
STEPS = HALF + tuple((-dr, -dc) for dr, dc in HALF)


def semantic_step(start: Tensor, end: Tensor) -> Tensor:
    """L1 distance, 0..2, of class probabilities [C, h, w].

    UNSTATED [P2M Eq. 3]: the official code's d.
    """
    return (start - end).abs().sum(0)


def boundary_step(start: Tensor, end: Tensor) -> Tensor:
    """The stronger boundary of both pixels; maps [1, h, w].

    UNSTATED [P2M Eq. 3]: the official code's choice.
    """
    return torch.maximum(start, end)[0]


def manifold_step(start: Tensor, end: Tensor) -> Tensor:
    """max(0, 1 - cosine) of unit features [D, h, w]. UNSTATED [PSPS]: as in the official code."""
    return (1 - (start * end).sum(0)).clamp(min=0)


def undirected_steps(*terms: tuple) -> Tensor:
    """[8, ..., h, w] sum of weight * price(start, end) over terms (price, map [c, ..., h, w],
    weight).

    Four slicings make eight planes.
    """
    prices = terms[0][1].new_full((8, *terms[0][1].shape[1:]), torch.inf)
    for k, step in enumerate(HALF):
        price = sum(weight * rule(*pairs(plane, step)) for rule, plane, weight in terms)
        forth, back = pairs(prices[k], step)[0], pairs(prices[k + 4], step)[1]
        forth.copy_(price)
        back.copy_(price)
    return prices


def entering_steps(price: Tensor) -> Tensor:
    """Directed prices: stepping onto a pixel costs price [..., h, w] there, whatever lies
    behind."""
    prices = price.new_full((8, *price.shape), torch.inf)
    for k, step in enumerate(STEPS):
        pairs(prices[k], step)[0].copy_(pairs(price, step)[1])
    return prices


def path_grid(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(h, w) of the grid that paths run on, for a picture of `size` pixels."""
    return max(2, size[0] // stride), max(2, size[1] // stride)


def grid_cells(xy: Tensor, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Flat cell [m] of each point (x, y) of an image of `size` on its grid; they may share one."""
    (h, w), (rows, columns) = size, grid
    column = (xy[:, 0] * columns / w).long().clamp(0, columns - 1)
    row = (xy[:, 1] * rows / h).long().clamp(0, rows - 1)
    return row * columns + column


# Where the paths of a point start: the cell that it lies in, or cell int(y / stride) of the
# releases, which is another where the image is no whole number of strides.
StartCell = Literal["share", "stride"]


def start_cells(
    xy: Tensor, size: tuple[int, int], grid: tuple[int, int], stride: int, rule: StartCell
) -> Tensor:
    """Flat cell [m] where the paths of each point (x, y) start."""
    if rule == "share":
        return grid_cells(xy, size, grid)
    return grid_cells(xy, (stride * grid[0], stride * grid[1]), grid)


def step_graph(prices: Tensor) -> csr_array:
    """Sparse directed graph of prices [8, h, w].

    Free steps get the smallest number, as scipy drops zeros.
    """
    h, w = prices.shape[-2:]
    count = h * w
    index = np.arange(count, dtype=np.int32).reshape(h, w)
    offsets = np.array([dr * w + dc for dr, dc in STEPS], dtype=np.int32)
    steps = prices.detach().double().cpu().flatten(1).T.numpy()  # [N, 8]
    inside = np.isfinite(steps)
    start = np.concatenate([[0], np.cumsum(inside.sum(1))]).astype(np.int32)
    end = (index.reshape(-1, 1) + offsets)[inside]
    return csr_array(
        (np.maximum(steps[inside], np.finfo(float).tiny), end, start), shape=(count, count)
    )


def shortest_paths(prices: Tensor, cells: Tensor) -> Tensor:
    """[m, h, w] price of the cheapest path from each of m cells to every pixel; prices [8, h, w].

    Dijkstra on the processor wherever the prices lie: the grid is small, and a GPU would need
    thousands of launches.
    """
    return path_lengths(step_graph(prices), cells, prices)


def path_lengths(graph: csr_array, cells: Tensor, prices: Tensor) -> Tensor:
    """The same on the graph of these prices."""
    unique, place = cells.unique(return_inverse=True)
    if not len(unique):
        return prices.new_zeros(0, *prices.shape[-2:])
    lengths = dijkstra(graph, directed=True, indices=unique.cpu().numpy())
    return torch.from_numpy(lengths).to(prices)[place].reshape(len(cells), *prices.shape[-2:])


def nearest_of_each(lengths: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum [n, h, w] of lengths [m, h, w] over targets, and each one's first row [n].

    Targets in the order in which they first appear: one with ten points is as near as its nearest.
    """
    ids, group = target.unique(return_inverse=True)
    rows = torch.arange(len(target), device=target.device)
    first = torch.full_like(ids, len(target)).scatter_reduce(0, group, rows, "amin")
    nearest = lengths.new_full((len(ids), *lengths.shape[-2:]), torch.inf)
    nearest = nearest.scatter_reduce(0, group[:, None, None].expand_as(lengths), lengths, "amin")
    order = first.argsort()
    return nearest[order], first[order]


def cheapest_path(prices: Tensor, start: int, goal: int) -> Tensor:
    """[s] cells of the cheapest path from cell `start` to cell `goal`, both included."""
    before = dijkstra(step_graph(prices), indices=start, return_predecessors=True)[1]
    cells = [goal]
    while cells[-1] != start:
        cells.append(int(before[cells[-1]]))
    return torch.tensor(cells[::-1])
