"""COCO panoptic: one PNG of segment ids an image, one JSON that says what each id is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.data.coco import CocoImages
from pointseg.data.coco_json import CocoIndex
from pointseg.data.dataset import Row
from pointseg.data.files import OnFault, inside, raise_fault
from pointseg.data.images import read_segment_ids
from pointseg.structures import VOID_SEGMENT, InputError


class PanopticDataset(CocoImages):
    """Things and stuff as segments that share no pixel; id 0 is void."""

    layout = "panoptic"

    def __init__(
        self,
        root: Path,
        split: str,
        index: CocoIndex,
        images: Path,
        masks: Path,
        on_fault: OnFault = raise_fault,
    ):
        self.masks = masks
        for name in index.images:
            if name not in index.annotations:
                cause = f"image {name!r} has no usable panoptic annotation"
                on_fault(InputError(f"{index.file}: {cause}"))
        super().__init__(root, split, index, images, on_fault)

    def listed(self) -> list[int | str]:
        return [name for name in self.index.images if name in self.index.annotations]

    def entry(self, i: int) -> dict:
        """The panoptic annotation of image i."""
        return self.index.annotations[self.ids[i]][0]

    def mask_file(self, i: int) -> Path:
        return inside(self.masks, self.entry(i)["file_name"])

    def rows(self, i: int) -> tuple[list[Row], np.ndarray]:
        file = self.mask_file(i)
        painted = read_segment_ids(file, self.size(i))
        segments = self.entry(i)["segments_info"]
        self._compare_ids(file, painted, {s["id"] for s in segments})
        rows = [
            Row(painted == s["id"], s["category_id"], s["id"], bool(s.get("iscrowd", 0)))
            for s in segments
        ]
        return [row for row in rows if row.mask.any()], painted == VOID_SEGMENT

    def _compare_ids(self, file: Path, painted: np.ndarray, listed: set[int]) -> None:
        """The ids of the PNG and of the JSON must be the same set."""
        present = set(np.unique(painted).tolist()) - {VOID_SEGMENT}
        names = (self.index.file.name, "the PNG")
        for ids, (here, there) in ((listed - present, names), (present - listed, names[::-1])):
            for k in sorted(ids):
                self.on_fault(InputError(f"{file}: segment {k} is in {here} and not in {there}"))
