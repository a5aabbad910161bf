"""Predictions on val and pseudo labels on train, and what they are worth."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pointseg.data.supervision import ImageDataset, collate
from pointseg.lab.recipe import Recipe, method_class
from pointseg.lab.run_data import Corpus, PseudoLabelled
from pointseg.metrics import rle
from pointseg.metrics.pseudo import part_recall_of_masks, pseudo_masks, pseudo_scores
from pointseg.metrics.scores import instance_scores, panoptic_scores
from pointseg.papers.method import Method, targets_of
from pointseg.structures import Batch, Instances, Panoptic, Points, Prediction, Truth
from pointseg.training.loop import uses_bf16

SCORED = 500  # training images whose pseudo labels are compared with the truth
KEPT = 6  # pictures whose answers are kept with a run
SURE = 0.5  # score from which an instance is kept there


@dataclass(frozen=True)
class Labelled:
    """Pseudo labels of training images that carry points."""

    dataset: PseudoLabelled  # of all of them, for a student
    labels: list[Instances | Panoptic]  # of the first SCORED, at the image's own size
    points: list[Points]  # of the same, in the pixels of the image's own size


def batches(dataset: ImageDataset, size: int) -> Iterator[Batch]:
    for start in range(0, len(dataset), size):
        yield collate([dataset[i] for i in range(start, min(start + size, len(dataset)))])


@torch.inference_mode()
def predictions(method: Method, recipe: Recipe, corpus: Corpus) -> Iterator[Prediction]:
    """One prediction a val image, in order, at the image's own size."""
    method.eval()
    device = next(method.parameters()).device
    for batch in batches(corpus.unmarked(), recipe.training.batch):
        batch = batch.to(device)
        with torch.autocast(
            device.type, torch.bfloat16, enabled=uses_bf16(recipe.precision, device)
        ):
            found = method.predict(batch.images, batch.sizes)
        for image_id, prediction in zip(batch.image_ids, found, strict=True):
            size = corpus.val.size(corpus.val.ids.index(image_id))
            yield at_size(prediction, image_id, size)


def score_val(method: Method, recipe: Recipe, corpus: Corpus) -> dict[str, float]:
    """The scores of the method's task, in percent."""
    truths = (corpus.val.truth(i) for i in range(len(corpus.val)))
    found = predictions(method, recipe, corpus)
    if method_class(recipe.method).TASK == "panoptic":
        return panoptic_scores(truths, (p.panoptic for p in found), corpus.categories)
    return instance_scores(truths, (p.instances for p in found), corpus.categories)


@torch.no_grad()
def label_train(
    method: Method,
    recipe: Recipe,
    corpus: Corpus,
    count: int | None = None,
    name: str = "pseudo_labels",
) -> Labelled:
    """What a method's function of that name says of the training images with points, of all or of the first ones;
    nothing from a method without it."""
    if not hasattr(method, name):
        return Labelled(PseudoLabelled(corpus.train), [], [])
    method.eval()
    device, marked = next(method.parameters()).device, corpus.marked()
    marked.indices = marked.indices[:count]
    things = torch.tensor([category.is_thing for category in corpus.categories])
    dataset, first = PseudoLabelled(corpus.train), []
    rows = iter(
        marked.indices
    )  # behind `found` in the zip below, which asks its first argument first
    for batch in batches(marked, recipe.training.batch):
        with torch.autocast(
            device.type, torch.bfloat16, enabled=uses_bf16(recipe.precision, device)
        ):
            found = getattr(method, name)(batch.to(device))
        for label, row in zip(found, rows):
            label = resized(label, corpus.train.size(row))
            dataset.add(row, as_truth(label, things))
            first += [label] if len(first) < SCORED else []
    return Labelled(
        dataset,
        first,
        [corpus.points.for_image(image_id) for image_id in dataset.ids[: len(first)]],
    )


def score_pseudo_labels(labelled: Labelled, corpus: Corpus) -> dict[str, float]:
    """Overlap of the pseudo labels with the truth they stand for; on Bestiary also the parts they reach."""
    rows, labels = labelled.dataset.rows[: len(labelled.labels)], labelled.labels
    shown = [p if isinstance(x, Panoptic) else p.things() for p, x in zip(labelled.points, labels)]
    targets = [targets_of(p) for p in shown]
    scores = pseudo_scores((corpus.train.truth(row) for row in rows), labels, shown, targets)
    return scores | part_recall((corpus.train.truth(row) for row in rows), labels, targets)


