"""What EPLD's layers say one after another: labels, their overlap with the truth, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np
import torch

from pointseg.data.supervision import collate
from pointseg.lab.labels import resized
from pointseg.lab.run_data import Corpus
from pointseg.metrics.pseudo import DEPTHS, ObjectTable, object_table
from pointseg.papers.epld.branch import Estimate
from pointseg.papers.epld.method import EPLD, Evidence
from pointseg.papers.method import targets_of
from pointseg.structures import Batch, Panoptic, Points, Truth

DEPTH_NAMES = ("near the border", "between", "deep inside")  # thirds of the deepest place


@torch.no_grad()
def evidence_of(method: EPLD, batch: Batch) -> Evidence:
    return method.labeller.evidence(method.student.features(batch.images, batch.sizes), batch)


def up_to(evidence: Evidence, layers: int) -> Evidence:
    """What the first layers say: the last of them labels."""
    parts = {name: value[:layers] for name, value in vars(evidence.estimate).items()}
    return replace(evidence, estimate=Estimate(**parts))


@torch.no_grad()
def labels_by_layer(method: EPLD, batch: Batch) -> list[list[Panoptic]]:
    """[L] labels of a batch as if each layer were the last one."""
    evidence = evidence_of(method, batch)
    count = len(evidence.estimate.label)
    cut = (up_to(evidence, layers + 1) for layers in range(count))
    return [method.labeller.assign(one, batch).pseudo_labels() for one in cut]


def tables_by_layer(
    method: EPLD, batch: Batch, truths: Sequence[Truth], points: Sequence[Points]
) -> list[ObjectTable]:
    """[L] overlap with the truth and depth of the point, one row a target; truths and points in the
    sizes of the images, from which those of the batch may differ."""
    targets, sizes = [targets_of(p) for p in points], [tuple(t.void.shape) for t in truths]
    kept = [t.pick(torch.isin(t.target, marked)) for t, marked in zip(truths, targets)]
    return [
        object_table(kept, map(resized, labels, sizes), points, targets)
        for labels in labels_by_layer(method, batch)
    ]


def study_by_layer(method: EPLD, corpus: Corpus, count: int, size: int = 8) -> list[ObjectTable]:
    """[L] the same over the first training images with points."""
    marked, parts = corpus.marked(), []
    for start in range(0, min(count, len(marked)), size):
        some = range(start, min(start + size, count, len(marked)))
        batch = collate([marked[i] for i in some])
        truths = [corpus.train.truth(marked.indices[i]) for i in some]
        points = [corpus.points.for_image(image_id) for image_id in batch.image_ids]
        parts.append(tables_by_layer(method, batch, truths, points))
    return [joined(layer) for layer in zip(*parts)]


def joined(tables: Sequence[ObjectTable]) -> ObjectTable:
    """One table of the rows of several."""
    names = [field.name for field in fields(ObjectTable)]
    return ObjectTable(*(np.concatenate([getattr(t, name) for t in tables]) for name in names))


def by_depth(tables: Sequence[ObjectTable]) -> np.ndarray:
    """[L, 3, 2] mean overlap by third of depth, and half its 95 % interval, in percent."""
    groups = np.digitize(tables[0].depth, DEPTHS)
    return np.array(
        [[_mean_and_half(table.iou[groups == k]) for k in range(3)] for table in tables]
    )


def _mean_and_half(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return (100 * float(values.mean()) if len(values) else np.nan, np.nan)
    return 100 * float(values.mean()), 196 * float(values.std(ddof=1)) / len(values) ** 0.5
