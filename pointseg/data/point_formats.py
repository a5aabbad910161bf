"""Points in the two forms the field exchanges: PSPS-style point PNGs and COCO annotations with a
`point` field."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pointseg.data.dataset import things_first
from pointseg.data.files import (
    cause_of,
    inside,
    is_name,
    is_whole,
    read_json,
    shown,
    write_text,
    write_whole,
)
from pointseg.data.images import SUFFIXES, named, read_segment_ids, segment_colours, written_names
from pointseg.data.point_file import (
    MANUAL,
    ImagePoints,
    Jitter,
    PointFile,
    as_points,
    as_record,
    category_records,
    check_head,
)
from pointseg.structures import Category, InputError, Points

Names = Mapping[int | str, str]  # image id -> file name of the image
MOST_POINTS = 10_000  # an image
LARGEST_ID = 256**3 - 1  # id = R + 256 G + 65536 B


# ---------------------------------------------------------------------------- PSPS-style point PNGs


def write_point_pngs(
    point_file: PointFile, json_path: Path, folder: Path, names: Names | None = None
) -> None:
    """COCO-panoptic PNGs in which only the points' pixels carry their target's id, and the JSON
    beside.

    Boxes and areas in the JSON are those of the points: the true ones would give the masks' extent
    away.
    """
    make_folder(folder)
    annotations = []
    files = written_names([Path(_name(key, names)).name for key in point_file.images])
    for (image_id, image), name in zip(point_file.images.items(), files):
        file_name = f"{name}.png"
        _save_png(folder / file_name, id_map(image, str(folder / file_name)))
        rows = _first_rows(image.points)
        segments = [_segment(image.points, row, point_file.categories) for row in rows]
        annotation = {"image_id": image_id, "file_name": file_name, "segments_info": segments}
        annotations.append(annotation)
    record = {**_frame(point_file, names), "annotations": annotations}
    write_text(json_path, json.dumps(record, allow_nan=False) + "\n")


def read_point_pngs(
    json_path: Path,
    folder: Path,
    kind: str = MANUAL,
    seed: int | None = None,
    jitter: Jitter | None = None,
) -> PointFile:
    """Each coloured pixel is a point at its centre; segments without one, and crowds, give none."""
    record = read_json(json_path)
    categories, images = read_frame(record, str(json_path))
    label_of = {category.id: label for label, category in enumerate(categories)}
    rows = {}
    for annotation in listed(record, "annotations", str(json_path)):
        image_id = image_of(annotation, images, f"{json_path}: annotation")
        rows[image_id] = _png_rows(annotation, images[image_id], label_of, json_path, folder)
    return point_file_of((kind, seed, jitter), categories, images, rows, str(json_path))


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({cause_of(error)})") from None


def id_map(image: ImagePoints, where: str) -> np.ndarray:
    """[h, w] int64, the target's id at each point's pixel, else 0."""
    ids = np.zeros((image.height, image.width), dtype=np.int64)
    for (x, y), target in zip(image.points.xy.tolist(), image.points.target.tolist()):
        if not 0 < target <= LARGEST_ID:
            cause = f"target id {target} does not fit a panoptic PNG (1 to {LARGEST_ID})"
            raise InputError(f"{where}: {cause}")
        other = ids[int(y), int(x)]
        if other not in (0, target):
            raise InputError(f"{where}: targets {other} and {target} have a point on one pixel")
        ids[int(y), int(x)] = target
    return ids


def _save_png(path: Path, ids: np.ndarray) -> None:
    image = Image.fromarray(segment_colours(ids))
    write_whole(path, lambda file: image.save(file, format="PNG"))


def _first_rows(points: Points) -> list[int]:
    """Row of the first point of each target."""
    targets = points.target.tolist()
    return [row for row, target in enumerate(targets) if target not in targets[:row]]


def _segment(points: Points, row: int, categories: tuple[Category, ...]) -> dict:
    target, category = int(points.target[row]), categories[int(points.label[row])]
    xy = np.floor(points.xy[points.target == target]).astype(int)
    (left, top), (right, bottom) = xy.min(0).tolist(), xy.max(0).tolist()
    box = [left, top, right - left + 1, bottom - top + 1]
    return {"id": target, "category_id": category.id, "iscrowd": 0, "bbox": box, "area": len(xy)}


def _png_rows(
    annotation: dict, size: tuple[int, int], label_of: dict, json_path: Path, folder: Path
) -> list:
    file_name = annotation.get("file_name")
    if not is_name(file_name):
        raise InputError(f"{json_path}: file_name: expected a name, got {shown(file_name)}")
    path = inside(folder, file_name)
    ids = read_segment_ids(path, size)
    every = listed(annotation, "segments_info", str(json_path))
    segments = {segment["id"]: segment for segment in every if is_whole(segment.get("id"))}
    rows = []
    if np.count_nonzero(ids) > MOST_POINTS:
        raise InputError(f"{path}: has more than {MOST_POINTS} coloured pixels, a point each")
    for y, x in zip(*np.nonzero(ids)):
        segment = segments.get(int(ids[y, x]))
        if segment is None or not _names(segment.get("category_id"), label_of):
            cause = f"id {ids[y, x]} has no known segment and category in {json_path.name}"
            raise InputError(f"{path}: {cause}")
        if not segment.get("iscrowd"):
            rows.append((x + 0.5, y + 0.5, label_of[segment["category_id"]], int(ids[y, x])))
    return sorted(rows, key=lambda row: row[3])


# -------------------------------------------------------------------- COCO annotations with points


def write_coco_points(point_file: PointFile, path: Path, names: Names | None = None) -> None:
    """One annotation a target: `point` [x, y] as AttentionShift's loader reads it, and no box or
    mask.

    More than one point go to `points` (`extreme_points` for the four extremes), the first of them
    to `point`.
    """
    several = "extreme_points" if point_file.kind == "extreme" else "points"
    annotations = []
    for image_id, image in point_file.images.items():
        points = image.points
        for row in _first_rows(points):
            xy = points.xy[points.target == points.target[row]].tolist()
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "target_id": int(points.target[row]),
                "category_id": point_file.categories[int(points.label[row])].id,
                "iscrowd": 0,
                "point": xy[0],
                **({several: xy} if len(xy) > 1 else {}),
            }
            annotations.append(annotation)
    record = {**_frame(point_file, names), "annotations": annotations}
    write_text(path, json.dumps(record, allow_nan=False) + "\n")


def read_coco_points(
    path: Path, kind: str = MANUAL, seed: int | None = None, jitter: Jitter | None = None
) -> PointFile:
    """Annotations without a point, and crowds, give none. A target is `target_id`, else the
    annotation's id."""
    record = read_json(path)
    categories, images = read_frame(record, str(path))
    label_of = {category.id: label for label, category in enumerate(categories)}
    rows = defaultdict(list)
    for annotation in listed(record, "annotations", str(path)):
        where = f"{path}: annotation {shown(annotation.get('id'))}"
        image_id = image_of(annotation, images, where)
        rows[image_id] += _coco_rows(annotation, images[image_id], label_of, where)
    return point_file_of((kind, seed, jitter), categories, images, rows, str(path))


