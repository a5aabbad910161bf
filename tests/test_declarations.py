"""What a method declares of itself holds: its row of the design table, losses and properties."""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from pointseg.lab.methods import METHODS, method_class
from pointseg.ops.extreme_points import side_middles
from pointseg.ownership import NOBODY
from pointseg.papers.method import targets_of
from pointseg.structures import Answer, Batch, Category, Instances, Points

CATEGORIES = [Category(1, "cat"), Category(2, "dog"), Category(3, "sky", False),
              Category(4, "ground", False)]  # fmt: skip
STEP = 9  # at scale smoke every method has entered its last stage by then


def batch_with_points():
    """Two images of two sizes; things of one class side by side, ten points on one of them."""
    generator = torch.Generator().manual_seed(0)
    ten = [(5 + k, 20 + k, 1, 8) for k in range(10)]
    rows = [
        [(9, 40, 0, 1), (20, 42, 0, 2), (50, 50, 1, 3), (30, 4, 2, 4), (10, 60, 3, 5)],
        [*ten, (30, 30, 1, 9), (30, 5, 3, 7)],
    ]
    points = []
    for image in rows:
        x, y, label, target = (torch.tensor(column) for column in zip(*image))
        xy = torch.stack([x, y], -1) + 0.5
        points.append(Points(xy, label, target, label < 2))
    images = torch.zeros(2, 3, 64, 64)
    images[0], images[1, :, :52, :48] = (
        torch.rand(3, *s, generator=generator) for s in ((64, 64), (52, 48))
    )
    return Batch(images, [(64, 64), (52, 48)], ["a", "b"], points)


def batch_with_extremes():
    """Two images with four extreme points a thing; two boxes that overlap."""
    boxes = [[(4, 6, 30, 40, 0, 1), (24, 20, 60, 60, 1, 2)], [(2, 3, 40, 50, 1, 7)]]
    points = []
    for image in boxes:
        left, top, right, bottom, label, target = (torch.tensor(column) for column in zip(*image))
        middles = side_middles(torch.stack([left, top, right, bottom], 1).float())
        rows = torch.arange(len(image)).repeat_interleave(4)
        points.append(Points(middles.flatten(0, 1), label[rows], target[rows], label[rows] < 2))
    return replace(batch_with_points(), points=points)


def batch_for(name):
    extremes = getattr(method_class(name), "POINTS", {}).get("kind") == "extreme"
    return batch_with_extremes() if extremes else batch_with_points()


def built(name):
    """A method after a step, so that what changes with the step has changed."""
    torch.manual_seed(0)
    method = method_class(name).build(CATEGORIES, "smoke")
    if method.SUPERVISION != "masks":
        method.losses(batch_for(name), STEP)
    return method


def owner_rows(method, batch):
    """Per image: points, the row that owns each point's pixel (or NOBODY), and the labels."""
    for points, labelled in zip(batch.points, method.pseudo_labels(batch)):
        points = points.things() if isinstance(labelled, Instances) else points
        x, y = points.xy.long().unbind(-1)
        if isinstance(labelled, Instances):
            place = {t: k for k, t in enumerate(targets_of(points).tolist())}
            expected = torch.tensor([place[t] for t in points.target.tolist()])
            rows = torch.where(labelled.masks[expected, y, x], expected, NOBODY)
        else:
            rows = labelled.segments[y, x] - 1
        yield points, rows, labelled


def points_keep_their_pixel(method, batch):
    for points, rows, labelled in owner_rows(method, batch):
        assert (rows >= 0).all() and torch.equal(labelled.label[rows], points.label)
        things = points.is_thing
        pairs = set(zip(points.target[things].tolist(), rows[things].tolist()))
        assert len(pairs) == len({t for t, _ in pairs}) == len({r for _, r in pairs})


