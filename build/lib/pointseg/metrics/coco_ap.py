"""COCO average precision, by hotcoco; tests hold its digits equal to pycocotools'.

Greedy matching by score to the best free object, ten IoUs .50:.05:.95, 101 recall points, 100
detections an image; a crowd region neither counts as an object nor makes a detection on it wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from pointseg.metrics.files import InstanceData, Source, read_instances
from pointseg.structures import InputError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIZE_LIMITS = (32**2, 96**2)  # small < 32 x 32 <= medium < 96 x 96 <= large, in pixels of the mask


def coco_ap(
    gt: Source, dt: Source, iou_type: str = "segm", per_class: bool = False
) -> dict[str, float]:
    """The twelve COCO numbers in percent, for `segm` or `bbox`; nan where no object asks for the
    number.

    per_class adds `AP/<category name>`."""
    return score(read_instances(gt, dt), iou_type, per_class)


def score(data: InstanceData, iou_type: str = "segm", per_class: bool = False) -> dict[str, float]:
    """coco_ap of files already read."""
    if iou_type not in ("segm", "bbox"):
        raise InputError(f"IoU type: expected segm or bbox, got {iou_type!r}")
    truths, detections = data.truths, data.detections
    if iou_type == "segm" and not data.has_masks():
        raise InputError("mask AP needs a mask for every object and every detection")
    if iou_type == "bbox":
        detections = [{**d, "area": d["bbox"][2] * d["bbox"][3]} for d in detections]
    evaluation = COCOeval(_indexed(data, truths), _indexed(data, detections), iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()  # computes the numbers; summarize() would print them too
    scores = dict(zip(NAMES, map(_percent, evaluation.stats)))
    return scores | _by_class(evaluation, data) if per_class else scores


def _indexed(data: InstanceData, annotations: list[dict]) -> COCO:
    """Images and categories by their rank, which keeps their order and lets ids be any number or
    text."""
    image, category = ranks(data.sizes), ranks(data.categories)
    return COCO(
        {
            "images": [
                {"id": image[key], "height": h, "width": w} for key, (h, w) in data.sizes.items()
            ],
            "categories": [
                {"id": category[c], "name": name} for c, name in data.categories.items()
            ],
            "annotations": [
                {**a, "image_id": image[a["image_id"]], "category_id": category[a["category_id"]]}
                for a in annotations
            ],
        }
    )


def ranks(keys: Iterable[Any]) -> dict[Any, int]:
    """Each key's place, from 1, in their order; numbers come before texts."""
    ordered = sorted(keys, key=lambda key: (isinstance(key, str), key))
    return {key: place for place, key in enumerate(ordered, start=1)}


def _by_class(evaluation: COCOeval, data: InstanceData) -> dict[str, float]:
    precision = evaluation.eval["precision"][
        ..., 0, -1
    ]  # [IoU, recall, class]: all sizes, 100 detections
    return {
        f"AP/{data.categories[key]}": _percent(column[column > -1].mean())
        if (column > -1).any()
        else math.nan
        for key, column in zip(ranks(data.categories), np.moveaxis(precision, 2, 0))
    }


def _percent(value: float) -> float:
    return math.nan if value < 0 else 100 * float(value)
