"""EPLD whole: from points to labels to losses, on good input and bad; its memory at COCO's size."""

from dataclasses import replace

import pytest
import torch
from support.grid_targets import points_of

from pointseg.papers.epld.method import EPLD
from pointseg.structures import IGNORE, Batch, Category
from pointseg.students.panoptic_full import PanopticFull
from pointseg.training.loop import noted

CANVAS = (64, 64)
CATEGORIES = [
    Category(k, name, k < 3) for k, name in enumerate(("disc", "square", "sky", "sea"), 1)
]


def method(**choices):
    torch.manual_seed(0)
    return EPLD.build(CATEGORIES, "smoke", **choices)


def batch_of(*points, sizes=None):
    torch.manual_seed(1)
    sizes = sizes or [CANVAS] * len(points)
    images = torch.rand(len(points), 3, *CANVAS)
    for image, (h, w) in zip(images, sizes):
        image[:, h:], image[:, :, w:] = 0, 0
    return Batch(images, sizes, [f"image {k}" for k in range(len(points))], list(points))


def read(batch, **choices):
    """(labeller, its evidence, its labels) on features of an untrained student."""
    whole = method(**choices)
    evidence = whole.labeller.evidence(whole.student.features(batch.images, batch.sizes), batch)
    return whole.labeller, evidence, whole.labeller.assign(evidence, batch)


