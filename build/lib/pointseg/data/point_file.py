"""The points file: the one thing a weak method learns from. Format: points.schema.json; checked
here by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pointseg.data.files import is_whole, read_json, shown, write_text
from pointseg.structures import POINT_KINDS, Category, InputError, Points, tensors

FORMAT = "pointseg points"
VERSION = 1
MANUAL = "manual"  # points somebody clicked: no seed, and neither hash is demanded
FILE_KINDS = (*POINT_KINDS, MANUAL)


@dataclass(frozen=True)
class Jitter:
    """Noise of a human hand: standard deviation in pixels around a `uniform` or `centre` point."""

    of: str = "uniform"
    px: float = 4.0  # UNSTATED: no paper here jitters its points; about the size of a cursor


@dataclass(frozen=True)
class ImagePoints:
    """The points of one image and the size they were measured in."""

    height: int
    width: int
    points: Points  # in arrays


@dataclass(frozen=True)
class PointFile:
    """A named, seeded, hashed set of points; labels index `categories`, which are the source
    dataset's."""

    kind: str
    n: int
    seed: int | None
    source_hash: str | None
    categories: tuple[Category, ...]
    images: dict[int | str, ImagePoints]
    jitter: Jitter | None = None

    def __len__(self) -> int:
        return sum(len(image.points) for image in self.images.values())

    def for_image(self, image_id: int | str) -> Points:
        """The points of one image, in tensors."""
        if image_id not in self.images:
            raise InputError(f"points file ({self.kind}): has no image {image_id!r}")
        if image_id not in self._given:
            self._given[image_id] = tensors(self.images[image_id].points)
        return self._given[image_id]

    @cached_property
    def _given(self) -> dict[int | str, Points]:
        return {}

    @cached_property
    def content_hash(self) -> str:
        return hash_of(as_record(self))


def write_points(path: Path | str, point_file: PointFile) -> None:
    """Write atomically, one image a line; nothing that `read_points` would refuse."""
    record = as_record(point_file)
    check_head({**record, "content_hash": None}, str(path))
    images = record.pop("images")
    record["content_hash"] = point_file.content_hash
    head = json.dumps(record, indent=1, allow_nan=False)
    lines = ",\n".join("  " + json.dumps(image, allow_nan=False) for image in images)
    write_text(Path(path), f'{head[:-2]},\n "images": [\n{lines}\n ]\n}}\n')


def read_points(path: Path | str) -> PointFile:
    """Read and check everything; any fault is one InputError naming the file and where in it."""
    path = Path(path)
    record = read_json(path)
    check_head(record, str(path))
    _check_hash(record, str(path))
    categories = _read_categories(record["categories"], str(path))
    images = _read_images(record, categories, str(path))
    noise = record["jitter"]
    jitter = None if noise is None else Jitter(noise["of"], float(noise["px"]))
    kind, n, seed, source = (record[name] for name in ("kind", "n", "seed", "source_hash"))
    return PointFile(kind, n, seed, source, categories, images, jitter)


def things_first(points: PointFile) -> PointFile:
    """The same points with the categories, and so the labels, in the order of a data set's."""
    order = sorted(range(len(points.categories)), key=lambda k: not points.categories[k].is_thing)
    place = np.argsort(order)
    images = {
        key: replace(image, points=replace(image.points, label=place[image.points.label]))
        for key, image in points.images.items()
    }
    return replace(points, categories=tuple(points.categories[k] for k in order), images=images)


