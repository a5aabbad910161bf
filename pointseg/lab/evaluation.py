"""What predictions and pseudo labels are worth."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pointseg.data.files import read_json, write_bytes
from pointseg.data.shapes import refuse_misshapen
from pointseg.lab.labels import Labelled, at_size, autocast, batches, codes, masks_of
from pointseg.lab.methods import method_class
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import Corpus
from pointseg.lab.run_record import Run, strict
from pointseg.metrics.by_image import map_by_image, mean_by_image, pq_by_image
from pointseg.metrics.pq import quality_of
from pointseg.metrics.pseudo import object_table, part_recall_of_masks, pseudo_masks, summary
from pointseg.metrics.scores import instance_data, panoptic_counts, scores_of
from pointseg.metrics.voc_ap import overlaps_of
from pointseg.papers.method import Method, targets_of
from pointseg.structures import Instances, Panoptic, Prediction, Truth

SCORED = 500  # training images whose pseudo labels are compared with the truth
SHOWN = 6  # images whose predictions and labels are kept with a run
BY_IMAGE = "by_image.json.gz"
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


@dataclass(frozen=True)
class Scored:
    """Scores in percent, and the values of the images of those that verdicts compare."""

    whole: dict[str, float]
    by_image: dict[str, np.ndarray]  # score -> [images], whose mean it is

    @classmethod
    def panoptic(
        cls, truths: Iterable[Truth], panoptics: Iterable[Panoptic], corpus: Corpus
    ) -> Scored:
        counts = panoptic_counts(truths, panoptics, corpus.categories)
        whole = quality_of(counts.over_images(), corpus.categories)
        return cls(whole, {"PQ": pq_by_image(counts)})


def score_predictions(predicted: Iterable[Prediction], recipe: Recipe, corpus: Corpus) -> Scored:
    """The scores of the last method's task."""
    truths = (corpus.scored.truth(i) for i in range(len(corpus.scored)))
    if method_class(recipe.stage.method).TASK == "panoptic":
        return Scored.panoptic(truths, (p.panoptic for p in predicted), corpus)
    data = instance_data(truths, (p.instances for p in predicted), corpus.categories)
    return Scored(scores_of(data), {"voc_mAP50_11pt": map_by_image(overlaps_of(data))})


def score_labels(labelled: Labelled, corpus: Corpus) -> Scored:
    """Overlap of labels with the truth they stand for, PQ of panoptic ones; on Bestiary also the
    parts they reach."""
    labels = [labelled.labels(i) for i in range(len(labelled))]
    points = [corpus.points.for_image(image_id) for image_id in labelled.ids]
    shown = [p if isinstance(x, Panoptic) else p.things() for p, x in zip(points, labels)]
    targets = [targets_of(p) for p in shown]
    truths = [corpus.train.truth(row) for row in labelled.rows]
    table = object_table(truths, labels, shown, targets)
    iou, image = table.iou[table.thing], table.image[table.thing]
    scores = summary(table) | part_recall(truths, labels, targets)
    by_image = {"mIoU": mean_by_image(100 * iou, image, len(labels))}
    if not all(isinstance(each, Panoptic) for each in labels):
        return Scored(scores, by_image)
    quality = Scored.panoptic(truths, labels, corpus)
    return Scored(scores | quality.whole, by_image | quality.by_image)


def write_by_image(run: Run, scored: dict[str, Scored]) -> None:
    """Keeps the values of images with a run, compressed, under names such as val/PQ."""
    values = {
        f"{part}/{name}": column.round(2).tolist()
        for part, each in scored.items() for name, column in each.by_image.items()
    }  # fmt: skip
    content = gzip.compress(json.dumps(strict(values)).encode(), 9, mtime=0)
    write_bytes(run.folder / BY_IMAGE, content)


def by_image(run: Run, score: str) -> np.ndarray | None:
    """[images] of a score of a run; None where none are kept."""
    path = run.folder / BY_IMAGE
    if not path.exists():
        return None
    columns = read_json(path)
    refuse_misshapen(path, columns, dict[str, list[float | None]])
    return np.array(columns[score], dtype=float) if score in columns else None


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
