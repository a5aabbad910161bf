"""Instance attention map [AS Eq. 1]: both readings, the token sets, and the official code's
extras."""

import pytest
import torch

from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.instance_map import (
    background_released,
    cosines_with_mean,
    instance_map_printed,
    instance_map_released,
    instance_maps,
    mean_over_image,
    refined,
    strongest_only,
    token_sets,
    unit_range,
)
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.tokens import Tokens
from pointseg.structures import Points


def scene(generator=None):
    """One image: tokens 0-2 object, 3-7 ground that shares a little with the object."""
    base = torch.tensor([[1.0, 0.2]] * 3 + [[0.3, 1.0]] * 5)
    tokens = base + 0.02 * torch.randn(
        8, 2, generator=generator or torch.Generator().manual_seed(0)
    )
    plus = torch.tensor([[True] * 2 + [False] * 6])
    minus = torch.tensor([[False] * 4 + [True] * 4])
    return tokens[None], plus, minus


def similarities(tokens, plus, minus):
    held = Tokens.of(tokens)
    return cosines_with_mean(plus, held), cosines_with_mean(minus, held)


def test_eq01_as_printed_equals_the_double_loop():
    """[AS Eq. 1]"""
    tokens, plus, minus = scene()
    tokens = tokens.double()
    similarity_fg, similarity_bg = similarities(tokens, plus, minus)
    phi = list(tokens[0])

    def cos(a, b):
        return float(a @ b / a.norm() / b.norm())

    psi_plus = sum(phi[i] for i in range(8) if plus[0, i]) / 2
    psi_minus = sum(phi[i] for i in range(8) if minus[0, i]) / 4
    sum_plus = sum(cos(phi[i], psi_plus) for i in range(8) if plus[0, i])
    sum_minus = sum(cos(phi[i], psi_minus) for i in range(8) if minus[0, i])
    slow = [cos(p, psi_plus) / sum_plus * (1 - cos(p, psi_minus) / sum_minus) for p in phi]
    assert instance_map_printed(similarity_fg, similarity_bg, plus, minus)[
        0
    ].tolist() == pytest.approx(slow)


def test_eq01_printed_factor_hardly_suppresses_and_the_released_one_does():
    """The sum over Phi- makes the second factor of [AS Eq. 1] nearly one."""
    tokens, plus, minus = scene()
    similarity_fg, similarity_bg = similarities(tokens, plus, minus)
    printed = instance_map_printed(similarity_fg, similarity_bg, plus, minus)[0]
    released = instance_map_released(similarity_fg, similarity_bg, torch.ones_like(plus))[0]
    contrast = lambda m: float(m[:3].mean() / m[3:].mean().clamp(min=1e-9))  # noqa: E731
    assert contrast(released) > 5 * contrast(printed)


def test_eq01_released_map_reaches_one_and_is_zero_where_not_allowed():
    tokens, plus, minus = scene()
    allowed = torch.ones(1, 8, dtype=torch.bool)
    allowed[0, 0] = False
    released = instance_map_released(*similarities(tokens, plus, minus), allowed)[0]
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
    tokens, plus, minus = scene()
    held, allowed = Tokens.of(tokens), torch.ones(1, 8, dtype=torch.bool)
    start = cosines_with_mean(plus | minus, held)
    assert torch.equal(refined(start, held, allowed, 0, 0.9), start)
    sharper = refined(start, held, allowed, 3, 0.98)[0]
    spread = lambda m: float((m[:3].mean() - m[3:].mean()).abs())  # noqa: E731
    assert spread(sharper) > spread(start[0])


def slow_map(features, objects, attention, config):
    """A^I an object at a time, from copies of its tokens: what Eq. 1 says and nothing shared."""
    rows = []
    for n, image in enumerate(objects.image.tolist()):
        phi, valid = features[image], objects.valid[n]
        plus, minus = token_sets(attention[n : n + 1], valid[None], objects.seed[n : n + 1],
                                 config.foreground, config.background)  # fmt: skip
        fg, bg = (torch.cosine_similarity(phi, phi[m[0]].mean(0)[None], dim=-1)
                  for m in (plus, minus))  # fmt: skip
        rows.append(instance_map_released(fg[None] * valid, bg[None], valid[None])[0])
    return torch.stack(rows)


def test_eq01_shared_products_equal_one_object_at_a_time():
    """One normalisation and one product an image, to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    counts, grid, points = [3, 0, 2], (6, 7), []
    for count in counts:
        xy = torch.rand(count, 2, generator=generator) * 48
        row = torch.arange(count)
        points.append(Points(xy, torch.zeros_like(row), row, row >= 0))
    objects = Objects.of(points, [(48, 56), (48, 56), (40, 30)], grid, 8)
    features = torch.randn(3, 42, 16, generator=generator) + 0.5
    attention = torch.rand(5, 42, generator=generator) * objects.valid
    ours = instance_maps(Tokens.of(features, objects.counts), objects, attention, Config())
    slow = slow_map(features, objects, attention, Config())
    assert torch.allclose(ours.foreground, slow, atol=1e-6)


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


def test_background_map_by_hand():
    """Largest values 0.8 and 0.5: 1 + (bg / 0.5 - fg / 0.8) / 2, over its largest, 1.375."""
    fg, bg = torch.tensor([[0.8, 0.4, 0.2, 0.9]]), torch.tensor([[0.0, 0.25, 0.5, 0.9]])
    allowed = torch.tensor([[True, True, True, False]])
    wanted = torch.tensor([[0.5, 1.0, 1.375, 0.0]]) / 1.375
    assert torch.allclose(background_released(fg, bg, allowed), wanted)


def test_a_token_that_no_instance_won_is_not_ground_for_that():
    """Without likeness it reaches 0.8 of the highest ground only where it looks like ground
    itself."""
    fg, bg = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.1, 1.0]])
    ground = background_released(fg, bg, torch.ones(1, 3, dtype=torch.bool))[0]
    assert (ground >= 0.8).tolist() == [False, False, True]
