"""Point branch, mask points and heads: by hand, by law and against slow loops."""

import itertools
import math

import pytest
import torch
from torchvision.models.detection.roi_heads import maskrcnn_loss
from torchvision.ops.poolers import LevelMapper

from pointseg.nets.point_head import PointHead
from pointseg.nets.roi_heads import (
    DecoderTrunk,
    DepthChooser,
    RegionPool,
    Unshuffled,
    box_head,
    mask_head,
)
from pointseg.nets.start import start_heads
from pointseg.ops.focal import focal_cost, focal_loss
from pointseg.papers.attentionshift.masks import (
    MaskPoints,
    detected_at_points,
    drawn_tokens,
    replaced_rows,
    values_at,
)
from pointseg.papers.attentionshift.objects import PointTargets
from pointseg.papers.attentionshift.querying import (
    PointPredictions,
    cheapest_pairs,
    image_label_loss,
    token_label_loss,
)
from pointseg.structures import Instances
from pointseg.students import mask_rcnn
from pointseg.students.mask_rcnn import CONFIGS, FullMasks, MaskRCNN, pasted


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
    xy_shares = torch.tensor([[[0.1, 0.1], [0.9, 0.9]], [[0.9, 0.9], [0.1, 0.1]]])
    xy = torch.tensor([[4.0, 2.0], [4.0, 2.0], [36.0, 18.0]])
    targets = PointTargets(xy, torch.tensor([0, 0, 0]), torch.tensor([0, 1, 1]))
    answers = PointPredictions(torch.zeros(2, 2, 1), xy_shares, torch.tensor([40.0, 20.0]))
    query = answers.matched(targets, 10.0)
    assert query.tolist() == [0, 1, 0]
    assert answers.losses(targets, query)["point_place"] == 0


def test_point_loss_counts_each_point_once():
    xy_shares = torch.tensor([[[0.2, 0.2], [0.5, 0.5]]])
    targets = PointTargets(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), torch.tensor([0]))
    answers = PointPredictions(torch.zeros(1, 2, 1), xy_shares, torch.tensor([10.0, 10.0]))
    losses = answers.losses(targets, torch.tensor([0]))
    assert float(losses["point_place"]) == pytest.approx(0.2)


def test_point_head_starts_at_its_anchors():
    head = PointHead(8, 3)
    torch.nn.init.zeros_(head.location[-1].weight)
    torch.nn.init.zeros_(head.location[-1].bias)
    anchors = torch.rand(5, 2) * 0.8 + 0.1
    _, xy_shares = head(torch.randn(2, 5, 8), anchors)
    assert torch.allclose(xy_shares, anchors.expand(2, -1, -1), atol=1e-5)


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
    xy = torch.tensor([[[2.0, 2], [6, 6], [4, 4], [90, 90]]])
    known = torch.tensor([[True, True, False, True]])
    points = MaskPoints(xy, torch.tensor([[True, False, True, True]]), known)
    wanted = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(2))) / 2
    row = torch.tensor([0])
    assert float(points.loss(logits, boxes, row)) == pytest.approx(wanted)
    assert MaskPoints(xy, points.foreground, known & False).loss(logits, boxes, row) == 0


def test_full_mask_loss_agrees_with_torchvision():
    masks = torch.zeros(2, 64, 64, dtype=torch.bool)
    masks[0, 8:40, 16:48] = True
    masks[1, 20:60, 4:24] = True
    boxes, target = torch.tensor([[8.0, 4, 52, 44], [0, 16, 30, 64]]), torch.tensor([0, 1])
    logits = torch.randn(2, 28, 28, generator=torch.Generator().manual_seed(0))
    theirs = maskrcnn_loss(torch.stack([torch.zeros_like(logits), logits], 1), [boxes],
                           [masks.float()], [torch.tensor([1, 1])], [target])  # fmt: skip
    # theirs interpolates the mask at its rim, ours takes the pixel
    assert float(FullMasks(masks).loss(logits, boxes, target)) == pytest.approx(
        float(theirs), rel=0.02
    )