def _coco_rows(
    annotation: dict, size: tuple[int, int], label_of: dict[int, int], where: str
) -> list:
    several = annotation.get("extreme_points", annotation.get("points"))
    points = [annotation["point"]] if several is None and "point" in annotation else several or []
    if not isinstance(points, list):
        raise InputError(f"{where}: expected a list of points")
    target = target_of(annotation, where)
    if annotation.get("iscrowd") or not points:
        return []
    label = label_in(annotation, label_of, where)
    for xy in points:
        if not _is_inside(xy, size):
            raise InputError(f"{where}: point {shown(xy)} is not in the image ({named(size)})")
    return [(*xy, label, target) for xy in points]


def target_of(annotation: dict, where: str) -> int:
    """A COCO annotation's `target_id`, else its id."""
    target = annotation.get("target_id", annotation.get("id"))
    if not is_whole(target):
        raise InputError(f"{where}: expected an integer id")
    return target


def label_in(annotation: dict, label_of: dict[int, int], where: str) -> int:
    if not _names(annotation.get("category_id"), label_of):
        raise InputError(f"{where}: unknown category {shown(annotation.get('category_id'))}")
    return label_of[annotation["category_id"]]


def _is_inside(xy: Any, size: tuple[int, int]) -> bool:
    if not (isinstance(xy, list) and [type(v) in (int, float) for v in xy] == [True, True]):
        return False
    return all(0 <= v < side and np.float32(v) < side for v, side in zip(xy, size[::-1]))


