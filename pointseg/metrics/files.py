"""COCO instance files, ground truth and results: read, checked, brought to one form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointseg.data.files import read_json, shown
from pointseg.metrics import rle
from pointseg.structures import InputError

Source = dict | list | Path | str
KINDS: dict[str, tuple[type, ...]] = {
    "an integer": (int,),
    "a number": (int, float),
    "a text": (str,),
    "an id": (int, str),
    "a list": (list,),
}


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
    data = InstanceData(image_sizes(truth, truth_name), category_names(truth, truth_name), [], [])
    data.truths.extend(_truths(truth, data, truth_name))
    data.detections.extend(_detections(results, data, results_name))
    return data


def open_source(source: Source, name: str) -> tuple[Any, str]:
    """(content, the name to blame in an error)."""
    if isinstance(source, (str, Path)):
        return read_json(Path(source)), str(source)
    return source, name


def take(entry: Any, key: str, kind: str, where: str) -> Any:
    """entry[key], which has to be one of KINDS."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, KINDS[kind]) or isinstance(value, bool):
        raise InputError(f"{where}: {key}: expected {kind}, got {shown(value)}")
    return value


def image_sizes(truth: Any, name: str) -> dict[Any, tuple[int, int]]:
    """image id -> (h, w)."""
    sizes: dict[Any, tuple[int, int]] = {}
    for row, image in enumerate(take(truth, "images", "a list", name)):
        where = f"{name}: images[{row}]"
        key = take(image, "id", "an id", where)
        size = (
            take(image, "height", "an integer", where),
            take(image, "width", "an integer", where),
        )
        if key in sizes:
            raise InputError(f"{where}: id {shown(key)} stands twice")
        if min(size) < 1:
            raise InputError(f"{where}: has size {size[0]} x {size[1]}")
        sizes[key] = size
    if not sizes:
        raise InputError(f"{name}: has no image")
    return sizes


def category_names(truth: Any, name: str) -> dict[int, str]:
    """category id -> name."""
    names: dict[int, str] = {}
    for row, category in enumerate(take(truth, "categories", "a list", name)):
        where = f"{name}: categories[{row}]"
        key = take(category, "id", "an integer", where)
        if key in names:
            raise InputError(f"{where}: id {key} stands twice")
        names[key] = take(category, "name", "a text", where)
    if not names:
        raise InputError(f"{name}: has no category")
    return names


def _truths(truth: dict, data: InstanceData, name: str) -> list[dict]:
    """Annotations numbered anew from 1: pycocotools takes a match with annotation 0 for no
    match."""
    rows, known = [], set()
    for row, entry in enumerate(take(truth, "annotations", "a list", name)):
        where = f"{name}: annotations[{row}]"
        item = _entry(entry, row, data, where)
        key, crowd = entry.get("id", row), entry.get("iscrowd", 0)
        if not isinstance(key, (int, str)) or key in known:
            raise InputError(f"{where}: id {shown(key)} is not a number or stands twice")
        if crowd not in (0, 1):
            raise InputError(f"{where}: iscrowd: expected 0 or 1, got {shown(crowd)}")
        known.add(key)
        area = _area(entry["area"], where) if entry.get("area") is not None else item["area"]
        rows.append({**item, "iscrowd": int(crowd), "area": area})
    return rows


def _detections(results: Any, data: InstanceData, name: str) -> list[dict]:
    """Size classes of masks go by mask area, whatever `area` and `bbox` of the file say."""
    if not isinstance(results, list):
        raise InputError(f"{name}: is not a list of detections")
    rows = []
    for row, entry in enumerate(results):
        where = f"{name}: detection {row}"
        item = _entry(entry, row, data, where)
        score = take(entry, "score", "a number", where)
        if not math.isfinite(score):
            raise InputError(f"{where}: score: expected a finite number, got {score}")
        rows.append({**item, "score": score})
    return rows


def _entry(entry: Any, row: int, data: InstanceData, where: str) -> dict:
    """What truths and detections have in common; box and area follow from the mask where it is
    there."""
    image = take(entry, "image_id", "an id", where)
    category = take(entry, "category_id", "an integer", where)
    if image not in data.sizes:
        raise InputError(f"{where}: names unknown image {shown(image)}")
    if category not in data.categories:
        raise InputError(f"{where}: names unknown category {category}")
    item = {"id": row + 1, "image_id": image, "category_id": category, "iscrowd": 0}
    return item | _shape(entry, data.sizes[image], where)


def _shape(entry: dict, size: tuple[int, int], where: str) -> dict:
    """bbox, area and, where there is one, segmentation."""
    box = _box(entry["bbox"], where) if entry.get("bbox") is not None else None
    if entry.get("segmentation") is None:
        if box is None:
            raise InputError(f"{where}: has neither mask nor box")
        return {"bbox": box, "area": box[2] * box[3]}
    try:
        code = rle.checked(entry["segmentation"], *size)
    except ValueError as error:
        raise InputError(f"{where} {error}") from error
    return {"segmentation": code, "bbox": box or rle.box(code), "area": rle.area(code)}


def _area(value: Any, where: str) -> float:
    sound = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (sound and 0 <= value < math.inf):
        raise InputError(f"{where}: area: expected a number >= 0, got {shown(value)}")
    return float(value)


def _box(box: Any, where: str) -> list[float]:
    """x, y, width, height."""
    sound = isinstance(box, (list, tuple)) and len(box) == 4
    if not sound or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        raise InputError(f"{where}: has a box that is not four numbers")
    if box[2] < 0 or box[3] < 0:
        raise InputError(f"{where}: has a box of negative size")
    return [float(v) for v in box]
