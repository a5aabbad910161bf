"""Areas written in the annotations against the pixels of the masks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pointseg.data.coco import CocoDataset
from pointseg.data.dataset import Dataset
from pointseg.data.files import shown
from pointseg.data.masks import perimeter
from pointseg.data.panoptic import PanopticDataset
from pointseg.structures import Truth


def area_faults(dataset: Dataset, i: int, truth: Truth) -> Iterator[str]:
    """One line for every segment whose `area` is not its mask's."""
    masks = dict(zip(truth.target.tolist(), truth.masks))
    if isinstance(dataset, PanopticDataset):
        file, entries = dataset.mask_file(i), dataset.entry(i)["segments_info"]
    elif isinstance(dataset, CocoDataset):
        file, entries = dataset.index.file, dataset.index.annotations.get(dataset.ids[i], [])
    else:
        return
    for entry in entries:
        area, mask = entry.get("area"), masks.get(entry["id"])
        if mask is not None and "area" in entry and not _agrees(area, mask, entry):
            where = f"{file}: segment {entry['id']} (image {dataset.ids[i]})"
            yield f"{where}: area {shown(area)}, its mask has {mask.sum()} pixels"


def _agrees(area: object, mask: np.ndarray, entry: dict) -> bool:
    """Exact for run lengths and PNGs; a polygon's analytic area may differ by the pixels of its
    border."""
    if not isinstance(area, int | float) or isinstance(area, bool):
        return False
    segmentation, pixels = entry.get("segmentation"), int(mask.sum())
    if isinstance(segmentation, list):
        analytic = sum(
            map(shoelace, segmentation)
        )  # overlapping polygons count twice in COCO's area
        return min(abs(area - pixels), abs(area - analytic)) <= perimeter(mask) + 1
    if isinstance(segmentation, dict) and entry.get("iscrowd", 0):
        return True  # COCO's own crowd areas are not those of their run lengths
    return area == pixels


def shoelace(polygon: list[float]) -> float:
    """Area of a closed polygon given as x0, y0, x1, y1, ..."""
    x, y = np.array(polygon[0::2]), np.array(polygon[1::2])
    return 0.5 * abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1)))
