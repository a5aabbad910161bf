"""What EPLD's layers say one after another: labels, their overlap with the truth, attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

import numpy as np
import torch

from pointseg.data.supervision import collate
from pointseg.lab.bench import objects_of
from pointseg.lab.labels import resized
from pointseg.lab.run_data import Corpus
from pointseg.lab.run_record import Run
from pointseg.metrics.pseudo import DEPTHS, ObjectTable, object_table
from pointseg.papers.epld.method import EPLD, Evidence
from pointseg.papers.method import targets_of
from pointseg.structures import Batch, Panoptic, Points, Truth

DEPTH_NAMES = ("near the border", "between", "deep inside")  # thirds of the deepest place


@torch.no_grad()
def evidence_of(method: EPLD, batch: Batch) -> Evidence:
    return method.labeller.evidence(method.student.features(batch.images, batch.sizes), batch)


@torch.no_grad()
def labels_by_layer(method: EPLD, batch: Batch) -> list[list[Panoptic]]:
    """[L] labels of a batch as if each layer were the last one."""
    evidence = evidence_of(method, batch)
    count = len(evidence.estimate.label)
    cut = (evidence.up_to(layers + 1) for layers in range(count))
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


def benched_depth(tables: Sequence[dict[str, np.ndarray]]) -> np.ndarray:
    """[3, L + 1, 2] of things on the label bench, one table a seed, by third of depth: mean overlap
    of each layer's label, then what the last has over the first, each with half its 95 % interval
    over images; nan where there is none."""
    layers = sum(name.startswith("iou_") and name[4:].isdigit() for name in tables[0])
    image, depth, thing = (
        np.concatenate(parts)
        for parts in zip(*((t["image"], t["depth"], t["contact"] != "stuff") for t in tables))
    )
    ious = np.stack([np.concatenate([t[f"iou_{k + 1}"] for t in tables]) for k in range(layers)])
    rows, groups = [*ious, ious[-1] - ious[0]], np.digitize(depth, DEPTHS)
    chosen = [thing & np.isfinite(depth) & (groups == k) for k in range(3)]
    return np.array([[_over_images(row[c], image[c]) for row in rows] for c in chosen])


def benched_rows(runs: Iterable[Run], bed: str, row: str) -> list[list[str]]:
    """A table's rows, by depth: overlap by layer and the last layer's gain, of a row's kept runs on
    a bed that has them by layer; none where there is no such run."""
    mine = [run for run in runs if run.id.startswith(f"bench-{bed}/{row}/")]
    tables = [table for table in map(objects_of, mine) if "iou_1" in table]
    if not tables:
        return []
    what = f"{bed}, {len(tables)} seed{'s' * (len(tables) > 1)}"
    named = zip(DEPTH_NAMES, benched_depth(tables))
    return [[what, name, *(_written(*value) for value in values)] for name, values in named]


def _written(mean: float, half: float) -> str:
    return f"{mean:.1f} ± {half:.1f}" if np.isfinite(half) else "-"


def _over_images(values: np.ndarray, image: np.ndarray) -> tuple[float, float]:
    """Mean and half its interval, in percent; objects of one image vary together."""
    if len(np.unique(image)) < 2:
        return (100 * float(values.mean()) if len(values) else np.nan, np.nan)
    beside = np.bincount(image.astype(int), values - values.mean())
    return 100 * float(values.mean()), 196 * float(np.sqrt((beside**2).sum())) / len(values)


def _mean_and_half(values: np.ndarray) -> tuple[float, float]:
    if len(values) < 2:
        return (100 * float(values.mean()) if len(values) else np.nan, np.nan)
    return 100 * float(values.mean()), 196 * float(values.std(ddof=1)) / len(values) ** 0.5
