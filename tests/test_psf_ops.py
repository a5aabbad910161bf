"""The panoptic student's pure parts: deformable attention, matching, dice, merging."""

import itertools

import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from pointseg.ops.deformable import cell_centres, deformable_attention
from pointseg.ops.weighted_losses import weighted
from pointseg.structures import IGNORE, InputError
from pointseg.students.panoptic_segformer.losses import (
    LOSSES,
    PanopticTarget,
    PanopticTargets,
    centred_boxes,
    dice,
    location_losses,
    match_prices,
    matched,
    stuff_losses,
    stuff_planes,
)
from pointseg.students.panoptic_segformer.merge import MergeRule, merged


def slow_deformable(values, shapes, coordinates, weights):
    """Gathers the four neighbours of each sample one by one."""
    b, q, heads, levels, points, _ = coordinates.shape
    out = torch.zeros(b, q, heads, values.shape[-1], dtype=values.dtype)
    start = np.cumsum([0] + [h * w for h, w in shapes])
    for n, i, m, level, p in np.ndindex(b, q, heads, levels, points):
        h, w = shapes[level]
        x, y = (coordinates[n, i, m, level, p] * torch.tensor([w, h]) - 0.5).tolist()
        x0, y0 = int(np.floor(x)), int(np.floor(y))
        for dy, dx in itertools.product((0, 1), (0, 1)):
            if 0 <= y0 + dy < h and 0 <= x0 + dx < w:
                share = (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy)) * weights[n, i, m, level, p]
                out[n, i, m] += share * values[n, start[level] + (y0 + dy) * w + x0 + dx, m]
    return out.flatten(2)


def test_deformable_attention_equals_a_direct_bilinear_gather():
    torch.manual_seed(0)
    shapes = [(4, 5), (2, 3)]
    values = torch.randn(2, 26, 2, 3, dtype=torch.float64)
    coordinates = (
        torch.rand(2, 4, 2, 2, 3, 2, dtype=torch.float64) * 1.4 - 0.2
    )  # some outside the picture
    weights = torch.rand(2, 4, 2, 2, 3, dtype=torch.float64)
    wanted = slow_deformable(values, shapes, coordinates, weights)
    torch.testing.assert_close(deformable_attention(values, shapes, coordinates, weights), wanted)


def test_deformable_attention_at_cell_centres_reads_the_cells():
    shapes = [(2, 3)]
    values = torch.randn(1, 6, 1, 4, dtype=torch.float64)
    coordinates = cell_centres(shapes).double().reshape(1, 6, 1, 1, 1, 2)
    got = deformable_attention(
        values, shapes, coordinates, torch.ones(1, 6, 1, 1, 1, dtype=torch.float64)
    )
    torch.testing.assert_close(got, values[:, :, 0])


def target(boxes, labels, size=8):
    boxes = torch.tensor(boxes).reshape(-1, 4)
    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    stuff, known = torch.full((size, size), IGNORE), torch.ones(size, size, dtype=torch.bool)
    return PanopticTarget(masks, torch.tensor(labels).long(), boxes, stuff, known)


def batch_of(*targets):
    return PanopticTargets(list(targets))


def test_matching_is_the_cheapest_of_all_permutations():
    torch.manual_seed(1)
    wanted = target([[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.2, 0.2], [0.5, 0.1, 0.1, 0.2]], [0, 1, 1])
    logits, boxes = torch.randn(1, 5, 2), torch.rand(1, 5, 4) * 0.5 + 0.2
    pairs = matched(logits, boxes, batch_of(wanted), ["a"])
    prices = match_prices(logits[0], boxes[0], wanted.thing_label, wanted.boxes)
    best = min(
        sum(float(prices[q, t]) for t, q in enumerate(p))
        for p in itertools.permutations(range(5), 3)
    )
    assert float(prices[pairs.query, pairs.target].sum()) == pytest.approx(best, rel=1e-5)
    assert (pairs.image == 0).all()


def test_matching_serves_every_image_its_own_targets_and_more_rounds_serve_again():
    torch.manual_seed(2)
    targets = [target([[0.5, 0.5, 0.1, 0.1]], [0]), target([], []),
               target([[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.2, 0.2]], [1, 0])]  # fmt: skip
    logits, boxes = torch.randn(3, 6, 2), torch.rand(3, 6, 4) * 0.5 + 0.2
    pairs = matched(logits, boxes, batch_of(*targets), "abc", rounds=3)
    assert pairs.image.tolist() == [0] * 3 + [2] * 6 and pairs.target.bincount().tolist() == [6, 3]
    assert len(set(zip(pairs.image.tolist(), pairs.query.tolist()))) == 9


def test_more_things_than_queries_names_the_image():
    with pytest.raises(InputError, match="image cat7: 2 things but only 1 queries"):
        boxes = [[0.2, 0.2, 0.1, 0.1], [0.7, 0.7, 0.2, 0.2]]
        crowded = batch_of(target(boxes, [0, 1]))
        matched(torch.zeros(1, 1, 2), torch.full((1, 1, 4), 0.5), crowded, ["cat7"])


