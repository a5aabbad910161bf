"""The question: laws of owner(x) = argmin_n c_n(x) - u_n, refused above tau."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointseg import ownership
from pointseg.ops.transport import converged_potentials
from pointseg.ownership import NOBODY, normalised, owner, owners


def drawn(seed, n=4, shape=(5, 6), steps=None):
    """Costs [n, h, w] and prices [n] in float64; a few `steps` make many ties, all exact."""
    rng = np.random.default_rng(seed)
    if steps:
        return (torch.tensor(rng.integers(0, steps, (n, *shape)) / 4.0),
                torch.tensor(rng.integers(-steps, steps, n) / 4.0))  # fmt: skip
    return torch.tensor(rng.random((n, *shape))), torch.tensor(rng.normal(size=n))


def one_by_one(cost, price, tau):
    """The question as it is written, pixel by pixel."""
    least, rows_of_pixels = min(price), torch.full(cost.shape[1:], NOBODY)
    for r, c in np.ndindex(*cost.shape[1:]):
        net = [float(cost[n, r, c]) - (float(price[n]) - float(least)) for n in range(len(cost))]
        best = net.index(min(net))
        if net[best] <= tau:
            rows_of_pixels[r, c] = best
    return rows_of_pixels


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 9999), st.integers(1, 5), st.sampled_from([None, 2, 5]), st.integers(-4, 8))
def test_it_is_the_question_pixel_by_pixel(seed, n, steps, level):
    cost, price = drawn(seed, n, steps=steps)
    assert torch.equal(owner(cost, price, level / 4), one_by_one(cost, price, level / 4))


def test_a_price_of_zero_is_the_nearest():
    cost, _ = drawn(0)
    for price in (None, torch.zeros(4).double()):
        nearest = cost.gather(0, owner(cost, price)[None])[0]
        assert torch.equal(nearest, cost.amin(0))


@pytest.mark.parametrize("constant", [-8.0, 0.25, 64.0])
def test_a_constant_on_all_prices_changes_no_owner_and_no_refusal(constant):
    cost, price = drawn(1, steps=6)
    for tau in (None, 0.5, -1.0):
        assert torch.equal(owner(cost, price, tau), owner(cost, price + constant, tau))


def test_refusal_against_prices_as_they_come_would_depend_on_the_constant():
    """Why prices are normalised: the bare rule keeps pixels by a number without meaning."""
    cost, price = drawn(1, steps=6)
    bare = [(cost - (price + c)[:, None, None]).amin(0) <= 0.5 for c in (-2.0, 64.0)]
    assert not torch.equal(*bare)


def test_refusal_only_grows_as_tau_falls_and_never_changes_who_wins():
    cost, price = drawn(2)
    free = owner(cost, price)
    kept = [owner(cost, price, tau) for tau in (2.0, 1.0, 0.0, -1.0, -4.0)]
    assert all(((later == NOBODY) | (later == before)).all() for before, later in pairwise(kept))
    assert all(((each == NOBODY) | (each == free)).all() for each in kept)
    assert (kept[-1] == NOBODY).all() and not (free == NOBODY).any()


def test_at_tau_is_kept_and_among_equals_the_lowest_wins():
    cost = torch.tensor([[0.5, 0.75, 1.0], [0.5, 0.5, 1.0]])
    assert owner(cost, tau=0.5).tolist() == [0, 1, NOBODY]
    assert owner(cost, torch.tensor([0.0, 0.25])).tolist() == [1, 1, 1]
    assert owner(torch.zeros(3, 2)).tolist() == [0, 0]


def test_infinite_costs_and_infinitely_low_prices_own_nothing():
    cost = torch.tensor([[1.0, torch.inf], [2.0, torch.inf]])
    assert owner(cost).tolist() == [0, NOBODY]
    assert owner(cost, torch.tensor([-torch.inf, 3.0])).tolist() == [1, NOBODY]
    assert normalised(torch.tensor([-torch.inf, 3.0, 5.0])).tolist() == [-torch.inf, 0, 2]
    assert owner(torch.zeros(0, 2, 3)).tolist() == [[NOBODY] * 3] * 2


@pytest.mark.parametrize("counts", [[2, 3, 1], [0, 4, 2], [6, 0]])
def test_objects_of_several_images_side_by_side_or_padded_are_the_images_one_by_one(counts):
    cost, price = drawn(3, n=6)
    apart = [owner(c, u, 0.3) for c, u in zip(cost.split(counts), price.split(counts))]
    assert torch.equal(owners(cost, counts, price, 0.3), torch.stack(apart))
    padded = torch.full((len(counts), 6, *cost.shape[1:]), torch.inf, dtype=cost.dtype)
    prices = torch.full((len(counts), 6), -torch.inf, dtype=cost.dtype)
    for row, (c, u) in enumerate(zip(cost.split(counts), price.split(counts))):
        padded[row, : len(c)], prices[row, : len(u)] = c, u
    assert torch.equal(owner(padded, prices, 0.3, dim=1), torch.stack(apart))


def integral_problem(seed, n=5, m=80):
    """Costs of n suppliers of whole units to m consumers of one, an optimal plan, and its cost."""
    rng = np.random.default_rng(seed)
    cost = rng.random((n, m))
    supply = 1 + rng.multinomial(m - n, np.ones(n) / n)
    plan = ot.emd(supply.astype(float), np.ones(m), cost)
    return cost, supply, plan


def middle_of_the_dual_face(cost, plan):
    """[n] prices amid all that support the plan: the mean of the extreme ones, by Floyd-Warshall.

    Supplier i keeps consumer j while u_k - u_i <= c_kj - c_ij, so u_k - u_i has a largest value.
    """
    holder = plan.argmax(0)
    reach = np.stack([(cost - cost[i])[:, holder == i].min(1) for i in range(len(cost))])
    for k in range(len(cost)):
        reach = np.minimum(reach, reach[:, k : k + 1] + reach[k : k + 1])
    return reach.mean(0)


@pytest.mark.parametrize("seed", range(12))
def test_prices_of_transport_give_the_optimal_plan(seed):
    """Any dual of the linear program does where it decides; the middle always decides."""
    cost, supply, plan = integral_problem(seed)
    price = middle_of_the_dual_face(cost, plan)
    assert owner(torch.tensor(cost), torch.tensor(price)).tolist() == plan.argmax(0).tolist()
    corner = ot.emd(supply.astype(float), np.ones(cost.shape[1]), cost, log=True)[1]["u"]
    net = np.sort(cost - corner[:, None], 0)
    decided = net[1] - net[0] > 1e-12
    assert (owner(torch.tensor(cost), torch.tensor(corner)).numpy() == plan.argmax(0))[
        decided
    ].all()


def test_the_prices_of_our_solver_send_what_was_ordered_at_the_least_cost():
    cost, supply, plan = integral_problem(99)
    demand = torch.ones(cost.shape[1]).double()
    price = converged_potentials(torch.tensor(cost), torch.tensor(supply).double(), demand, 1e-4)
    row = owner(torch.tensor(cost), price)
    assert row.bincount(minlength=len(cost)).tolist() == supply.tolist()
    assert cost[row, np.arange(len(row))].sum() == pytest.approx((cost * plan).sum(), rel=1e-9)


def test_a_corner_of_the_duals_misses_the_plan_at_ties():
    """Why the middle: at a corner some consumers pay two suppliers alike; the lowest wins."""
    missed = 0
    for seed in range(12):
        cost, supply, plan = integral_problem(seed)
        corner = ot.emd(supply.astype(float), np.ones(cost.shape[1]), cost, log=True)[1]["u"]
        missed += int(
            (owner(torch.tensor(cost), torch.tensor(corner)).numpy() != plan.argmax(0)).sum()
        )
    assert missed > 0


# ------------------------------------------------------ every law is seen red on a planted fault

FAULTS = {
    "among equals the highest wins": (
        "best = net.min(dim)",
        "last = net.flip(dim).min(dim)\n"
        "    best = type(last)((last.values, cost.shape[dim] - 1 - last.indices))",
    ),
    "the farthest owns": ("net.min(dim)", "net.max(dim)"),
    "prices are ignored": ("cost if price is None", "cost if True"),
    "prices are added": ("cost - _beside", "cost + _beside"),
    "prices are not normalised": ("_beside(normalised(price), cost)", "_beside(price, cost)"),
    "the largest price counts as zero": (
        "torch.inf)\n    smallest = finite.amin", "-torch.inf)\n    smallest = finite.amax"
    ),
    "refused at tau": ("~(net <= tau)", "~(net < tau)"),
    "never refused": ("~(net <= tau)", "net.isnan()"),
    "refused below tau": ("~(net <= tau)", "~(net >= tau)"),
    "refused by the cost alone": ("best.values, tau", "cost.min(dim).values, tau"),
    "what is out of reach is owned": ("net.isposinf()", "net.isnan()"),
    "objects are ranked over all images": ("price.split(counts)", "price.flip(0).split(counts)"),
}  # fmt: skip
LAWS = {
    lambda: test_it_is_the_question_pixel_by_pixel.hypothesis.inner_test(1, 2, 5, 2): (
        "among equals the highest wins", "refused at tau", "never refused", "refused below tau",
        "refused by the cost alone", "the farthest owns",
    ),
    test_a_price_of_zero_is_the_nearest: ("the farthest owns",),
    lambda: test_a_constant_on_all_prices_changes_no_owner_and_no_refusal(64.0): (
        "prices are not normalised",
    ),
    test_refusal_only_grows_as_tau_falls_and_never_changes_who_wins: (
        "never refused", "refused below tau",
    ),
    test_at_tau_is_kept_and_among_equals_the_lowest_wins: (
        "among equals the highest wins", "refused at tau", "prices are added",
    ),
    test_infinite_costs_and_infinitely_low_prices_own_nothing: (
        "what is out of reach is owned", "the largest price counts as zero", "prices are ignored",
    ),
    lambda: test_objects_of_several_images_side_by_side_or_padded_are_the_images_one_by_one(
        [2, 3, 1]
    ): ("objects are ranked over all images",),
    lambda: test_prices_of_transport_give_the_optimal_plan(0): (
        "prices are ignored", "prices are added",
    ),
    test_the_prices_of_our_solver_send_what_was_ordered_at_the_least_cost: ("prices are ignored",),
}  # fmt: skip


@pytest.mark.parametrize("law, fault", [(law, f) for law, faults in LAWS.items() for f in faults])
def test_a_law_is_red_on_a_planted_fault(law, fault, monkeypatch):
    source = Path(ownership.__file__).read_text()
    right, wrong = FAULTS[fault]
    assert source.count(right) == 1
    faulty = {}
    exec(source.replace(right, wrong), faulty)
    for name in ("owner", "owners", "normalised"):
        monkeypatch.setitem(globals(), name, faulty[name])
    with pytest.raises(AssertionError):
        law()


def test_every_planted_fault_is_seen_by_some_law():
    assert {fault for faults in LAWS.values() for fault in faults} == FAULTS.keys()
