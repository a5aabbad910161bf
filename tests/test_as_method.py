"""AttentionShift and its student from end to end on drawn squares, and every bad input that
training must survive."""

from dataclasses import replace

import pytest
import torch

from pointseg.nets.start import load_first_stage
from pointseg.papers.attentionshift.config import CONFIGS, Config
from pointseg.papers.attentionshift.instance_map import InstanceMaps, unit_range
from pointseg.papers.attentionshift.labeller import label_path
from pointseg.papers.attentionshift.masks import background_tokens
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.token_querying import TokenQuerying
from pointseg.papers.attentionshift.tokens import Tokens
from pointseg.structures import Batch, Category, InputError, Points, Truth
from pointseg.students.mask_rcnn_full import MaskRCNNFull

CATEGORIES = (Category(1, "square"), Category(2, "bar"), Category(3, "ground", is_thing=False))
SIZE = 64


def scene(count, generator):
    """A grey picture with `count` coloured boxes: image, masks [count, h, w], labels."""
    image = 0.4 + 0.05 * torch.randn(3, SIZE, SIZE, generator=generator)
    masks = torch.zeros(count, SIZE, SIZE, dtype=torch.bool)
    label = torch.randint(0, 2, (count,), generator=generator)
    for mask, kind in zip(masks, label):
        height, width = (20, 20) if kind == 0 else (12, 30)
        top, left = (
            int(torch.randint(0, SIZE - s, (1,), generator=generator)) for s in (height, width)
        )
        mask[top : top + height, left : left + width] = True
        image[:, mask] = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.2, 0.9]])[kind][:, None]
    return image.clamp(0, 1), masks, label


