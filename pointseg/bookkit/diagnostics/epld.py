"""What EPLD's layers say one after another: labels, their overlap with the truth, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pointseg.metrics.pseudo import DEPTHS, ObjectTable, object_table
from pointseg.papers.epld.branch import Estimate
from pointseg.papers.epld.method import EPLD, Evidence
from pointseg.papers.method import targets_of
from pointseg.structures import Batch, Panoptic

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


def tables_by_layer(method: EPLD, batch: Batch) -> list[ObjectTable]:
    """[L] overlap with the truth and depth of the point, one row a target of the batch."""
    targets = [targets_of(points) for points in batch.points]
    rows = zip(batch.truths, targets, strict=True)
    truths = [truth.pick(torch.isin(truth.target, marked)) for truth, marked in rows]
    return [
        object_table(truths, labels, batch.points, [_row_targets(p) for p in batch.points])
        for labels in labels_by_layer(method, batch)
    ]


def _row_targets(points) -> Tensor:
    """[k] target of each row of a label: things by their first point, then classes of stuff."""
    things, stuff = points.things(), points.pick(~points.is_thing)
    first = {int(c): int(t) for c, t in zip(stuff.label.flip(0), stuff.target.flip(0))}
    classes = dict.fromkeys(stuff.label.tolist())
    return torch.tensor([*targets_of(things).tolist(), *(first[c] for c in classes)])


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
