"""COCO instances: one JSON of polygons and run lengths for a folder of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.data.coco_json import CocoIndex
from pointseg.data.dataset import Dataset, Row
from pointseg.data.files import OnFault, inside, raise_fault
from pointseg.metrics import rle
from pointseg.structures import InputError


class CocoImages(Dataset):
    """Images and sizes as a COCO JSON lists them."""

    def __init__(
        self,
        root: Path,
        split: str,
        index: CocoIndex,
        images: Path,
        on_fault: OnFault = raise_fault,
    ):
        self.index, self.images = index, images
        super().__init__(root, split, list(index.categories.values()), self.listed(), on_fault)

    def listed(self) -> list[int | str]:
        """Ids of the images to use."""
        return list(self.index.images)

    def path(self, i: int) -> Path:
        return inside(self.images, self.index.images[self.ids[i]]["file_name"])

    def size(self, i: int) -> tuple[int, int]:
        entry = self.index.images[self.ids[i]]
        return entry["height"], entry["width"]

    def annotation_files(self) -> list[Path]:
        return [self.index.file]


class CocoDataset(CocoImages):
    """Any `instances` JSON: COCO 2017 itself, or one's own with the same fields."""

    layout = "coco"

    def rows(self, i: int) -> tuple[list[Row], np.ndarray]:
        rows = []
        for entry in self.index.annotations.get(self.ids[i], ()):
            try:
                mask = rle.decoded(entry.get("segmentation"), *self.size(i))
            except ValueError as fault:
                where = f"{self.index.file}: annotation {entry['id']} (image {self.ids[i]})"
                self.on_fault(InputError(f"{where} {fault}"))
                continue
            rows.append(Row(mask, entry["category_id"], entry["id"], bool(entry.get("iscrowd", 0))))
        return rows, np.zeros(self.size(i), bool)
