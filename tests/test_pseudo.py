"""Quality of pseudo labels: hand-worked images and loops over pixels as oracle."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pointseg.metrics.pseudo import (
    iou_by_target,
    object_table,
    part_purity,
    part_recall_of_masks,
    part_recall_of_points,
    point_depth,
    pseudo_scores,
    summary,
    touching_same_class,
)
from pointseg.structures import Instances, Panoptic, Points, Truth


def truth_of(masks, label=None, parts=None, void=None, crowd=None, thing=None):
    """Targets are 10, 20, 30 ..., so that a row is never a target."""
    n = len(masks)
    no = torch.zeros(n, dtype=torch.bool)
    return Truth(
        masks,
        torch.zeros(n).long() if label is None else torch.tensor(label),
        10 * torch.arange(1, n + 1),
        ~no if thing is None else torch.tensor(thing),
        no if crowd is None else torch.tensor(crowd),
        torch.zeros(masks.shape[1:]).bool() if void is None else void,
        parts,
    )


def bars(*spans, h=4, w=40):
    """[n, h, w] bool: columns [a, b) of each span."""
    masks = torch.zeros(len(spans), h, w, dtype=torch.bool)
    for mask, (a, b) in zip(masks, spans):
        mask[:, a:b] = True
    return masks


def points_at(*rows):
    """(x, y, target) each."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
    n = len(table)
    return Points(
        table[:, :2], torch.zeros(n).long(), table[:, 2].long(), torch.ones(n, dtype=torch.bool)
    )


def instances(masks):
    n = len(masks)
    return Instances(masks, torch.ones(n), torch.zeros(n).long(), torch.zeros(n, 4))


def test_iou_by_hand_and_by_target():
    truth = truth_of(bars((0, 10), (20, 30)))
    pseudo = bars((20, 25), (0, 10))
    assert iou_by_target(truth, pseudo, torch.tensor([20, 10])).tolist() == [1.0, 0.5]
    assert iou_by_target(truth, pseudo).tolist() == [
        0.0,
        0.0,
    ]  # in the order of the truth: both miss
    assert iou_by_target(truth, pseudo[:1], torch.tensor([20])).tolist() == [
        0.0,
        0.5,
    ]  # none for the first


def test_void_is_struck_from_both_masks():
    void = bars((8, 14))[0]
    assert iou_by_target(truth_of(bars((0, 10)), void=void), bars((0, 16))).tolist() == [
        0.8
    ]  # 8 of 8 + 2


def test_labels_in_another_number_need_targets():
    with pytest.raises(ValueError, match="which stand for which"):
        iou_by_target(truth_of(bars((0, 10), (20, 30))), bars((0, 10)))


def test_perfect_is_100_and_empty_0_in_every_group_that_exists():
    truth = truth_of(bars((0, 10), (11, 20), (30, 40)), label=[0, 0, 1])
    points = [points_at((5, 2, 10), (14, 1, 20), (35, 2, 30))]
    perfect = pseudo_scores([truth], [instances(truth.masks)], points)
    empty = pseudo_scores([truth], [instances(truth.masks & False)], points)
    assert {v for v in perfect.values() if not math.isnan(v)} == {100.0}
    assert {v for v in empty.values() if not math.isnan(v)} == {0.0}
    assert math.isnan(perfect["mIoU_large"]) and not math.isnan(perfect["mIoU_touching"])


def test_groups_by_size_are_cocos():
    masks = torch.zeros(4, 100, 200, dtype=torch.bool)
    for mask, (h, w) in zip(masks, [(31, 33), (32, 32), (95, 97), (96, 96)]):
        mask[:h, :w] = True
    table = object_table([truth_of(masks)], [instances(masks & False)])
    assert table.area.tolist() == [1023, 1024, 9215, 9216]
    table = replace(table, iou=np.array([0.1, 0.2, 0.3, 0.4]))
    scores = summary(table)
    assert scores["mIoU_small"] == pytest.approx(10) and scores["mIoU_medium"] == pytest.approx(25)
    assert scores["mIoU_large"] == pytest.approx(40) and scores["mIoU"] == pytest.approx(25)
    assert scores["mIoU_rel_large"] == pytest.approx(
        25
    )  # all cover more than 3 % of this small image


def test_crowds_are_left_out_and_stuff_counts_in_panoptic_labels_only():
    truth = truth_of(
        bars((0, 10), (10, 20), (20, 40)), crowd=[False, True, False], thing=[True, True, False]
    )
    assert len(object_table([truth], [instances(truth.masks[:1])]).iou) == 1
    both = truth.masks[[0, 2]]
    panoptic = Panoptic((both * torch.tensor([1, 2])[:, None, None]).sum(0), torch.tensor([0, 0]))
    assert object_table([truth], [panoptic]).iou.tolist() == [1.0, 1.0]


def test_the_mean_is_of_things_whoever_labels_and_stuff_has_one_of_its_own():
    truth = truth_of(bars((0, 10), (10, 20), (20, 40)), thing=[True, True, False])
    wrong = Panoptic(truth.masks[0].int() + 3 * truth.masks[2].int(), torch.zeros(3).long())
    scores = summary(object_table([truth], [wrong], targets=[truth.target]))
    assert scores["mIoU"] == pytest.approx(50) and scores["mIoU_st"] == pytest.approx(100)
    alone = summary(
        object_table(
            [truth], [instances(truth.masks[[0, 0]] & torch.tensor([True, False])[:, None, None])]
        )
    )
    assert alone["mIoU"] == pytest.approx(50) and np.isnan(alone["mIoU_st"])


