"""The study of a trained label path sees each object once, beside its own truth."""

import dataclasses

import pytest
import torch

from pointseg.bookkit.diagnostics.attentionshift import (
    keypoint_study,
    label_path_study,
    mask_shares,
    mask_study,
    pictured,
    reset,
    truths_of,
)
from pointseg.bookkit.diagnostics.panoptic import pseudo_panoptic_quality
from pointseg.lab import recipe
from pointseg.lab.run_data import open_corpus
from pointseg.ops.components import tight_boxes
from pointseg.structures import Instances, Panoptic, Truth


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("study"))
        yield open_corpus(recipe.make("attentionshift", points={"kind": "centre"}, layout="voc"))


def test_masks_come_in_the_order_of_the_points():
    masks = torch.eye(3, dtype=torch.bool)[:, None].expand(3, 2, 3)
    nothing = torch.zeros(3, dtype=torch.bool)
    truth = Truth(masks=masks, label=torch.arange(3), target=torch.tensor([7, 8, 9]),
                  is_thing=~nothing, is_crowd=nothing,
                  void=torch.zeros(2, 3, dtype=torch.bool), parts=torch.ones(2, 3))  # fmt: skip
    scores, parts = truths_of(truth, torch.tensor([9, 7, 9]))
    assert torch.equal(scores, masks[[2, 0]]) and parts.shape == (2, 2, 3)


def test_every_object_is_met_once_and_holds_its_point(corpus):
    met = 0
    for batch, masks, parts in pictured(corpus, 8, 3):
        things = [points.things() for points in batch.points]
        assert len(masks) == len(parts) == sum(len(t) for t in things)
        boxes, xy = tight_boxes(masks)[0], torch.cat([t.xy for t in things])
        assert ((boxes[:, :2] <= xy) & (xy <= boxes[:, 2:])).all()
        assert ((boxes[:, :2] + boxes[:, 2:]) / 2 - xy).abs().median() <= 2
        met += len(batch)
    assert met == 8


def test_numbers_are_percentages_of_every_iteration_and_depth(corpus):
    torch.manual_seed(0)
    method = dataclasses.replace(corpus.recipe).build(corpus.categories)
    scores = label_path_study(method, corpus, 4, 2)
    assert {"A^S covers half", "purity, iteration 3", "A^S of 2 blocks covers half"} <= set(scores)
    assert all(0 <= value <= 100 for value in scores.values())


def test_cases_change_the_label_path_and_nothing_else(corpus):
    torch.manual_seed(0)
    method = corpus.recipe.build(corpus.categories)
    before = method.config
    every = {"filtering": False}
    cases = {"as it is": {}, "all key-points": every, "bare tokens": every | {"shift": False}}
    scores = keypoint_study(method, corpus, cases, 4, 2)
    assert list(scores) == list(cases) and method.config == method.labeller.config == before
    kept = {name: row["an object"] for name, row in scores.items()}
    assert kept["as it is"] < kept["all key-points"] <= kept["bare tokens"] == before.keypoints
    assert all(0 <= row["on the object"] <= 100 for row in scores.values())
    assert reset(method, {"shift": False}).student is method.student


def test_mask_shares_by_hand():
    """An object of 4 pixels, and three masks.

    One of 6 with 3 of them on it, one that is the object, and an empty one.
    """
    truth = torch.zeros(3, 2, 5, dtype=torch.bool)
    truth[:, :, :2] = True
    mask = torch.zeros_like(truth)
    mask[0, :, 1:4] = True
    mask[0, 0, 0], mask[0, 1, 3] = True, False
    mask[1] = truth[1]
    shares = mask_shares(mask, truth)
    torch.testing.assert_close(shares[:2], torch.tensor([[3 / 4, 3 / 6, 3 / 7], [1, 1, 1]]))
    assert shares[2, 0] == shares[2, 2] == 0 and shares[2, 1].isnan()


class Painting(torch.nn.Linear):
    """Pseudo masks are the objects; the detector's are whole pictures."""

    def __init__(self, corpus):
        super().__init__(1, 1)
        self.truths = {i: corpus.train.truth(row) for row, i in enumerate(corpus.train.ids)}

    def pseudo_labels(self, batch):
        pairs = zip(batch.image_ids, batch.points)
        return [
            Instances(truths_of(self.truths[i], p.things().target)[0], None, None, None)
            for i, p in pairs
        ]

    def student_labels(self, batch):
        return [
            dataclasses.replace(one, masks=torch.ones_like(one.masks))
            for one in self.pseudo_labels(batch)
        ]


def test_masks_that_outgrow_their_objects_cover_them_and_lie_beside_them(corpus):
    scores = mask_study(Painting(corpus), corpus, 4, 3)
    assert set(scores["pseudo mask"].values()) == {100}
    wide = scores["detector's mask"]
    assert wide["of the object covered"] == 100 and wide["of the mask on it"] == wide["IoU"] < 50


class Knowing(torch.nn.Linear):
    """Labels every picture with its truth, of the things that `keep` leaves."""

    def __init__(self, corpus, keep):
        super().__init__(1, 1)
        self.truths, self.keep = (
            {i: corpus.train.truth(row) for row, i in enumerate(corpus.train.ids)},
            keep,
        )

    def pseudo_labels(self, batch):
        return [self.painted(self.truths[image_id]) for image_id in batch.image_ids]

    def painted(self, truth):
        kept = truth.pick(~truth.is_crowd & (self.keep | ~truth.is_thing))
        rows = torch.arange(1, len(kept.label) + 1)[:, None, None]
        return Panoptic((kept.masks * rows).amax(0), kept.label)


def test_the_truth_as_a_pseudo_label_has_full_quality_and_without_things_none_of_theirs(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    corpus = open_corpus(recipe.make("psps", layout="panoptic"))
    full = pseudo_panoptic_quality(Knowing(corpus, True), corpus, 6)
    stuff = pseudo_panoptic_quality(Knowing(corpus, False), corpus, 6)
    assert full["PQ"] == full["PQ_th"] == full["PQ_st"] == 100
    assert stuff["PQ_th"] == 0 and stuff["PQ_st"] == 100
