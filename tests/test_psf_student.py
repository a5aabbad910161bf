"""The panoptic student: shapes, a start that is alive, guards, padding, and that it can learn."""

import dataclasses

import pytest
import torch

from pointseg.nets.deformable_encoder import DeformableEncoder
from pointseg.structures import Batch, Category, Classes, InputError, Truth, padding_mask
from pointseg.students.panoptic_full import Config, PanopticFull
from pointseg.students.panoptic_segformer.network import (
    SMALL,
    SMOKE,
    PanopticSegFormer,
)
from pointseg.students.panoptic_segformer.student import PanopticStudent

CATEGORIES = [
    Category(1, "disc"),
    Category(2, "square"),
    Category(3, "sky", False),
    Category(4, "ground", False),
]


def truth(size, things, stuff=True):
    """Squares (label, row, column, side) over two bands of stuff."""
    masks, labels = [], []
    for label, r, c, side in things:
        mask = torch.zeros(size, size, dtype=torch.bool)
        mask[r : r + side, c : c + side] = True
        masks.append(mask), labels.append(label)
    free = ~torch.stack(masks).any(0) if masks else torch.ones(size, size, dtype=torch.bool)
    band = torch.arange(size)[:, None] < size // 2
    if stuff:
        masks += [free & band, free & ~band]
        labels += [2, 3]
    n = len(masks)
    stacked = torch.stack(masks) if masks else torch.zeros(0, size, size, dtype=torch.bool)
    label = torch.tensor(labels, dtype=torch.long)
    return Truth(stacked, label, torch.arange(1, n + 1), label < 2,
                 torch.zeros(n, dtype=torch.bool),
                 torch.zeros(size, size, dtype=torch.bool))  # fmt: skip


def batch_of(truths, size=64):
    colour = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.5, 0.8, 1.0], [0.2, 0.6, 0.2]])
    images = torch.zeros(len(truths), 3, size, size)
    for image, t in zip(images, truths):
        for mask, label in zip(t.masks, t.label):
            image[:, mask] = colour[label][:, None]
    return Batch(
        images,
        [(size, size)] * len(truths),
        [f"picture{i}" for i in range(len(truths))],
        None,
        truths,
    )


def targets_of(batch, config):
    return PanopticFull(Classes(2, 2), Config(config)).targets(batch)


@pytest.mark.parametrize("neck, start", [("conv", "cells"), ("deformable", "learnt")])
def test_every_parameter_gets_a_gradient(neck, start):
    torch.manual_seed(0)
    config = dataclasses.replace(
        SMOKE, neck=neck, start=start, encoder_layers=1, stuff_layers=2, thing_layers=2
    )
    student = PanopticStudent(Classes(2, 2), config)
    batch = batch_of([truth(64, [(0, 8, 8, 20), (1, 36, 30, 16)])])
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    for _ in range(2):  # heads that start at zero let nothing through the first time
        optimizer.zero_grad()
        features = student.features(batch.images, batch.sizes)
        losses = student.losses(features, targets_of(batch, config), batch)
        sum(losses.values()).backward()
        optimizer.step()
    last = (
        "network.stuff_queries.decoder.layers.1",
        "network.thing_decoder.layers.1",
    )  # nothing looks at the last mask layer's values
    lacking = [name for name, p in student.named_parameters()
               if (p.grad is None or not p.grad.abs().sum())
               and not name.startswith(last)]  # fmt: skip
    assert not [name for name in lacking if not name.endswith("key.bias")], (
        lacking
    )  # a softmax forgets that bias


def test_images_without_things_or_without_stuff_are_learnt_from():
    torch.manual_seed(0)
    method = PanopticFull.build(CATEGORIES, "smoke")
    for truths in (
        [truth(64, [])],
        [truth(64, [(0, 0, 0, 64)], stuff=False)],
        [truth(64, []), truth(64, [(1, 5, 5, 9)])],
    ):
        losses = method.losses(batch_of(truths), 0)
        assert all(torch.isfinite(v) for v in losses.values())
        sum(losses.values()).backward()
    only_things = PanopticFull.build(CATEGORIES[:2], "smoke")
    assert set(only_things.losses(batch_of([truth(64, [(0, 5, 5, 9)], stuff=False)]), 0)) == {
        "location_class", "location_l1", "location_giou", "thing_dice"}  # fmt: skip
    assert only_things.predict(torch.rand(1, 3, 64, 64), [(64, 64)])[0].panoptic.segments.shape == (
        64,
        64,
    )


