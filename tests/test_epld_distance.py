"""EPLD's distance, label and losses [EPLD Eq. 6-11]: laws, limits, and double loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from support.grid_targets import drawn_points, points_of, table

from pointseg.ops.colour import rgb_to_lab, window
from pointseg.papers.epld.distance import (
    affinities,
    colour_prior_loss,
    colour_prior_loss_fast,
    distance_map,
    log_probability,
    partial_loss,
    pseudo_label,
    self_training_loss,
)


def drawn_case(seed, counts=(3, 2), grid=(5, 6), layers=2):
    """(targets, log M [L, b, N, h, w] in float64); the last image has a column of padding."""
    rng = torch.Generator().manual_seed(seed)
    inside = torch.ones(len(counts), *grid, dtype=torch.bool)
    inside[-1, :, -1] = False
    points = [drawn_points(rng, n, 5) for n in counts]
    targets = table(points, grid, inside)
    logits = torch.randn(layers, *targets.points.shape, dtype=torch.float64, generator=rng)
    absent = ~targets.present[..., None, None]
    return targets, logits.masked_fill(absent, -1e4).log_softmax(-3)


def test_eq06_probabilities_of_present_targets_sum_to_one_and_distance_is_the_rest():
    """[EPLD Eq. 6] Absent targets are as far as can be."""
    targets, _ = drawn_case(0)
    logits = torch.randn(2, *targets.points.shape)
    X = distance_map(log_probability(logits, targets.present).exp())
    n = targets.present.sum(1)
    torch.testing.assert_close((1 - X).sum(-3), torch.ones_like(X[:, :, 0]))
    assert (X[:, 1, n[1] :] == 1).all() and (X >= 0).all() and (X <= 1).all()


def test_eq07_the_nearest_is_the_likeliest_and_ties_go_to_the_lowest():
    """[EPLD Eq. 7] argmin of X is argmax of M."""
    M = torch.tensor([0.2, 0.5, 0.3]).reshape(3, 1, 1)
    assert pseudo_label(distance_map(M)).item() == 1
    assert pseudo_label(distance_map(torch.full((3, 1, 1), 1 / 3))).item() == 0
    logits = torch.randn(2, 4, 7, 7)
    log_prob = log_probability(logits, torch.ones(2, 4, dtype=torch.bool))
    assert torch.equal(pseudo_label(distance_map(log_prob.exp())), logits.argmax(1))


def test_eq07_an_absent_target_never_owns_a_cell():
    """[EPLD Eq. 7] Even where its logit is the largest of all."""
    targets = table([points_of((0, 0, 0, 1)), points_of((0, 0, 0, 1), (1, 1, 1, 2))], (3, 3))
    logits = torch.zeros(2, 2, 3, 3)
    logits[0, 1] = 1e3
    log_prob = log_probability(logits, targets.present)
    assert not pseudo_label(distance_map(log_prob.exp()))[0].any()
    assert (log_prob[0, 0] == 0).all(), "one target: certain, and nothing to learn"


@pytest.mark.parametrize("seed", range(4))
def test_eq08_partial_loss_equals_a_loop_over_labelled_cells_of_the_batch(seed):
    """[EPLD Eq. 8]"""
    targets, log_prob = drawn_case(seed)
    result = partial_loss(log_prob, targets)
    for layer in range(2):
        total, Z = 0.0, 0
        for b, r, c in itertools.product(range(2), range(5), range(6)):
            claims = targets.points[b, :, r, c].nonzero()[:, 0].tolist()
            if len(claims) == 1 and targets.inside[b, r, c]:
                total, Z = total - float(log_prob[layer, b, claims[0], r, c]), Z + 1
        assert result[layer].item() == pytest.approx(total / Z, rel=1e-9)


def affinity_loop(lab, i, j, tau=0.3):
    return math.exp(-float(np.linalg.norm(lab[:, i[0], i[1]] - lab[:, j[0], j[1]])) / 2) >= tau


@pytest.mark.parametrize("loss", [colour_prior_loss, colour_prior_loss_fast])
@pytest.mark.parametrize("seed", range(3))
def test_eq09_colour_prior_equals_a_double_loop_over_pixels_and_all_24_neighbours(seed, loss):
    """[EPLD Eq. 9] Each pair stands twice in the printed sum and in Z: the quotient is the same."""
    targets, log_prob = drawn_case(seed)
    rng = torch.Generator().manual_seed(seed)
    shades = torch.tensor([0.2, 0.22, 0.8])
    image = shades[torch.randint(0, 3, (2, 5, 6), generator=rng)][:, None].expand(-1, 3, -1, -1)
    lab = rgb_to_lab(image).double()
    result = loss(log_prob, affinities(lab, targets.inside, window(2, 1), 0.3))
    M = log_prob.exp().numpy()
    for layer in range(2):
        of_image = []
        for b in range(2):
            total, Z = 0.0, 0
            for i in np.ndindex(5, 6):
                for d in itertools.product(range(-2, 3), repeat=2):
                    j = (i[0] + d[0], i[1] + d[1])
                    if d == (0, 0) or not (0 <= j[0] < 5 and 0 <= j[1] < 6):
                        continue
                    both = targets.inside[b][i] and targets.inside[b][j]
                    if both and affinity_loop(lab[b].numpy(), i, j):
                        total += math.log(M[layer, b, :, i[0], i[1]] @ M[layer, b, :, j[0], j[1]])
                        Z += 1
            of_image.append(-total / Z)
        assert result[layer].item() == pytest.approx(sum(of_image) / 2, rel=1e-7)


def test_eq09_a_flat_image_asks_for_one_owner_and_edges_ask_for_nothing():
    """[EPLD Eq. 9] The limits: all agree, loss 0; all colours differ, no pair, loss 0."""
    targets = table([points_of((0, 0, 0, 1), (3, 3, 1, 2))], (4, 4))
    certain = torch.zeros(1, 2, 4, 4)
    certain[:, 1] = -50
    halves = torch.full((1, 2, 4, 4), math.log(0.5))
    near = lambda lab: affinities(lab, targets.inside, window(2, 2), 0.3)  # noqa: E731
    flat = near(torch.zeros(1, 3, 4, 4))
    for loss in (colour_prior_loss, colour_prior_loss_fast):
        assert loss(certain, flat) < 1e-6
        assert loss(halves, flat).item() == pytest.approx(math.log(2))
        apart = 100.0 * torch.arange(16.0).reshape(1, 1, 4, 4).expand(1, 3, 4, 4)
        assert loss(halves, near(apart)) == 0


def test_eq09_the_fast_form_has_the_plain_one_s_value_and_gradient():
    """[EPLD Eq. 9] And stays finite where neighbours disagree beyond all numbers."""
    targets, log_prob = drawn_case(1)
    lab = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    affinity = affinities(lab, targets.inside, window(2, 1), 0.3)
    grads = []
    for loss in (colour_prior_loss, colour_prior_loss_fast):
        given = log_prob.clone().requires_grad_()
        (loss(given, affinity) * torch.tensor([1.0, 3.0])).sum().backward()
        grads.append(given.grad)
    torch.testing.assert_close(*grads)
    torch.testing.assert_close(
        *(f(log_prob, affinity) for f in (colour_prior_loss, colour_prior_loss_fast))
    )
    extreme = (200 * torch.randn(1, 2, 3, 5, 6)).log_softmax(-3).requires_grad_()
    colour_prior_loss_fast(extreme, affinity).sum().backward()
    assert extreme.grad.isfinite().all()


@pytest.mark.parametrize("seed", range(3))
def test_eq10_self_training_equals_a_loop_over_cells(seed):
    """[EPLD Eq. 10] The last layer's label teaches every layer, itself included."""
    targets, log_prob = drawn_case(seed)
    label = log_prob[-1].argmax(1)
    result = self_training_loss(log_prob, label, targets)
    for layer in range(2):
        of_image = []
        for b in range(2):
            cells = [(r, c) for r, c in np.ndindex(5, 6) if targets.inside[b, r, c]]
            ce = [-float(log_prob[layer, b, label[b, r, c], r, c]) for r, c in cells]
            of_image.append(sum(ce) / len(cells))
        assert result[layer].item() == pytest.approx(sum(of_image) / 2, rel=1e-9)
    assert result[-1] <= result[0], "the teacher agrees with itself best"


