"""The data of a recipe: made on demand or opened where they lie, and never handed on beyond what a method may see."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pycocotools import mask as coco_mask

from pointseg.data.augment import PAPER_LONG_SIDE, PAPER_SHORT_SIDES, Augment
from pointseg.data.dataset import Dataset
from pointseg.data.layouts import open_dataset, splits_of
from pointseg.data.point_file import PointFile, read_points, write_points
from pointseg.data.points import sample_points
from pointseg.data.supervision import ImageDataset, MaskDataset, PointDataset
from pointseg.lab.recipe import Recipe, method_class
from pointseg.lab.run_record import home
from pointseg.metrics import rle
from pointseg.structures import Category, Truth

BESTIARY_SEED = 0  # one embedded benchmark for everybody; a run's own seed does not touch it


def cache() -> Path:
    """data/ of the project, which git does not see."""
    return home() / "data"


@dataclass(frozen=True)
class Corpus:
    """Train and val of a recipe."""

    recipe: Recipe
    train: Dataset
    val: Dataset

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.train.categories

    @cached_property
    def points(self) -> PointFile:
        """The points file of the recipe's choice, sampled once for all methods and runs."""
        chosen = self.recipe.points
        noise = f"-{chosen.jitter_px:g}px" if chosen.kind == "jitter" else ""
        name = (
            f"{self.train.content_hash()[:16]}-{chosen.kind}{noise}-{chosen.n}-s{chosen.seed}.json"
        )
        path = cache() / "points" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = sample_points(
                self.train, chosen.kind, chosen.n, chosen.seed, jitter_px=chosen.jitter_px
            )
            write_points(path, made)
        return read_points(path)

    def supervision(self) -> ImageDataset:
        """What the recipe's method trains on: points, or masks where it is a reference that says so."""
        augment = augmentation(self.recipe)
        if method_class(self.recipe.method).SUPERVISION == "masks":
            return MaskDataset(self.train, augment, self.recipe.seed)
        return PointDataset(self.train, self.points, augment, self.recipe.seed)

    def marked(self) -> PointDataset:
        """The training images with their points, as they will be shown to `pseudo_labels`."""
        return PointDataset(self.train, self.points, viewing(self.recipe), self.recipe.seed)

    def unmarked(self) -> ImageDataset:
        """The val images alone."""
        return ImageDataset(
            self.val, list(range(len(self.val))), viewing(self.recipe), self.recipe.seed, 0
        )

    def facts(self) -> dict[str, Any]:
        """What data.json says: counts and hashes."""
        masks = method_class(self.recipe.method).SUPERVISION == "masks"
        return {
            "layout": self.train.layout,
            "train": {
                "split": self.train.split,
                "images": len(self.train),
                "sha256": self.train.content_hash(),
            },
            "val": {
                "split": self.val.split,
                "images": len(self.val),
                "sha256": self.val.content_hash(),
            },
            "points": None if masks else self.points.content_hash,
        }


class PseudoLabelled:
    """A dataset whose truth is what a weak method made of it; a student trains on it as if it were the truth.

    Masks are kept as run lengths: those of all of COCO fit into memory.
    """

    def __init__(self, dataset: Dataset):
        self.dataset, self.root, self.categories = dataset, dataset.root, dataset.categories
        self.rows: list[int] = []
        self.codes: list[list[dict]] = []  # masks, then void
        self.rest: list[Truth] = []  # without masks and void

    def add(self, row: int, truth: Truth) -> None:
        self.rows.append(row)
        self.codes.append(rle.encode(torch.cat([truth.masks, truth.void[None]])))
        nothing = truth.void.new_zeros(0)
        self.rest.append(replace(truth, masks=nothing, void=nothing))

    @property
    def ids(self) -> list[int | str]:
        return [self.dataset.ids[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, i: int) -> tuple[int, int]:
        return self.dataset.size(self.rows[i])

    def image(self, i: int) -> Any:
        return self.dataset.image(self.rows[i])

    def truth(self, i: int) -> Truth:
        maps = (
            torch.from_numpy(coco_mask.decode(self.codes[i])).permute(2, 0, 1).contiguous().bool()
        )
        return replace(self.rest[i], masks=maps[:-1], void=maps[-1])


def open_corpus(recipe: Recipe) -> Corpus:
    root = bestiary(recipe) if recipe.data == "bestiary" else Path(recipe.data)
    layout = layout_of(root, recipe)
    train = _first(open_dataset(root, recipe.train_split, layout), recipe.images)
    return Corpus(recipe, train, _first(open_dataset(root, recipe.val_split, layout), recipe.val))


def data_hash(recipe: Recipe) -> str:
    """What the data's part of a run's name is made from. Bestiary's pixels follow from its sizes and its code."""
    if recipe.data == "bestiary":
        text = f"bestiary {recipe.image_size} {recipe.images} {recipe.val} {BESTIARY_SEED}"
        return hashlib.sha256(text.encode()).hexdigest()
    corpus = open_corpus(recipe)
    both = corpus.train.content_hash() + corpus.val.content_hash()
    return hashlib.sha256(both.encode()).hexdigest()


def bestiary(recipe: Recipe) -> Path:
    """The folder of Bestiary at the recipe's size, written on first use; atomic, also when two runs start at once."""
    name = f"bestiary-all-{recipe.image_size}px-{recipe.images}-{recipe.val}-s{BESTIARY_SEED}"
    folder = cache() / name
    if folder.exists():
        return folder
    from pointseg.data.bestiary import make

    cache().mkdir(exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=cache()))
    try:
        make(part / name, "all", recipe.images, recipe.image_size, BESTIARY_SEED, val=recipe.val)
        _settle(part / name, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _settle(made: Path, folder: Path) -> None:
    """Moves a finished folder to its place, unless another run was there first with the very same."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def layout_of(root: Path, recipe: Recipe) -> str:
    """The recipe's layout; "auto" takes what the method's task asks for."""
    if recipe.layout != "auto":
        return recipe.layout
    found = splits_of(root)
    if method_class(recipe.method).TASK == "panoptic":
        return "panoptic" if "panoptic" in found else "voc-panoptic"
    return "coco" if "coco" in found else "voc"


def augmentation(recipe: Recipe) -> Augment:
    """Flip; at scale paper also the short sides of the releases [AS Sec. 5.1]."""
    if recipe.scale == "paper":
        return Augment(short_sides=PAPER_SHORT_SIDES, long_side=PAPER_LONG_SIDE)
    return Augment(long_side=recipe.image_size)


def viewing(recipe: Recipe) -> Augment:
    """The size an image is looked at outside training."""
    if recipe.scale == "paper":
        return Augment(flip=0.0, short_sides=PAPER_SHORT_SIDES[-1:], long_side=PAPER_LONG_SIDE)
    return Augment(flip=0.0, long_side=recipe.image_size)


def _first(dataset: Dataset, count: int) -> Dataset:
    """The first images of a dataset; 0 = all."""
    if count:
        dataset.ids = dataset.ids[:count]
    return dataset
