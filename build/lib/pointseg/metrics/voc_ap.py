"""VOC mask AP as the weakly supervised literature reports it, under both averaging rules.

Per class and image, detections go by falling score; each takes the object it overlaps most and is
right if that IoU reaches the threshold and no earlier detection was right on the object; there is
no second choice. The curve of a class is read at 11 recalls (VOC 2007) or as the area under its
envelope (VOC 2010 on); the mean is over classes that have objects. Void and crowd have no rule
here: void pixels count as plain background, crowd regions are taken out of the truth, and a
detection on either is wrong.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from pointseg.metrics.files import InstanceData
from pointseg.structures import Instances, Truth

if TYPE_CHECKING:
    from torch import Tensor

THRESHOLDS = (0.25, 0.5, 0.7, 0.75)
RECALL_GRID = np.arange(0.0, 1.1, 0.1)  # as in chainercv and the devkits: .3 is 0.30000000000000004


class Overlap(NamedTuple):
    """One image: p detections against t objects."""

    iou: np.ndarray  # [p, t]
    score: np.ndarray  # [p]
    label: np.ndarray  # [p]
    truth_label: np.ndarray  # [t]


def voc_ap(
    truths: Iterable[Truth],
    predictions: Iterable[Instances],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, float]:
    """voc_mAP25_11pt, voc_mAP25_area, ... and voc_ABO in percent."""
    return score((overlap(t, p) for t, p in zip(truths, predictions, strict=True)), thresholds)


def score(
    overlaps: Iterable[Overlap], thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, float]:
    """All VOC numbers in percent; nan where no class has an object."""
    overlaps = [_ranked(one) for one in overlaps]
    truth_label = _joined(one.truth_label for one in overlaps)
    classes, objects = np.unique(truth_label, return_counts=True)
    order = np.argsort(-_joined(one.score for one in overlaps), kind="stable")
    label = _joined(one.label for one in overlaps)[order]
    scores = {}
    for threshold in thresholds:
        hits = _joined(right(one.iou, threshold) for one in overlaps)[order]
        curves = [curve(hits[label == c], n) for c, n in zip(classes, objects)]
        for rule, area in (("11pt", eleven_point_ap), ("area", envelope_ap)):
            name = f"voc_mAP{100 * threshold:.3g}_{rule}"
            scores[name] = _mean_percent([area(*c) for c in curves])
    best = _joined(one.iou.max(axis=0, initial=0.0) for one in overlaps)
    return scores | {"voc_ABO": _mean_percent([best[truth_label == c].mean() for c in classes])}


def overlap(truth: Truth, prediction: Instances) -> Overlap:
    """Mask IoUs of one image by one matrix product."""
    kept = truth.pick(truth.is_thing & ~truth.is_crowd)
    arrays = (prediction.scores, prediction.label, kept.label)
    return Overlap(
        mask_iou(prediction.masks, kept.masks), *(a.detach().cpu().numpy() for a in arrays)
    )


def mask_iou(first: Tensor, second: Tensor) -> np.ndarray:
    """[p, h, w] and [t, h, w] bool -> [p, t]. float32 counts pixels exactly up to 16.7 million."""
    a, b = first.detach().flatten(1).float(), second.detach().flatten(1).float()
    common = (a @ b.T).cpu().numpy().astype(np.float64)
    first_area, second_area = (m.sum(1).double().cpu().numpy() for m in (a, b))
    return common / np.maximum(first_area[:, None] + second_area[None] - common, 1)


def overlaps_of(data: InstanceData) -> list[Overlap]:
    """The same from COCO files, by pycocotools' run-length IoU."""
    truths, detections = defaultdict(list), defaultdict(list)
    for entry in data.truths:
        if not entry["iscrowd"]:
            truths[entry["image_id"]].append(entry)
    for entry in data.detections:
        detections[entry["image_id"]].append(entry)
    return [_overlap_of(truths[key], detections[key]) for key in data.sizes]


def _overlap_of(truths: list[dict], detections: list[dict]) -> Overlap:
    iou = np.zeros((len(detections), len(truths)))
    if truths and detections:
        masks = ([d["segmentation"] for d in detections], [t["segmentation"] for t in truths])
        iou = coco_mask.iou(*masks, [0] * len(truths))
    return Overlap(
        iou,
        np.array([d["score"] for d in detections], dtype=float),
        np.array([d["category_id"] for d in detections], dtype=int),
        np.array([t["category_id"] for t in truths], dtype=int),
    )


def _ranked(one: Overlap) -> Overlap:
    """Detections by falling score, and no overlap across classes."""
    order = np.argsort(-one.score, kind="stable")
    iou = np.where(one.label[order, None] == one.truth_label[None], one.iou[order], 0.0)
    return Overlap(iou, one.score[order], one.label[order], one.truth_label)


def right(iou: np.ndarray, threshold: float) -> np.ndarray:
    """[p, t] IoU of ranked detections with objects of their class (else 0), threshold > 0 -> [p]
    bool.

    The first detection to reach an object takes it; all classes go at once, since they share no
    object."""
    hits = np.zeros(len(iou), dtype=bool)
    if iou.size:
        reached = np.flatnonzero(iou.max(axis=1) >= threshold)
        _, first = np.unique(iou[reached].argmax(axis=1), return_index=True)
        hits[reached[first]] = True
    return hits


def curve(hits: np.ndarray, objects: int) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) after each detection of one class over the whole set, best score
    first."""
    right_so_far = np.cumsum(hits)
    return right_so_far / objects, right_so_far / np.arange(1, len(hits) + 1)


def eleven_point_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Mean over recalls 0, .1 ... 1 of the best precision at that recall or beyond (VOC 2007)."""
    return float(np.mean([precision[recall >= r].max(initial=0.0) for r in RECALL_GRID]))


def envelope_ap(recall: np.ndarray, precision: np.ndarray) -> float:
    """Area under the curve after each precision is raised to the best one to its right (VOC 2010
    on)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _joined(pieces: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate([*pieces] or [np.zeros(0)])


def _mean_percent(values: list[float]) -> float:
    return 100 * float(np.mean(values)) if values else float("nan")