def test_more_things_than_queries_is_one_clear_line():
    method = PanopticFull.build(CATEGORIES, "smoke", student={"queries": 2})
    crowded = truth(64, [(0, 2, 2, 9), (1, 20, 20, 9), (0, 40, 40, 9)])
    with pytest.raises(InputError, match="image picture0: 3 things but only 2 queries"):
        method.losses(batch_of([crowded]), 0)


@pytest.mark.parametrize("neck", ["conv", "deformable"])
def test_padding_changes_no_prediction_of_the_mask_decoders(neck):
    """The memory is set by hand: what stands in padded cells must not reach queries or masks."""
    torch.manual_seed(0)
    student = PanopticSegFormer(
        Classes(2, 2), dataclasses.replace(SMOKE, neck=neck, start="cells", encoder_layers=1)
    ).eval()
    images = torch.rand(1, 3, 64, 64)
    padding = padding_mask([(64, 40)], images)
    memory = student.encode(images, padding)
    assert memory.padding_of(0)[0, :, 10:].all() and not memory.padding_of(0)[0, :, :10].any()
    noisy = dataclasses.replace(
        memory,
        tokens=memory.tokens + 9 * torch.randn_like(memory.tokens) * memory.padding[..., None],
    )
    one, other = student(memory), student(noisy)
    torch.testing.assert_close(one.stuff_presence, other.stuff_presence)
    torch.testing.assert_close(one.located.boxes, other.located.boxes)
    valid = ~memory.padding_of(0)[0]
    torch.testing.assert_close(
        one.stuff_masks[..., valid], other.stuff_masks[..., valid], atol=0.5, rtol=10
    )
    chosen = torch.zeros(1, 1, dtype=torch.long)
    assert student.thing_masks(one, chosen).shape == (1, 1, 1, 16, 16)


def test_predictions_have_each_picture_s_own_size():
    method = PanopticFull.build(CATEGORIES, "smoke").eval()
    answers = method.predict(torch.rand(2, 3, 64, 64), [(64, 64), (40, 51)])
    assert [a.panoptic.segments.shape for a in answers] == [(64, 64), (40, 51)]
    assert [a.image_id for a in answers] == [0, 1]
    for a in answers:
        assert a.panoptic.segments.max() <= len(a.panoptic.label)


def test_the_papers_own_sizes_are_the_defaults():
    paper = PanopticFull.build(CATEGORIES, "paper", student={"weights": None}).config.student
    assert paper.backbone == "resnet50" and paper.queries == 300 and paper.neck == "deformable"
    changes = {"neck": "deformable", "queries": 50, "merge": {"confidence": 0.2}}
    small = PanopticFull.build(CATEGORIES, "small", student=changes).config.student
    merge = dataclasses.replace(SMALL.merge, confidence=0.2)
    assert small == dataclasses.replace(SMALL, neck="deformable", queries=50, merge=merge)
    encoder = DeformableEncoder([8, 8, 8], 16, 4, 2, 2, 1, 16, 0.0)
    memory = encoder([torch.rand(1, 8, s, s) for s in (16, 8, 4)], None)
    assert memory.shapes == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_it_overfits_a_picture():
    torch.manual_seed(1)
    scene = truth(32, [(0, 3, 2, 12), (1, 17, 16, 14)])
    batch = batch_of([scene], 32)
    config = dataclasses.replace(SMOKE, stuff_layers=2, thing_layers=2)
    student = PanopticStudent(Classes(2, 2), config)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    targets = targets_of(batch, config)
    for _ in range(80):
        optimizer.zero_grad()
        losses = student.losses(student.features(batch.images, batch.sizes), targets, batch)
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
    prediction = student.predict(batch.images, batch.sizes)[0].panoptic
    for mask, label in zip(scene.masks, scene.label):
        shown = [
            prediction.segments == k + 1
            for k in range(len(prediction.label))
            if prediction.label[k] == label
        ]
        assert max(float((mask & s).sum() / (mask | s).sum()) for s in shown) > 0.5


@pytest.mark.parametrize("size", [(64, 64), (64, 40)])
def test_masks_alone_are_the_masks_of_the_whole_decoder(size):
    torch.manual_seed(0)
    network = PanopticSegFormer(Classes(2, 2), dataclasses.replace(SMOKE, thing_layers=2))
    images = torch.rand(1, 3, 64, 64)
    memory, queries = network.encode(images, padding_mask([size], images)), torch.randn(1, 3, 32)
    assert torch.equal(
        network.thing_decoder.masks(queries, memory), network.thing_decoder(queries, memory)[1]
    )
