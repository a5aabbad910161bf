"""PSPS from maps to labels: cost, likelihood and the guards it shares with Point2Mask."""

import numpy as np
import pytest
import torch

from pointseg.nets.label_heads import ImageMaps
from pointseg.ops.colour import colour_edges
from pointseg.ops.paths import STEPS
from pointseg.ops.point_labels import LabelledImage
from pointseg.papers.panoptic_labels import PanopticLabels
from pointseg.papers.points_alone import PointsAlone, bare_target, boxes_about
from pointseg.papers.psps import CONFIGS, PSPS, traversing_cost
from pointseg.structures import IGNORE, Batch, Category, Points

CATEGORIES = [Category(1, "cat"), Category(2, "dog"), Category(3, "sky", False)]


def points_of(*rows):
    xy = torch.tensor([row[:2] for row in rows]).float().reshape(-1, 2)
    label, target = (torch.tensor([row[k] for row in rows], dtype=torch.long) for k in (2, 3))
    return Points(xy, label, target, label < 2)


def test_traversing_cost_step_by_step():
    torch.manual_seed(0)
    prob, edges = torch.rand(3, 4, 5).softmax(0), torch.rand(4, 5)
    features = torch.nn.functional.normalize(torch.randn(6, 4, 5), dim=0)
    prices = traversing_cost(prob, features, edges, CONFIGS["paper"])
    for k, (dr, dc) in enumerate(STEPS):
        for r, c in np.ndindex(4, 5):
            if not (0 <= r + dr < 4 and 0 <= c + dc < 5):
                assert prices[k, r, c] == torch.inf
                continue
            cosine = float(features[:, r, c] @ features[:, r + dr, c + dc])
            wanted = float((prob[:, r, c] - prob[:, r + dr, c + dc]).abs().sum()) + 0.1 * float(
                edges[r + dr, c + dc]
            )
            assert float(prices[k, r, c]) == pytest.approx(
                wanted + 0.1 * max(0.0, 1 - cosine), abs=1e-5
            )


def test_colour_edges_see_a_step_and_no_frame():
    image = torch.full((3, 64, 64), 0.2)
    image[:, :, 32:] = 0.8
    edges = colour_edges(image, (16, 16))
    assert edges[:, 7:9].min() > 0.9 and edges[:, :6].max() < 1e-6 and edges[:, 10:].max() < 1e-6
    assert colour_edges(torch.full((3, 64, 64), 0.5), (16, 16)).max() < 1e-3


def test_a_thing_takes_the_pixels_of_its_own_class():
    """Two neighbours of different class: the likelihood keeps each inside its own region."""
    regions = torch.full((16, 16), 0)
    regions[:, 8:], regions[:3] = 1, 2
    logits = 20.0 * torch.nn.functional.one_hot(regions, 3).permute(2, 0, 1).float()
    features = torch.nn.functional.normalize(torch.ones(4, 16, 16), dim=0)
    points = points_of((6, 60, 0, 1), (60, 60, 1, 2), (30, 2, 2, 3))
    model = PSPS.build(CATEGORIES, "smoke").eval()
    labelled = model.labeller.label_image(
        ImageMaps(logits, features, None), torch.full((3, 64, 64), 0.5), points
    )
    assert (labelled.label.things[20:, :28] == 0).all() and (
        labelled.label.things[20:, 36:] == 1
    ).all()
    assert (labelled.label.stuff[:8] == 2).all() and labelled.thing_label.tolist() == [0, 1]


@pytest.mark.parametrize("rows", [[(30, 4, 2, 3)], [(8, 60, 0, 1)], []])
def test_images_without_things_without_stuff_or_without_any_point(rows):
    torch.manual_seed(0)
    model = PSPS.build(CATEGORIES, "smoke")
    batch = Batch(torch.rand(2, 3, 64, 64), [(64, 64), (60, 49)], ["a", "b"],
                  [points_of((3, 5, 1, 4), (40, 40, 2, 5)), points_of(*rows)])  # fmt: skip
    losses = model.losses(batch, 3)
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    shown = model.eval().pseudo_labels(batch)
    assert [p.segments.shape for p in shown] == [(64, 64), (60, 49)]


def test_bare_points_ask_only_for_labelled_pixels_and_one_size_of_box():
    points = points_of((8, 60, 0, 1), (60, 60, 1, 2), (30, 2, 2, 3))
    labelled = LabelledImage.void((64, 60), points)
    target = PanopticLabels([labelled], (64, 64), 2).targets(None).images[0]
    target = bare_target(target, labelled, (64, 64), 0.5)
    assert (
        target.known.sum() == 3 and target.stuff[2, 30] == 0 and (target.stuff != IGNORE).sum() == 1
    )
    boxes = boxes_about(points.xy[:2], 30.0, (64, 60), (64, 64))
    np.testing.assert_allclose(target.boxes.numpy(), boxes.numpy())
    assert boxes[0].tolist() == pytest.approx([11.5 / 64, 54.5 / 64, 23 / 64, 19 / 64])
    losses = PointsAlone.build(CATEGORIES, "smoke").losses(
        Batch(torch.rand(1, 3, 64, 64), [(64, 60)], ["a"], [points]), 0
    )
    assert all(torch.isfinite(v) for v in losses.values())
