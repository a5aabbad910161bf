"""COCO instances: one JSON of polygons and run lengths for a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.data.coco_json import CocoIndex
from pointseg.data.dataset import Dataset, OnFault, Row, raise_fault
from pointseg.data.files import inside
from pointseg.data.masks import decode_mask
from pointseg.structures import InputError


class CocoDataset(Dataset):
    """Any `instances` JSON: COCO 2017 itself, or one's own with the same fields."""

    layout = "coco"

    def __init__(
        self,
        root: Path,
        split: str,
        index: CocoIndex,
        pictures: Path,
        on_fault: OnFault = raise_fault,
    ):
        self.index, self.pictures = index, pictures
        super().__init__(root, split, list(index.categories.values()), list(index.images), on_fault)

    def path(self, i: int) -> Path:
        return inside(self.pictures, self.index.images[self.ids[i]]["file_name"])

    def size(self, i: int) -> tuple[int, int]:
        entry = self.index.images[self.ids[i]]
        return entry["height"], entry["width"]

    def annotation_files(self) -> list[Path]:
        return [self.index.file]

    def rows(self, i: int) -> tuple[list[Row], np.ndarray]:
        rows = []
        for entry in self.index.annotations.get(self.ids[i], ()):
            where = f"{self.index.file}: annotation {entry['id']} (image {self.ids[i]})"
            try:
                mask = decode_mask(entry.get("segmentation"), self.size(i), where)
            except InputError as fault:
                self.on_fault(fault)
                continue
            rows.append(Row(mask, entry["category_id"], entry["id"], bool(entry.get("iscrowd", 0))))
        return rows, np.zeros(self.size(i), bool)
