"""COCO masks: foreign ones checked before pycocotools touches them, own ones made from boolean
tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from torch import Tensor

FAR = (
    2  # image sides that a polygon may lie outside; pycocotools walks to each corner pixel by pixel
)


def checked(segmentation: Any, height: int, width: int) -> dict:
    """A sound RLE of a COCO segmentation (RLE, plain run lengths, polygons); ValueError says what
    is wrong."""
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict):
        raise ValueError("has no segmentation")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        raise ValueError(f"has a mask of another size than its image, {width}x{height}")
    if isinstance(counts, list):
        return _from_plain_counts(counts, height, width)
    if not isinstance(counts, (str, bytes)):
        raise ValueError("has corrupt run lengths")
    _check_runs(runs(counts), height, width)
    return {"size": [height, width], "counts": counts}


def decoded(segmentation: Any, height: int, width: int) -> np.ndarray:
    """bool[h, w] of a COCO segmentation; ValueError says what is wrong."""
    return coco_mask.decode(checked(segmentation, height, width)).astype(bool, order="C")


def encode(masks: Tensor | np.ndarray) -> list[dict]:
    """n RLEs of masks [n, h, w] bool."""
    if len(masks) == 0:
        return []
    if isinstance(masks, np.ndarray):
        columns_first = np.ascontiguousarray(masks.swapaxes(1, 2))
    else:
        columns_first = masks.detach().cpu().bool().transpose(1, 2).contiguous().numpy()
    return coco_mask.encode(columns_first.view(np.uint8).transpose(2, 1, 0))


def as_json(code: dict) -> dict:
    """The RLE with its counts as text."""
    counts = code["counts"]
    text = counts.decode("ascii") if isinstance(counts, bytes) else counts
    return {"size": [int(side) for side in code["size"]], "counts": text}


def box(code: dict) -> list[float]:
    """x, y, width, height."""
    return coco_mask.toBbox(code).tolist()


def area(code: dict) -> float:
    """Number of pixels."""
    return float(coco_mask.area(code))


def runs(counts: str | bytes) -> np.ndarray:
    """Run lengths of a compressed COCO RLE. Each number is written in groups of 5 bits, low group
    first, bit 6 set where more groups follow; from the fourth number on it is the difference to the
    last but one."""
    text = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    groups = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if len(groups) == 0 or groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("has corrupt run lengths")
    ends = np.flatnonzero(groups & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    position = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)
    if position.max() > 6:
        raise ValueError("has corrupt run lengths")
    values = np.add.reduceat((groups & 31) << (5 * position), starts)
    values -= np.where(groups[ends] & 16, np.int64(1) << (5 * (position[ends] + 1)), 0)
    # runs 1, 3, 5... and 2, 4, 6... are chains of differences; run 0 stands alone
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def _check_runs(lengths: np.ndarray, height: int, width: int) -> None:
    if lengths.min() < 0 or lengths.max() > height * width or lengths.sum() != height * width:
        raise ValueError(f"has run lengths that do not fill {width}x{height}")


def _from_plain_counts(counts: list, height: int, width: int) -> dict:
    if not counts or not all(type(c) is int and 0 <= c <= height * width for c in counts):
        raise ValueError("has corrupt run lengths")
    _check_runs(np.array(counts, dtype=np.int64), height, width)
    return coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)


def _from_polygons(polygons: list, height: int, width: int) -> dict:
    if not polygons:
        raise ValueError("has an empty segmentation")
    reach = FAR * max(height, width)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise ValueError("has a polygon of fewer than three corners")
        if not all(type(v) in (int, float) and abs(v) <= reach for v in polygon):
            raise ValueError("has a polygon corner that is not a number or far outside")
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
