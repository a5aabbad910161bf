"""The label branch's losses against double loops, and no artefact at the frame of the image.

[P2M-S Eq. 4-7]
"""

import math

import numpy as np
import pytest
import torch

from pointseg.ops import colour as colours
from pointseg.ops.semantic_losses import (
    PointMasks,
    PseudoLabel,
    boundary_loss,
    dilated_points,
    local_colour_loss,
    long_range_loss,
    manifold_loss,
    partial_cross_entropy,
)
from pointseg.ops.tree import spanning_forest, tree_filter
from pointseg.structures import IGNORE, Points


def random(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rgb, lab", [
    ((1, 1, 1), (100, 0, 0)), ((0, 0, 0), (0, 0, 0)), ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ((1, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 1), (32.30, 79.19, -107.86)),
])  # fmt: skip
def test_eq04_lab_of_known_colours(rgb, lab):
    """Greys have no colour, red and blue are the values every colour table prints."""
    got = colours.rgb_to_lab(torch.tensor(rgb).float()[:, None, None])[:, 0, 0]
    np.testing.assert_allclose(got.numpy(), lab, atol=0.05)


def test_eq04_similarity_is_one_for_equals_and_threshold_is_a_distance():
    """[P2M-S Eq. 4]"""
    plane = torch.zeros(3, 1, 2)
    assert colours.colour_similarity(plane[..., :1], plane[..., 1:]) == 1
    for distance, alike in ((-2 * math.log(0.3) - 0.01, True), (-2 * math.log(0.3) + 0.01, False)):
        plane[0, 0, 1] = distance
        assert colours.alike(plane, (0, 1)).item() is alike


def slow_local_loss(prob, lab, tau=0.3, theta=2.0):
    total, count = 0.0, 0
    b, _, h, w = prob.shape
    for n in range(b):
        for i in np.ndindex(h, w):
            for step in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
                j = (i[0] + step[0], i[1] + step[1])
                if not (0 <= j[0] < h and 0 <= j[1] < w):
                    continue
                if math.exp(-float((lab[n, :, *i] - lab[n, :, *j]).norm()) / theta) >= tau:
                    total -= math.log(float(prob[n, :, *i] @ prob[n, :, *j]))
                    count += 1
    return total / count


def test_eq05_local_loss_equals_the_double_loop():
    """[P2M-S Eq. 5]"""
    prob, lab = random(0, 2, 3, 4, 5).softmax(1), 6 * random(1, 2, 3, 4, 5)
    got = local_colour_loss(prob.log(), lab)
    assert float(got) == pytest.approx(slow_local_loss(prob, lab))


def test_eq05_padding_takes_no_part_and_five_by_five_windows_work():
    prob, lab = random(2, 1, 3, 8, 8).softmax(1), 6 * random(3, 1, 3, 8, 8)
    padding = torch.zeros(1, 8, 8, dtype=torch.bool)
    padding[:, 6:], padding[:, :, 5:] = True, True
    for offsets in (colours.window(1, 1), colours.window(2, 2)):
        alone = local_colour_loss(prob[..., :6, :5].log(), lab[..., :6, :5], offsets)
        torch.testing.assert_close(local_colour_loss(prob.log(), lab, offsets, padding), alone)
    assert len(colours.window(1, 1)) == 4 and len(colours.window(2, 2)) == 12


def test_eq07_loss_is_the_mean_gap_to_the_filtered_map_and_never_negative():
    """[P2M-S Eq. 7]"""
    prob, guide = random(4, 1, 3, 5, 6).softmax(1), 0.1 * random(5, 1, 3, 5, 6)
    tree = spanning_forest(guide)
    wanted = (prob - tree_filter(prob, tree)).abs().sum() / 30
    torch.testing.assert_close(long_range_loss(prob, tree), wanted)
    assert long_range_loss(torch.full_like(prob, 1 / 3), tree) < 1e-12


def points_at(xy, label):
    m = len(xy)
    return Points(
        torch.tensor(xy), torch.tensor(label), torch.arange(m) + 1, torch.ones(m, dtype=torch.bool)
    )


def test_points_grow_to_squares_and_every_point_keeps_its_cell():
    points = points_at([[6.0, 6.0], [14.5, 6.0], [15.5, 15.5]], [4, 2, 1])
    grown = dilated_points([points], (1, 4, 4), 8.0, (16, 16))[0]
    i = IGNORE
    assert grown.tolist() == [[4, 4, 4, 2], [4, 4, 4, 2], [4, 4, 4, 2], [i, i, i, 1]]
    small = dilated_points([points], (1, 4, 4), 1.0, (16, 16))[0]
    assert small.tolist() == [[i, i, i, i], [i, 4, i, 2], [i, i, i, i], [i, i, i, 1]]


def test_partial_cross_entropy_counts_labelled_cells_only():
    logits = random(6, 1, 3, 2, 2)
    target = torch.tensor([[[1, IGNORE], [IGNORE, 0]]])
    log = logits.float().log_softmax(1)[0]
    torch.testing.assert_close(
        partial_cross_entropy(logits, target), -(log[1, 0, 0] + log[0, 1, 1]) / 2
    )
    assert partial_cross_entropy(logits, torch.full_like(target, IGNORE)) == 0


def two_things(h=6, w=8):
    things = torch.full((h, w), -1)
    things[1:4, 1:3], things[1:4, 3:5] = 0, 1
    stuff = torch.where(things < 0, 0, IGNORE)
    stuff[:, 6:] = IGNORE
    return PseudoLabel(things, stuff)


