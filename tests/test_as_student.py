"""Point branch, mask points and heads: by hand, by law and against slow loops."""

import itertools
import math

import pytest
import torch
from torchvision.models.detection.roi_heads import maskrcnn_loss

from pointseg.nets.point_head import PointHead
from pointseg.nets.roi_heads import DecoderTrunk, DepthChooser, Unshuffled, box_head, mask_head
from pointseg.nets.start import start_heads
from pointseg.ops.focal import focal_cost, focal_loss
from pointseg.papers.attentionshift.mask_points import (
    MaskPoints,
    full_mask_loss,
    mask_point_loss,
    tokens_drawn,
    values_at,
)
from pointseg.papers.attentionshift.matching import PointTargets, cheapest_pairs
from pointseg.papers.attentionshift.picture_labels import picture_label_loss, point_label_loss
from pointseg.papers.attentionshift.point_choice import meant_by_points, replaced_rows
from pointseg.structures import Instances
from pointseg.students.detector import Detector, DetectorConfig


def focal(p, yes, alpha=0.25, gamma=2.0):
    return (
        -alpha * (1 - p) ** gamma * math.log(p)
        if yes
        else -(1 - alpha) * p**gamma * math.log(1 - p)
    )


def test_focal_cost_and_loss_by_hand():
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.5]], dtype=torch.float64)
    p = logits.sigmoid().tolist()
    cost = focal_cost(logits, torch.tensor([1, 0]))
    assert float(cost[0, 0]) == pytest.approx(focal(p[0][1], True) - focal(p[0][1], False))
    assert float(cost[1, 1]) == pytest.approx(focal(p[1][0], True) - focal(p[1][0], False))
    # query 0 is class 1, query 1 is background (label 2)
    wanted = (
        focal(p[0][0], False) + focal(p[0][1], True) + focal(p[1][0], False) + focal(p[1][1], False)
    )
    assert float(focal_loss(logits, torch.tensor([1, 2]))) == pytest.approx(wanted)


def test_matching_is_the_cheapest_of_all_assignments():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        costs = torch.rand(5, 3, generator=generator)
        query = cheapest_pairs(costs)
        best = min(
            sum(costs[q, m] for m, q in enumerate(pick))
            for pick in itertools.permutations(range(5), 3)
        )
        assert float(costs[query, range(3)].sum()) == pytest.approx(float(best))
        assert len(set(query.tolist())) == 3


def test_matching_with_more_points_than_queries_leaves_points_over():
    assert sorted(cheapest_pairs(torch.tensor([[3.0, 1.0, 2.0]])).tolist()) == [-1, -1, 0]
    assert cheapest_pairs(torch.zeros(4, 0)).shape == (0,)


def test_points_are_matched_within_their_own_picture():
    places = torch.tensor([[[0.1, 0.1], [0.9, 0.9]], [[0.9, 0.9], [0.1, 0.1]]])
    targets = PointTargets(torch.tensor([0, 0, 0]), torch.tensor([[0.1, 0.1], [0.1, 0.1], [0.9, 0.9]]),
                           torch.tensor([0, 1, 1]))  # fmt: skip
    query = targets.matched(torch.zeros(2, 2, 1), places, 10.0)
    assert query.tolist() == [0, 1, 0]
    _, distance = targets.losses(torch.zeros(2, 2, 1), places, query, torch.tensor(3.0))
    assert distance == 0


def test_point_loss_counts_each_point_once():
    places = torch.tensor([[[0.2, 0.2], [0.5, 0.5]]])
    targets = PointTargets(torch.tensor([0]), torch.tensor([[0.3, 0.1]]), torch.tensor([0]))
    _, distance = targets.losses(torch.zeros(1, 2, 1), places, torch.tensor([0]), torch.tensor(1.0))
    assert float(distance) == pytest.approx(0.2)


