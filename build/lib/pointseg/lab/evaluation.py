"""What predictions and pseudo labels are worth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointseg.lab.labels import Labelled, at_size, autocast, batches, codes, masks_of
from pointseg.lab.methods import method_class
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import Corpus
from pointseg.metrics.pseudo import part_recall_of_masks, pseudo_masks, pseudo_scores
from pointseg.metrics.scores import instance_scores, panoptic_scores
from pointseg.papers.method import Method, targets_of
from pointseg.structures import Instances, Panoptic, Prediction, Truth

SCORED = 500  # training images whose pseudo labels are compared with the truth
SHOWN = 6  # images whose predictions and labels are kept with a run
CONFIDENT = 0.5  # score from which an instance is kept there


@torch.inference_mode()
def predictions(
    method: Method, recipe: Recipe, corpus: Corpus, count: int | None = None
) -> Iterator[Prediction]:
    """One prediction an image of the scored split, in order, at the image's own size."""
    method.eval()
    images = corpus.unmarked(count)
    for batch in batches(images, recipe.stage.training.batch):
        with autocast(method, recipe) as device:
            answers = method.predict(batch.to(device).images, batch.sizes)
        for image_id, prediction in zip(batch.image_ids, answers, strict=True):
            size = corpus.scored.size(corpus.scored.ids.index(image_id))
            yield at_size(prediction, image_id, size)


def score_predictions(
    predicted: Iterable[Prediction], recipe: Recipe, corpus: Corpus
) -> dict[str, float]:
    """The scores of the last method's task, in percent."""
    truths = (corpus.scored.truth(i) for i in range(len(corpus.scored)))
    if method_class(recipe.stage.method).TASK == "panoptic":
        return panoptic_scores(truths, (p.panoptic for p in predicted), corpus.categories)
    return instance_scores(truths, (p.instances for p in predicted), corpus.categories)


def score_labels(labelled: Labelled, corpus: Corpus) -> dict[str, float]:
    """Overlap of labels with the truth they stand for, PQ of panoptic ones; on Bestiary also the
    parts they reach."""
    labels = [labelled.labels(i) for i in range(len(labelled))]
    points = [corpus.points.for_image(image_id) for image_id in labelled.ids]
    shown = [p if isinstance(x, Panoptic) else p.things() for p, x in zip(points, labels)]
    targets = [targets_of(p) for p in shown]
    truths = [corpus.train.truth(row) for row in labelled.rows]
    scores = pseudo_scores(truths, labels, shown, targets) | part_recall(truths, labels, targets)
    if all(isinstance(each, Panoptic) for each in labels):
        scores |= panoptic_scores(truths, labels, corpus.categories)
    return scores


def shown_predictions(predicted: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The first predictions as plain values, confident instances alone."""
    rows = []
    for one in predicted[:SHOWN]:
        labels = one.panoptic or one.instances
        kept = torch.ones(len(labels.label), dtype=torch.bool)
        if isinstance(labels, Instances):
            kept = labels.scores >= CONFIDENT
        masks = codes(masks_of(labels)[kept])
        rows.append({"image": one.image_id, "label": labels.label[kept].tolist(), "masks": masks})
    return rows


def shown_labels(labelled: Labelled) -> list[dict[str, Any]]:
    """The first labels as plain values."""
    few = labelled.first(SHOWN)
    return [
        {"image": image_id, "label": kept["label"], "masks": kept["masks"]}
        for image_id, kept in zip(few.ids, few.kept)
    ]


def part_recall(
    truths: Iterable[Truth], labels: Sequence[Instances | Panoptic], targets: Sequence[Tensor]
) -> dict[str, float]:
    """Mean share of a thing's visible parts of which its label holds more than half, in percent."""
    shares = []
    for truth, label, target in zip(truths, labels, targets):
        if truth.parts is None:
            return {}
        things = truth.pick(truth.is_thing & ~truth.is_crowd)
        masks = pseudo_masks(label)
        united = [masks[target == one].any(0) for one in things.target]
        if united:
            shares.append(part_recall_of_masks(things, torch.stack(united)))
    values = np.concatenate(shares) if shares else np.zeros(0)
    known = np.isfinite(values).any()
    return {"part_recall": 100 * float(np.nanmean(values)) if known else math.nan}
