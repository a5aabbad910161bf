"""Area and box written in an annotation against the pixels of its mask.

The doctor and the scorers ask here: a measure that one refuses the other does not believe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pointseg.data.files import shown
from pointseg.data.masks import box_of, perimeter

BOX_SLACK = 2  # pixels; boxes are written from pixel centres, from edges, or counted from 1
Border = Callable[[], float]


@dataclass(frozen=True)
class Measured:
    """What the pixels of a mask say."""

    area: int
    box: list[float] | None  # x, y, width, height; None without any pixel
    border: Border  # length of its border, worked out where a polygon needs it

    @classmethod
    def of(cls, mask: np.ndarray) -> Measured:
        box = None
        if mask.any():
            left, top, right, bottom = box_of(mask)
            box = [left, top, right - left + 1, bottom - top + 1]
        return cls(int(mask.sum()), box, lambda: perimeter(mask))


def measure_faults(entry: dict, mask: Measured) -> Iterator[str]:
    """One text for the area and one for the box that an annotation states and its mask has not."""
    area, box = entry.get("area"), entry.get("bbox")
    if "area" in entry and not _area_agrees(area, mask, entry):
        yield f"area {shown(area)}, its mask has {mask.area} pixels"
    if box is not None and not _box_agrees(box, mask, entry):
        theirs = "none" if mask.box is None else shown([round(side) for side in mask.box])
        yield f"bbox {shown(box)}, its mask has {theirs}"


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number that fits a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def is_area(value: object) -> bool:
    return is_number(value) and value >= 0


def is_box(value: object) -> bool:
    """Whether a JSON value is x, y, width, height of a box."""
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(map(is_number, value)):
        return False
    return min(value[2:]) >= 0


def _area_agrees(area: object, mask: Measured, entry: dict) -> bool:
    """Exact for run lengths and PNGs; a polygon's analytic area may differ by the pixels of its
    border."""
    if not is_area(area):
        return False
    segmentation = entry.get("segmentation")
    if area == mask.area:
        return True
    if isinstance(segmentation, list):
        # overlapping polygons count twice in COCO's area
        analytic = sum(map(shoelace, segmentation))
        nearest = min(abs(area - mask.area), abs(area - analytic))
        return nearest <= 1 or nearest <= mask.border() + 1
    # COCO's own crowd areas are not those of their run lengths
    return isinstance(segmentation, dict) and bool(entry.get("iscrowd", 0))


def _box_agrees(box: object, mask: Measured, entry: dict) -> bool:
    """Within the slack of the mask's box, or of the hull of its polygons, which a mask loses where
    it leaves the image."""
    if not is_box(box):
        return False
    known = [] if mask.box is None else [mask.box]
    if isinstance(entry.get("segmentation"), list):
        known.append(_hull(entry["segmentation"]))
    return not known or any(_apart(box, other) <= BOX_SLACK for other in known)


def _apart(box: list[float], other: list[float]) -> float:
    """Largest distance between the sides of two boxes."""
    sides = [(b[0], b[1], b[0] + b[2], b[1] + b[3]) for b in (box, other)]
    return max(abs(one - two) for one, two in zip(*sides))


def _hull(polygons: list[list[float]]) -> list[float]:
    columns = [x for polygon in polygons for x in polygon[0::2]]
    rows = [y for polygon in polygons for y in polygon[1::2]]
    return [min(columns), min(rows), max(columns) - min(columns), max(rows) - min(rows)]


def shoelace(polygon: list[float]) -> float:
    """Area of a closed polygon given as x0, y0, x1, y1, ..."""
    x, y = np.array(polygon[0::2]), np.array(polygon[1::2])
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