def test_point_head_starts_at_its_anchors():
    head = PointHead(8, 3)
    torch.nn.init.zeros_(head.location[-1].weight)
    torch.nn.init.zeros_(head.location[-1].bias)
    anchors = torch.rand(5, 2) * 0.8 + 0.1
    _, places = head(torch.randn(2, 5, 8), anchors)
    assert torch.allclose(places, anchors.expand(2, -1, -1), atol=1e-5)


def test_mask_values_are_read_where_the_points_are():
    # the mask's left half says 1, its right half 3; the box is 20 wide from x = 10
    logits = torch.tensor([[1.0, 1, 3, 3]]).expand(4, 4)[None]
    read, inside = values_at(
        logits, torch.tensor([[10.0, 0, 30, 20]]), torch.tensor([[[12.5, 9], [27.5, 9], [5, 9]]])
    )
    assert read[0, :2].tolist() == [1, 3]
    assert inside[0].tolist() == [True, True, False]


def test_mask_point_loss_is_a_mean_over_valid_points_only():
    logits = torch.full((1, 4, 4), 2.0)
    boxes = torch.tensor([[0.0, 0, 8, 8]])
    points = MaskPoints(
        torch.tensor([[[2.0, 2], [6, 6], [4, 4], [90, 90]]]), torch.tensor([[1, 0, -1, 1]])
    )
    wanted = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    assert float(mask_point_loss(logits, boxes, points)) == pytest.approx(wanted)
    none = MaskPoints(points.xy, torch.full_like(points.label, -1))
    assert mask_point_loss(logits, boxes, none) == 0


def test_full_mask_loss_agrees_with_torchvision():
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 16:48] = True
    masks[1, 20:60, 4:24] = True
    boxes, target = torch.tensor([[8.0, 4, 52, 44], [0, 16, 30, 64]]), torch.tensor([0, 1])
    logits = torch.randn(2, 28, 28, generator=torch.Generator().manual_seed(0))
    theirs = maskrcnn_loss(torch.stack([torch.zeros_like(logits), logits], 1), [boxes], [masks.float()],
                           [torch.tensor([1, 1])], [target])  # fmt: skip
    # theirs interpolates the mask at its rim, ours takes the pixel
    assert float(full_mask_loss(logits, boxes, masks, target)) == pytest.approx(
        float(theirs), rel=0.02
    )


