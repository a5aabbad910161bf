"""EXITS and MAL as methods: what is learnt from, what is gated, and batches hard to learn from."""

import math
from dataclasses import replace

import pytest
import torch

from pointseg.lab import recipe
from pointseg.nets.vit import ViTConfig
from pointseg.ops.crops import crops_of
from pointseg.ops.extreme_points import clicked_objects
from pointseg.papers.exits.extractor import Extractor, WalkConfig
from pointseg.papers.exits.losses import point_loss
from pointseg.papers.exits.method import EXITS
from pointseg.papers.exits.retrieval import Levels, Retrieved, Seeds
from pointseg.papers.exits.walk_alone import CropWalk, WalkAlone
from pointseg.papers.exits.warmup import SimilarityWarmup
from pointseg.papers.mal import MAL
from pointseg.structures import Batch, Category, InputError, Points
from pointseg.students.mask_generator import ObjectCrops, chosen_objects, rank_in_image

CLASSES = [Category(1, "a"), Category(2, "b"), Category(3, "ground", is_thing=False)]
METHODS = (MAL, EXITS, SimilarityWarmup)


def clicks(*boxes, label=0, first=5):
    """Four points on the sides of each box, in an order of their own."""
    xy = [
        ((left + r) / 2, t, r - 1, (t + b) / 2, left, (t + b) / 2, (left + r) / 2, b - 1)
        for left, t, r, b in boxes
    ]
    count = 4 * len(boxes)
    target = torch.arange(first, first + len(boxes)).repeat_interleave(4)
    return Points(
        torch.tensor(xy, dtype=torch.float32).view(-1, 2) + 0.5 if xy else torch.zeros(0, 2),
        torch.full((count,), label), target, torch.ones(count, dtype=torch.bool),
    )  # fmt: skip


def batch(*points, size=48, seed=3):
    images = torch.rand(len(points), 3, size, size, generator=torch.Generator().manual_seed(seed))
    draws = torch.arange(7, 7 + len(points))
    return Batch(
        images, [(size, size)] * len(points), list(range(len(points))), list(points), None, draws
    )


USUAL = ((4, 6, 24, 30), (20, 20, 44, 40))


def build(method, **overrides):
    torch.manual_seed(0)
    return method.build(CLASSES, "smoke", **overrides)


def test_the_hull_is_the_box_in_any_order_of_clicks():
    objects = clicked_objects(batch(clicks(*USUAL), clicks(USUAL[1])))
    assert objects.box.tolist() == [list(map(float, b)) for b in (*USUAL, USUAL[1])]
    assert objects.counts == [2, 1] and objects.target.tolist() == [5, 6, 5]


def test_points_that_are_not_four_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"target 5 of image 0 has 3 points.*kind extreme"):
        clicked_objects(batch(clicks(USUAL[0]).pick(torch.tensor([0, 1, 2]))))


@pytest.mark.parametrize("method", METHODS)
def test_a_step_reaches_every_weight_that_learns(method):
    chosen = build(method)
    losses = chosen.losses(batch(clicks(*USUAL), clicks()), 3)
    assert set(losses) == set(chosen.LOSSES) and all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    learning = [p for group in chosen.param_groups(1.0, 0.0) for p in group["params"]]
    queries = {id(p) for n, p in chosen.named_parameters() if "quer" in n}
    assert all(p.grad is not None for p in learning if id(p) not in queries)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("points", [
    pytest.param((), id="no object"),
    pytest.param(((9, 9, 10, 10),), id="a box of one pixel"),
    pytest.param((USUAL[0], USUAL[0]), id="two objects with one box"),
    pytest.param(((0, 0, 48, 48),), id="a box that fills the image"),
    pytest.param(((-9, -9, 70, 20),), id="clicks outside the image"),
    pytest.param(((20, 20, 20, 20),), id="clicks in one place"),
])  # fmt: skip
@pytest.mark.parametrize("neighbours", [False, True])
def test_hard_batches_train_on_and_are_labelled(method, points, neighbours):
    changes = {} if method is MAL else {"walk": {"neighbours": neighbours}}
    built, hard = build(method, **changes), batch(clicks(*points))
    losses = built.losses(hard, 3)
    assert all(v.isfinite() for v in losses.values())
    sum(losses.values()).backward()
    if method is not SimilarityWarmup:
        [labels] = built.pseudo_labels(hard)
        assert labels.masks.shape == (len(points), 48, 48)