def slow_boundary_loss(boundary, label):
    pools = {"thing": [], "stuff": [], "other": []}
    h, w = label.things.shape
    sure = (label.things >= 0) | (label.stuff != IGNORE)
    for i in np.ndindex(h, w):
        for step in ((0, 1), (1, 0), (1, 1), (1, -1)):
            j = (i[0] + step[0], i[1] + step[1])
            if not (0 <= j[0] < h and 0 <= j[1] < w and sure[i] and sure[j]):
                continue
            affinity = 1 - max(float(boundary[i]), float(boundary[j]))
            a, b = int(label.things[i]), int(label.things[j])
            if a == b and a >= 0:
                pools["thing"].append(-math.log(affinity))
            elif a == b == -1 and label.stuff[i] == label.stuff[j]:
                pools["stuff"].append(-math.log(affinity))
            else:
                pools["other"].append(-math.log(1 - affinity))
    thing, stuff, other = (np.mean(pool) for pool in pools.values())
    return 0.5 * (0.5 * (thing + stuff) + other)


def test_boundary_loss_equals_the_double_loop():
    boundary, label = random(7, 1, 1, 6, 8), two_things()
    assert float(boundary_loss(boundary, label)) == pytest.approx(
        slow_boundary_loss(boundary[0, 0], label)
    )


def test_boundary_loss_draws_no_frame():
    """One stuff class everywhere: nothing may push the boundary up, at the frame least of all."""
    flat = PseudoLabel(torch.full((5, 7), -1), torch.zeros(5, 7, dtype=torch.long))
    boundary = torch.full((1, 1, 5, 7), 0.5, requires_grad=True)
    boundary_loss(boundary, flat).backward()
    assert (boundary.grad >= 0).all() and boundary.grad[
        ..., 0, :
    ].sum() > 0  # descending lowers it everywhere
    inner = PseudoLabel(flat.things, flat.stuff.clone())
    padding = torch.zeros(1, 5, 7, dtype=torch.bool)
    padding[..., 5:] = True
    inner.stuff[:, 5:] = 1  # whatever stands in the padding
    boundary.grad = None
    boundary_loss(boundary, inner, padding).backward()
    assert (boundary.grad >= 0).all() and (boundary.grad[..., 5:] == 0).all()


def test_boundary_rises_between_segments_and_falls_inside():
    label = PseudoLabel(torch.full((6, 12), -1), torch.tensor([0] * 6 + [1] * 6).repeat(6, 1))
    boundary = torch.full((1, 1, 6, 12), 0.5, dtype=torch.float64, requires_grad=True)
    boundary_loss(boundary, label).backward()
    slope = boundary.grad[0, 0]
    assert (slope[:, 5:7] < 0).all() and (slope[:, :5] > 0).all() and (slope[:, 7:] > 0).all()


def slow_manifold_loss(features, images):
    """Image by image and point by point."""
    total, several = 0.0, 0
    for plane, one in zip(features, images):
        if len(one.masks) < 2:
            continue
        several += 1
        means = [plane[:, mask].mean(1) if mask.any() else plane[:, 0, 0] * 0 for mask in one.masks]
        for cell, owner in zip(one.cells.tolist(), one.owner.tolist()):
            here = plane[:, cell // plane.shape[2], cell % plane.shape[2]]
            alike = [math.exp(float(here @ mean) / 0.07) for mean in means]
            total -= math.log(alike[owner] / sum(alike)) / len(one.cells)
    return total / max(several, 1)


def test_manifold_loss_equals_the_double_loop_over_images_that_differ():
    features = torch.nn.functional.normalize(random(7, 4, 5, 3, 4), dim=1).requires_grad_()
    masks = [random(k, n, 3, 4) > 0 for k, n in enumerate((3, 1, 2, 0))]
    masks[2][1] = False  # a target that owns nothing
    at = [([1, 7, 8, 2], [0, 2, 1, 1]), ([3], [0]), ([5, 0], [0, 1]), ([], [])]
    images = [PointMasks(torch.tensor(cells).long(), torch.tensor(owner).long(), mask)
              for (cells, owner), mask in zip(at, masks)]  # fmt: skip
    wanted = slow_manifold_loss(features.detach(), images)
    assert manifold_loss(features, images).item() == pytest.approx(wanted)
    manifold_loss(features[:1], images[:1]).backward()
    assert features.grad.isfinite().all() and features.grad[0].any()
    nothing = manifold_loss(features[3:], images[3:])
    assert nothing == 0 and nothing.requires_grad


def test_manifold_loss_of_separated_features_is_small_and_of_swapped_ones_large():
    features = torch.zeros(1, 2, 1, 4)
    features[0, 0, 0, :2], features[0, 1, 0, 2:] = 1, 1
    masks = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 1, 1]]]).bool()
    cells, right, wrong = torch.tensor([0, 3]), torch.tensor([0, 1]), torch.tensor([1, 0])
    good = manifold_loss(features, [PointMasks(cells, right, masks)])
    assert float(good) == pytest.approx(math.log(1 + math.exp(-1 / 0.07)), abs=1e-6)
    assert manifold_loss(features, [PointMasks(cells, wrong, masks)]) > 10
    assert manifold_loss(features, [PointMasks(cells[:1], right[:1], masks[:1])]) == 0