def test_location_losses_vanish_where_everything_is_right_and_survive_no_things():
    wanted = batch_of(target([[0.5, 0.5, 0.4, 0.4]], [1]))
    logits = torch.tensor([[[-20.0, 20.0], [-20.0, -20.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.1, 0.1]]])
    losses = location_losses(logits, boxes, wanted, matched(logits, boxes, wanted, ["a"]))
    assert all(abs(float(v)) < 1e-5 for v in losses.values())
    nothing = batch_of(target([], []))
    losses = location_losses(logits, boxes, nothing, matched(logits, boxes, nothing, ["a"]))
    assert losses["location_class"] > 1 and losses["location_l1"] == 0


def test_dice_by_hand_and_on_known_pixels_only():
    """One of two wanted pixels at 1, one unwanted at 1: 1 - 2*1/(2 + 2) = 0.5.

    Known pixels leave the unwanted out.
    """
    value, wanted = (
        torch.tensor([[[1.0, 0.0], [1.0, 0.0]]]),
        torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]),
    )
    assert float(dice(value, wanted, torch.ones(2, 2))) == pytest.approx(0.5, abs=1e-3)
    known = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert float(dice(value, wanted, known)) == pytest.approx(1 - 2 / 3, abs=1e-3)


def test_boxes_of_masks_are_torchvisions_and_an_empty_mask_gets_the_middle():
    torch.manual_seed(3)
    masks = torch.rand(5, 9, 13) > 0.9
    masks[:, 4, 4] = True
    boxes = centred_boxes(torch.cat([masks, torch.zeros(1, 9, 13, dtype=torch.bool)]))
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    wanted = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1.0])
    torch.testing.assert_close(corners[:5] * torch.tensor([13, 9, 13, 9.0]), wanted)
    assert boxes[5].tolist() == [0.5] * 4


def test_stuff_losses_ask_only_for_what_is_present():
    stuff = torch.zeros(1, 8, 8, dtype=torch.long)
    stuff[:, 4:] = IGNORE
    planes = stuff_planes(stuff, 2, (4, 4))
    assert planes[0, 0].tolist() == [[1.0] * 4] * 2 + [[0.0] * 4] * 2 and planes[0, 1].sum() == 0
    presence = torch.tensor([[[20.0, -20.0]]])
    masks = torch.stack([planes[0, 0], torch.rand(4, 4)])[None, None]
    losses = stuff_losses(presence, masks, planes, torch.ones(4, 4))
    assert all(abs(float(v)) < 1e-3 for v in losses.values())
    nothing = stuff_losses(presence, masks, torch.zeros_like(planes), torch.ones(4, 4))
    assert nothing["stuff_dice"] == 0 and nothing["stuff_class"] > 1


def test_balance_follows_the_share_of_things():
    stuff = torch.zeros(8, 8, dtype=torch.long)
    one = PanopticTarget(
        torch.zeros(3, 8, 8).bool(), torch.zeros(3).long(), torch.rand(3, 4), stuff, stuff == 0
    )
    bare = {"thing_dice": torch.tensor(1.0), "stuff_dice": torch.tensor(1.0)}
    losses = weighted(bare, LOSSES, targets=batch_of(one))
    assert losses["thing_dice"] == pytest.approx(2 * 0.75)
    assert losses["stuff_dice"] == pytest.approx(2 * 0.25)


def slow_merge(values, scores, is_thing, rule):
    area = [(v > 0.5).sum() for v in values]
    sure = [
        float(s * ((v * (v > 0.5)).sum() / (a + 1)) ** 2) for v, s, a in zip(values, scores, area)
    ]
    canvas, n = np.zeros(values.shape[1:], dtype=int), 0
    for k in sorted(range(len(values)), key=lambda k: -sure[k]):
        mask = (values[k] > 0.5).numpy()
        if sure[k] < rule.confidence or not mask.any():
            continue
        covered = (mask & (canvas > 0)).sum() / mask.sum()
        if covered > (0.4 if is_thing[k] else 0.2) or not (mask & (canvas == 0)).any():
            continue
        n += 1
        canvas[mask & (canvas == 0)] = n
    return canvas


@pytest.mark.parametrize("seed", range(4))
def test_alg1_merging_equals_the_plain_loop(seed):
    """[PSF Alg. 1]"""
    torch.manual_seed(seed)
    values = torch.nn.functional.avg_pool2d(torch.rand(12, 18, 18) * 2.2, 7, 1)
    scores, is_thing = torch.rand(12) * 0.5 + 0.5, torch.rand(12) > 0.4
    result = merged(values, scores, torch.arange(12), is_thing, MergeRule())
    np.testing.assert_array_equal(
        result.segments.numpy(), slow_merge(values, scores, is_thing, MergeRule())
    )
    assert len(result.label) == result.segments.max()


def test_nothing_confident_leaves_all_void():
    result = merged(
        torch.full((2, 4, 4), 0.4),
        torch.ones(2),
        torch.arange(2),
        torch.ones(2).bool(),
        MergeRule(),
    )
    assert result.segments.sum() == 0 and len(result.label) == 0