def test_tokens_are_drawn_inside_the_area_without_repeats():
    area = torch.rand(3, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    area[2] = False
    token, exists = tokens_drawn(area, 6)
    for row in range(3):
        drawn = token[row][exists[row]].tolist()
        assert len(set(drawn)) == len(drawn) == min(6, int(area[row].sum()))
        assert area[row, drawn].all()


def test_picture_label_loss_falls_when_the_right_class_is_seen_somewhere():
    real = torch.ones(1, 4, dtype=torch.bool)
    image, label = torch.tensor([0]), torch.tensor([1])
    blank = torch.full((1, 4, 2), -3.0)
    right, wrong = blank.clone(), blank.clone()
    right[0, 2, 1] = wrong[0, 2, 0] = 6
    losses = [float(picture_label_loss(x, real, image, label)) for x in (right, blank, wrong)]
    assert losses == sorted(losses)


def test_picture_label_loss_ignores_padding():
    logits = torch.randn(1, 6, 2)
    real = torch.tensor([[True] * 4 + [False] * 2])
    image, label = torch.tensor([0]), torch.tensor([0])
    cut = picture_label_loss(logits[:, :4], real[:, :4], image, label)
    assert torch.allclose(picture_label_loss(logits, real, image, label), cut)
    assert point_label_loss(logits, torch.zeros(0).long(), image[:0], label[:0]) == 0


def test_depth_chooser_shares_sum_to_the_class_probability():
    chooser = DepthChooser(8, 3, 16)
    boxes = torch.rand(2, 4, 4) * 30
    boxes[..., 2:] += boxes[..., :2] + 4
    share = chooser(torch.randn(1, 8, 8, 8), 8.0, boxes, torch.tensor([0, 0]))
    assert share.shape == (2, 4, 3)
    assert (share.sum(1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("kind", ["light", "decoder"])
def test_heads_keep_their_shapes_for_any_number_of_regions(kind):
    for count in (0, 3):
        regions = torch.randn(count, 16, 7, 7)
        assert box_head(kind, 16, 7, 32)(regions).shape == (count, 32)
        assert mask_head(kind, 16, 32, 4)(regions).shape == (count, 4, 14, 14)


def test_unshuffling_is_torchs_and_has_a_gradient_without_regions():
    x = torch.randn(3, 8, 5, 5)
    assert torch.equal(Unshuffled()(x), torch.nn.PixelShuffle(2)(x))
    none = torch.zeros(0, 8, 5, 5, requires_grad=True)
    Unshuffled()(none).sum().backward()
    assert none.grad.shape == none.shape


def test_decoder_heads_start_from_an_mae_file_and_light_ones_do_not(tmp_path, capsys):
    trunk = DecoderTrunk(16, 32, depth=4, heads=8)
    stored = {f"decoder_{k.removeprefix('last_')}": torch.randn_like(v) for k, v in trunk.state_dict().items()
              if not k.startswith("norm")}  # fmt: skip
    stored |= {
        "norm.weight": torch.randn(16),
        "norm.bias": torch.randn(16),
        "decoder_pos_embed": torch.randn(1, 5, 32),
    }
    stored["decoder_blocks.1.mlp.fc1.weight"] = torch.randn(
        7, 7
    )  # of another width: stays as it was
    torch.save({"model": stored}, tmp_path / "mae.pth")
    heads = torch.nn.ModuleList([box_head("decoder", 16, 7, 32), mask_head("decoder", 16, 32, 4)])
    before = heads[1].trunk.blocks[1].mlp.fc1.weight.clone()
    start_heads(heads, str(tmp_path / "mae.pth"))
    for head in heads:
        assert torch.equal(head.trunk.norm.weight, stored["norm.weight"])
        assert torch.equal(head.trunk.last_norm.bias, stored["decoder_norm.bias"])
        assert torch.equal(
            head.trunk.blocks[3].attn.qkv.weight, stored["decoder_blocks.3.attn.qkv.weight"]
        )
    assert torch.equal(heads[1].trunk.blocks[1].mlp.fc1.weight, before)
    assert "start 2 heads" in capsys.readouterr().out
    start_heads(box_head("light", 16, 7, 32), str(tmp_path / "gone.pth"))
    assert capsys.readouterr().out == ""


def test_detector_takes_an_empty_picture():
    torch.manual_seed(0)
    detector = Detector(2, DetectorConfig.smoke()).eval()
    maps = [torch.randn(1, 16, s, s) for s in (16, 8, 4)]
    found = detector.detect(maps, (64, 64), [(64, 64)])[0]
    assert found.masks.shape == (len(found.scores), 64, 64)
    assert len(found.label) == len(found.boxes) == len(found.scores)


def test_a_point_means_the_best_scored_instance_of_its_class_that_holds_it():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, :6], masks[2, :, 6:] = True, True, True
    boxes = torch.arange(12.0).view(3, 4)
    found = Instances(masks, torch.tensor([0.5, 0.9, 0.99]), torch.tensor([0, 0, 1]), boxes)
    place, label = torch.tensor([[2.5, 2.5], [7.5, 2.5], [7.5, 7.5]]), torch.tensor([0, 1, 0])
    row = meant_by_points(found, place, label)
    assert row.tolist() == [1, 2, -1]
    known = Instances(torch.zeros(3, 8, 8) > 0, torch.ones(3), label, torch.zeros(3, 4))
    mixed = replaced_rows(known, found, row)
    assert torch.equal(mixed.masks[:2], masks[1:])
    assert not mixed.masks[2].any()
    assert mixed.boxes[2].tolist() == [0, 0, 0, 0]
    none = Instances(masks[:0], torch.zeros(0), label[:0], boxes[:0])
    assert replaced_rows(known, none, meant_by_points(none, place, label)) is known
