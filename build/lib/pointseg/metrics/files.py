"""COCO instance files, ground truth and results: read by the reader of the data sets, brought to
one form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointseg.data.coco_json import CocoIndex, index_of, result_of
from pointseg.data.files import read_json, shown
from pointseg.data.masks import perimeter
from pointseg.data.measures import Measured, is_area, is_box, measure_faults
from pointseg.metrics import rle
from pointseg.structures import InputError

Source = dict | list | Path | str


@dataclass(frozen=True)
class InstanceData:
    """What both AP protocols need. An annotation or detection is a dict in COCO's words; masks are
    RLEs."""

    sizes: dict[Any, tuple[int, int]]  # image id -> (h, w)
    categories: dict[int, str]  # category id -> name
    truths: list[dict]
    detections: list[dict]

    def has_masks(self) -> bool:
        return all("segmentation" in entry for entry in self.truths + self.detections)


def read_instances(gt: Source, dt: Source) -> InstanceData:
    """COCO ground truth and a result list, as files or as what json.load gives."""
    truth, truth_name = open_source(gt, "ground truth")
    results, results_name = open_source(dt, "detections")
    index = index_of(truth, Path(truth_name), "instances")
    if not index.images or not index.categories:
        raise InputError(f"{truth_name}: has no {'category' if index.images else 'image'}")
    truths, detections = _truths(index), _detections(results, index, results_name)
    if any("segmentation" in each for each in detections) and not _masked(truths, truth_name):
        raise InputError(f"{truth_name}: has no masks, and {results_name} has")
    names = {key: category.name for key, category in index.categories.items()}
    return InstanceData(index.sizes, names, truths, detections)


def open_source(source: Source, name: str) -> tuple[Any, str]:
    """(content, the name to blame in an error)."""
    if isinstance(source, (str, Path)):
        return read_json(Path(source)), str(source)
    return source, name


def _truths(index: CocoIndex) -> list[dict]:
    """Annotations numbered anew from 1: pycocotools takes a match with annotation 0 for no
    match."""
    rows = []
    for entry in (entry for entries in index.annotations.values() for entry in entries):
        where = f"{index.file}: annotation {entry['id']}"
        item = _shape(entry, index, where)
        measured = {"area": float(entry["area"])} if "area" in entry else {}
        rows.append({**item, **measured, "id": len(rows) + 1})
    _masked(rows, f"{index.file}")
    return rows


def _detections(results: Any, index: CocoIndex, name: str) -> list[dict]:
    """Size classes of masks go by mask area, whatever `area` and `bbox` of the file say."""
    if not isinstance(results, list):
        raise InputError(f"{name}: is not a list of detections")
    rows = []
    for row, entry in enumerate(results):
        where = f"{name}: detection {row}"
        item = _shape(result_of(entry, index, where), index, where, stated=False)
        rows.append({**item, "id": row + 1, "iscrowd": 0, "score": entry["score"]})
    _masked(rows, name)
    return rows


def _masked(rows: Sequence[dict], name: str) -> bool:
    """Whether entries have masks: all of them or none, or a few would silently turn off mask AP."""
    masked = ["segmentation" in row for row in rows]
    if any(masked) and not all(masked):
        row = rows[masked.index(False)]
        where = f"{name}: entry {row['id']} (image {shown(row['image_id'])})"
        raise InputError(f"{where}: has no mask, while others have one")
    return all(masked)


def _shape(entry: dict, index: CocoIndex, where: str, stated: bool = True) -> dict:
    """An entry with box and area, which follow from its mask where it has one; with `stated`, what
    the file says of both has to be true."""
    item = {"image_id": entry["image_id"], "category_id": entry["category_id"]}
    item["iscrowd"], box = int(entry.get("iscrowd", 0)), entry.get("bbox")
    if box is not None and not is_box(box):
        raise InputError(f"{where}: bbox: expected four numbers x, y, w, h, got {shown(box)}")
    if entry.get("segmentation") is not None:
        code, mask = _mask(entry["segmentation"], index.sizes[entry["image_id"]], where)
        for fault in measure_faults(entry, mask) if stated else ():
            raise InputError(f"{where}: {fault}")
        return item | {"segmentation": code, "bbox": _floats(box or mask.box), "area": mask.area}
    if box is None:
        raise InputError(f"{where}: has neither mask nor box")
    if stated and not is_area(entry.get("area", 0)):
        raise InputError(f"{where}: area: expected a number >= 0, got {shown(entry['area'])}")
    return item | {"bbox": _floats(box), "area": float(box[2] * box[3])}


def _floats(box: Sequence[float]) -> list[float]:
    return [float(side) for side in box]


def _mask(segmentation: Any, size: tuple[int, int], where: str) -> tuple[dict, Measured]:
    """The mask as an RLE, and what its pixels say."""
    try:
        code = rle.checked(segmentation, *size)
    except ValueError as error:
        raise InputError(f"{where} {error}") from None
    border = lambda: perimeter(rle.decoded(code, *size))  # noqa: E731
    return code, Measured(round(rle.area(code)), rle.box(code), border)
