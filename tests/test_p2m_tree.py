"""The spanning tree and its filter [P2M-S Eq. 6-7] against sums over tree paths, one by one."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree

from pointseg.ops import tree as trees
from pointseg.ops.tree import spanning_forest, tree_filter


def tree_paths(tree):
    """[N, N] affinity between all pixels: the product over the tree path, walked with Dijkstra."""
    count = len(tree.order)
    order, parent = tree.order.numpy(), tree.parent.numpy()
    joined = np.flatnonzero(tree.affinity.numpy() > 0)
    length = -np.log(tree.affinity.numpy()[joined]) + 1e-300
    graph = csr_array((length, (order[joined], order[parent[joined]])), shape=(count, count))
    return np.exp(-dijkstra(graph, directed=False))


def picture(seed, b=2, h=7, w=9, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(b, channels, h, w, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_eq07_filter_equals_the_sum_over_all_tree_paths(seed):
    """[P2M-S Eq. 6-7]"""
    guide, values = picture(seed), picture(seed + 10, channels=4)
    tree = spanning_forest(guide)
    kernel = tree_paths(tree)
    flat = values.permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    wanted = kernel @ flat / kernel.sum(1, keepdims=True)
    got = tree_filter(values, tree).permute(0, 2, 3, 1).reshape(-1, 4).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-10)


def test_tree_weighs_as_little_as_scipys_own():
    guide = picture(4, b=1)
    tree = spanning_forest(guide)
    flat = guide[0].flatten(1).T.numpy()
    mine = ((flat[tree.order] - flat[tree.order[tree.parent]]) ** 2).sum()
    start, end = trees._grid_edges(guide.shape)
    graph = csr_array(
        (((flat[start] - flat[end]) ** 2).sum(1), (start, end)), shape=(len(flat), len(flat))
    )
    assert mine == pytest.approx(minimum_spanning_tree(graph).sum())


def test_pictures_of_a_batch_do_not_touch_each_other():
    guide, values = torch.zeros(2, 3, 4, 5, dtype=torch.float64), picture(1, h=4, w=5)
    together = tree_filter(values, spanning_forest(guide))
    apart = values.mean(dim=(2, 3), keepdim=True).expand_as(
        values
    )  # flat picture: every path has affinity 1
    torch.testing.assert_close(together, apart)


def test_filter_of_a_constant_is_that_constant_and_a_strong_edge_separates():
    guide = torch.zeros(1, 3, 6, 8, dtype=torch.float64)
    guide[..., 4:] = 5
    values = torch.zeros(1, 1, 6, 8, dtype=torch.float64)
    values[..., 4:] = 1
    tree = spanning_forest(guide)
    torch.testing.assert_close(tree_filter(values, tree), values)
    torch.testing.assert_close(
        tree_filter(torch.full_like(values, 0.3), tree), torch.full_like(values, 0.3)
    )


def test_gradient_of_the_filter():
    tree = spanning_forest(picture(2, b=2, h=3, w=4))
    values = picture(3, b=2, h=3, w=4, channels=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tree_filter(x, tree), values)


@pytest.mark.parametrize("flat", [False, True])
def test_doubling_rounds_equal_the_triangular_solves(flat):
    guide = picture(5) * (0 if flat else 1)
    tree = spanning_forest(guide)
    values = torch.rand(3, len(tree.order), dtype=torch.float64)
    torch.testing.assert_close(
        trees._swept_by_doubling(values, tree), trees._swept_by_solving(values, tree)
    )


def test_padding_takes_no_part():
    guide, values = picture(6, b=1, h=6, w=6), picture(7, b=1, h=6, w=6)
    padding = torch.zeros(1, 6, 6, dtype=torch.bool)
    padding[:, 4:], padding[:, :, 5:] = True, True
    alone = tree_filter(values[..., :4, :5], spanning_forest(guide[..., :4, :5]))
    padded = tree_filter(values, spanning_forest(guide, padding=padding))[..., :4, :5]
    torch.testing.assert_close(padded, alone)


def test_float32_follows_float64():
    guide, values = picture(8), picture(9)
    exact = tree_filter(values, spanning_forest(guide))
    single = tree_filter(values.float(), spanning_forest(guide.float()))
    torch.testing.assert_close(single.double(), exact, atol=1e-5, rtol=1e-4)