# --- what both have in common: COCO's frame -------------------------------------------------------


def _name(image_id: int | str, names: Names | None) -> str:
    if names is not None:
        return names[image_id]
    if isinstance(image_id, int):
        return f"{image_id:012d}.jpg"
    return image_id if Path(image_id).suffix.lower() in SUFFIXES else f"{image_id}.jpg"


def _frame(point_file: PointFile, names: Names | None) -> dict:
    """The `images` and `categories` of a COCO JSON."""
    images = [
        {"id": key, "file_name": _name(key, names), "height": image.height, "width": image.width}
        for key, image in point_file.images.items()
    ]
    return {"images": images, "categories": category_records(point_file.categories)}


def image_of(annotation: dict, images: Mapping, where: str) -> int | str:
    if not _names(annotation.get("image_id"), images):
        raise InputError(f"{where}: unknown image {shown(annotation.get('image_id'))}")
    return annotation["image_id"]


def _names(value: Any, known: Mapping) -> bool:
    return type(value) in (int, str) and value in known


def listed(record: Any, name: str, where: str) -> list[dict]:
    """A field that should be a list of objects."""
    items = record.get(name) if isinstance(record, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(f"{where}: {name}: expected a list of objects")
    return items


def read_frame(
    record: Any, where: str
) -> tuple[tuple[Category, ...], dict[int | str, tuple[int, int]]]:
    """(categories, things first; image id -> (h, w))."""
    categories = [_category(item, where) for item in listed(record, "categories", where)]
    images: dict[int | str, tuple[int, int]] = {}
    for item in listed(record, "images", where):
        key, size = item.get("id"), (item.get("height"), item.get("width"))
        if not (is_whole(key) or is_name(key)) or key in images:
            raise InputError(f"{where}: image id {shown(key)} is missing, wrong or stands twice")
        if not all(is_whole(side, 1) for side in size):
            raise InputError(f"{where}: image {shown(key)} has no height and width")
        images[key] = size
    if not categories or not images or len({c.id for c in categories}) < len(categories):
        raise InputError(f"{where}: needs an image, and categories with ids of their own")
    return things_first(categories), images


def _category(item: dict, where: str) -> Category:
    if not is_whole(item.get("id")) or not is_name(item.get("name")):
        raise InputError(f"{where}: category: expected an integer id and a name, got {shown(item)}")
    return Category(item["id"], item["name"], bool(item.get("isthing", True)))


def point_file_of(origin: tuple, categories, images, rows, where: str) -> PointFile:
    """A PointFile of rows by image, of origin (kind, seed, jitter); n is the most points a target
    has."""
    kind, seed, jitter = origin
    counts = Counter((image_id, row[3]) for image_id, some in rows.items() for row in some)
    if not counts:
        raise InputError(f"{where}: has no point")
    points = {
        image_id: ImagePoints(height, width, as_points(rows.get(image_id, ()), categories))
        for image_id, (height, width) in images.items()
    }
    point_file = PointFile(kind, max(counts.values()), seed, None, categories, points, jitter)
    check_head({**as_record(point_file), "content_hash": None}, where)
    return point_file
