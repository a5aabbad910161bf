"""Transport [P2M-S Eq. 1-3]: marginals, limits, and agreement with POT."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointseg.ops.transport import (
    consumer_potentials,
    converged_potentials,
    shares,
    sinkhorn,
    transport_plan,
)
from pointseg.ownership import owner


def problem(seed, n=4, m=60):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(n, m, generator=generator, dtype=torch.float64)
    supply = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    return cost, supply / supply.sum() * m, torch.ones(m, dtype=torch.float64)


def plan_of(cost, u, demand, epsilon):
    return transport_plan(cost, u, consumer_potentials(cost, u, demand, epsilon), epsilon)


def test_eq02_one_round_is_the_two_divisions_of_the_paper():
    """[P2M-S Eq. 2]"""
    cost, supply, demand = problem(0, 3, 5)
    epsilon = 0.5
    kernel = (-cost / epsilon).exp()
    v = torch.full(
        (3,), np.exp(1 / epsilon), dtype=torch.float64
    )  # the potentials start at 1, not at their scale
    for _ in range(3):
        consumers = demand / (kernel.T @ v)
        v = supply / (kernel @ consumers)
    torch.testing.assert_close(
        sinkhorn(cost, supply, demand, epsilon, 3), epsilon * v.log(), atol=1e-6, rtol=1e-6
    )


def test_sinkhorn_meets_supplies_after_any_round():
    cost, supply, demand = problem(1)
    for rounds in (1, 7):
        u = sinkhorn(cost, supply, demand, 0.05, rounds)
        before = (
            sinkhorn(cost, supply, demand, 0.05, rounds - 1)
            if rounds > 1
            else torch.ones(4).double()
        )
        v = consumer_potentials(cost, before, demand, 0.05)
        torch.testing.assert_close(
            transport_plan(cost, u, v, 0.05).sum(1), supply, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("epsilon", [0.5, 0.05, 5e-3])
def test_converged_plan_has_both_marginals_and_is_pots(epsilon):
    """The plan diag(u) K diag(v) minimises the entropic cost. [P2M-S Eq. 1], [P2M-S Eq. 3]"""
    cost, supply, demand = problem(2)
    plan = plan_of(cost, converged_potentials(cost, supply, demand, epsilon, 1e-9), demand, epsilon)
    torch.testing.assert_close(plan.sum(0), demand, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(plan.sum(1), supply, atol=1e-6, rtol=1e-6)
    other = ot.sinkhorn(supply.numpy(), demand.numpy(), cost.numpy(), epsilon,
                        method="sinkhorn_log", numItermax=200_000, stopThr=1e-10)  # fmt: skip
    np.testing.assert_allclose(plan.numpy(), other, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_small_epsilon_costs_what_the_linear_program_costs(seed):
    cost, supply, demand = problem(seed, 5, 80)
    plan = plan_of(cost, converged_potentials(cost, supply, demand, 1e-4, 1e-9), demand, 1e-4)
    exact = ot.emd2(supply.numpy(), demand.numpy(), cost.numpy())
    assert float((plan * cost).sum()) == pytest.approx(exact, rel=2e-3)
    u = converged_potentials(cost, supply, demand, 1e-4)
    counts = owner(cost, u).bincount(minlength=5)
    assert (counts - supply).abs().max() < 5  # at most n - 1 consumers are split by an optimal plan


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([1e-1, 1e-2]))
def test_marginals_hold_whatever_the_problem(seed, n, epsilon):
    cost, supply, demand = problem(seed, n, 40)
    part = shares(cost, converged_potentials(cost, supply, demand, epsilon), epsilon)
    torch.testing.assert_close(part @ demand, supply, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("solve", [sinkhorn, converged_potentials])
def test_nearest_counts_give_the_nearest_assignment(solve):
    cost, _, demand = problem(3, 5, 200)
    nearest = cost.argmin(0)
    counts = nearest.bincount(minlength=5).double()
    label = owner(cost, solve(cost, counts, demand))
    assert (label == nearest).double().mean() > 0.98
    plan = ot.emd(counts.numpy(), demand.numpy(), cost.numpy())
    assert (
        torch.from_numpy(plan).argmax(0) == nearest
    ).all()  # the same law, by the linear program


def test_eighty_rounds_stop_before_the_optimum_and_thousands_reach_it():
    """[P2M-S Tab. A2] is about early stopping: the gap still falls after 120 rounds."""
    cost, _, demand = problem(5, 3, 300)
    cost = 2 * cost
    supply = torch.tensor([200.0, 50, 50], dtype=torch.float64)
    gap = [float((shares(cost, sinkhorn(cost, supply, demand, 1e-3, t), 1e-3) @ demand
                  - supply).abs().max())
           for t in (40, 80, 120)]  # fmt: skip
    assert gap[0] > gap[1] > gap[2] > 1
    u = converged_potentials(cost, supply, demand, 1e-3)
    assert float((shares(cost, u, 1e-3) @ demand - supply).abs().max()) < 1e-3 * 300


def test_a_supplier_of_nothing_serves_nobody_and_masses_scale_freely():
    cost, supply, demand = problem(6, 3, 50)
    supply[1] = 0
    u = converged_potentials(cost, supply, demand * supply.sum() / 50, 1e-2)
    assert u[1] == -torch.inf and not (owner(cost, u) == 1).any()
    again = converged_potentials(cost, supply * 7, demand, 1e-2)
    torch.testing.assert_close(u[[0, 2]], again[[0, 2]])


def test_labels_are_those_of_the_plans_largest_entries():
    cost, supply, demand = problem(7)
    u = converged_potentials(cost, supply, demand, 1e-2)
    assert (plan_of(cost, u, demand, 1e-2).argmax(0) == owner(cost, u)).all()