def test_masks_are_pasted_where_their_boxes_are():
    """A full mask of a box of 12 pixels has 144, whatever its grid; half a mask has half of
    them."""
    box = torch.tensor([[40.0, 40.0, 52.0, 52.0]])
    for side in (14, 28):
        assert pasted(torch.ones(1, side, side), box, (128, 128)).sum() == 144
    half = torch.zeros(1, 28, 28)
    half[:, :, :14] = 1
    mask = pasted(half, box, (128, 128))[0]
    assert mask[40:52, 40:46].all() and mask.sum() == 72
    over = pasted(torch.ones(1, 28, 28), torch.tensor([[-6.0, 120.0, 6.0, 140.0]]), (128, 128))
    assert over.sum() == 6 * 8
    assert pasted(torch.zeros(0, 28, 28), box[:0], (20, 30)).shape == (0, 20, 30)


def test_masks_are_read_back_with_the_geometry_that_the_loss_teaches():
    """Pasted masks equal the sign of the logits read at each pixel centre, as the point loss
    reads."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 28, 28, generator=generator) * 4
    low = torch.rand(3, 2, generator=generator) * 20
    boxes = torch.cat([low, low + 5 + torch.rand(3, 2, generator=generator) * 30], 1)
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(60) + 0.5, indexing="ij")
    xy = torch.stack([x, y], -1).flatten(0, 1).expand(3, -1, -1)
    read, inside = values_at(logits.sigmoid(), boxes, xy)
    wanted = ((read > 0.5) & inside).view(3, 64, 60)
    assert torch.equal(pasted(logits.sigmoid(), boxes, (64, 60)), wanted)


def test_perfect_boxes_and_masks_come_back_as_they_were():
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 10:31, 20:41] = True
    mask[0, 10:20, 30:41] = False
    box = torch.tensor([[20.0, 10.0, 41.0, 31.0]])
    cells = (torch.arange(84) + 0.5) / 84 * 21
    exact = mask[:, (10 + cells).long()][:, :, (20 + cells).long()].float()
    assert torch.equal(pasted(exact, box, (64, 64)), mask)


def test_regions_are_read_at_their_pixels():
    """On a map whose value is x in pixels, the bins of a region have the x of their centres."""
    pool = RegionPool([4.0, 8.0], 56.0, 2, size=4)
    ramps = {str(k): ((torch.arange(64 // s) + 0.5) * s).expand(1, 1, 64 // s, -1).contiguous()
             for k, s in enumerate((4, 8))}  # fmt: skip
    boxes = torch.tensor([[10.0, 10.0, 26.0, 26.0], [8.0, 8.0, 52.0, 52.0]])
    read = pool(ramps, [boxes], [(64, 64)])[:, 0, 0]
    assert torch.allclose(read[0], torch.tensor([12.0, 16.0, 20.0, 24.0]))
    assert torch.allclose(read[1], torch.tensor([13.5, 24.5, 35.5, 46.5]))


def test_regions_of_a_small_canvas_use_more_levels_than_one():
    """Each side twice as long, one level coarser: at 128 pixels 112 is the coarsest, not the
    second."""
    c = CONFIGS["small"]
    pool = RegionPool([8 / scale for scale in c.level_scales], c.roi_side, c.samples, 7)
    sides = torch.tensor([10.0, 40.0, 60.0, 100.0, 112.0, 128.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], 1)
    assert pool.level(boxes).tolist() == [0, 0, 1, 1, 2, 2]
    paper = RegionPool([4.0, 8.0, 16.0, 32.0, 64.0], 224.0, 2, 7)
    sides = torch.tensor([20.0, 111.0, 112.0, 224.0, 448.0, 1000.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], 1)
    assert paper.level(boxes).tolist() == LevelMapper(2, 6)([boxes]).tolist()


def test_samples_are_balanced_and_drawn_by_the_seed_of_their_image():
    labels = [torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0, -1]), torch.tensor([0, 0, 1, -1])]
    sampler = mask_rcnn.RowSampler(4, 0.5, torch.tensor([5, 6]))
    positive, negative = sampler(labels)
    assert [int(p.sum()) for p in positive] == [2, 1] and [int(n.sum()) for n in negative] == [2, 2]
    assert all((label[p] >= 1).all() and (label[n] == 0).all()
               for label, p, n in zip(labels, positive, negative))  # fmt: skip
    alone = mask_rcnn.RowSampler(4, 0.5, torch.tensor([6]))(labels[1:])
    assert torch.equal(alone[0][0], positive[1]) and torch.equal(alone[1][0], negative[1])
    chosen = [mask_rcnn.RowSampler(4, 0.5, torch.tensor([s]))(labels[:1])[0][0] for s in range(60)]
    assert torch.stack(chosen).any(0)[:4].all()


def test_tokens_are_drawn_inside_the_area_without_repeats():
    area = torch.rand(3, 30, generator=torch.Generator().manual_seed(0)) < 0.3
    area[2] = False
    token, exists = drawn_tokens(area, 6, torch.tensor([1, 2, 3]))
    for row in range(3):
        drawn = token[row][exists[row]].tolist()
        assert len(set(drawn)) == len(drawn) == min(6, int(area[row].sum()))
        assert area[row, drawn].all()


def test_image_label_loss_falls_when_the_right_class_is_somewhere():
    valid = torch.ones(1, 4, dtype=torch.bool)
    points = PointTargets(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([0]))
    blank = torch.full((1, 4, 2), -3.0)
    right, wrong = blank.clone(), blank.clone()
    right[0, 2, 1] = wrong[0, 2, 0] = 6
    losses = [float(image_label_loss(x, valid, points)) for x in (right, blank, wrong)]
    assert losses == sorted(losses)


def test_image_label_loss_ignores_padding():
    logits = torch.randn(1, 6, 2)
    valid = torch.tensor([[True] * 4 + [False] * 2])
    points = PointTargets(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([0]))
    cut = image_label_loss(logits[:, :4], valid[:, :4], points)
    assert torch.allclose(image_label_loss(logits, valid, points), cut)
    none = PointTargets(points.xy[:0], points.label[:0], points.image[:0])
    assert token_label_loss(logits, torch.zeros(0).long(), none) == 0


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
    stored = {f"decoder_{k.removeprefix('last_')}": torch.randn_like(v) for k, v in
    trunk.state_dict().items()
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


def test_student_takes_an_empty_image():
    torch.manual_seed(0)
    student = MaskRCNN(2, CONFIGS["smoke"]).eval()
    instances = student.predict(torch.zeros(1, 3, 64, 64), [(64, 64)])[0].instances
    assert instances.masks.shape == (len(instances.scores), 64, 64)
    assert len(instances.label) == len(instances.boxes) == len(instances.scores)


def test_a_point_means_the_best_scored_instance_of_its_class_that_holds_it():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, :6], masks[2, :, 6:] = True, True, True
    boxes = torch.arange(12.0).view(3, 4)
    detections = Instances(masks, torch.tensor([0.5, 0.9, 0.99]), torch.tensor([0, 0, 1]), boxes)
    place, label = torch.tensor([[2.5, 2.5], [7.5, 2.5], [7.5, 7.5]]), torch.tensor([0, 1, 0])
    row = detected_at_points(detections, place, label)
    assert row.tolist() == [1, 2, -1]
    known = Instances(torch.zeros(3, 8, 8) > 0, torch.ones(3), label, torch.zeros(3, 4))
    mixed = replaced_rows(known, detections, row)
    assert torch.equal(mixed.masks[:2], masks[1:])
    assert not mixed.masks[2].any()
    assert mixed.boxes[2].tolist() == [0, 0, 0, 0]
    none = Instances(masks[:0], torch.zeros(0), label[:0], boxes[:0])
    assert replaced_rows(known, none, detected_at_points(none, place, label)) is known
