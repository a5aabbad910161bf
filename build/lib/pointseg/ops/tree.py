"""Minimum spanning trees of images, and the filter that sums over their paths in two sweeps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

AS_IT_STANDS = {
    "Equil": False,
    "SymmetricMode": True,
}  # the matrices are triangular already: change nothing


@dataclass(frozen=True)
class Forest:
    """One tree an image, nodes numbered so that every parent comes before its children."""

    order: Tensor  # [N] int64, the pixel (flat over b, h, w) of each node
    parent: Tensor  # [N] int64, the node above; roots are their own parent
    affinity: Tensor  # [N], exp(-edge to the parent); 0 at roots
    shape: tuple[int, int, int]  # b, h, w

    @cached_property
    def rank(self) -> Tensor:
        """[N] node of each pixel: the inverse of `order`."""
        rank = torch.empty_like(self.order)
        rank[self.order] = torch.arange(len(rank), device=rank.device)
        return rank

    @cached_property
    def factor(self) -> SuperLU:
        """I - U', lower triangular: a node's column is 1 for itself and -affinity for each child.

        Breadth first, children follow one another in the order of their parents: node k's entry is
        number k + parent.
        """
        affinity, parent = self.affinity.cpu().numpy(), self.parent.cpu().numpy()
        node, count = np.arange(len(parent)), len(parent)
        begin = np.arange(count + 1)
        begin[1:] += np.bincount(parent[1:], minlength=count).cumsum()
        rows, entries = (
            np.empty(2 * count - 1, dtype=np.int32),
            np.empty(2 * count - 1, dtype=affinity.dtype),
        )
        rows[begin[:-1]], entries[begin[:-1]] = node, 1
        below = node[1:] + parent[1:]
        rows[below], entries[below] = node[1:], -affinity[1:]
        triangle = csc_array((entries, rows, begin), shape=(count, count))
        return splu(triangle, permc_spec="NATURAL", diag_pivot_thresh=0.0, options=AS_IT_STANDS)

    @cached_property
    def doublings(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(node, ancestor 2^k steps up, affinity of that stretch) for k = 0, 1, ..."""
        rounds, above, weight = [], self.parent, self.affinity
        while bool((weight > 0).any()):
            node = weight.nonzero()[:, 0]
            rounds.append((node, above[node], weight[node]))
            weight, above = weight * weight[above], above[above]
        return rounds

    @cached_property
    def normaliser(self) -> Tensor:
        """[N], sum of the affinities from a node to all nodes: z of [P2M-S Eq. 7]."""
        return path_sums(torch.ones_like(self.affinity)[None], self)[0]


def spanning_forest(guide: Tensor, theta: float = 0.02, padding: Tensor | None = None) -> Forest:
    """Minimum spanning tree of every image of guide [b, c, h, w]. [P2M-S Eq. 6]

    theta: [P2M-S Eq. 6]. padding [b, h, w]: True outside the images; no affinity passes there.
    """
    pixels = guide.detach().permute(0, 2, 3, 1).flatten(0, 2).cpu().numpy()
    outside = None if padding is None else padding.flatten().cpu().numpy()
    order, parent = _rooted(pixels, outside, guide.shape)
    above, area = order[parent], guide[0, 0].numel()
    affinity = np.exp(-((pixels[order] - pixels[above]) ** 2).sum(1) / theta)
    affinity[order // area != above // area] = 0
    affinity[0] = 0
    if outside is not None:
        affinity[outside[order] | outside[above]] = 0
    device = guide.device
    nodes = (torch.as_tensor(each, device=device) for each in (order, parent, affinity))
    return Forest(*nodes, (len(guide), *guide.shape[-2:]))


def _grid_edges(shape: torch.Size) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the 4-neighbour edges of b pictures, flat over b, h, w."""
    b, _, h, w = shape
    index = np.arange(b * h * w, dtype=np.int32).reshape(b, h, w)
    start = [index[:, :, :-1].ravel(), index[:, :-1].ravel()]
    end = [index[:, :, 1:].ravel(), index[:, 1:].ravel()]
    return np.concatenate(start), np.concatenate(end)


def _rooted(
    pixels: np.ndarray, outside: np.ndarray | None, shape: torch.Size
) -> tuple[np.ndarray, np.ndarray]:
    """Breadth-first order of the pixels and each node's parent in that order.

    The first pixels of consecutive images are linked, so that one walk visits all of them; their
    affinity is cut.
    """
    count, graph = len(pixels), _linked_grids(pixels, outside, shape)
    order, above = breadth_first_order(minimum_spanning_tree(graph), 0, directed=False)
    order = order.astype(np.int64)
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    parent = rank[np.maximum(above[order], 0)]
    parent[0] = 0
    return order, parent


def _linked_grids(pixels: np.ndarray, outside: np.ndarray | None, shape: torch.Size) -> csr_array:
    """Squared colour differences of neighbours, with a link from image to image."""
    start, end = _grid_edges(shape)
    # above 0: a stored zero is no edge to scipy
    length = ((pixels[start] - pixels[end]) ** 2).sum(1) + 1
    if outside is not None:  # an image's own tree never runs through padding
        length[outside[start] | outside[end]] += length.max()
    first = np.arange(0, len(pixels), shape[2] * shape[3], dtype=np.int32)
    length = np.concatenate([length, np.ones(len(first) - 1, dtype=length.dtype)])
    start, end = np.concatenate([start, first[:-1]]), np.concatenate([end, first[1:]])
    return csr_array((length, (start, end)), shape=(len(pixels), len(pixels)))


def path_sums(values: Tensor, tree: Forest) -> Tensor:
    """sum_j exp(-path(i, j)) x_j for every node i; values [C, N] in node order, O(N C) on a CPU."""
    sweep = _swept_by_solving if values.device.type == "cpu" else _swept_by_doubling
    return sweep(values, tree)


def _swept_by_solving(values: Tensor, tree: Forest) -> Tensor:
    """Upward (I - U) a = x, downward (I - U') s = (1 - w^2) a: two triangular systems."""
    gathered = tree.factor.solve(values.detach().numpy().T, "T")
    gathered *= 1 - tree.affinity.numpy()[:, None] ** 2
    return torch.from_numpy(tree.factor.solve(gathered).T)


def _swept_by_doubling(values: Tensor, tree: Forest) -> Tensor:
    """The same two sweeps by pointer doubling: log2(depth) parallel rounds, for a GPU."""
    gathered = values
    for node, ancestor, share in tree.doublings:
        gathered = gathered.index_add(1, ancestor, gathered[:, node] * share)
    spread = (1 - tree.affinity**2) * gathered
    for node, ancestor, share in tree.doublings:
        spread = spread.index_add(1, node, spread[:, ancestor] * share)
    return spread


class _PathSums(torch.autograd.Function):
    """The kernel is symmetric, so its backward pass is itself; affinities get no gradient."""

    @staticmethod
    def forward(ctx, values: Tensor, tree: Forest) -> Tensor:
        ctx.tree = tree
        return path_sums(values, tree)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return path_sums(gradient.contiguous(), ctx.tree), None


def tree_filter(values: Tensor, tree: Forest) -> Tensor:
    """Mean of values [b, C, h, w] weighted by exp(-path length in the tree). [P2M-S Eq. 7]"""
    b, h, w = tree.shape
    nodes = values.transpose(0, 1).reshape(-1, b * h * w).index_select(1, tree.order)
    filtered = _PathSums.apply(nodes, tree) / tree.normaliser
    return filtered.index_select(1, tree.rank).reshape(-1, b, h, w).transpose(0, 1)
