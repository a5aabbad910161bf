"""What every layout hands over: a light index, images and ground truth read when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path

import numpy as np

from pointseg.data.files import OnFault, read_bytes, shown
from pointseg.data.images import named, read_image, read_index_mask, read_size
from pointseg.structures import Category, InputError, Truth, tensors


@dataclass(frozen=True)
class Row:
    """One ground-truth segment, before it becomes a row of a Truth."""

    mask: np.ndarray  # [h, w] bool
    category_id: int
    target: int
    is_crowd: bool = False


def things_first(categories: Sequence[Category]) -> tuple[Category, ...]:
    """Things in file order, then stuff: the order that makes a label."""
    return tuple(sorted(categories, key=lambda category: not category.is_thing))


class Dataset:
    """Images of one split. Layouts say where the files lie and how a truth is read."""

    layout = ""
    has_truth = True

    def __init__(
        self, root: Path, split: str, categories: Sequence[Category], ids: list, on_fault: OnFault
    ):
        if not ids:
            raise InputError(f"{root}: split {split!r} has no images")
        self.root, self.split, self.ids, self.on_fault = Path(root), split, ids, on_fault
        self.categories = things_first(categories)
        self.label_of = {category.id: label for label, category in enumerate(self.categories)}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._hash = ""
        self._part_folders = find_parts(self.root, split)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        counts = f"{len(self)} images, {len(self.categories)} categories"
        return f"<{self.layout} {self.split}: {counts}>"

    def path(self, i: int) -> Path:
        raise InputError(f"{self.root}: layout {self.layout!r} has no images")

    def rows(self, i: int) -> tuple[list[Row], np.ndarray]:
        """The segments of image i and its void [h, w] bool."""
        raise InputError(f"{self.root}: layout {self.layout!r} has no ground truth")

    def annotation_files(self) -> list[Path]:
        return []

    def size(self, i: int) -> tuple[int, int]:
        """(h, w) of image i."""
        if i not in self._sizes:
            self._sizes[i] = read_size(self.path(i))
        return self._sizes[i]

    def image(self, i: int) -> np.ndarray:
        """uint8[h, w, 3] RGB."""
        image = read_image(self.path(i))
        if image.shape[:2] != self.size(i):
            size, stated = named(image.shape), named(self.size(i))
            raise InputError(f"{self.path(i)}: image is {size}, the annotations say {stated}")
        return image

    def truth(self, i: int) -> Truth:
        """Ground truth of image i; without any object its tensors have no rows."""
        return tensors(self.arrays(i))

    def arrays(self, i: int) -> Truth:
        """The same without torch."""
        if not self.has_truth:
            raise InputError(f"{self.root}: split {self.split!r} has no ground truth, only images")
        rows, void = self.rows(i)
        label = np.array([self.label_of[row.category_id] for row in rows], dtype=np.int64)
        return Truth(
            label=label,
            target=np.array([row.target for row in rows], dtype=np.int64),
            is_thing=np.array([c.is_thing for c in self.categories], dtype=bool)[label],
            is_crowd=np.array([row.is_crowd for row in rows], dtype=bool),
            masks=stacked(rows, void.shape),
            void=void,
            parts=self.parts(i),
        )

    def parts(self, i: int) -> np.ndarray | None:
        """[h, w] uint8 from the side file, None where there is none."""
        name = f"{Path(self.path(i).name).stem}.png"
        for folder in self._part_folders:
            if (folder / name).is_file():
                return read_index_mask(folder / name, self.size(i))
        return None

    def content_hash(self) -> str:
        """sha256 over the categories, the annotation files and every image's name and size."""
        if not self._hash:
            digest = sha256(repr([(c.id, c.name, c.is_thing) for c in self.categories]).encode())
            for file in self.annotation_files():
                digest.update(f"{file.name}\0".encode() + sha256(read_bytes(file)).digest())
            for i in range(len(self)):
                digest.update(f"{self.path(i).name}\0{named(self.size(i))}\n".encode())
            self._hash = digest.hexdigest()
        return self._hash


def stacked(rows: list[Row], size: tuple[int, int]) -> np.ndarray:
    """[n, h, w] of the masks of rows, which are let go one by one."""
    masks = np.empty((len(rows), *size), bool)
    for k in range(len(rows)):
        masks[k] = rows.pop(0).mask
    return masks


def find_parts(root: Path, split: str) -> list[Path]:
    """Folders of part masks for a split: beside the `bestiary.json` at or above the layout's
    root."""
    for base in (root, *root.resolve().parents[:2]):
        if (base / "bestiary.json").is_file():
            plain = split.removesuffix("2017")
            names = (plain, "train", "val") if plain in ("train_aug", "trainval") else (plain,)
            return [base / "parts" / name for name in names if (base / "parts" / name).is_dir()]
    return []


def category_fault(first: Dataset, other: Dataset) -> str | None:
    """What makes a label mean something else in another split: it is an index into the split's own
    categories."""
    for known, category in zip_longest(first.categories, other.categories):
        if known != category:
            theirs, ours = (shown(c and (c.id, c.name, c.is_thing)) for c in (category, known))
            return f"{other!r} has the category {theirs} where {first!r} has {ours}"
    return None
