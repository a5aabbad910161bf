"""What the book draws of EPLD: labels by layer, overlap by depth, agreement of labellers."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.grid_targets import points_of, table
from test_epld_method import CANVAS, SCENE, batch_of, method

from pointseg.bookkit import layers
from pointseg.bookkit.diagnostics import epld
from pointseg.bookkit.diagnostics.agreement import agreement, overlap_by_agreement
from pointseg.bookkit.diagnostics.epld import (
    benched_depth,
    benched_rows,
    by_depth,
    evidence_of,
    labels_by_layer,
    tables_by_layer,
)
from pointseg.bookkit.diagnostics.labels import one_point_each
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.lab.layer_scores import layer_scores
from pointseg.metrics.pseudo import ObjectTable
from pointseg.papers.epld.queries import targets_on_grid
from pointseg.papers.method import targets_of
from pointseg.structures import Points, Truth


def test_the_last_layer_s_label_is_the_method_s_and_each_is_its_own_layer_s():
    whole, batch = method(layers=3), batch_of(SCENE)
    layers = labels_by_layer(whole, batch)
    assert len(layers) == 3
    assert torch.equal(layers[-1][0].segments, whole.pseudo_labels(batch)[0].segments)
    evidence = evidence_of(whole, batch)
    for k in range(3):
        assert torch.equal(evidence.up_to(k + 1).estimate.label[-1], evidence.estimate.label[k])


def truth_of(*masks, label, is_thing):
    n, size = len(masks), masks[0].shape
    label, is_thing = torch.tensor(label), torch.tensor(is_thing)
    return Truth(torch.stack(masks), label, torch.arange(1, n + 1), is_thing,
                 torch.zeros(n).bool(), torch.zeros(size).bool())  # fmt: skip


def test_each_row_of_a_layer_s_label_meets_the_truth_of_its_own_target():
    """Stuff stands first in the truth and last in the labels; overlaps are those of the masks."""
    left = torch.zeros(CANVAS, dtype=torch.bool)
    left[:, :32] = True
    truth = truth_of(~left, left, label=[2, 0], is_thing=[False, True])
    points = Points(
        torch.tensor([[50.0, 30], [10.0, 30]]), truth.label, truth.target, truth.is_thing
    )
    whole, batch = method(layers=2), batch_of(points)
    tables = tables_by_layer(whole, batch, [truth], [points])
    for overlap, (label,) in zip(tables, labels_by_layer(whole, batch)):
        assert label.label.tolist() == [0, 2]
        for row, (mask, segment) in enumerate(((~left, 2), (left, 1))):
            mine = label.segments == segment
            expected = float((mask & mine).sum() / (mask | mine).sum())
            assert overlap.iou[row] == pytest.approx(expected)
    assert tables[0].depth == pytest.approx(np.array([14 / 16, 11 / 16]))


def test_overlap_by_depth_is_the_mean_of_each_third_with_its_interval():
    """By hand: two points near the border, none between, one deep inside."""
    filler = np.zeros(3)
    table = ObjectTable(
        image=filler, iou=np.array([0.2, 0.4, 0.9]), label=filler, thing=filler, area=filler,
        share=filler, depth=np.array([0.1, 0.3, 1.0]), touching=filler,
    )  # fmt: skip
    ((near, middle, deep),) = by_depth([table])
    assert near == pytest.approx([30, 196 * np.sqrt(0.02) / np.sqrt(2)])
    assert np.isnan(middle).all() and deep[0] == pytest.approx(90) and np.isnan(deep[1])


def test_on_the_bench_gains_by_depth_vary_with_the_images_and_leave_stuff_out():
    """By hand: two seeds, two images; deep objects gain .2 and .4, the point at the rim .6."""
    table = {
        "image": np.array([0, 0, 3, 3.0]),
        "contact": np.array(["apart", "apart", "same", "stuff"]),
        "depth": np.array([0.9, 0.1, 0.8, 0.1]),
        "iou_1": np.array([0.5, 0.2, 0.3, 0]),
        "iou_2": np.array([0.7, 0.8, 0.7, 1.0]),
    }
    rim, middle, deep = benched_depth([table, table])
    assert rim[:, 0] == pytest.approx([20, 80, 60]) and np.isnan(rim[:, 1]).all()
    assert np.isnan(middle).all()
    assert deep[:, 0] == pytest.approx([40, 70, 30])
    # of each image the two seeds' objects lie .1 off the mean, on the same side
    assert deep[-1, 1] == pytest.approx(196 * np.sqrt(2 * 0.2**2) / 4)


def test_the_bench_scores_each_layer_and_the_last_as_the_label_itself():
    """A path's labels, which are no argmax of a layer, have no columns."""
    left = torch.zeros(CANVAS, dtype=torch.bool)
    left[:, :32] = True
    truth = truth_of(left, ~left, label=[0, 2], is_thing=[True, False])
    batch = batch_of(points_of((10, 30, 0, 1), (50, 30, 2, 2)))
    whole = method(layers=3)
    evidence = evidence_of(whole, batch)
    columns = layer_scores(whole.labeller, evidence, batch, [truth])
    tables = tables_by_layer(whole, batch, [truth], batch.points)
    assert list(columns) == ["iou_1", "iou_2", "iou_3"]
    for overlap, layer in zip(columns.values(), tables):
        assert overlap == pytest.approx(layer.iou.tolist())
    crossed = method(layers=3, cost="path").labeller
    assert layer_scores(crossed, evidence, batch, [truth]) == {}


