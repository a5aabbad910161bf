"""The walk of EXITS.

T is doubly stochastic, hops are products, the closed form is the series it stands for.
"""

import pytest
import torch

from pointseg.papers.exits.walk import (
    converged,
    doubly_stochastic,
    doubly_stochastic_fast,
    propagated,
    residual,
    similarity,
)
from pointseg.structures import InputError


def peaky(n=40, batch=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(batch, 3, n + 1, n + 1, generator=rng, dtype=torch.float64)
    return logits.softmax(-1)


def test_similarity_is_the_mean_over_heads_without_the_class_token():
    attention = peaky(5)
    by_hand = sum(attention[:, h, 1:, 1:] for h in range(3)) / 3
    assert torch.allclose(similarity(attention).double(), by_hand, atol=1e-6)


def test_rows_and_columns_of_t_sum_to_one():
    matrix = similarity(peaky()).double()
    rows, columns = residual(doubly_stochastic(matrix, 200))
    assert rows < 1e-6 and columns < 1e-12


def test_the_residual_falls_with_the_rounds():
    matrix = similarity(peaky()).double()
    rows = [residual(doubly_stochastic(matrix, rounds))[0] for rounds in (1, 3, 10, 30)]
    assert rows == sorted(rows, reverse=True) and rows[0] > 10 * rows[-1]


@pytest.mark.parametrize("rounds", [1, 3, 10])
def test_the_fast_form_is_the_plain_one(rounds):
    matrix = similarity(peaky()).double()
    plain, fast = doubly_stochastic(matrix, rounds), doubly_stochastic_fast(matrix, rounds)
    assert torch.allclose(plain, fast, rtol=1e-10)


def test_scaling_rows_and_columns_of_s_beforehand_changes_no_limit():
    """Law of matrix scaling: D S E has the same doubly stochastic form as S."""
    matrix = similarity(peaky()).double()
    d, e = (torch.rand(2, 40, dtype=torch.float64) + 0.5 for _ in range(2))
    scaled = d[:, :, None] * matrix * e[:, None]
    one, other = doubly_stochastic(matrix, 2000), doubly_stochastic(scaled, 2000)
    assert torch.allclose(one, other, atol=1e-8)


def test_hops_are_the_power_of_t():
    matrix = doubly_stochastic(similarity(peaky()).double())
    seeds = torch.rand(2, 40, 2, dtype=torch.float64)
    by_power = torch.linalg.matrix_power(matrix, 3) @ seeds
    assert torch.allclose(propagated(matrix, seeds, 3), by_power, atol=1e-12)


def test_many_hops_forget_the_seeds():
    matrix = doubly_stochastic(similarity(peaky()).double(), 500)
    seeds = torch.rand(2, 40, 1, dtype=torch.float64)
    flat = seeds.mean(1, keepdim=True).expand_as(seeds)
    assert torch.allclose(propagated(matrix, seeds, 3000), flat, atol=1e-3)


def test_the_closed_form_is_a_geometric_series():
    """[EXITS Eq. a2]: (1 - b) sum_k b^k T^k."""
    matrix = doubly_stochastic(similarity(peaky()).double())
    seeds, beta = torch.rand(2, 40, 2, dtype=torch.float64), 0.6
    series = sum((1 - beta) * beta**k * propagated(matrix, seeds, k) for k in range(80))
    assert torch.allclose(converged(matrix, seeds, beta), series, atol=1e-10)


def test_without_blending_the_closed_form_stays_with_the_seeds():
    """[EXITS Eq. a2] at beta = 0."""
    seeds = torch.rand(1, 6, 2)
    matrix = torch.full((1, 6, 6), 1 / 6)
    assert torch.allclose(converged(matrix, seeds, 0.0), seeds)


@pytest.mark.parametrize("beta", [1.0, -0.1, 2.0])
def test_a_singular_blend_is_refused(beta):
    """[EXITS Eq. a2]"""
    with pytest.raises(InputError, match="beta"):
        converged(torch.eye(3)[None], torch.rand(1, 3, 1), beta)