def answers(method: Method, recipe: Recipe, corpus: Corpus) -> dict[str, list[dict[str, Any]]]:
    """What the method says of the first pictures of val, and of the first ones of train where it is shown points."""
    few = copy.copy(corpus.val)
    few.ids = few.ids[:KEPT]
    found = predictions(method, recipe, replace(corpus, val=few))
    said = {"val": [recorded(one.image_id, one.panoptic or one.instances) for one in found]}
    if method_class(recipe.method).SUPERVISION == "points":
        labelled = label_train(method, recipe, corpus, KEPT)
        said["train"] = [recorded(*pair) for pair in zip(labelled.dataset.ids, labelled.labels)]
    return said


def recorded(image_id: int | str, labels: Instances | Panoptic) -> dict[str, Any]:
    """Labels as plain values, masks as run lengths."""
    scores = torch.ones(len(labels.label)) if labels.scores is None else labels.scores.float()
    kept = (
        scores >= SURE
        if isinstance(labels, Instances)
        else torch.ones_like(scores, dtype=torch.bool)
    )
    codes = [
        {**code, "counts": code["counts"].decode()}
        for code in rle.encode(pseudo_masks(labels)[kept.cpu()])
    ]
    return {"image": image_id, "label": labels.label[kept].tolist(), "masks": codes}


def part_recall(
    truths: Iterable[Truth], labels: Sequence[Instances | Panoptic], targets: Sequence[Tensor]
) -> dict[str, float]:
    """Mean share of a thing's visible parts of which its pseudo label holds more than half, in percent."""
    found = []
    for truth, label, target in zip(truths, labels, targets):
        if truth.parts is None:
            return {}
        things = truth.pick(truth.is_thing & ~truth.is_crowd)
        masks = pseudo_masks(label)
        mine = [masks[target == one].any(0) for one in things.target]
        if mine:
            found.append(part_recall_of_masks(things, torch.stack(mine)))
    shares = np.concatenate(found) if found else np.zeros(0)
    return {
        "part_recall": 100 * float(np.nanmean(shares)) if np.isfinite(shares).any() else math.nan
    }


def at_size(prediction: Prediction, image_id: int | str, size: tuple[int, int]) -> Prediction:
    """On the CPU, under its image's id, at its image's size."""
    instances, panoptic = (
        None if part is None else resized(part, size)
        for part in (prediction.instances, prediction.panoptic)
    )
    return Prediction(image_id, instances, panoptic)


def resized(labels: Instances | Panoptic, size: tuple[int, int]) -> Instances | Panoptic:
    """Masks by the nearest pixel centre, boxes by the same factors; everything on the CPU."""
    if isinstance(labels, Panoptic):
        scores = None if labels.scores is None else labels.scores.cpu()
        return Panoptic(nearest(labels.segments[None].cpu(), size)[0], labels.label.cpu(), scores)
    height, width = labels.masks.shape[-2:]
    factors = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    masks = nearest(labels.masks.cpu(), size)
    return Instances(
        masks, labels.scores.cpu().float(), labels.label.cpu(), labels.boxes.cpu() * factors
    )


def nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, h, w] to [n, h', w'], same type."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if not len(maps):
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None].float(), size=size, mode="nearest-exact")[0].to(maps.dtype)


def as_truth(labels: Instances | Panoptic, things: Tensor) -> Truth:
    """Pseudo labels as a truth to learn from, empty ones dropped. `things` [classes] bool.

    A pixel without a segment is void in a Panoptic; among Instances it is background.
    """
    if isinstance(labels, Panoptic):
        rows = torch.arange(1, len(labels.label) + 1)
        masks, void = labels.segments == rows[:, None, None], labels.segments == 0
    else:
        masks = labels.masks
        void = torch.zeros(masks.shape[-2:], dtype=torch.bool)
    kept = masks.flatten(1).any(1)
    count = int(kept.sum())
    label = labels.label[kept]
    return Truth(
        masks=masks[kept], label=label, target=torch.arange(1, count + 1), is_thing=things[label],
        is_crowd=torch.zeros(count, dtype=torch.bool), void=void,
    )  # fmt: skip