def test_an_image_without_points_adds_nothing_and_lets_nothing_through():
    """[EPLD Eq. 8-10] Alone in a batch every loss is 0 and every gradient finite."""
    targets = table([points_of()], (4, 4))
    logits = torch.randn(1, 1, 4, 4, requires_grad=True)
    log_prob = log_probability(logits, targets.present)
    label = pseudo_label(distance_map(log_prob.exp()))
    flat = affinities(torch.zeros(1, 3, 4, 4), targets.inside, window(2, 2), 0.3)
    losses = (
        partial_loss(log_prob, targets),
        colour_prior_loss_fast(log_prob, flat),
        self_training_loss(log_prob, label, targets),
    )
    assert all(loss == 0 for loss in losses)
    sum(losses).sum().backward()
    assert (logits.grad == 0).all()


def test_the_losses_do_not_depend_on_the_order_of_targets():
    """[EPLD Eq. 8-10] A permutation of n changes no loss."""
    targets, log_prob = drawn_case(5, counts=(3, 3))
    order = torch.tensor([2, 0, 1])
    moved = table_in(targets, order)
    flat = torch.zeros(2, 3, 5, 6, dtype=torch.float64)
    affinity = affinities(flat, targets.inside, window(1, 1), 0.3)
    label, back = log_prob[-1].argmax(1), order.argsort()
    for one, other in (
        (partial_loss(log_prob, targets), partial_loss(log_prob[:, :, order], moved)),
        (colour_prior_loss_fast(log_prob, affinity),
         colour_prior_loss_fast(log_prob[:, :, order], affinity)),
        (self_training_loss(log_prob, label, targets),
         self_training_loss(log_prob[:, :, order], back[label], moved)),
    ):  # fmt: skip
        torch.testing.assert_close(one, other)


def table_in(targets, order):
    from dataclasses import replace

    rows = ("label", "is_thing", "present", "points")
    return replace(targets, **{name: getattr(targets, name)[:, order] for name in rows})
