"""The four ways in: instances and panoptic segmentations, from files and from memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pointseg.metrics import coco_ap, pq, rle, voc_ap
from pointseg.metrics.files import InstanceData, Source, read_instances
from pointseg.metrics.panoptic_files import read_pairs
from pointseg.structures import Category, InputError, Instances, Panoptic, Truth

if TYPE_CHECKING:
    from torch import Tensor


def evaluate_instances_files(gt: Source, dt: Source, protocol: str = "coco") -> dict[str, float]:
    """Scores of a COCO result file in percent: `coco` gives AP.. and box_AP.., `voc` gives both VOC
    rules."""
    data = read_instances(gt, dt)
    if protocol == "coco":
        return (coco_ap.score(data) if data.has_masks() else {}) | _boxes(data)
    if protocol != "voc":
        raise InputError(f"protocol: expected coco or voc, got {protocol!r}")
    if not data.has_masks():
        raise InputError("the VOC protocol needs a mask for every object and every detection")
    return voc_ap.score(voc_ap.overlaps_of(data))


def evaluate_panoptic_files(
    gt: Path,
    gt_dir: Path,
    dt: Path,
    dt_dir: Path,
    crowds: pq.Crowds = "last",
    per_class: bool = False,
) -> dict[str, float]:
    """PQ, SQ, RQ of a COCO panoptic result in percent."""
    categories, pairs = read_pairs(gt, gt_dir, dt, dt_dir)
    return pq.panoptic_quality(pairs, categories, crowds, per_class)


def instance_scores(
    truths: Iterable[Truth], predictions: Iterable[Instances], categories: Sequence[Category]
) -> dict[str, float]:
    """COCO mask AP (AP, AP50, ..), box AP (box_AP, ..) and VOC mask AP of things, in percent; nan =
    no object."""
    data = instance_data(truths, predictions, categories)
    return coco_ap.score(data) | _boxes(data) | voc_ap.score(voc_ap.overlaps_of(data))


def panoptic_scores(
    truths: Iterable[Truth],
    panoptics: Iterable[Panoptic],
    categories: Sequence[Category],
    crowds: pq.Crowds = "last",
    per_class: bool = False,
) -> dict[str, float]:
    """PQ, SQ, RQ and the same of things (_th) and stuff (_st), in percent."""
    pairs = (
        (pq.segments_of_truth(t), pq.segments_of_panoptic(p))
        for t, p in zip(truths, panoptics, strict=True)
    )
    return pq.panoptic_quality(pairs, categories, crowds, per_class)


def instance_data(
    truths: Iterable[Truth], predictions: Iterable[Instances], categories: Sequence[Category]
) -> InstanceData:
    """What the AP protocols read, in one pass: images are numbered from 0, masks encoded and let
    go."""
    sizes: dict[int, tuple[int, int]] = {}
    names = {row: c.name for row, c in enumerate(categories) if c.is_thing}
    objects, detections = [], []
    for row, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        sizes[row] = tuple(truth.void.shape)
        things = truth.pick(truth.is_thing)
        crowd = {"iscrowd": things.is_crowd.int().tolist()}
        objects += _entries(row, things.masks, things.label, None, crowd)
        detections += _entries(
            row,
            prediction.masks,
            prediction.label,
            prediction.boxes,
            {"score": prediction.scores.tolist()},
        )
    for entries in (objects, detections):
        for number, entry in enumerate(entries, start=1):
            entry["id"] = number
    return InstanceData(sizes, names, objects, detections)


def _entries(
    image: int,
    masks: Tensor,
    label: Tensor,
    boxes: Tensor | None,
    more: dict[str, list],
) -> list[dict]:
    """Annotations of one image; boxes [n, 4] xyxy, or those of the masks."""
    codes = rle.encode(masks)
    areas = masks.flatten(1).sum(1).tolist()
    corners = [rle.box(code) for code in codes] if boxes is None else _xywh(boxes)
    return [
        {
            "image_id": image,
            "category_id": int(c),
            "segmentation": code,
            "area": float(area),
            "bbox": box,
            "iscrowd": 0,
        }
        | {key: values[k] for key, values in more.items()}
        for k, (c, code, area, box) in enumerate(zip(label.tolist(), codes, areas, corners))
    ]


def _xywh(boxes: Tensor) -> list[list[float]]:
    corners = boxes.detach().cpu().double().numpy()
    sides = (corners[:, 2:] - corners[:, :2]).clip(min=0)
    return np.concatenate([corners[:, :2], sides], axis=1).tolist()


def _boxes(data: InstanceData) -> dict[str, float]:
    return {f"box_{name}": value for name, value in coco_ap.score(data, "bbox").items()}
