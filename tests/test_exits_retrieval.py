"""Pseudo points of EXITS: seeds from clicks alone, scores of their walks, levels without a mask."""

import pytest
import torch

from pointseg.papers.exits.retrieval import (
    Levels,
    Seeds,
    pushed_inward,
    retrieved,
    scores,
    seed_columns,
    seeds_of,
    with_neighbours,
)

BOX = torch.tensor([[8.0, 16.0, 56.0, 48.0]])
POINTS = torch.tensor([[[32.0, 16.0], [8.0, 30.0], [30.0, 47.0], [55.0, 32.0]]])


def seeds():
    return seeds_of(pushed_inward(POINTS, BOX, 4.0), BOX, 8, 64)


def test_points_move_toward_the_middle_by_delta():
    moved = pushed_inward(POINTS, BOX, 4.0)
    assert torch.allclose((moved - POINTS).norm(dim=-1), torch.full((1, 4), 4.0), atol=1e-5)
    assert torch.allclose(moved[0, 0], torch.tensor([32.0, 20.0]))


def test_points_do_not_pass_the_middle():
    assert torch.allclose(
        pushed_inward(POINTS, BOX, 1e3), torch.tensor([32.0, 32.0]).expand(1, 4, 2)
    )


def test_a_point_in_the_middle_stays():
    middle = torch.tensor([[[32.0, 32.0]] * 4])
    assert torch.equal(pushed_inward(middle, BOX, 9.0), middle)


def test_seeds_by_hand():
    """8 x 8 tokens of 8 pixels; the box is columns 1..6 and rows 2..5 exactly."""
    tokens = seeds()
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[2:6, 1:7] = True
    assert torch.equal(tokens.inside[0].view(8, 8), inside)
    assert torch.equal(tokens.background[0].view(8, 8), ~inside)
    assert tokens.foreground.sum() == 4 and tokens.foreground[0].view(8, 8)[2, 4]


def test_tokens_cut_by_the_border_are_no_seeds():
    box = torch.tensor([[12.0, 20.0, 52.0, 44.0]])
    tokens = seeds_of(pushed_inward(POINTS, box, 4.0), box, 8, 64)
    background = tokens.background[0].view(8, 8)
    assert not background[2, 3] and background[1, 3] and not background[3, 1] and background[3, 0]


def test_points_outside_the_crop_fall_to_its_border_token():
    tokens = seeds_of(
        torch.tensor([[[-5.0, -5.0], [99.0, 3.0], [3.0, 99.0], [99.0, 99.0]]]), BOX, 8, 64
    )
    assert tokens.foreground.sum() == 4


def test_coinciding_points_make_one_seed():
    assert seeds_of(torch.full((1, 4, 2), 30.0), BOX, 8, 64).foreground.sum() == 1


def test_columns_are_means_times_n():
    columns = seed_columns(seeds())
    assert torch.allclose(columns.sum(1), torch.full((1, 2), 64.0))


def test_a_walk_from_everywhere_scores_nothing():
    assert torch.equal(scores(torch.ones(2, 9, 2)), torch.zeros(2, 9))


@pytest.mark.parametrize("rule", ["difference", "ratio", "relative"])
def test_scores_change_sign_with_the_sides(rule):
    walks = torch.rand(3, 20, 2) + 0.1
    assert torch.allclose(scores(walks, rule), -scores(walks.flip(-1), rule), atol=1e-6)


@pytest.mark.parametrize("rule", ["ratio", "relative"])
def test_shares_lie_between_minus_one_and_one(rule):
    assert scores(torch.rand(3, 20, 2), rule).abs().max() <= 1 + 1e-6


def test_seeds_and_tokens_outside_are_never_retrieved():
    tokens = seeds()
    every = retrieved(torch.full((1, 64), 9.0), tokens, Levels(0.0, 0.0))
    assert not (every.foreground & (tokens.foreground | tokens.background)).any()
    assert (every.foreground <= tokens.inside).all() and not every.background.any()


def test_higher_levels_retrieve_fewer_points():
    score = torch.randn(1, 64)
    few, many = (retrieved(score, seeds(), Levels(v, v)) for v in (1.0, 0.2))
    assert (few.foreground <= many.foreground).all() and (few.background <= many.background).all()


def test_nothing_is_said_of_a_crop_without_pseudo_points():
    score = torch.zeros(2, 64)
    score[1, 27] = 5.0
    both = Seeds(
        *(t.repeat(2, 1) for t in (seeds().foreground, seeds().background, seeds().inside))
    )
    assert retrieved(score, both, Levels(1.0, 1.0)).nothing.tolist() == [True, False]


def test_neighbours_points_add_background_and_leave_ones_own():
    tokens = seeds()
    itself = int(tokens.foreground[0].nonzero()[0])
    more = with_neighbours(tokens, torch.tensor([27, itself]), torch.tensor([0, 0]))
    assert more.background[0, 27] and not tokens.background[0, 27]
    assert not more.background[0, itself] and torch.equal(more.foreground, tokens.foreground)
