"""The pictures of the chapter EXITS: what they draw is what the method computes."""

import math

import matplotlib
import pytest
import torch

from pointseg.bookkit import layers, six_points, walks
from pointseg.data.bestiary import draw
from pointseg.ownership import NOBODY
from pointseg.papers.exits.retrieval import Levels
from pointseg.papers.exits.walk import residual

matplotlib.use("agg")


@pytest.fixture(scope="module")
def walk():
    return walks.walk_of(draw(0, "val", 52, 128), 0, walks.shipped_extractor(96))


def test_a_walk_has_the_seeds_and_scores_of_the_method(walk):
    extractor = walks.shipped_extractor(96)
    seeds = extractor.seeds(walk.view)
    assert torch.equal(seeds.background, walk.seeds.background)
    by_method = extractor.scores(walk.view.pixels, seeds)
    assert torch.allclose(walks.scores(walk.walked(3)), by_method, atol=1e-4)
    assert max(residual(walk.transition)) < 0.01 < max(residual(walk.similarity))
    assert 0 <= walk.auc(2) <= 1 and 0 <= walk.auc(math.inf) <= 1


def test_every_hop_is_a_figure_behind_one_slider(walk):
    drawn = walks.hop_figures(walk, Levels(0.05, 0.05), (0, 3, math.inf))
    page = layers.slider(layers.stacked(drawn), len(drawn), "hops", "picture")
    assert page.count("<input") == 1 and ">picture <" in page
    assert len(walks.sinkhorn_figure(walk, 5).axes) == 3


def test_parameters_are_those_of_the_paper_s_table():
    counts = walks.parameters_at_paper_size()
    assert counts == {"similarity extractor": 85_798_656, "mask generator": 93_090_400}


def test_four_clicks_own_pixels_of_things_in_their_boxes_alone():
    case = six_points.case_of(six_points.SHOWN)
    owners = six_points.walk_owners(case)
    things = case.points.is_thing.nonzero()[:, 0].tolist()
    assert set(owners.unique().tolist()) == {NOBODY, *things}
    for row, (left, top, right, bottom) in zip(things, walks.clicked(case.scene).box.long()):
        outside = torch.ones_like(owners, dtype=torch.bool)
        outside[max(0, top - 8) : bottom + 8, max(0, left - 8) : right + 8] = False
        assert not (owners[outside] == row).any()