def test_depth_of_a_point_by_hand():
    """A 5 x 5 square: rings at distance 1, 2, 3; the best of several points counts; one outside
    counts not."""
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 2:7, 2:7] = True
    truth = truth_of(mask)
    assert point_depth(truth, points_at((2.5, 2.5, 10))).tolist() == pytest.approx([1 / 3])
    assert point_depth(truth, points_at((2.5, 2.5, 10), (4.5, 4.5, 10))).tolist() == [1.0]
    assert point_depth(truth, points_at((0.5, 0.5, 10))).tolist() == [0.0]
    assert np.isnan(point_depth(truth, points_at((4.5, 4.5, 20), (-3, 99, 10)))).all()


def test_the_frame_is_a_border():
    assert point_depth(truth_of(bars((0, 40))), points_at((20, 0, 10))).tolist() == [
        0.5
    ]  # 4 rows: depths 1 2 2 1


def test_touching_is_of_one_class_and_within_two_pixels():
    truth = truth_of(bars((0, 10), (11, 20), (20, 25), (29, 35)), label=[0, 0, 1, 1])
    assert touching_same_class(truth).tolist() == [True, True, False, False]


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_touching_equals_the_loop_over_pairs_of_pixels(seed):
    rng = np.random.default_rng(seed)
    masks = torch.as_tensor(rng.random((4, 7, 9)) < 0.06)
    label = rng.integers(0, 2, 4).tolist()
    slow = []
    for i in range(4):
        pairs = [
            (p, q)
            for j in range(4)
            if j != i and label[i] == label[j]
            for p in masks[i].nonzero()
            for q in masks[j].nonzero()
        ]
        slow.append(any(float(((p - q) ** 2).sum()) <= 4 for p, q in pairs))
    assert touching_same_class(truth_of(masks, label)).tolist() == slow


def parts_image():
    """One object of three parts, 10, 6 and 4 columns wide, and a second of one part."""
    parts = torch.zeros(4, 40, dtype=torch.uint8)
    parts[:, :10], parts[:, 10:16], parts[:, 16:20], parts[:, 30:40] = 1, 2, 3, 1
    return truth_of(bars((0, 20), (30, 40)), parts=parts)


def test_part_recall_of_points_by_hand():
    truth = parts_image()
    points = points_at(
        (5, 1, 10), (6, 1, 10), (17, 2, 10), (12, 2, 20)
    )  # the last is not the first object's own
    assert part_recall_of_points(truth, points).tolist() == pytest.approx([2 / 3, 0.0])


def test_a_point_beside_the_object_finds_no_part():
    assert (
        part_recall_of_points(parts_image(), points_at((25, 1, 10), (35, 1, 10), (-1, 0, 10)))[0]
        == 0
    )


def test_part_recall_of_masks_needs_more_than_half_of_the_part():
    truth = parts_image()
    shares = bars((0, 13), (30, 40))  # all of part 1, exactly half of part 2, none of part 3
    assert part_recall_of_masks(truth, shares).tolist() == pytest.approx([1 / 3, 1.0])
    assert part_recall_of_masks(truth, bars((0, 14), (0, 0))).tolist() == pytest.approx(
        [2 / 3, 0.0]
    )


def test_an_object_without_parts_has_no_part_recall():
    truth = truth_of(bars((0, 20)), parts=torch.zeros(4, 40, dtype=torch.uint8))
    assert np.isnan(part_recall_of_points(truth, points_at((5, 1, 10)))).all()
    assert np.isnan(part_recall_of_masks(truth, bars((0, 20)))).all()


def test_purity_by_hand():
    """Label 1: 3 px of part 1, 1 of part 2. Label 2: 1 px of part 2, 3 off the object. Right: 3 + 1
    of 8."""
    parts = torch.tensor([[1, 1, 1, 2, 2, 0, 0, 0, 1]])
    shares = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2, 0]])
    assert part_purity(parts, shares) == 0.5
    assert part_purity(parts, parts) == 1.0
    assert math.isnan(part_purity(parts, 0 * shares))
    assert part_purity(0 * parts, shares) == 0.0


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_purity_equals_the_loop_and_ignores_names(seed):
    rng = np.random.default_rng(seed)
    parts, shares = (
        torch.as_tensor(rng.integers(0, 4, (6, 7))),
        torch.as_tensor(rng.integers(0, 5, (6, 7))),
    )
    right = sum(
        max(int(((shares == k) & (parts == p)).sum()) for p in range(1, 4)) for k in range(1, 5)
    )
    renamed = torch.tensor([0, 9, 3, 7, 2])[shares]
    assert part_purity(parts, shares) == pytest.approx(right / int((shares > 0).sum()))
    assert part_purity(parts, renamed) == pytest.approx(part_purity(parts, shares))


@given(st.integers(0, 10**6), st.randoms())
@settings(max_examples=20, deadline=None)
def test_order_of_objects_does_not_matter(seed, random):
    rng = np.random.default_rng(seed)
    truth = truth_of(torch.as_tensor(rng.random((4, 8, 9)) < 0.3), rng.integers(0, 2, 4).tolist())
    pseudo = torch.as_tensor(rng.random((4, 8, 9)) < 0.3)
    order = torch.tensor(random.sample(range(4), 4))
    points = [points_at(*[(rng.uniform(0, 9), rng.uniform(0, 8), t) for t in (10, 20, 30, 40)])]
    first = pseudo_scores([truth], [instances(pseudo)], points)
    again = pseudo_scores([truth.pick(order)], [instances(pseudo[order])], points)
    named = pseudo_scores([truth], [instances(pseudo[order])], points, [truth.target[order]])
    assert first == pytest.approx(again, nan_ok=True)
    assert first == pytest.approx(named, nan_ok=True)
