"""Levels of EXITS without a mask: by hand, by double loop, and with evidence that is known."""

import pytest
import torch

from pointseg.papers.exits.levels import (
    Evidence,
    calibrated,
    equally_precise,
    hidden_scores,
    share_below,
)
from pointseg.papers.exits.retrieval import Levels, Seeds, retrieved


def crops(n=3, side=8, seed=0):
    """Seeds of n crops: a box of columns and rows 2..5, ground beyond it, four clicks."""
    inside = torch.zeros(n, side, side, dtype=torch.bool)
    inside[:, 2:6, 2:6] = True
    foreground = torch.zeros_like(inside)
    for row, column in ((2, 3), (3, 2), (5, 4), (4, 5)):
        foreground[:, row, column] = True
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.rand(n, side**2, side**2, generator=rng).double() ** 4
    seeds = Seeds(foreground.flatten(1), ~inside.flatten(1), inside.flatten(1))
    return seeds, matrix / matrix.sum(2, keepdim=True)


def test_hidden_scores_are_those_of_a_double_loop():
    seeds, matrix = crops(2)
    positive, negative = hidden_scores(
        lambda columns: matrix @ columns.double(), seeds, "difference"
    )
    clicks, ground = [19, 26, 37, 44], []
    judged = []
    for row in range(8):
        for column in range(8):
            outside = not (2 <= row < 6 and 2 <= column < 6)
            black = (row + column) % 2 == 1
            ground += [8 * row + column] * (outside and not black)
            judged += [8 * row + column] * (outside and black)  # all lie within two tokens
    mean = lambda n, token, side: 64 * sum(matrix[n, token, j] for j in side) / len(side)  # noqa: E731
    by_hand = [mean(n, c, [k for k in clicks if k != c]) - mean(n, c, ground)
               for c in clicks for n in range(2)]  # fmt: skip
    assert torch.allclose(positive, torch.stack(by_hand))
    by_hand = [mean(n, j, clicks) - mean(n, j, ground) for n in range(2) for j in judged]
    assert torch.allclose(negative, torch.stack(by_hand))


def test_a_crop_with_one_click_or_no_ground_hides_nothing():
    seeds, matrix = crops(1)
    one = Seeds(
        seeds.foreground & (seeds.foreground.cumsum(1) == 1), seeds.background, seeds.inside
    )
    positive, negative = hidden_scores(lambda c: matrix @ c.double(), one, "ratio")
    assert not len(positive) and len(negative)
    bare = Seeds(seeds.foreground, torch.zeros_like(seeds.inside), seeds.inside)
    positive, negative = hidden_scores(lambda c: matrix @ c.double(), bare, "ratio")
    assert not len(positive) and not len(negative)


def evidence(n=400, seed=1):
    rng = torch.Generator().manual_seed(seed)
    score = torch.randn(n, 64, generator=rng) * torch.rand(n, 1, generator=rng)
    seeds, _ = crops(n)
    inside = seeds.inside & ~seeds.foreground
    positive, negative = (torch.randn(500, generator=rng) + m for m in (1.0, -1.0))
    highest = score.masked_fill(~inside, -torch.inf).amax(1)
    lowest = score.masked_fill(~inside, torch.inf).amin(1)
    return Evidence(highest, lowest, positive, negative), score, seeds


def test_calibrated_levels_leave_the_wanted_share_empty():
    known, score, seeds = evidence()
    share = retrieved(score, seeds, calibrated(known)).nothing.float().mean()
    assert 0.04 <= share <= 0.07 + 1e-6


def test_a_larger_share_means_higher_levels():
    known = evidence()[0]
    few, many = calibrated(known, 0.02), calibrated(known, 0.3)
    assert few.foreground < many.foreground


def test_no_share_at_all_retrieves_in_every_crop():
    known, score, seeds = evidence()
    assert not retrieved(score, seeds, calibrated(known, 0.0)).nothing.any()


def test_mirrored_evidence_gives_mirrored_levels():
    """If hidden points and near tokens are mirror images, equal precision is the same level."""
    positive = torch.linspace(-1, 3, 81)
    assert equally_precise(0.5, positive, -positive) == pytest.approx(0.5, abs=0.06)


def test_shares_are_counted():
    values, levels = torch.tensor([3.0, 1.0, 2.0, 2.0]), torch.tensor([0.5, 2.0, 2.5, 9.0])
    assert share_below(values, levels).tolist() == [0, 0.25, 0.75, 1]


def test_evidence_of_several_batches_is_that_of_one():
    whole = evidence()[0]
    halves = [Evidence(*(v[i::2] for v in vars(whole).values())) for i in (0, 1)]
    together = Evidence.of(halves)
    assert calibrated(together) == calibrated(whole) != Levels(0.0, 0.0)
