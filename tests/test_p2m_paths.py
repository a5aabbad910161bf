"""Step prices and cheapest paths [P2M Eq. 3] against double loops and scipy's Dijkstra."""

import numpy as np
import pytest
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra

from pointseg.ops import paths
from pointseg.ops.colour import pairs
from pointseg.structures import Points


def maps(seed, h=6, w=8):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda c: torch.rand(c, h, w, generator=generator, dtype=torch.float64)  # noqa: E731
    features = torch.nn.functional.normalize(draw(5) - 0.5, dim=0)
    return draw(4).softmax(0), draw(1), features, draw(1)[0]


def slow_price(p, q, semantic, boundary, features, edges):
    """One directed step, term by term as Eq. 3 and its code say."""
    price = (semantic[:, *p] - semantic[:, *q]).abs().sum()
    price = price + 0.1 * max(boundary[0, *p], boundary[0, *q])
    price = price + 0.1 * max(0, 1 - (features[:, *p] * features[:, *q]).sum())
    return float(price + 0.1 * edges[*q])


def all_prices(semantic, boundary, features, edges):
    return paths.undirected_steps(
        (paths.semantic_step, semantic, 1), (paths.boundary_step, boundary, 0.1),
        (paths.manifold_step, features, 0.1)
    ) + 0.1 * paths.entering_steps(edges)  # fmt: skip


def slow_graph(given):
    h, w = given[3].shape
    rows, columns, prices = [], [], []
    for r in range(h):
        for c in range(w):
            for dr in (-1, 0, 1):
                for dc in (-1, 0, 1):
                    if (dr or dc) and 0 <= r + dr < h and 0 <= c + dc < w:
                        rows.append(r * w + c), columns.append((r + dr) * w + c + dc)
                        prices.append(slow_price((r, c), (r + dr, c + dc), *given))
    return coo_array((prices, (rows, columns)), shape=(h * w, h * w)).tocsr()


def test_eq03_paths_equal_dijkstra_on_a_graph_built_pixel_by_pixel():
    """[P2M Eq. 3]"""
    given = maps(0)
    cells = torch.tensor([0, 13, 47, 13])
    wanted = dijkstra(slow_graph(given), indices=cells.numpy()).reshape(4, 6, 8)
    np.testing.assert_allclose(
        paths.shortest_paths(all_prices(*given), cells).numpy(), wanted, atol=1e-9
    )


def test_step_graph_equals_the_slow_one():
    given = maps(1)
    difference = abs(paths.step_graph(all_prices(*given)) - slow_graph(given))
    assert difference.max() < 1e-12


def relaxed(prices, cells):
    """Bellman and Ford: every step of every pixel is tried until no length falls."""
    length = prices.new_full((len(cells), *prices.shape[1:]), torch.inf)
    length.flatten(1)[torch.arange(len(cells)), cells] = 0
    while True:
        before = length.clone()
        for plane, step in zip(prices, paths.STEPS):
            start, end = pairs(length, step)
            end.copy_(torch.minimum(end, start + pairs(plane, step)[0]))
        if torch.equal(before, length):
            return length


@pytest.mark.parametrize("seed", range(3))
def test_no_step_shortens_a_path_in_float32(seed):
    given = [m.float() for m in maps(seed, 23, 31)]
    prices, cells = all_prices(*given), torch.tensor([5, 300, 712])
    torch.testing.assert_close(
        paths.shortest_paths(prices, cells), relaxed(prices, cells), atol=1e-4, rtol=1e-4
    )


def test_a_plateau_is_free_to_cross_and_a_wall_costs_its_height():
    plane = torch.zeros(1, 5, 9, dtype=torch.float64)
    plane[..., 6:] = 1
    prices = paths.undirected_steps((paths.semantic_step, plane, 1))
    length = paths.shortest_paths(prices, torch.tensor([20]))[0]
    torch.testing.assert_close(length, plane[0])


def test_triangle_inequality_and_symmetry_of_undirected_prices():
    semantic, boundary, features, _ = maps(3)
    prices = paths.undirected_steps((paths.semantic_step, semantic, 1),
                                    (paths.boundary_step, boundary, 0.1),
                                    (paths.manifold_step, features, 0.1))  # fmt: skip
    length = paths.shortest_paths(prices, torch.arange(48)).reshape(48, 48)
    torch.testing.assert_close(length, length.T)
    assert (length[:, :, None] <= length[:, None, :] + length.T[None] + 1e-9).all()


def test_two_points_in_one_cell_keep_their_targets():
    points = Points(torch.tensor([[0.5, 0.5], [1.5, 0.7], [60.0, 30.0]]), torch.tensor([0, 1, 0]),
                    torch.tensor([7, 3, 9]), torch.ones(3, dtype=torch.bool))  # fmt: skip
    prices = all_prices(*maps(4, 4, 8))
    cells = paths.grid_cells(points.xy, (32, 64), prices.shape[-2:])
    distance, first = paths.nearest_of_each(paths.shortest_paths(prices, cells), points.target)
    assert first.tolist() == [0, 1, 2] and distance.shape == (3, 4, 8)
    torch.testing.assert_close(distance[0], distance[1])
    assert distance[0, 0, 0] == 0 and distance[2, 3, 7] == 0


def test_ten_points_are_as_near_as_the_nearest():
    points = Points(torch.rand(6, 2) * 32, torch.zeros(6).long(), torch.tensor([5, 2, 5, 2, 2, 5]),
                    torch.ones(6, dtype=torch.bool))  # fmt: skip
    prices = all_prices(*maps(5, 8, 8))
    cells = paths.grid_cells(points.xy, (32, 32), prices.shape[-2:])
    distance, first = paths.nearest_of_each(paths.shortest_paths(prices, cells), points.target)
    alone = paths.shortest_paths(prices, paths.grid_cells(points.xy, (32, 32), (8, 8)))
    assert first.tolist() == [0, 1]
    torch.testing.assert_close(distance[0], alone[[0, 2, 5]].amin(0))
    torch.testing.assert_close(distance[1], alone[[1, 3, 4]].amin(0))


def test_points_on_the_far_edge_stay_on_the_grid():
    cells = paths.grid_cells(
        torch.tensor([[64.0, 32.0], [0.0, 0.0], [63.9, 0.1]]), (32, 64), (2, 4)
    )
    assert cells.tolist() == [7, 0, 3]


def test_the_cheapest_path_of_two_cells_costs_the_shortest_length():
    prices = all_prices(*maps(6))
    way = paths.cheapest_path(prices, 3, 44)
    assert way[0] == 3 and way[-1] == 44
    graph = paths.step_graph(prices)
    total = sum(graph[a, b] for a, b in zip(way[:-1].tolist(), way[1:].tolist()))
    assert total == pytest.approx(
        float(paths.shortest_paths(prices, torch.tensor([3])).flatten()[44])
    )