def hash_of(record: dict) -> str:
    """sha256 of the record's canonical JSON; its own `content_hash` does not count."""
    body = {name: value for name, value in record.items() if name != "content_hash"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_record(point_file: PointFile) -> dict:
    """The JSON object of a points file, without its content hash."""
    jitter = point_file.jitter
    return {
        "format": FORMAT,
        "version": VERSION,
        "kind": point_file.kind,
        "n": point_file.n,
        "seed": point_file.seed,
        "jitter": None if jitter is None else {"of": jitter.of, "px": float(jitter.px)},
        "source_hash": point_file.source_hash,
        "categories": category_records(point_file.categories, bool),
        "images": [
            {"id": image_id, "height": image.height, "width": image.width,
             "targets": _target_records(image.points, point_file.categories)}
            for image_id, image in point_file.images.items()
        ],
    }  # fmt: skip


def category_records(categories: Iterable[Category], flag: type = int) -> list[dict]:
    """COCO's list of categories; points files have true and false where COCO has 1 and 0."""
    return [{"id": c.id, "name": c.name, "isthing": flag(c.is_thing)} for c in categories]


def _target_records(points: Points, categories: tuple[Category, ...]) -> list[dict]:
    # float(str(float32)) is the shortest decimal that reads back as the same float32
    xy = [[float(str(x)), float(str(y))] for x, y in np.asarray(points.xy, dtype=np.float32)]
    targets: dict[int, dict] = {}
    for target, label, point in zip(points.target.tolist(), points.label.tolist(), xy):
        empty = {"id": target, "category_id": categories[label].id, "points": []}
        targets.setdefault(target, empty)["points"].append(point)
    return list(targets.values())


def as_points(
    rows: Iterable[tuple[float, float, int, int]], categories: tuple[Category, ...]
) -> Points:
    """Rows of (x, y, label, target) to Points, in arrays."""
    rows = list(rows)
    label = np.array([row[2] for row in rows], dtype=np.int64)
    things = np.array([category.is_thing for category in categories], dtype=bool)
    xy = np.array([row[:2] for row in rows], dtype=np.float32).reshape(-1, 2)
    target = np.array([row[3] for row in rows], dtype=np.int64)
    return Points(xy, label, target, things[label])


# ------------------------------------------------------------------------------------------- checks


Check = tuple[Callable[[Any], bool], str]


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    # an integer may be too long for a float
    return type(value) in (int, float) and -1e30 < value < 1e30


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_jitter(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() != {"of", "px"}:
        return False
    return value["of"] in ("uniform", "centre") and _is_number(value["px"]) and value["px"] > 0


HEAD: dict[str, Check] = {
    "format": (lambda v: v == FORMAT, f"'{FORMAT}'"),
    "version": (lambda v: type(v) is int and v == VERSION, f"{VERSION}"),
    "kind": (lambda v: isinstance(v, str) and v in FILE_KINDS, "one of " + ", ".join(FILE_KINDS)),
    "n": (_is_count, "a positive integer"),
    "seed": (lambda v: v is None or is_whole(v, 0), "an integer >= 0 or null"),
    "jitter": (_is_jitter, "null or {of: uniform|centre, px: a positive number}"),
    "source_hash": (lambda v: v is None or _is_text(v), "a text or null"),
    "content_hash": (lambda v: v is None or _is_text(v), "a text or null"),
    "categories": (lambda v: _is_list(v) and bool(v), "a list that is not empty"),
    "images": (lambda v: _is_list(v) and bool(v), "a list that is not empty"),
}
CATEGORY: dict[str, Check] = {
    "id": (is_whole, "an integer"),
    "name": (_is_text, "a text"),
    "isthing": (lambda v: isinstance(v, bool), "true or false"),
}
IMAGE: dict[str, Check] = {
    "id": (lambda v: is_whole(v) or _is_text(v), "an integer or a text"),
    "height": (_is_count, "a positive integer"),
    "width": (_is_count, "a positive integer"),
    "targets": (_is_list, "a list"),
}
TARGET: dict[str, Check] = {
    "id": (is_whole, "an integer"),
    "category_id": (is_whole, "an integer"),
    "points": (lambda v: _is_list(v) and bool(v), "a list that is not empty"),
}


def _check_fields(record: Any, where: str, fields: dict[str, Check]) -> None:
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected an object, got {shown(record)}")
    for name in fields:
        if name not in record:
            raise InputError(f"{where}: '{name}' is missing")
    for name in record:
        if name not in fields:
            raise InputError(f"{where}: unknown key {shown(name)}")
    for name, (fits, wanted) in fields.items():
        if not fits(record[name]):
            raise InputError(f"{where}: {name}: expected {wanted}, got {shown(record[name])}")


def check_head(record: Any, where: str) -> None:
    _check_fields(record, where, HEAD)
    kind = record["kind"]
    if (kind == "jitter") != (record["jitter"] is not None):
        cause = f"kind '{kind}' does not go with jitter {shown(record['jitter'])}"
        raise InputError(f"{where}: {cause}")
    if kind == "extreme" and record["n"] != 4:
        raise InputError(f"{where}: kind 'extreme' means 4 points a target, n is {record['n']}")


def _check_hash(record: dict, where: str) -> None:
    written = record["content_hash"]
    if written is None and record["kind"] == MANUAL:
        return
    if written != hash_of(record):
        cause = "content_hash does not fit the content; the file was changed or cut"
        raise InputError(f"{where}: {cause}")


def _read_categories(records: list, where: str) -> tuple[Category, ...]:
    for position, record in enumerate(records):
        _check_fields(record, f"{where}: categories[{position}]", CATEGORY)
    _check_unique([record["id"] for record in records], f"{where}: categories", "id")
    _check_unique([record["name"] for record in records], f"{where}: categories", "name")
    return tuple(Category(record["id"], record["name"], record["isthing"]) for record in records)


def _check_unique(values: list, where: str, what: str) -> None:
    known = set()
    for value in values:
        if value in known:
            raise InputError(f"{where}: {what} {shown(value)} stands twice")
        known.add(value)


def _read_images(
    record: dict, categories: tuple[Category, ...], path: str
) -> dict[int | str, ImagePoints]:
    label_of = {category.id: label for label, category in enumerate(categories)}
    images = {}
    for position, image in enumerate(record["images"]):
        _check_fields(image, f"{path}: images[{position}]", IMAGE)
        where = f"{path}: image {shown(image['id'])}"
        if image["id"] in images:
            raise InputError(f"{where}: stands twice")
        rows = _read_targets(image, label_of, record, where)
        points = as_points(rows, categories)
        images[image["id"]] = ImagePoints(image["height"], image["width"], points)
    return images


def _read_targets(image: dict, label_of: dict[int, int], head: dict, where: str) -> list[tuple]:
    rows = []
    for position, target in enumerate(image["targets"]):
        _check_fields(target, f"{where}: targets[{position}]", TARGET)
        spot = f"{where}: target {target['id']}"
        if target["category_id"] not in label_of:
            raise InputError(f"{spot}: unknown category {target['category_id']}")
        _check_number_of_points(len(target["points"]), head, spot)
        label = label_of[target["category_id"]]
        rows += [(*_read_xy(xy, image, spot), label, target["id"]) for xy in target["points"]]
    _check_unique([target["id"] for target in image["targets"]], where, "target")
    return rows


def _check_number_of_points(count: int, head: dict, where: str) -> None:
    if count > head["n"] or (head["kind"] == "extreme" and count != 4):
        raise InputError(f"{where}: has {count} points, the file's n is {head['n']}")


def _read_xy(xy: Any, image: dict, where: str) -> tuple[float, float]:
    if not (_is_list(xy) and len(xy) == 2 and all(map(_is_number, xy))):
        raise InputError(f"{where}: point: expected two finite numbers, got {shown(xy)}")
    x, y = (float(np.float32(value)) for value in xy)
    if not (0 <= x < image["width"] and 0 <= y < image["height"]):
        size = f"{image['width']} x {image['height']}"
        raise InputError(f"{where}: point {shown(xy)} lies outside the image ({size})")
    return x, y