@pytest.mark.parametrize("method", [MAL, EXITS])
def test_clicks_that_do_not_bound_the_object_stand_for_their_hull(method):
    """Three on the left, one in the middle: the mask lies in what was clicked, not beyond."""
    loose = clicks((4, 6, 24, 30))
    loose.xy[1] = torch.tensor([14.0, 18.0])  # the right one
    [labels] = build(method).pseudo_labels(batch(loose))
    assert labels.boxes.tolist() == [[4, 6, 15, 30]] and not labels.masks[0, :, 15:].any()


def test_a_crop_without_ground_is_left_to_multiple_instances():
    """A window that ends with its box: no token lies outside, nothing is retrieved."""
    exits = build(EXITS)
    objects = clicked_objects(batch(clicks((4, 6, 24, 30))))
    crops = crops_of(objects.box, objects.image, torch.zeros(1, 4), exits.auto.config.side)
    view = ObjectCrops(objects, objects, crops, torch.rand(1, 3, crops.side, crops.side))
    seeds = exits.extractor.seeds(view)
    assert not seeds.background.any() and exits.extractor.points(view.pixels, seeds).nothing.all()


def test_two_objects_with_one_box_stay_foreground_at_their_own_clicks():
    """Same-class neighbours in one box are the paper's failure; nothing of the own is lost."""
    walk = replace(build(EXITS).config.walk, neighbours=True)
    exits = build(EXITS, walk=walk)
    view = exits.auto.view(batch(clicks(USUAL[0], USUAL[0])))
    seeds = exits.extractor.seeds(view)
    assert seeds.foreground.any(1).all() and not (seeds.foreground & seeds.background).any()


@pytest.mark.parametrize("method", [MAL, EXITS])
def test_labels_are_one_mask_an_object_inside_its_box(method):
    labels = build(method).pseudo_labels(batch(clicks(*USUAL), clicks(), clicks(USUAL[1])))
    assert [len(each.masks) for each in labels] == [2, 0, 1]
    inside = torch.zeros(48, 48, dtype=torch.bool)
    inside[6:30, 4:24] = True
    assert not (labels[0].masks[0] & ~inside).any()


def test_multiple_instances_count_only_where_nothing_was_retrieved():
    """[EXITS Sec. B]: levels that nobody reaches leave it all to them.

    Low ones leave only crops without ground.
    """
    b, walk = batch(*[clicks(*USUAL)] * 4), build(EXITS).config.walk
    for level, gated in ((1e9, None), (0.0, False)):
        exits = build(EXITS, walk=replace(walk, foreground=level, background=level))
        view = exits.auto.view(b)
        seeds = exits.extractor.seeds(view)
        nothing = exits.extractor.points(view.pixels, seeds).nothing
        expected = torch.ones_like(nothing) if gated is None else ~seeds.background.any(1)
        assert torch.equal(nothing, expected) and (gated is None or not nothing.all())
        by_hand = 10 * (exits.auto.box_loss(view) * nothing).mean()
        assert torch.allclose(exits.losses(b, 3)["mil"], by_hand, rtol=0.02)


def test_levels_are_found_on_training_crops_where_the_config_leaves_them_open():
    exits, b = build(EXITS), batch(*[clicks(*USUAL)] * 8)
    before = exits.extractor.levels
    exits.prepare(iter([b]))
    assert exits.extractor.levels != before
    again = build(EXITS)
    again.load_state_dict(exits.state_dict())
    assert again.extractor.levels == exits.extractor.levels, "they are kept with the weights"
    exits.losses(b, 3)
    assert exits.notes["level foreground"] == exits.extractor.levels.foreground
    stated = build(EXITS, walk={"foreground": 0.3, "background": 0.2})
    stated.prepare(never())
    assert stated.extractor.levels == Levels(0.3, 0.2)
    half = build(EXITS, walk={"background": 0.2})
    half.prepare(iter([b]))
    assert half.extractor.levels == Levels(exits.extractor.levels.foreground, 0.2)


def never():
    raise AssertionError("nobody should look")
    yield


def test_without_clicks_to_judge_by_the_levels_stay():
    exits = build(EXITS)
    before = exits.extractor.levels
    exits.prepare(iter([batch(clicks(), clicks())]))
    assert exits.extractor.levels == before


def test_the_extractor_does_not_learn_with_the_generator():
    exits = build(EXITS)
    sum(exits.losses(batch(clicks(*USUAL)), 3).values()).backward()
    assert all(p.grad is None for p in exits.extractor.parameters())