def points_in(masks, label):
    """One point in the middle pixel, in reading order, of each mask."""
    middle = [mask.nonzero()[mask.sum() // 2].flip(0) + 0.5 for mask in masks]
    xy = torch.stack(middle) if middle else torch.zeros(0, 2)
    return Points(
        xy.float(), label, torch.arange(len(label)), torch.ones(len(label), dtype=torch.bool)
    )


def make_batch(counts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images, points, truths = [], [], []
    for count in counts:
        image, masks, label = scene(count, generator)
        images.append(image)
        points.append(points_in(masks, label))
        flags = torch.ones(count, dtype=torch.bool)
        truths.append(
            Truth(masks, label, torch.arange(count), flags, ~flags, torch.zeros(SIZE, SIZE) > 0)
        )
    return Batch(
        torch.stack(images), [(SIZE, SIZE)] * len(counts), list(range(len(counts))), points, truths
    )


def build(**overrides):
    torch.manual_seed(0)
    return AttentionShift.build(CATEGORIES, "smoke", **overrides)


def build_first():
    torch.manual_seed(0)
    return TokenQuerying.build(CATEGORIES, "smoke")


def train_step(method, batch):
    """One step; returns the losses."""
    method.train()
    losses = method.losses(batch, 0)
    sum(losses.values()).backward()
    grads = [p.grad for p in method.parameters() if p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)
    assert all(value.isfinite() for value in losses.values())
    return {name: float(value.detach()) for name, value in losses.items()}


def with_points(batch, xy, label=None):
    """The batch with the first picture's points replaced."""
    count = len(xy)
    label = torch.zeros(count, dtype=torch.long) if label is None else label
    flags = torch.ones(count, dtype=torch.bool)
    first = Points(
        torch.tensor(xy, dtype=torch.float32).view(-1, 2), label, torch.arange(count), flags
    )
    return replace(batch, points=[first, *batch.points[1:]])


def test_a_step_has_every_loss_of_the_paper():
    losses = train_step(build(), make_batch([2, 1]))
    paper = {"point_class", "point_place", "rpn_class", "rpn_box", "class", "box", "mask"}
    assert paper | {"mil", "warm_image", "warm_token"} == set(losses)


def test_first_stage_learns_points_alone():
    losses = train_step(build_first(), make_batch([2, 1]))
    assert set(losses) == {"point_class", "point_place", "warm_image", "warm_token"}


ROWS = {
    "baseline": {"instance_map": "none", "shift": False, "filtering": False},
    "map": {"shift": False, "filtering": False},
    "shift": {"filtering": False},
    "whole": {},
    "alpha inf": {"alpha": float("inf")},
    "alpha 0.1": {"alpha": 0.1},
    "N 0": {"iterations": 0},
    "released": {
        "owner": "softmax",
        "refine_rounds": 2,
        "compete": True,
        "box_rule": "centre",
        "background_rule": "released",
    },
    "printed": {
        "instance_map": "printed",
        "owner": "cosine",
        "depth": 0,
        "keypoints_as_points": True,
    },
    "point map": {"attention": "point", "depth": 2},
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_tables_trains_and_labels(row):
    method, batch = build(**ROWS[row]), make_batch([2, 0, 3])
    train_step(method, batch)
    method.eval()
    check_labels(method.pseudo_labels(batch), batch)
    check_labels(method.student_labels(batch), batch)


@pytest.mark.parametrize("drawn_by", ["foreground", "box"])
def test_eq03_a_single_key_point_becomes_the_mean_of_what_draws_it(drawn_by):
    """[AS Eq. 3]: one key-point owns the whole box; the foreground in it draws, or, in the
    official code, all of it."""
    chosen = {
        "keypoints": 1,
        "iterations": 1,
        "alpha": float("inf"),
        "filtering": False,
        "drawn_by": drawn_by,
    }
    method, batch = build(**chosen).eval(), make_batch([2, 3])
    evidence, labels = method.explain(batch)
    region, features = labels.region, labels.keypoints.shifted.features
    tokens = evidence.tokens.directions * evidence.tokens.lengths[..., None]
    narrower = 0
    for row, image in enumerate(labels.objects.image.tolist()):
        inside = region.index[row][region.inside[row]]
        drawing = inside[labels.foreground[row, inside]] if drawn_by == "foreground" else inside
        narrower += len(drawing) < len(inside)
        assert torch.allclose(features[row, 0], tokens[image, drawing].mean(0), atol=1e-5)
    assert narrower or drawn_by == "box"


def check_labels(labels, batch):
    """A row an object: masks of the picture's size, never empty, boxes with an area."""
    assert [len(each.masks) for each in labels] == [2, 0, 3]
    for each, points in zip(labels, batch.points):
        assert each.label.tolist() == points.label.tolist()
        assert each.masks.shape[1:] == (SIZE, SIZE)
        assert (each.boxes[:, 2:] > each.boxes[:, :2]).all()
        assert each.masks.flatten(1).any(1).all()


def test_a_few_steps_lower_the_loss():
    torch.manual_seed(0)
    method, batch = build(), make_batch([2, 1, 2, 1])
    optimizer = torch.optim.AdamW(method.param_groups(2e-3, 0.05))
    totals = []
    for step in range(25):
        torch.manual_seed(step)
        loss = sum(method.losses(batch, step).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


def test_picture_without_objects_and_batch_without_any():
    train_step(build(), make_batch([0, 2]))
    whole, empty = (train_step(build(), make_batch(counts)) for counts in ([2, 1], [0, 0]))
    assert set(empty) == set(whole)
    assert {name for name, loss in empty.items() if loss == 0} == {
        "point_place", "warm_token", "mil", "rpn_box", "box", "mask"
    }  # fmt: skip
    assert build().eval().pseudo_labels(make_batch([0, 0]))[1].masks.shape == (0, SIZE, SIZE)


def test_one_pixel_object_and_two_points_in_one_token():
    batch = with_points(
        make_batch([1, 1]), [[10.5, 10.5], [11.5, 10.5], [10.5, 10.5]], torch.tensor([0, 1, 0])
    )
    train_step(build(), batch)
    assert len(build().eval().pseudo_labels(batch)[0].masks) == 3


def test_more_points_than_queries():
    many = [[3.0 + 6 * i, 30.0] for i in range(10)]
    train_step(build(), with_points(make_batch([1, 1]), many))


def test_point_in_the_padding_and_pictures_of_two_sizes():
    batch = with_points(
        replace(make_batch([1, 1]), sizes=[(40, 33), (SIZE, SIZE)]), [[60.0, 60.0], [10.0, 10.0]]
    )
    method = build()
    train_step(method, batch)
    label = method.eval().pseudo_labels(batch)[0]
    assert label.masks.shape == (2, 40, 33)
    assert method.predict(batch.images, batch.sizes)[0].instances.masks.shape[1:] == (40, 33)


def test_map_without_component():
    """A threshold nothing reaches: the labelled token is the box."""
    method = build(box_threshold=2.0, seed_threshold=2.0)
    train_step(method, make_batch([2, 1]))
    boxes = torch.cat([each.boxes for each in method.eval().pseudo_labels(make_batch([2, 1]))])
    assert ((boxes[:, 2:] - boxes[:, :2]) == 8).all()


def test_instance_whose_every_key_point_is_filtered():
    method, batch = build(filter_threshold=1.1), make_batch([2, 1])
    train_step(method, batch)
    _, labels = method.eval().explain(batch)
    assert not labels.keypoints.valid.any()
    assert labels.masks().any(1).all()


def test_ten_points_an_object_make_one_object():
    batch = make_batch([2, 1])
    doubled = [replace(p, xy=torch.cat([p.xy, p.xy + 3]), **{name: torch.cat([getattr(p, name)] * 2)
               for name in ("label", "target", "is_thing")}) for p in batch.points]  # fmt: skip
    batch = replace(batch, points=doubled)
    objects = Objects.of(doubled, batch.sizes, (8, 8), 8)
    assert len(objects) == 3 and objects.counts == [2, 1]
    assert objects.owner.tolist() == [0, 1, 0, 1, 2, 2]
    assert objects.points.rank().tolist() == [0, 1, 2, 3, 0, 1]
    assert torch.equal(objects.xy, objects.points.xy[[0, 1, 4]])
    train_step(build(), batch)
    assert [len(each.masks) for each in build().eval().pseudo_labels(batch)] == [2, 1]


def test_stuff_points_are_left_alone():
    batch = make_batch([1, 1])
    ground = Points(
        torch.tensor([[1.0, 1.0]]), torch.tensor([2]), torch.tensor([9]), torch.tensor([False])
    )
    both = [
        Points(*(torch.cat(pair) for pair in zip(vars(ground).values(), vars(p).values())))
        for p in batch.points
    ]
    train_step(build(), replace(batch, points=both))


@pytest.mark.parametrize("name", ["attentionshift", "mask_rcnn"])
def test_class_out_of_range_is_one_line(name):
    batch = make_batch([1, 1])
    method = build() if name == "attentionshift" else MaskRCNNFull.build(CATEGORIES, "smoke")
    wrong = torch.tensor([5])
    truth = replace(batch.truths[0], label=wrong)
    bad = replace(with_points(batch, [[10.0, 10.0]], wrong), truths=[truth, batch.truths[1]])
    with pytest.raises(
        InputError, match="class index 5 is out of range, there are 2 thing classes"
    ):
        method.losses(bad, 0)


def saved(method, path):
    torch.save({"weights": method.state_dict()}, path)
    return path


def test_first_stage_is_taken_over_and_another_width_is_one_line(tmp_path):
    first = build_first()
    with torch.no_grad():
        first.labeller.points.location[0].weight.fill_(0.5)
        first.student.vit.query_tokens.fill_(0.25)
    path = saved(first, tmp_path / "first.pt")
    second, reference = build(), MaskRCNNFull.build(CATEGORIES, "smoke")
    load_first_stage(second, path, second.FIRST_STAGE)
    load_first_stage(reference, path, reference.FIRST_STAGE)
    assert (second.labeller.points.location[0].weight == 0.5).all()
    assert (reference.student.vit.query_tokens == 0.25).all()
    wider = build(backbone=replace(CONFIGS["smoke"].student.backbone, dim=48))
    with pytest.raises(InputError, match=r"first\.pt: .* is \[.*\], this network's is \["):
        load_first_stage(wider, path, wider.FIRST_STAGE)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for name, cause in (("none.pt", "no such file"), ("junk.pt", "not readable as weights")):
        with pytest.raises(InputError, match=cause):
            load_first_stage(second, tmp_path / name, second.FIRST_STAGE)


def test_mask_rcnn_trains_on_masks_and_pictures_without_any():
    torch.manual_seed(0)
    method = MaskRCNNFull.build(CATEGORIES, "smoke")
    losses = train_step(method, make_batch([2, 0, 1]))
    assert set(losses) == {"rpn_class", "rpn_box", "class", "box", "mask"}
    train_step(method, make_batch([0, 0]))
    predictions = method.eval().predict(make_batch([1, 1]).images, [(SIZE, SIZE), (50, 40)])
    assert [p.image_id for p in predictions] == [0, 1]
    assert predictions[1].instances.masks.shape[1:] == (50, 40)
    scores = predictions[0].instances.scores
    assert (scores[:-1] >= scores[1:]).all()


def test_what_the_student_learns_does_not_reach_the_label_path():
    """Key-points and boxes come from detached features: the detector's losses give the point
    head no gradient."""
    method = build(warmup=False)
    losses = method.losses(make_batch([2, 1]), 0)
    sum(losses[name] for name in ("rpn_class", "rpn_box", "class", "box", "mask", "mil")).backward()
    assert all(p.grad is None for p in method.labeller.points.parameters())


@pytest.mark.parametrize(
    "rules", [{}, {"compete": True, "background_rule": "released", "refine_rounds": 2}]
)
def test_padding_does_not_change_the_labels(rules):
    """The same picture with room added right and below: same depth map, same boxes, same masks."""
    batch, config = make_batch([2]), replace(Config(), **rules)
    small, wide = (Objects.of(batch.points, [(SIZE, SIZE)], grid, 8) for grid in ((8, 8), (10, 12)))
    tokens, more = torch.randn(1, 64, 16), torch.randn(1, 10, 12, 16)
    more[:, :8, :8] = tokens.unflatten(1, (8, 8))
    attention, larger = torch.rand(2, 64), 9 + torch.rand(2, 10, 12)
    larger[:, :8, :8] = attention.unflatten(1, (8, 8))
    ours, theirs = (
        label_path(Tokens.of(features, [2]), objects, unit_range(maps, objects.valid), config,
                   torch.tensor([1]))
        for features, objects, maps in ((tokens, small, attention),
                                        (more.flatten(1, 2), wide, larger.flatten(1)))
    )  # fmt: skip
    assert torch.equal(ours.boxes, theirs.boxes)
    assert torch.equal(
        ours.background.unflatten(1, (8, 8)), theirs.background.unflatten(1, (10, 12))[:, :8, :8]
    )
    assert torch.equal(
        ours.masks().unflatten(1, (8, 8)), theirs.masks().unflatten(1, (10, 12))[:, :8, :8]
    )


@pytest.mark.parametrize("rule, taken", [("low", [0, 3]), ("released", [0, 1])])
def test_background_is_low_or_as_the_official_code_takes_it(rule, taken):
    """In a box of four tokens: A^I below 0.1, or at least four fifths of the highest ground in
    the box, 0.72."""
    instance = torch.tensor([[0.05, 0.5, 1.0, 0.09, 0.0]])
    ground = torch.tensor([[0.9, 0.73, 0.3, 0.71, 1.0]])
    in_box = torch.tensor([[True, True, True, True, False]])
    config, maps = replace(Config(), background_rule=rule), InstanceMaps(instance, ground)
    assert background_tokens(maps, in_box, config)[0].nonzero()[:, 0].tolist() == taken
