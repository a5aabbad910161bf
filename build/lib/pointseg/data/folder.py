"""A plain folder of images, what an annotator has before there is any mask."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pointseg.data.dataset import Dataset
from pointseg.data.files import OnFault, class_names, inside, raise_fault
from pointseg.data.images import SUFFIXES, read_image, read_size
from pointseg.data.point_file import read_points
from pointseg.structures import Category


class FolderDataset(Dataset):
    """Images by file name, turned upright as their EXIF tag says. There is no ground truth to ask
    for."""

    layout = "folder"
    has_truth = False

    def __init__(
        self,
        root: Path,
        split: str,
        categories: Sequence[Category] = (),
        on_fault: OnFault = raise_fault,
    ):
        ids = list_images(root)
        super().__init__(root, split, categories or folder_classes(root), ids, on_fault)

    def path(self, i: int) -> Path:
        return inside(self.root, self.ids[i])

    def size(self, i: int) -> tuple[int, int]:
        if i not in self._sizes:
            self._sizes[i] = read_size(self.path(i), upright=True)
        return self._sizes[i]

    def image(self, i: int) -> np.ndarray:
        return read_image(self.path(i), upright=True)


def list_images(folder: Path) -> list[str]:
    """Names of the images directly in a folder, sorted."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def folder_classes(root: Path) -> Sequence[Category]:
    """The names of the side file, else the categories of points.json; none without either."""
    names, points = class_names(root), root / "points.json"
    if names or not points.is_file():
        return [Category(k, name) for k, name in enumerate(names, start=1)]
    return read_points(points).categories