@pytest.mark.parametrize("method", [MAL, EXITS])
def test_where_the_heads_alone_learn_the_encoder_stays_and_the_masks_are_the_same(method):
    frozen, whole = build(method, generator={"encoder_learns": False}), build(method)
    b = batch(clicks(*USUAL), clicks())
    losses = [each.losses(b, 3) for each in (frozen, whole)]
    for name, value in losses[0].items():
        assert torch.allclose(value, losses[1][name], atol=1e-5)
    sum(losses[0].values()).backward()
    grads = {n: p.grad is not None for n, p in frozen.auto.generator.named_parameters()}
    assert all(has == n.startswith("heads") for n, has in grads.items())
    learning = [p for group in frozen.param_groups(1.0, 0.0) for p in group["params"]]
    assert {id(p) for p in learning} == {id(p) for p in frozen.auto.generator.heads.parameters()}


def test_the_walk_alone_labels_the_tokens_that_the_object_wins():
    """By hand: one step from anywhere leads to a seed of the object, or to one of the ground."""
    walk = build(WalkAlone, walk={"foreground": 0.5, "background": 0.5, "hops": 1.0})
    b = batch(clicks(USUAL[0]))
    look = walk.evidence_features(b)
    n = walk.extractor.grid**2
    seeds = walk.extractor.seeds(look.view)
    for side, whole in ((seeds.foreground, True), (seeds.background, False)):
        to = (side.float() / side.sum())[:, None].expand(1, n, n)
        [labels] = walk.assign(CropWalk(look.view, to), b).pseudo_labels()
        assert (labels.masks[0, 8:28, 6:22] == whole).all(), "but for its rim, the box"
        assert labels.masks.sum() == labels.masks[0, 6:30, 4:24].sum()


@pytest.mark.parametrize(
    ("depth", "taken"), [(12, (7, 9, 11)), (6, (3, 4, 5)), (24, (15, 19, 23)), (2, (0, 1, 1))]
)
def test_a_layer_of_twelve_stands_for_the_same_share_of_any_depth(depth, taken):
    vit = ViTConfig("small", dim=16, depth=depth, heads=1)
    chosen = [Extractor(WalkConfig(vit, layer=layer), 32).layers() for layer in (8, 10, 12)]
    assert chosen == [[each] for each in taken]
    assert Extractor(WalkConfig(vit, layer=None), 32).layers() == list(range(depth))


def test_a_layer_beyond_twelve_is_refused():
    with pytest.raises(InputError, match=r"layer: expected .*12.*, got 13"):
        recipe.make("exits", config={"walk": {"layer": 13}})


def test_levels_that_favour_a_side_move_what_the_walk_owns():
    b = batch(clicks(*USUAL))
    areas = []
    for foreground, background in ((0.1, 5.0), (0.1, 0.1), (5.0, 0.1)):
        walk = build(WalkAlone, walk={"foreground": foreground, "background": background})
        areas.append(int(walk.pseudo_labels(b)[0].masks.sum()))
    assert areas[0] >= areas[1] >= areas[2] and areas[0] > areas[2]


def test_settings_of_the_walk_share_what_the_network_sees():
    b, whole = batch(clicks(*USUAL), clicks()), build(WalkAlone)
    one = build(WalkAlone, walk={"layer": 6, "hops": 4.0, "neighbours": True})
    look = whole.evidence_features(b)
    by_itself = one.pseudo_labels(b)
    shared = one.assign(one.evidence(look, b), b).pseudo_labels()
    assert all(torch.equal(x.masks, y.masks) for x, y in zip(by_itself, shared))
    matrix = one.extractor.transition(look.view.pixels)
    assert torch.allclose(one.evidence(look, b).transition, matrix, atol=1e-6)


def test_the_teacher_follows_slowly():
    mal = build(MAL)
    with torch.no_grad():
        for p in mal.auto.generator.parameters():
            p.add_(1.0)
    mal.losses(batch(clicks(*USUAL)), 0)
    gaps = [
        (new - old).mean()
        for old, new in zip(mal.auto.teacher.parameters(), mal.auto.generator.parameters())
        if old.numel()
    ]
    assert torch.allclose(torch.stack(gaps), torch.tensor(mal.config.generator.momentum), atol=1e-4)


def test_a_row_draws_the_same_whoever_stands_beside_it():
    """Two processes with half a batch each take the crops of one."""
    mal, whole = build(MAL), batch(clicks(*USUAL), clicks(USUAL[1]))
    second = replace(
        whole,
        images=whole.images[1:],
        sizes=whole.sizes[1:],
        points=whole.points[1:],
        draws=whole.draws[1:],
    )
    together, alone = mal.auto.view(whole), mal.auto.view(second)
    assert torch.equal(together.crops.window[2:], alone.crops.window)
    assert torch.allclose(together.prob[2:], alone.prob, atol=1e-6)


