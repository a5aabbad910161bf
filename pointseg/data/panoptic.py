"""COCO panoptic: one PNG of segment ids a picture, one JSON that says what each id is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.data.coco_json import CocoIndex
from pointseg.data.dataset import Dataset, OnFault, Row, raise_fault
from pointseg.data.files import inside
from pointseg.data.images import read_segment_ids
from pointseg.structures import VOID_SEGMENT, InputError


class PanopticDataset(Dataset):
    """Things and stuff as segments that share no pixel; id 0 is void."""

    layout = "panoptic"

    def __init__(
        self,
        root: Path,
        split: str,
        index: CocoIndex,
        pictures: Path,
        masks: Path,
        on_fault: OnFault = raise_fault,
    ):
        self.index, self.pictures, self.masks = index, pictures, masks
        ids = [name for name in index.images if self._entry_of(name, on_fault)]
        super().__init__(root, split, list(index.categories.values()), ids, on_fault)

    def _entry_of(self, image_id: int | str, on_fault: OnFault) -> dict | None:
        entries = self.index.annotations.get(image_id)
        if not entries:
            on_fault(
                InputError(
                    f"{self.index.file}: image {image_id!r} has no usable panoptic annotation"
                )
            )
            return None
        return entries[0]

    def path(self, i: int) -> Path:
        return inside(self.pictures, self.index.images[self.ids[i]]["file_name"])

    def mask_file(self, i: int) -> Path:
        return inside(self.masks, self.entry(i)["file_name"])

    def entry(self, i: int) -> dict:
        """The panoptic annotation of picture i."""
        return self.index.annotations[self.ids[i]][0]

    def size(self, i: int) -> tuple[int, int]:
        entry = self.index.images[self.ids[i]]
        return entry["height"], entry["width"]

    def annotation_files(self) -> list[Path]:
        return [self.index.file]

    def rows(self, i: int) -> tuple[list[Row], np.ndarray]:
        file = self.mask_file(i)
        painted = read_segment_ids(file, self.size(i))
        segments = self.entry(i)["segments_info"]
        self._compare_ids(file, painted, segments)
        rows = [
            Row(painted == s["id"], s["category_id"], s["id"], bool(s.get("iscrowd", 0)))
            for s in segments
        ]
        return [row for row in rows if row.mask.any()], painted == VOID_SEGMENT

    def _compare_ids(self, file: Path, painted: np.ndarray, segments: list[dict]) -> None:
        """The ids of the PNG and of the JSON must be the same set."""
        present, listed = (
            set(np.unique(painted).tolist()) - {VOID_SEGMENT},
            {s["id"] for s in segments},
        )
        for k in sorted(listed - present):
            self.on_fault(
                InputError(f"{file}: segment {k} is in {self.index.file.name} and not in the PNG")
            )
        for k in sorted(present - listed):
            self.on_fault(
                InputError(f"{file}: segment {k} is in the PNG and not in {self.index.file.name}")
            )
