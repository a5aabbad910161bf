"""Instance attention map [AS Eq. 1]: both readings, the token sets, and the official code's extras."""

import pytest
import torch
from torch.nn.functional import normalize

from pointseg.papers.attentionshift.instance_map import (
    cosine_to,
    ground_released,
    instance_map_printed,
    instance_map_released,
    mean_over_image,
    mean_token,
    refined_similarity,
    strongest_only,
    token_sets,
    unit_range,
)


def scene(generator=None):
    """One image: tokens 0-2 object, 3-7 ground that shares a little with the object."""
    base = torch.tensor([[1.0, 0.2]] * 3 + [[0.3, 1.0]] * 5)
    tokens = base + 0.02 * torch.randn(
        8, 2, generator=generator or torch.Generator().manual_seed(0)
    )
    plus = torch.tensor([[True] * 2 + [False] * 6])
    minus = torch.tensor([[False] * 4 + [True] * 4])
    return tokens[None], plus, minus


def likenesses(tokens, plus, minus):
    directions = normalize(tokens, dim=-1)
    return cosine_to(mean_token(plus, tokens), directions), cosine_to(
        mean_token(minus, tokens), directions
    )


def test_eq01_as_printed_equals_the_double_loop():
    """[AS Eq. 1]"""
    tokens, plus, minus = scene()
    tokens = tokens.double()
    like, unlike = likenesses(tokens, plus, minus)
    phi = list(tokens[0])

    def cos(a, b):
        return float(a @ b / a.norm() / b.norm())

    psi_plus = sum(phi[i] for i in range(8) if plus[0, i]) / 2
    psi_minus = sum(phi[i] for i in range(8) if minus[0, i]) / 4
    sum_plus = sum(cos(phi[i], psi_plus) for i in range(8) if plus[0, i])
    sum_minus = sum(cos(phi[i], psi_minus) for i in range(8) if minus[0, i])
    slow = [cos(p, psi_plus) / sum_plus * (1 - cos(p, psi_minus) / sum_minus) for p in phi]
    assert instance_map_printed(like, unlike, plus, minus)[0].tolist() == pytest.approx(slow)


def test_eq01_printed_factor_hardly_suppresses_and_the_released_one_does():
    """The sum over Phi- makes the second factor of [AS Eq. 1] nearly one."""
    tokens, plus, minus = scene()
    like, unlike = likenesses(tokens, plus, minus)
    printed = instance_map_printed(like, unlike, plus, minus)[0]
    released = instance_map_released(like, unlike, torch.ones_like(plus))[0]
    contrast = lambda m: float(m[:3].mean() / m[3:].mean().clamp(min=1e-9))  # noqa: E731
    assert contrast(released) > 5 * contrast(printed)


def test_eq01_released_map_reaches_one_and_is_zero_where_not_allowed():
    tokens, plus, minus = scene()
    allowed = torch.ones(1, 8, dtype=torch.bool)
    allowed[0, 0] = False
    released = instance_map_released(*likenesses(tokens, plus, minus), allowed)[0]
    assert released.max() == 1
    assert released[0] == 0
    assert (released >= 0).all()


def test_unit_range_stretches_each_map_alone_and_ignores_padding():
    maps = torch.tensor([[2.0, 4.0, 3.0, 100.0], [5.0, 5.0, 5.0, -7.0]])
    allowed = torch.tensor([[True, True, True, False]] * 2)
    assert unit_range(maps, allowed).tolist() == [[0, 1, 0.5, 0], [0, 0, 0, 0]]


def test_token_sets_are_disjoint_hold_the_point_and_no_padding():
    attention = torch.tensor([[0.0, 0.05, 0.15, 0.2, 1.0, 1.0]])
    allowed = torch.tensor([[True] * 5 + [False]])
    plus, minus = token_sets(attention, allowed, torch.tensor([0]))
    assert plus.tolist() == [[True, False, False, True, True, False]]
    assert minus.tolist() == [[False, True, False, False, False, False]]


def test_refinement_zero_rounds_is_the_cosine_and_more_move_to_the_mode():
    tokens, _, _ = scene()
    directions = normalize(tokens, dim=-1)
    allowed = torch.ones(1, 8, dtype=torch.bool)
    start = torch.tensor([[1.0, 0.6]])
    assert torch.allclose(
        refined_similarity(start, directions, allowed, 0, 0.9), cosine_to(start, directions)
    )
    refined = refined_similarity(start, directions, allowed, 3, 0.98)[0]
    first = cosine_to(start, directions)[0]
    assert (refined[:3].mean() - refined[3:].mean()) > (first[:3].mean() - first[3:].mean())


def test_strongest_only_gives_a_token_to_one_instance_of_its_image():
    similarity = torch.tensor([[0.9, 0.2, 0.1], [0.5, 0.6, 0.1], [0.3, 0.3, 0.3]])
    image = torch.tensor([0, 0, 1])
    common = torch.tensor([[0.0, 0.0, 0.5]]).expand(3, 3)
    kept = strongest_only(similarity, image, common)
    assert torch.allclose(kept, torch.tensor([[0.9, 0, 0], [0, 0.6, 0], [0.3, 0.3, 0]]))


def test_the_common_map_is_the_mean_over_the_instances_of_an_image():
    maps = torch.tensor([[0.2, 0.8], [0.9, 0.1], [0.4, 0.2]])
    common = mean_over_image(maps, torch.tensor([0, 1, 0]))
    assert torch.allclose(common, torch.tensor([[0.3, 0.5], [0.9, 0.1], [0.3, 0.5]]))


def test_ground_by_hand():
    """Largest likeness 0.8, largest unlikeness 0.5: 1 + (u / 0.5 - l / 0.8) / 2, over its largest value 1.375."""
    like, unlike = torch.tensor([[0.8, 0.4, 0.2, 0.9]]), torch.tensor([[0.0, 0.25, 0.5, 0.9]])
    allowed = torch.tensor([[True, True, True, False]])
    wanted = torch.tensor([[0.5, 1.0, 1.375, 0.0]]) / 1.375
    assert torch.allclose(ground_released(like, unlike, allowed), wanted)


def test_a_token_that_no_instance_won_is_not_ground_for_that():
    """Without likeness it reaches 0.8 of the highest ground only where it looks like ground itself."""
    like, unlike = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.1, 1.0]])
    ground = ground_released(like, unlike, torch.ones(1, 3, dtype=torch.bool))[0]
    assert (ground >= 0.8).tolist() == [False, False, True]