def no_target_is_empty(method, batch):
    for points, _, labelled in owner_rows(method, batch):
        if isinstance(labelled, Instances):
            assert labelled.masks.flatten(1).any(1).all()
        else:
            held = labelled.label[labelled.segments[labelled.segments > 0].unique() - 1]
            things = len(targets_of(points.things()))
            assert (held < 2).sum() == things
            assert set(points.label.tolist()) <= set(held.tolist())


def only_the_points_classes(method, batch):
    for points, _, labelled in owner_rows(method, batch):
        assert set(labelled.label.tolist()) <= set(points.label.tolist())


def boxes_hold_their_points(method, batch):
    for points, labelled in zip(batch.points, method.pseudo_labels(batch)):
        things = points.things()
        rows = [things.target.tolist().index(t) for t in targets_of(things).tolist()]
        xy, box = things.xy[rows], labelled.boxes
        assert ((xy >= box[:, :2]) & (xy <= box[:, 2:])).all()


def masks_lie_in_their_boxes(method, batch):
    for labelled in method.pseudo_labels(batch):
        for mask, (left, top, right, bottom) in zip(labelled.masks, labelled.boxes.long().tolist()):
            inside = torch.zeros_like(mask)
            inside[top:bottom, left:right] = True
            assert not (mask & ~inside).any()


def tensors_of(record):
    if isinstance(record, torch.Tensor):
        yield record
    elif is_dataclass(record):
        for field in fields(record):
            yield from tensors_of(getattr(record, field.name))
    elif isinstance(record, list | tuple):
        for item in record:
            yield from tensors_of(item)


def no_gradient_through_assign(method, batch):
    features = method.student.features(batch.images, batch.sizes)
    evidence = method.labeller.evidence(features, batch)
    attached = [t for t in tensors_of(method.labeller.assign(evidence, batch)) if t.requires_grad]
    assert not attached


def paths_of(method, batch):
    features = method.student.features(batch.images, batch.sizes)
    return method.labeller.evidence(features, batch).images


def nearest_at_price_zero(method, batch):
    labeller = method.labeller
    for paths, points in zip(paths_of(method, batch), batch.points):
        cost = labeller.cost(paths)
        label = paths.labelled(cost, torch.zeros(len(cost)), points).label.things
        label[points.xy[:, 1].long(), points.xy[:, 0].long()] = NOBODY  # those are written in
        owned = label != NOBODY
        chosen = cost.gather(0, label.clamp(min=0)[None])[0]
        assert owned.any() and torch.equal(chosen[owned], cost.amin(0)[owned])


def constants_on_prices_change_nothing(method, batch):
    labeller = method.labeller
    for paths, points in zip(paths_of(method, batch), batch.points):
        cost, price = labeller.cost(paths), labeller.price(paths)
        labels = [paths.labelled(cost, price + c, points).label.things for c in (0.0, 4.0)]
        assert (labels[0] != labels[1]).float().mean() < 1e-3  # rounding decides ties anew


CHECKS = {
    "points keep their own pixel": points_keep_their_pixel,
    "no target of a point is empty": no_target_is_empty,
    "boxes hold their points": boxes_hold_their_points,
    "labels use only the points' classes": only_the_points_classes,
    "masks lie in their boxes": masks_lie_in_their_boxes,
    "no gradient through assign": no_gradient_through_assign,
    "at a price of zero the nearest owns": nearest_at_price_zero,
    "a constant on all prices changes no label": constants_on_prices_change_nothing,
}


def declared():
    return [
        (name, each) for name in METHODS for each in getattr(method_class(name), "PROPERTIES", ())
    ]


@pytest.mark.parametrize("name, declared_property", declared())
def test_every_declared_property_holds(name, declared_property):
    CHECKS[declared_property](built(name), batch_for(name))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_declares_its_row_of_the_design_table(name):
    cls = method_class(name)
    if hasattr(cls, "ANSWER"):
        assert isinstance(cls.ANSWER, Answer) and all(
            getattr(cls.ANSWER, f.name) for f in fields(Answer)
        )
        assert set(cls.SCORES) <= {"val", "labels"}
        assert ("labels" in cls.SCORES) == hasattr(cls, "pseudo_labels")


