"""COCO instance files, ground truth and results: read, checked, brought to one form."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from pointseg.metrics import rle
from pointseg.structures import InputError

Source = dict | list | Path | str


@dataclass(frozen=True)
class InstanceData:
    """What both AP protocols need. An annotation or detection is a dict in COCO's words; masks are RLEs."""

    sizes: dict[Any, tuple[int, int]]  # image id -> (h, w)
    categories: dict[int, str]  # category id -> name
    truths: list[dict]
    detections: list[dict]

    def has_masks(self) -> bool:
        return all("segmentation" in entry for entry in self.truths + self.detections)


def read_json(path: Path | str) -> Any:
    """The content of a JSON file; a missing, cut or undecodable one is an InputError naming it."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not complete JSON ({str(error).splitlines()[0]})") from error


def read_instances(gt: Source, dt: Source) -> InstanceData:
    """COCO ground truth and a result list, as files or as what json.load gives."""
    truth, truth_name = open_source(gt, "ground truth")
    results, results_name = open_source(dt, "detections")
    sizes = image_sizes(truth, truth_name)
    categories = category_names(truth, truth_name)
    truths = _truths(truth, sizes, categories, truth_name)
    detections = _detections(results, sizes, categories, results_name)
    return InstanceData(sizes, categories, truths, detections)


def open_source(source: Source, name: str) -> tuple[Any, str]:
    """(content, the name to blame in an error)."""
    if isinstance(source, (str, Path)):
        return read_json(source), str(source)
    return source, name


def take(entry: Any, key: str, kinds: type | tuple[type, ...], name: str, what: str) -> Any:
    """entry[key], or an InputError that says which entry lacks it."""
    value = entry.get(key) if isinstance(entry, dict) else None
    if value is None or not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{name}: {what} has no proper '{key}'")
    return value


def table(content: Any, key: str, name: str) -> list:
    return take(content, key, list, name, "the file")


def image_sizes(truth: Any, name: str) -> dict[Any, tuple[int, int]]:
    """image id -> (h, w)."""
    sizes: dict[Any, tuple[int, int]] = {}
    for row, image in enumerate(table(truth, "images", name)):
        what = f"images[{row}]"
        key = take(image, "id", (int, str), name, what)
        size = (take(image, "height", int, name, what), take(image, "width", int, name, what))
        if key in sizes:
            raise InputError(f"{name}: image id {key} stands twice")
        if min(size) < 1:
            raise InputError(f"{name}: image {key} has size {size[0]} x {size[1]}")
        sizes[key] = size
    if not sizes:
        raise InputError(f"{name}: holds no image")
    return sizes


def category_names(truth: Any, name: str) -> dict[int, str]:
    """category id -> name."""
    names: dict[int, str] = {}
    for row, category in enumerate(table(truth, "categories", name)):
        key = take(category, "id", int, name, f"categories[{row}]")
        if key in names:
            raise InputError(f"{name}: category id {key} stands twice")
        names[key] = take(category, "name", str, name, f"categories[{row}]")
    if not names:
        raise InputError(f"{name}: holds no category")
    return names


def _owner(entry: Any, sizes: dict, categories: dict, name: str, what: str) -> tuple[Any, int]:
    image = take(entry, "image_id", (int, str), name, what)
    category = take(entry, "category_id", int, name, what)
    if image not in sizes:
        raise InputError(f"{name}: {what} names unknown image {image}")
    if category not in categories:
        raise InputError(f"{name}: {what} names unknown category {category}")
    return image, category


def _truths(truth: dict, sizes: dict, categories: dict, name: str) -> list[dict]:
    """Annotations numbered anew from 1: pycocotools takes a match with annotation 0 for no match."""
    rows, seen = [], set()
    for row, entry in enumerate(table(truth, "annotations", name)):
        what = f"annotations[{row}]"
        key = entry.get("id", row) if isinstance(entry, dict) else row
        if not isinstance(key, (int, str)) or key in seen:
            raise InputError(f"{name}: {what} has an id that is no number or stands twice")
        seen.add(key)
        image, category = _owner(entry, sizes, categories, name, what)
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise InputError(f"{name}: {what} has iscrowd {crowd!r}")
        item = {"id": row + 1, "image_id": image, "category_id": category, "iscrowd": int(crowd)}
        rows.append(item | _shape(entry, sizes[image], name, what))
    return rows


def _detections(results: Any, sizes: dict, categories: dict, name: str) -> list[dict]:
    if not isinstance(results, list):
        raise InputError(f"{name}: is not a list of detections")
    rows = []
    for row, entry in enumerate(results):
        what = f"detection {row}"
        image, category = _owner(entry, sizes, categories, name, what)
        score = take(entry, "score", (int, float), name, what)
        if not math.isfinite(score):
            raise InputError(f"{name}: {what} has score {score}")
        item = {
            "id": row + 1,
            "image_id": image,
            "category_id": category,
            "iscrowd": 0,
            "score": score,
        }
        shape = _shape(entry, sizes[image], name, what)
        if (
            "segmentation" in shape
        ):  # size classes of masks go by mask area, also where a box is given
            shape["area"] = float(coco_mask.area(shape["segmentation"]))
        rows.append(item | shape)
    return rows


def _shape(entry: dict, size: tuple[int, int], name: str, what: str) -> dict:
    """segmentation (where there is one), bbox and area; what is missing follows from the mask."""
    shape = {}
    if entry.get("segmentation") is not None:
        try:
            shape["segmentation"] = rle.checked(entry["segmentation"], *size)
        except ValueError as error:
            raise InputError(f"{name}: {what} {error}") from error
    if entry.get("bbox") is not None:
        shape["bbox"] = _numbers(entry["bbox"], name, what)
    elif "segmentation" in shape:
        shape["bbox"] = rle.box(shape["segmentation"])
    else:
        raise InputError(f"{name}: {what} has neither mask nor box")
    if entry.get("area") is not None:
        shape["area"] = _area(entry["area"], name, what)
    elif "segmentation" in shape:
        shape["area"] = float(coco_mask.area(shape["segmentation"]))
    else:
        shape["area"] = shape["bbox"][2] * shape["bbox"][3]
    return shape


def _area(value: Any, name: str, what: str) -> float:
    sound = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (sound and 0 <= value < math.inf):
        raise InputError(f"{name}: {what}: area: expected a number >= 0, got {value!r}")
    return float(value)


def _numbers(box: Any, name: str, what: str) -> list[float]:
    sound = isinstance(box, (list, tuple)) and len(box) == 4
    if not sound or not all(isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        raise InputError(f"{name}: {what} has a box that is not four numbers")
    if box[2] < 0 or box[3] < 0:
        raise InputError(f"{name}: {what} has a box of negative size")
    return [float(v) for v in box]
