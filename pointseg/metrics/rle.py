"""COCO run-length masks: checked before pycocotools touches them, made from boolean tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from torch import Tensor


def runs(counts: str | bytes) -> np.ndarray:
    """Run lengths of a compressed COCO RLE. Each number is written in groups of 5 bits, low group first,
    bit 6 set where more groups follow; from the fourth number on it is the difference to the last but one."""
    text = counts.encode("ascii") if isinstance(counts, str) else counts
    groups = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("is not a COCO run-length code")
    ends = np.flatnonzero(groups & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    if place.max() > 6:
        raise ValueError("holds a run that is too long")
    values = np.add.reduceat((groups & 31) << (5 * place), starts)
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * (place[ends] + 1)), 0)
    for first in (
        1,
        2,
    ):  # runs 1, 3, 5... and 2, 4, 6... are chains of differences; run 0 stands alone
        values[first::2] = np.cumsum(values[first::2])
    return values


def checked(segmentation: Any, height: int, width: int) -> dict:
    """Any COCO segmentation (RLE, uncompressed RLE, polygons) as a sound RLE; ValueError says what is wrong."""
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise ValueError("has no mask")
    size, counts = segmentation.get("size"), segmentation["counts"]
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"has a mask of size {size}, the image is {[height, width]}")
    if isinstance(counts, list):
        return _from_plain_counts(counts, height, width)
    if not isinstance(counts, (str, bytes)):
        raise ValueError("has a mask whose counts are neither text nor a list")
    _check_runs(runs(counts), height, width)
    return {"size": [height, width], "counts": counts}


def encode(masks: Tensor) -> list[dict]:
    """[n, h, w] bool -> n RLEs."""
    if len(masks) == 0:
        return []
    columns_first = masks.detach().cpu().bool().transpose(1, 2).contiguous().numpy().view(np.uint8)
    return coco_mask.encode(columns_first.transpose(2, 1, 0))


def _check_runs(lengths: np.ndarray, height: int, width: int) -> None:
    if lengths.min() < 0 or lengths.sum() != height * width:
        raise ValueError(f"has runs that do not add up to {height} x {width} pixels")


def _from_plain_counts(counts: list, height: int, width: int) -> dict:
    if not counts or not all(isinstance(c, int) and 0 <= c <= height * width for c in counts):
        raise ValueError("has run lengths that are not whole numbers inside the image")
    _check_runs(np.array(counts, dtype=np.int64), height, width)
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _from_polygons(polygons: list, height: int, width: int) -> dict:
    reach = 4 * max(
        height, width
    )  # a point far outside makes pycocotools walk there pixel by pixel
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("has a polygon that is not a list of at least three x, y pairs")
        if not all(isinstance(v, (int, float)) and -reach <= v <= reach for v in polygon):
            raise ValueError("has a polygon corner that is no number or far outside the image")
    if not polygons:
        raise ValueError("has no mask")
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))


def box(code: dict) -> list[float]:
    """x, y, width, height."""
    return coco_mask.toBbox(code).tolist()
