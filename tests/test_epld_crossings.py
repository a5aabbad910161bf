"""Other costs and prices on EPLD's probabilities: laws, limits and a case worked by hand."""

import torch
from support.grid_targets import points_of, table
from test_epld_method import CANVAS, SCENE, batch_of, read

from pointseg.bookkit.design import answers
from pointseg.lab.plan import beds, rows
from pointseg.lab.recipe import make
from pointseg.ownership import owner
from pointseg.papers.epld.crossings import (
    CROSSINGS,
    path_cost,
    path_costs,
    transport_price,
    transport_prices,
)


def shares(*left):
    """M [2, m] of two targets from the first one's probability by cell."""
    first = torch.tensor(left)
    return torch.stack([first, 1 - first])


def test_transport_gives_each_target_its_probable_area():
    """By hand: five cells, 0.9 0.8 0.7 0.6 and 0.5 sum to 3.5 and 1.5; without a price the first
    target owns all five, with it the last cell goes over, and the fourth is shared."""
    M = shares(0.9, 0.8, 0.7, 0.6, 0.501)
    price = transport_price(1 - M, M)
    assert owner(1 - M).tolist() == [0] * 5
    priced = owner((1 - M)[:, [0, 1, 2, 4]], price)
    assert priced.tolist() == [0, 0, 0, 1]
    tie = (1 - M)[0, 3] - price[0] - ((1 - M)[1, 3] - price[1])
    assert abs(float(tie)) < 0.01


def test_where_all_is_certain_a_price_moves_nothing():
    label = torch.randint(0, 4, (60,), generator=torch.Generator().manual_seed(0))
    M = torch.nn.functional.one_hot(label, 4).T.float()
    assert torch.equal(owner(1 - M, transport_price(1 - M, M)), label)


def test_absent_targets_and_cells_outside_take_no_part_in_prices():
    points = [points_of((1, 1, 0, 1), (6, 6, 1, 2)), points_of((2, 2, 0, 1))]
    inside = torch.ones(2, 8, 8, dtype=torch.bool)
    inside[0, :, 6:] = False
    targets = table(points, (8, 8), inside)
    M = torch.rand(2, 2, 8, 8).masked_fill(~targets.present[..., None, None], 0)
    M = M / M.sum(1, keepdim=True)
    prices = transport_prices(1 - M, M, targets)
    assert prices[1].tolist()[1] == -torch.inf
    alone = M[0][:, inside[0]]
    torch.testing.assert_close(prices[0], transport_price(1 - alone, alone))


def test_paths_over_an_even_map_follow_colour_edges_alone():
    """M says nothing, one sharp edge of colour parts the image: each side is its point's."""
    M, points = torch.full((2, 8, 8), 0.5), torch.zeros(2, 8, 8, dtype=torch.bool)
    points[0, 4, 1] = points[1, 2, 6] = True
    image = torch.zeros(3, 8, 8)
    image[:, :, 4:] = 1
    side = (torch.arange(8) >= 4).long().expand(8, 8)
    label = owner(path_cost(M, points, image))
    assert torch.equal(label[:, [0, 1, 6, 7]], side[:, [0, 1, 6, 7]])


def test_a_target_without_points_on_the_grid_is_as_far_as_the_farthest_cell():
    M, points = torch.full((2, 4, 4), 0.5), torch.zeros(2, 4, 4, dtype=torch.bool)
    points[0, 0, 0] = True
    cost = path_cost(M, points, torch.rand(3, 4, 4))
    assert cost.isfinite().all() and (cost[1] >= cost[0]).all() and (cost[1] == 0).all()
    none = path_cost(M, torch.zeros_like(points), torch.rand(3, 4, 4))
    assert none.isfinite().all()


def test_cells_of_the_padding_and_absent_targets_win_no_path():
    targets = table([points_of((1, 1, 0, 1), (6, 6, 1, 2)), points_of((2, 2, 0, 1))], (8, 8))
    M = torch.full((2, 2, 8, 8), 0.5)
    M[1, 0], M[1, 1] = 1, 0
    costs = path_costs(M, targets, torch.rand(2, 3, 32, 32))
    assert not owner(costs, dim=1)[1].any()
    alone = path_costs(
        M[1:, :1], table([points_of((2, 2, 0, 1))], (8, 8)), torch.rand(1, 3, 32, 32)
    )
    assert alone.shape == (1, 1, 8, 8)


def test_a_crossing_changes_the_student_s_labels_and_nothing_that_the_branch_learns_from():
    batch = batch_of(
        SCENE, points_of(), points_of((10, 10, 0, 1)), sizes=[CANVAS, CANVAS, (40, 64)]
    )
    net, evidence, labels = read(batch)
    plain = net.losses(evidence, labels, batch)
    for choices in (
        {"price": "transport"},
        {"cost": "path"},
        {"cost": "path", "price": "transport"},
    ):
        other, same, crossed = read(batch, **choices)
        assert other.losses(same, crossed, batch) == plain
        assert not torch.equal(crossed.owner[0], labels.owner[0])
        assert torch.equal(crossed.owner[1:], labels.owner[1:])  # one target or none: no choice
        x, y = SCENE.xy.long().unbind(1)
        assert crossed.owner[0, y, x].tolist() == [0, 1, 2, 3]


def test_the_bed_of_crossings_labels_with_the_branch_that_the_frozen_bed_trained():
    """The head of each chain is the whole chain of epld-full there, so it is trained once."""
    bed, full = beds()["epld-crossings"], beds()["epld-frozen"].recipe(rows()["epld-full"], 1)
    assert set(bed.rows) == {"epld-full", "epld-transport", "epld-path", "epld-path-transport"}
    for row in bed.rows:
        crossed = bed.recipe(rows()[row], 1)
        assert crossed.head(0) == full
        assert crossed.stage.starts_from == 0 and crossed.stage.steps_for(1000) == 0


def test_the_design_table_has_each_crossing_as_a_setting_that_changes_one_term():
    table_ = answers()
    for way, changed in CROSSINGS.items():
        term, value = way.split(": ")
        make(stages=[{"method": "epld", "config": {term: value}}])
        assert set(changed) == {term}
        crossed, plain = (vars(table_[name]) for name in (f"epld, {way}", "epld"))
        assert {name for name in plain if plain[name] != crossed[name]} == {term}