SCENE = points_of((10, 10, 0, 1), (50, 20, 1, 2), (30, 60, 2, 3), (5, 50, 3, 4))
MANY = points_of(*((4 * (k % 15) + 2, 4 * (k // 15) + 2, k % 2, k + 1) for k in range(200)))


def test_every_pixel_has_an_owner_and_every_point_its_own_cell():
    batch = batch_of(SCENE)
    _, _, labels = read(batch)
    assert labels.owner.min() >= 0 and labels.owner.max() <= 3
    for k, (x, y) in enumerate(SCENE.xy.long().tolist()):
        assert (
            labels.owner[0, y // 4 * 4 : y // 4 * 4 + 4, x // 4 * 4 : x // 4 * 4 + 4] == k
        ).all()


def test_targets_hold_masks_boxes_and_stuff_of_the_label():
    batch = batch_of(SCENE, sizes=[(64, 40)])
    _, _, labels = read(batch_of(points_of((10, 10, 0, 1), (30, 60, 3, 4)), sizes=[(64, 40)]))
    targets = labels.targets(batch)
    (target,) = targets.images
    owner = labels.owner[0]
    assert target.thing_label.tolist() == [0]
    assert torch.equal(target.things[0], owner == 0)
    assert (target.stuff[owner == 1] == 1).all() and (target.stuff[owner != 1] == IGNORE).all()
    assert torch.equal(target.known, owner >= 0) and not target.known[:, 40:].any()
    assert targets.thing_share() == 0.5


TERMS = {"partial", "class", "self_training", "colour_prior"}
BAD = {
    "no points": [points_of()],
    "one target": [points_of((10, 10, 0, 1))],
    "two points in one cell": [points_of((10.1, 10.1, 0, 1), (10.9, 10.8, 1, 2), (40, 40, 2, 3))],
    "a point in the padding": [points_of((10, 10, 0, 1), (60, 60, 1, 2))],
    "200 targets": [MANY],
    "stuff only": [points_of((10, 10, 2, 1), (50, 50, 3, 2))],
    "things only": [points_of((10, 10, 0, 1), (50, 50, 1, 2))],
    "ten points": [points_of(*((6 * k + 1, 5 * k + 2, k % 2, k % 2 + 1) for k in range(10)))],
}


@pytest.mark.parametrize("beside", [[], [SCENE]], ids=["alone", "beside a good image"])
@pytest.mark.parametrize("case", BAD)
def test_odd_images_are_labelled_and_learnt_from(case, beside):
    points = BAD[case] + beside
    batch = batch_of(*points, sizes=[(48, 64)] + [CANVAS] * len(beside))
    net, evidence, labels = read(batch)
    losses = net.losses(evidence, labels, batch)
    assert set(losses) == TERMS
    assert all(torch.isfinite(loss) and loss >= 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert len(labels.targets(batch).images) == len(labels.pseudo_labels()) == len(points)
    shown = labels.pseudo_labels()[0]
    assert shown.segments.shape == (48, 64)
    assert shown.segments.max() <= len(shown.label) == int(labels.table.present[0].sum())
    assert (shown.segments > 0).all() == bool(len(points[0]))


def test_where_two_targets_claim_a_cell_the_nearest_keeps_it():
    _, evidence, labels = read(batch_of(*BAD["two points in one cell"]))
    assert not evidence.targets.labelled[0, 2, 2]
    assert (evidence.targets.points[0, :2, 2, 2]).all()
    assert labels.owner[0, 10, 10] in (0, 1, 2)


def test_a_class_without_any_point_is_learnt_as_absent_and_its_embedding_rests():
    batch = batch_of(points_of((10, 10, 0, 1), (50, 50, 2, 2)))
    net, evidence, labels = read(batch)
    sum(net.losses(evidence, labels, batch).values()).backward()
    moved = net.branch.embedding.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, False, True, False]
    assert (net.branch.classifier.weight.grad[[1, 3]].abs().sum(1) > 0).all()


def test_eq11_switched_off_terms_are_not_computed():
    """[EPLD Eq. 11] [EPLD Tab. 2, 5]"""
    off = {"class_loss": False, "self_training": False, "colour_prior": False}
    batch = batch_of(SCENE)
    net, evidence, labels = read(batch, **off)
    assert set(net.losses(evidence, labels, batch)) == {"partial"}


@pytest.mark.parametrize(
    "choice, term",
    [("class_loss", "class"), ("self_training", "self_training"), ("colour_prior", "colour_prior")],
)
def test_a_loss_switched_off_changes_no_label_and_no_other_loss(choice, term):
    """[EPLD Tab. 2, 5] Before the first step."""
    batch = batch_of(SCENE)
    (net, *full), (other, *without) = read(batch), read(batch, **{choice: False})
    assert torch.equal(full[1].owner, without[1].owner)
    left = net.losses(*full, batch)
    del left[term]
    assert other.losses(*without, batch) == left


def test_without_a_student_branch_encoder_and_backbone_learn_and_its_heads_rest():
    """[EPLD Eq. 12] L_pan is left out; labels and the losses of the labeller stay."""
    whole, batch = method(), batch_of(SCENE)
    both, segments = whole.losses(batch, 5), whole.pseudo_labels(batch)[0].segments
    whole.student_learns = False
    losses = whole.losses(batch, 5)
    assert losses == {name: both[name] for name in TERMS}
    assert torch.equal(whole.pseudo_labels(batch)[0].segments, segments)
    sum(losses.values()).backward()
    network = whole.student.network.named_parameters()
    assert {name.split(".")[0] for name, p in network if p.grad is not None} == {
        "backbone",
        "encoder",
    }


def test_eq11_each_term_is_the_sum_of_its_layers():
    """[EPLD Eq. 11] With the last layer alone in the estimate the sum of L terms is its own."""
    batch = batch_of(SCENE)
    net, evidence, labels = read(batch)
    layers = []
    for k in range(3):
        one = {n: v[[k]] for n, v in vars(evidence.estimate).items()}
        one["label"] = evidence.estimate.label[[-1]]
        alone = replace(evidence, estimate=type(evidence.estimate)(**one))
        layers.append(net.losses(alone, labels, batch))
    for name, loss in net.losses(evidence, labels, batch).items():
        torch.testing.assert_close(loss, sum(layer[name] for layer in layers))


def test_learning_lowers_every_term_and_labels_become_better():
    """Two-coloured halves, one point each: after a few steps the border is found."""
    image = torch.zeros(1, 3, *CANVAS)
    image[:, 0, :, :24] = 1
    image[:, 2, :, 24:] = 1
    batch = Batch(image, [CANVAS], ["halves"], [points_of((8, 30, 0, 1), (50, 30, 1, 2))])
    whole = method(layers=6, warmup_steps=10)
    optimizer = torch.optim.AdamW(whole.parameters(), lr=2e-3)
    totals = []
    for step in range(40):
        losses = whole.losses(batch, step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
        optimizer.step()
        totals.append(sum(losses[name].item() for name in TERMS))
    shown = whole.pseudo_labels(batch)[0].segments - 1
    truth = (torch.arange(64) >= 24).long().expand(64, 64)
    assert totals[-1] < totals[0] / 3
    assert (shown == truth).float().mean() > 0.9


@pytest.mark.parametrize("case", BAD)
def test_odd_images_pass_through_the_student_as_well(case):
    """[EPLD Eq. 12] The student's losses are there beside the labeller's; all sum to a number."""
    whole = method(student={"queries": 250, "start": "learnt"}, warmup_steps=1)
    losses = whole.losses(batch_of(*BAD[case], SCENE, sizes=[(48, 64), CANVAS]), 1)
    assert set(losses) > TERMS
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()


def test_eq12_the_student_s_losses_grow_over_the_warm_up_the_labeller_s_do_not():
    """[EPLD Eq. 12] The total is a plain sum of both."""
    whole, batch = method(warmup_steps=10), batch_of(SCENE)
    at = {step: whole.losses(batch, step) for step in (0, 5, 10, 20)}
    for name in at[0]:
        values = [at[step][name].item() for step in (0, 5, 10, 20)]
        grown = [values[-1]] * 4 if name in TERMS else [0, values[-1] / 2, values[-1], values[-1]]
        assert values == pytest.approx(grown, rel=1e-5)


def test_inference_has_the_modules_and_the_output_of_the_supervised_student_alone():
    """[EPLD Sec. 3.1] The labeller can be thrown away: nothing else is in the student."""
    whole, full = method().eval(), PanopticFull.build(CATEGORIES, "smoke").eval()
    names = {name: p.shape for name, p in full.student.state_dict().items()}
    assert {name: p.shape for name, p in whole.student.state_dict().items()} == names
    full.student.load_state_dict(whole.student.state_dict())
    images, sizes = torch.rand(2, 3, *CANVAS), [CANVAS, (40, 51)]
    whole.labeller = None
    for one, other in zip(whole.predict(images, sizes), full.predict(images, sizes)):
        assert torch.equal(one.panoptic.segments, other.panoptic.segments)
        assert torch.equal(one.panoptic.scores, other.panoptic.scores)


def test_everything_learns_and_the_labeller_at_the_full_rate():
    whole = method(warmup_steps=1)
    whole.losses(batch_of(SCENE), 1)
    groups = whole.param_groups(1e-3, 1e-2)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {id(p) for p in whole.parameters() if p.requires_grad} == set(rates)
    assert {rates[id(p)] for p in whole.labeller.parameters()} == {1e-3}


def test_the_loop_logs_what_each_layer_does_beside_the_losses():
    whole, batch = method(), batch_of(SCENE)
    assert noted(whole) == {}
    losses = whole.losses(batch, 0)
    notes = noted(whole)
    assert set(notes) == {f"{kind} {k}" for kind in ("positive", "entropy") for k in (1, 2, 3)}
    assert not set(notes) & set(losses)
    assert all(0 <= value <= (1 if "positive" in name else 1.39) for name, value in notes.items())