def test_small_boxes_are_left_out_and_the_rest_is_drawn():
    many = batch(clicks(*[(2 * k, 2 * k, 2 * k + 12, 2 * k + 12) for k in range(6)], (0, 0, 2, 2)))
    config = build(MAL).config.generator
    chosen = chosen_objects(clicked_objects(many), many, config)
    assert len(chosen) == config.crops_per_image and 11 not in chosen.target.tolist()


def test_ranks_among_objects_of_an_image():
    ranks = rank_in_image(torch.tensor([0.3, 0.1, 0.1, 0.9, 0.2]), torch.tensor([0, 0, 0, 1, 1]))
    assert ranks.tolist() == [2, 0, 1, 1, 0]


def test_neighbours_clicks_are_ground_for_a_crop_that_shows_them():
    walk = replace(build(EXITS).config.walk, neighbours=True)
    fine = {"generator": replace(build(EXITS).config.generator, side=128)}
    exits, b = build(EXITS, walk=walk, **fine), batch(clicks((4, 4, 28, 28), (14, 14, 36, 36)))
    view = exits.auto.view(b)
    without = build(EXITS, **fine).extractor.seeds(view)
    seeds = exits.extractor.seeds(view)
    assert (seeds.background & without.inside & ~without.background).any(1).all()
    assert torch.equal(seeds.foreground, without.foreground)


def test_a_neighbour_s_click_is_ground_where_it_lies_in_its_own_box():
    """By hand: 48 pixels, the left object's box is columns 0..31, the right one's 16..47.

    The crop of the left object shows the right one's left click at column 16, pushed 3 pixels of
    the crop toward that box's middle at 32.
    """
    walk = replace(build(EXITS).config.walk, neighbours=True, delta=3.0)
    fine = {"generator": replace(build(EXITS).config.generator, side=128)}
    exits = build(EXITS, walk=walk, **fine)
    objects = clicked_objects(batch(clicks((0, 0, 32, 48), (16, 0, 48, 48))))
    left = objects.pick(torch.tensor([0]))
    crops = crops_of(left.box, left.image, torch.tensor([[0.5, 0.0, 0.5, 0.0]]), 128)
    view = ObjectCrops(objects, left, crops, torch.zeros(1, 3, 128, 128))
    token, crop = exits.extractor.others(view)
    cell, grid = 128 / exits.extractor.grid, exits.extractor.grid
    scale = 128 / 48  # the window is 48 wide and high, from -8 on
    column = int(((16.5 + 8) * scale + 3) // cell)
    assert column + grid * int((24.5 * scale) // cell) in token.tolist()
    assert crop.tolist() == [0] * len(token) and 2 <= len(token) <= 4
    alone = exits.extractor.others(replace(view, everyone=left))
    assert not len(alone[0]), "an object is no neighbour of its own"


def test_an_object_too_small_for_a_crop_is_a_neighbour_all_the_same():
    walk = replace(build(EXITS).config.walk, neighbours=True)
    config = replace(build(EXITS).config.generator, side=128, crops_per_image=1)
    exits = build(EXITS, walk=walk, generator=config)
    view = exits.auto.view(batch(clicks((4, 4, 40, 40), (20, 20, 22, 22))))
    assert len(view.objects) == 1 and len(view.everyone) == 2
    assert len(exits.extractor.others(view)[0])


def sides(foreground, background, n=6):
    marks = torch.zeros(2, 1, n, dtype=torch.bool)
    marks[0, 0, foreground], marks[1, 0, background] = True, True
    return marks


def test_the_point_loss_by_hand():
    fg, bg = sides([0], [1, 2])
    nothing = torch.zeros_like(fg)
    seeds, none = Seeds(fg, bg, fg), Retrieved(nothing, nothing)
    values = torch.tensor([[0.5, 0.25, 0.5, 0.9, 0.9, 0.9]])
    balanced = (math.log(2) + (math.log(4 / 3) + math.log(2)) / 2) / 2
    plain = (math.log(2) + math.log(4 / 3) + math.log(2)) / 3
    assert float(point_loss(values, seeds, none)) == pytest.approx(balanced)
    assert point_loss(values, seeds, none, balanced=False).item() == pytest.approx(plain)


def test_unlabelled_tokens_teach_nothing():
    fg, bg = sides([0], [1])
    nothing = torch.zeros_like(fg)
    values = torch.rand(1, 6).requires_grad_()
    point_loss(values, Seeds(fg, bg, fg), Retrieved(nothing, nothing)).sum().backward()
    assert (values.grad[0, 2:] == 0).all() and (values.grad[0, :2] != 0).all()
