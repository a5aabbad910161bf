"""Points or boxes of anybody's images, in any form of file that the field exchanges."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pointseg.data.files import read_json, shown
from pointseg.data.images import named
from pointseg.data.measures import is_box
from pointseg.data.point_file import FORMAT, PointFile, read_points
from pointseg.data.point_formats import (
    image_of,
    label_in,
    listed,
    point_file_of,
    read_coco_points,
    read_frame,
    read_point_pngs,
    target_of,
)
from pointseg.ops.extreme_points import side_middles
from pointseg.structures import Category, InputError, Points

POINT_FIELDS = ("point", "points", "extreme_points")


@dataclass(frozen=True)
class Marks:
    """Points of images, found by the name of an image's file."""

    path: Path
    points: PointFile
    ids: dict[str, int | str]  # name of an image's file, or its name without suffix -> image id

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.points.categories

    def of(self, image: Path, size: tuple[int, int]) -> Points | None:
        """The points of an image of (h, w); None where the file has nothing to say of it."""
        number = str(int(image.stem)) if re.fullmatch("[0-9]{1,18}", image.stem) else ""
        names = (image.name, image.stem, number)
        key = next((self.ids[name] for name in names if name in self.ids), None)
        if key is None:
            return None
        marked = self.points.images[key]
        if (marked.height, marked.width) != size:
            measured = named((marked.height, marked.width))
            raise InputError(f"{image}: is {named(size)}, {self.path.name} has it as {measured}")
        return marked.points


def read_marks(path: Path) -> Marks:
    """Our own points files, COCO annotations with points or with boxes, or point PNGs: a COCO
    panoptic JSON beside a folder of its name."""
    record = read_json(path)
    if isinstance(record, dict) and record.get("format") == FORMAT:
        points = read_points(path)
        return Marks(path, points, {str(key): key for key in points.images})
    points = _read_coco(record, path)
    images = listed(record, "images", str(path))
    names = {str(Path(str(item["file_name"])).name): item["id"]
             for item in images if "file_name" in item}  # fmt: skip
    return Marks(path, points, {str(key): key for key in points.images} | names)


def _read_coco(record: Any, path: Path) -> PointFile:
    annotations = listed(record, "annotations", str(path))
    if any("segments_info" in each for each in annotations):
        return read_point_pngs(path, path.with_suffix(""))
    if any(field in each for each in annotations for field in POINT_FIELDS):
        return read_coco_points(path)
    if any("bbox" in each for each in annotations):
        return boxes_as_points(record, str(path))
    raise InputError(f"{path}: its annotations have neither points nor boxes")


def boxes_as_points(record: Any, where: str) -> PointFile:
    """The boxes of COCO annotations, each as the middles of the sides of the pixels it touches."""
    categories, images = read_frame(record, where)
    label_of, rows = {c.id: label for label, c in enumerate(categories)}, defaultdict(list)
    for annotation in listed(record, "annotations", where):
        spot = f"{where}: annotation {shown(annotation.get('id'))}"
        if not annotation.get("iscrowd"):
            image_id = image_of(annotation, images, spot)
            label, target = label_in(annotation, label_of, spot), target_of(annotation, spot)
            box = torch.tensor([_box(annotation, images[image_id], spot)], dtype=torch.float32)
            rows[image_id] += [(*xy, label, target) for xy in side_middles(box)[0].tolist()]
    return point_file_of(("extreme", None, None), categories, images, rows, where)


def _box(annotation: dict, size: tuple[int, int], where: str) -> list[float]:
    """xyxy of whole pixels, inside the image."""
    box = annotation.get("bbox")
    if not is_box(box) or min(box[2:]) <= 0:
        raise InputError(f"{where}: bbox: expected [x, y, width, height], got {shown(box)}")
    (x, y, width, height), (h, w) = box, size
    left, top = max(0, math.floor(x)), max(0, math.floor(y))
    right, bottom = min(w, math.ceil(x + width)), min(h, math.ceil(y + height))
    if left >= right or top >= bottom:
        raise InputError(f"{where}: bbox {shown(box)} lies outside the image ({named(size)})")
    return [left, top, right, bottom]
