"""The mask of a COCO `segmentation`: polygons, or run lengths, compressed or not."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco_mask

from pointseg.data.files import is_whole
from pointseg.data.images import named
from pointseg.structures import InputError

FAR = (
    2  # polygon corners may lie this many picture sides away; beyond, rasterising only burns memory
)


def decode_mask(segmentation: object, size: tuple[int, int], where: str) -> np.ndarray:
    """bool[h, w]; whatever cannot be a mask of this size is refused, `where` begins the message."""
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, size, where)
    if not isinstance(segmentation, dict):
        raise InputError(f"{where} has no segmentation")
    if segmentation.get("size") != list(size):
        raise InputError(f"{where} has a mask of another size than its picture, {named(size)}")
    runs = read_runs(segmentation.get("counts"), where)
    if runs.sum() != size[0] * size[1]:
        raise InputError(f"{where} has run lengths that do not fill {named(size)}")
    inked = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(inked.reshape(size, order="F"))


def _from_polygons(polygons: list, size: tuple[int, int], where: str) -> np.ndarray:
    if not polygons:
        raise InputError(f"{where} has an empty segmentation")
    reach = FAR * max(size)
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError(f"{where} has a polygon of fewer than three corners")
        if not all(type(x) in (int, float) and abs(x) <= reach for x in polygon):
            raise InputError(f"{where} has a polygon corner that is no number or far outside")
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, *size))).astype(bool)


def read_runs(counts: object, where: str) -> np.ndarray:
    """int64 run lengths, each at least 0. The C decoder trusts its input, so foreign runs are checked here."""
    if isinstance(counts, list) and all(is_whole(run, 0, 2**31) for run in counts):
        return np.array(counts, dtype=np.int64)
    runs = _inflate(counts) if isinstance(counts, str) and counts.isascii() else None
    if runs is None or (runs < 0).any() or (runs > 2**31).any():
        raise InputError(f"{where} has corrupt run lengths")
    return runs


def _inflate(counts: str) -> np.ndarray | None:
    """COCO's compressed runs: 5-bit little-endian groups in characters 48.., from the fourth run on as differences."""
    codes = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - 48
    last = codes & 32 == 0  # bit 6 says that the number goes on
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or not last[-1]:
        return None
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    place = np.arange(len(codes)) - np.repeat(starts, np.diff([*starts, len(codes)]))
    if place.max() > 6:
        return None
    values = np.add.reduceat((codes & 31) << (5 * place), starts)
    negative = codes[last] & 16 != 0
    values -= np.where(negative, 1 << (5 * (place[last] + 1)), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(
        values[2::2]
    )  # a difference looks two runs back; the first run stands alone
    return runs
