"""pycocotools as the referee of AP, and random annotations of every kind to be judged on."""

import contextlib
import io
import math

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pointseg.metrics.coco_ap import NAMES
from pointseg.metrics.files import InstanceData

SIDES = (2, 9, 31, 32, 33, 70, 95, 96, 97)  # of objects: on both sides of both size limits


def pycocotools_ap(data: InstanceData, iou_type: str) -> dict[str, float]:
    """The twelve numbers by pycocotools; nan for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _indexed(data, data.truths, iou_type),
            _indexed(data, data.detections, iou_type),
            iou_type,
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {n: math.nan if v < 0 else 100 * float(v) for n, v in zip(NAMES, evaluation.stats)}


def _indexed(data: InstanceData, annotations: list[dict], iou_type: str) -> COCO:
    rows = [dict(entry) for entry in annotations]
    if iou_type == "bbox" and annotations is data.detections:
        for row in rows:
            row["area"] = row["bbox"][2] * row["bbox"][3]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": key, "height": h, "width": w} for key, (h, w) in data.sizes.items()],
        "categories": [{"id": key, "name": name} for key, name in data.categories.items()],
        "annotations": rows,
    }
    coco.createIndex()
    return coco


def random_annotations(seed: int) -> InstanceData:
    """Images with objects, crowds, shifted and invented detections, tied scores; some images are
    empty."""
    rng = np.random.default_rng(seed)
    images = rng.choice(1000, rng.integers(1, 5), replace=False).tolist()
    categories = {int(c): str(c) for c in rng.choice(90, rng.integers(1, 4), replace=False)}
    data = InstanceData(dict.fromkeys(images, (120, 130)), categories, [], [])
    for key in images:
        for _ in range(rng.integers(0, 6)):
            mask, category = _random_mask(rng), int(rng.choice(list(categories)))
            _add(data.truths, key, category, mask, iscrowd=int(rng.random() < 0.2))
            for _ in range(rng.choice([0, 1, 1, 2, 40], p=[0.25, 0.3, 0.2, 0.2, 0.05])):
                moved = np.roll(mask, rng.integers(-3, 4, 2), (0, 1))
                _add(data.detections, key, category, moved, score=rng.integers(0, 9) / 8)
        for _ in range(rng.integers(0, 3)):
            category = int(rng.choice(list(categories)))
            _add(data.detections, key, category, _random_mask(rng), score=rng.random())
    return data


def _random_mask(rng) -> np.ndarray:
    """A box, its pixels sometimes thinned out, so that mask and box fall into different size
    classes."""
    h, w = rng.choice(SIDES, 2)
    top, left = rng.integers(0, 120 - h + 1), rng.integers(0, 130 - w + 1)
    mask = np.zeros((120, 130), bool)
    mask[top : top + h, left : left + w] = rng.random((h, w)) < rng.choice([1, 1, 0.7])
    return mask


def _add(entries: list[dict], image: int, category: int, mask: np.ndarray, **more) -> None:
    code = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    area, box = float(coco_mask.area(code)), coco_mask.toBbox(code).tolist()
    entry = {"id": len(entries) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
    entries.append({**entry, "segmentation": code, "area": area, "bbox": box, **more})