@pytest.mark.parametrize("name", [n for n in METHODS if hasattr(method_class(n), "LOSSES")])
def test_the_table_of_losses_has_no_row_too_few_or_too_many(name):
    method = built(name)
    if method.SUPERVISION != "masks":
        assert set(method.losses(batch_for(name), STEP)) == set(method.LOSSES)


def without_points(labeller):
    """Labels into which no point's pixel was written."""

    def erased(paths, points):
        image = type(labeller).label_paths(labeller, paths, points)
        bare = replace(image.label, things=torch.full_like(image.label.things, NOBODY))
        return replace(image, label=bare)

    labeller.label_paths = erased  # fmt: skip


def elsewhere(labeller):
    """Boxes in a corner."""
    assigned = type(labeller).assign
    corner = lambda labels: [  # noqa: E731
        Instances(
            torch.ones(2, 9, 9).bool(), torch.ones(2), torch.zeros(2).long(), torch.zeros(2, 4)
        )
        for _ in labels.images]  # fmt: skip
    labeller.assign = lambda *given: Moved(corner(assigned(labeller, *given)))  # fmt: skip


class Moved:
    def __init__(self, labelled):
        self.labelled = labelled

    def pseudo_labels(self):
        return self.labelled


def another_class(labeller):
    """Labels with a class that no point has."""

    def painted(paths, points):
        image = type(labeller).label_paths(labeller, paths, points)
        image.label.stuff[-1] = 2 if 2 not in points.label else 3
        image.label.things[-1] = NOBODY
        return image

    labeller.label_paths = painted  # fmt: skip


def attached(labeller):
    """Labels that still hang on the network."""
    assigned = type(labeller).assign

    def leaking(evidence, batch):
        labels = assigned(labeller, evidence, batch)
        leak = labels.images[0].label.things + evidence.maps.logits.sum() * 0
        image = replace(labels.images[0], label=replace(labels.images[0].label, things=leak))
        return replace(labels, images=[image, *labels.images[1:]])

    labeller.assign = leaking  # fmt: skip


def farthest(labeller):
    """A refusal that hits the nearest."""

    def turned(paths):
        costs = type(labeller).cost(labeller, paths)
        return Turned(costs)

    labeller.cost = turned  # fmt: skip


class Turned(torch.Tensor):
    """Costs that are handed to the question with the wrong sign."""

    @staticmethod
    def __new__(cls, cost):
        return torch.Tensor._make_subclass(cls, cost)

    def masked_fill(self, mask, value):
        return (-self.as_subclass(torch.Tensor)).masked_fill(mask, value)


def unequal(labeller):
    """A constant that only some prices get."""

    def bent(paths):
        return Bent(type(labeller).price(labeller, paths))

    labeller.price = bent  # fmt: skip


class Bent(torch.Tensor):
    @staticmethod
    def __new__(cls, price):
        return torch.Tensor._make_subclass(cls, price)

    def __add__(self, constant):
        plain = self.as_subclass(torch.Tensor)
        return plain + constant * torch.arange(len(plain))


PLANTED = {
    "points keep their own pixel": without_points,
    "no target of a point is empty": without_points,
    "boxes hold their points": elsewhere,
    "labels use only the points' classes": another_class,
    "masks lie in their boxes": elsewhere,
    "no gradient through assign": attached,
    "at a price of zero the nearest owns": farthest,
    "a constant on all prices changes no label": unequal,
}


@pytest.mark.parametrize("declared_property", CHECKS)
def test_every_check_is_red_on_a_planted_fault(declared_property):
    method = built("psps")
    PLANTED[declared_property](method.labeller)
    batch = batch_with_points()
    if PLANTED[declared_property] is elsewhere:  # boxes are of things only
        two = Points(
            torch.full((2, 2), 40.0), torch.zeros(2).long(), torch.arange(2), torch.ones(2).bool()
        )
        batch = replace(batch, points=[two, two])
    with pytest.raises(AssertionError):
        CHECKS[declared_property](method, batch)
