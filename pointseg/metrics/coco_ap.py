"""COCO average precision, by pycocotools and without its talk.

Greedy matching by score to the best free object, ten IoUs .50:.05:.95, 101 recall points, 100 detections an image;
a crowd region neither counts as an object nor makes a detection on it wrong.
"""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pointseg.metrics.files import InstanceData, Source, read_instances
from pointseg.structures import InputError

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SIZE_LIMITS = (32**2, 96**2)  # small < 32 x 32 <= medium < 96 x 96 <= large, in pixels of the mask


def coco_ap(
    gt: Source, dt: Source, iou_type: str = "segm", per_class: bool = False
) -> dict[str, float]:
    """The twelve COCO numbers in percent, for `segm` or `bbox`; nan where no object asks for the number.

    per_class adds `AP/<category name>`."""
    return score(read_instances(gt, dt), iou_type, per_class)


def score(data: InstanceData, iou_type: str = "segm", per_class: bool = False) -> dict[str, float]:
    """coco_ap of files already read."""
    if iou_type not in ("segm", "bbox"):
        raise InputError(f"iou type {iou_type!r}: segm or bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _indexed(data, "truths", iou_type), _indexed(data, "detections", iou_type), iou_type
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = {name: _percent(value) for name, value in zip(NAMES, evaluation.stats)}
    return scores | _by_class(evaluation, data) if per_class else scores


def _indexed(data: InstanceData, which: str, iou_type: str) -> COCO:
    """pycocotools' index over copies of the annotations: it writes into them."""
    annotations = [dict(entry) for entry in getattr(data, which)]
    if iou_type == "segm" and any("segmentation" not in entry for entry in annotations):
        raise InputError(f"{which}: some have no mask, so there is no mask AP")
    if iou_type == "bbox" and which == "detections":
        for entry in annotations:
            entry["area"] = entry["bbox"][2] * entry["bbox"][3]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": key, "height": h, "width": w} for key, (h, w) in data.sizes.items()],
        "categories": [{"id": key, "name": name} for key, name in data.categories.items()],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _by_class(evaluation: COCOeval, data: InstanceData) -> dict[str, float]:
    precision = evaluation.eval["precision"][
        :, :, :, 0, -1
    ]  # [IoU, recall, class], all sizes, 100 detections
    means = [
        column[column > -1].mean() if (column > -1).any() else -1
        for column in np.moveaxis(precision, 2, 0)
    ]
    return {
        f"AP/{data.categories[key]}": _percent(m) for key, m in zip(evaluation.params.catIds, means)
    }


def _percent(value: float) -> float:
    return math.nan if value < 0 else 100 * float(value)
