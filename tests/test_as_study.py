"""The study of key-points against true parts, by hand."""

import pytest
import torch

from pointseg.lab.key_points import (
    ShiftStudy,
    covers_half,
    frozen_share,
    lonely,
    part_recall,
    purity,
    share_on_object,
    token_truth,
)
from pointseg.papers.attentionshift.labeller import KeyPoints, Labels
from pointseg.papers.attentionshift.shift import shift
from pointseg.papers.attentionshift.tokens import Region, Tokens


def test_a_map_covers_half_when_more_than_half_of_the_object_is_in_it():
    share = torch.tensor([[1.0, 1, 0.5, 0]] * 3)
    area = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 1]]).bool()
    assert covers_half(area, share).tolist() == [1, 0, 1]


def test_part_recall_counts_parts_not_key_points():
    part_map = torch.tensor([[1, 1, 2, 3, 0], [2, 2, 2, 0, 0]])
    reached = torch.tensor([[1, 1, 3, 0], [0, 0, 0, 0]])
    assert part_recall(reached, part_map).tolist() == pytest.approx([2 / 3, 0])


def test_purity_by_hand():
    # key-point 0 owns parts 1 1 2, key-point 1 owns part 2 and a token off the object: 3 of 4
    # tokens are right
    owner = torch.tensor([[0, 0, 0, 1, 1, -1]])
    true = torch.tensor([[1, 1, 2, 2, 0, 1]])
    assert purity(owner, 2, true).tolist() == [0.75]
    assert purity(torch.arange(6)[None], 6, true).tolist() == [1]


def test_lonely_key_points():
    assert lonely(torch.tensor([[0, 1, 1, 2, -1]]), 5).tolist() == pytest.approx([2 / 3])


def test_study_speaks_of_every_iteration_and_of_both_maps():
    torch.manual_seed(0)
    tokens, area = Tokens.of(torch.randn(2, 6, 4)), torch.ones(2, 6, dtype=torch.bool)
    index = torch.arange(6).expand(2, 6)
    seeds = tokens.features_at(index[:, :3])
    shifted = shift(seeds, tokens, area, area, iterations=2, keep_path=True)
    assert len(shifted.owners) == len(shifted.path) == 3
    assert torch.equal(shifted.owners[-1], shifted.owner)
    keypoints = KeyPoints(index[:, :3], area[:, :3], shifted, None, [index[:, :3]] * 3)
    labels = Labels(None, area.float(), area.float(), area, ~area, torch.zeros(2, 4),
                    Region.of(area), keypoints, None)  # fmt: skip
    study = ShiftStudy()
    parts_in_pixels = torch.tensor([[1, 1, 2, 2, 3, 0], [0, 0, 0, 0, 0, 0]]).view(2, 2, 3)
    for _ in range(2):
        study.add(labels, tokens, torch.ones(2, 2, 3, dtype=torch.bool), parts_in_pixels)
    scores = study.scores()
    assert scores["A^S covers half"] == scores["A^I covers half"] == 100
    assert {f"purity, iteration {turn}" for turn in range(3)} <= set(scores)
    assert 0 < scores["part recall, iteration 0"] <= 100


def test_a_token_shows_the_part_that_most_of_its_object_pixels_show():
    masks = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0]]]).bool()
    share, part = token_truth(masks, torch.tensor([[[2, 1, 3, 3], [1, 3, 3, 3]]]), 2)
    assert share.tolist() == [[0.75, 0]]
    assert part.tolist() == [[1, 0]]
    assert token_truth(masks, torch.zeros(1, 2, 4, dtype=torch.long), 2)[1].tolist() == [[0, 0]]


def test_share_of_key_points_on_the_object_by_hand():
    share = torch.tensor([[1.0, 0.5, 0.0, 0.0]]).expand(2, -1)
    token, valid = (
        torch.tensor([[0, 1, 2], [2, 3, 0]]),
        torch.tensor([[True, True, True], [True, False, True]]),
    )
    assert share_on_object(token, valid, share).tolist() == [0.5, 0.5]
    assert share_on_object(token, ~valid, share).isnan().tolist() == [True, False]


def test_frozen_key_points_point_where_a_token_does():
    tokens = Tokens.of(torch.eye(3)[None])
    points = torch.tensor([[[5.0, 0, 0], [1, 1, 0], [0, 0, 2]]])
    assert frozen_share(
        points, tokens, torch.tensor([[True, True, True]])
    ).tolist() == pytest.approx([2 / 3])
    assert frozen_share(
        points, tokens, torch.tensor([[True, True, False]])
    ).tolist() == pytest.approx([1 / 3])