def test_a_row_of_the_bench_without_columns_by_layer_is_not_in_the_table(monkeypatch):
    by_seed = {"s0": {"iou": np.ones(2)}, "s1": {"iou": np.ones(2)}}
    runs = [SimpleNamespace(id=f"bench-bed/epld-full/{seed}", seed=seed) for seed in by_seed]
    monkeypatch.setattr(epld, "objects_of", lambda run: by_seed[run.seed])
    assert benched_rows(runs, "bed", "epld-full") == []
    layered = {"iou_1": np.array([0.2, 0.4]), "iou_2": np.array([0.4, 0.8])}
    by_seed["s1"] |= layered | {"image": np.array([0, 1.0]), "depth": np.array([0.1, 0.2]),
                                "contact": np.array(["same", "apart"])}  # fmt: skip
    rim, middle, _ = benched_rows(runs, "bed", "epld-full")
    assert rim[:2] == ["bed, 1 seed", "near the border"]
    assert rim[2:] == ["30.0 ± 13.9", "60.0 ± 27.7", "30.0 ± 13.9"] and middle[2] == "-"
    assert benched_rows(runs, "other", "epld-full") == []


def test_agreement_is_the_mean_overlap_of_all_pairs():
    """By hand: three labellers, two targets on four pixels."""
    masks = torch.tensor([
        [[[1, 1, 0, 0]], [[0, 0, 1, 1]]],
        [[[1, 0, 0, 0]], [[0, 0, 1, 1]]],
        [[[1, 1, 1, 1]], [[0, 0, 0, 0]]],
    ])  # fmt: skip
    assert agreement(masks).tolist() == pytest.approx([(1 / 2 + 1 / 2 + 1 / 4) / 3, 1 / 3])
    assert torch.equal(agreement(masks[[0, 0]]), torch.ones(2))


def test_targets_are_grouped_from_the_least_agreed_on_to_the_most():
    confidence, iou = torch.tensor([0.9, 0.1, 0.5, 0.2]), torch.tensor([0.8, 0.2, 0.4, 0.0])
    rows = overlap_by_agreement(confidence, iou, groups=2)
    np.testing.assert_allclose(rows, [[0.15, 0.1, 2], [0.7, 0.6, 2]], rtol=1e-6)


def test_with_features_of_the_truth_six_rounds_label_better_than_one():
    """Nothing is learnt: what Eq. 1 to 7 do by themselves, on Bestiary images of the book."""
    right = torch.stack([rounds_of(index) for index in (52, 12, 28)]).mean(0)
    assert 0.6 < right[0] < right[-1]


def rounds_of(index):
    """Share of cells with the right owner after each of six rounds."""
    scene = draw(0, "val", index, 128)
    points = one_point_each(scene.truth, torch.Generator().manual_seed(0))
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    features = layers.features_of_truth(scene.truth, image, len(CATEGORIES), (32, 32))
    targets = targets_on_grid([points], torch.ones(1, 32, 32).bool(), (128, 128))
    evidence = layers.iterated(features, targets, len(CATEGORIES))
    return layers.right_owners(scene, points, image, evidence)


def test_the_strip_has_one_equal_part_a_layer_and_the_slider_shows_one():
    whole, batch = method(layers=3), batch_of(SCENE)
    evidence = evidence_of(whole, batch)
    xy = layers.target_points(SCENE)
    strip = layers.stacked(layers.layer_figures(batch.images[0], evidence, xy))
    width, height = Image.open(io.BytesIO(strip)).size
    assert height % 3 == 0 and len(strip) <= layers.LARGEST
    page = layers.slider(strip, 3, "maps")
    assert (
        f"aspect-ratio:{width}/{height // 3}" in page and 'max="3"' in page and 'alt="maps"' in page
    )


def test_points_stand_in_the_order_of_the_rows_of_the_table():
    points = points_of((1, 1, 3, 9), (5, 5, 0, 4), (6, 6, 0, 4), (7, 7, 2, 2), (8, 8, 1, 3))
    assert targets_of(points).tolist() == [4, 3, 9, 2]
    assert layers.target_points(points).tolist() == [[5, 5], [8, 8], [1, 1], [7, 7]]
    label = table([points], (9, 9)).label[0]
    assert label.tolist() == [0, 1, 3, 2]
