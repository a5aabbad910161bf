"""The data of a recipe: made on demand or opened where they lie, and never handed on beyond what a
method may see."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pointseg.data.augment import PAPER_LONG_SIDE, PAPER_SHORT_SIDES, Augment
from pointseg.data.bestiary import EDITION_NAMED, make
from pointseg.data.dataset import Dataset, category_fault
from pointseg.data.files import hidden_folder
from pointseg.data.layouts import find_images, open_dataset, splits_of
from pointseg.data.point_file import PointFile, read_points, things_first, write_points
from pointseg.data.points import sample_points
from pointseg.data.supervision import BoxDataset, ImageDataset, MaskDataset, PointDataset
from pointseg.lab.methods import method_class
from pointseg.lab.recipe import PointChoice, Recipe
from pointseg.lab.run_record import home
from pointseg.structures import Category, InputError

CLICKS = "points.json"
BESTIARY_SEED = 0  # one embedded benchmark for everybody; a run's own seed does not touch it


def cache() -> Path:
    """data/ of the project, which git does not see."""
    return home() / "data"


@dataclass(frozen=True)
class Corpus:
    """The images of a recipe: those to train on, and those that predictions are scored on."""

    recipe: Recipe
    train: Dataset
    scored: Dataset
    given: PointFile | None = None  # points that lie beside images without masks

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.train.categories

    @cached_property
    def points(self) -> PointFile:
        """The points given, or the file of the recipe's choice, sampled once for all methods and
        runs."""
        return self.given or points_on(self.train, self.recipe.points)

    @property
    def content_hash(self) -> str:
        """Hash of what is trained on: the images, and points where they are given."""
        images = self.train.content_hash()
        return f"{images}+{self.given.content_hash}" if self.given else images

    def at(self, k: int) -> Corpus:
        """The same images, seen as stage k of the recipe sees them."""
        return replace(self, recipe=self.recipe.head(k))

    def supervision(self) -> ImageDataset:
        """What the last stage trains on where it does not learn from another one's labels."""
        if self.recipe.stage.learns_from == "masks":
            return MaskDataset(self.train, augmentation(self.recipe), self.recipe.seed)
        return self._weak(augmentation(self.recipe))

    def marked(self) -> PointDataset:
        """The training images with their points, as `pseudo_labels` is shown them."""
        return self._weak(viewing(self.recipe))

    def _weak(self, augment: Augment) -> PointDataset:
        boxes = method_class(self.recipe.stage.method).SUPERVISION == "boxes"
        dataset = BoxDataset if boxes else PointDataset
        return dataset(self.train, self.points, augment, self.recipe.seed)

    def judged(self) -> PointDataset:
        """The scored images with points of the same choice, for labels that are judged on them."""
        points = points_on(self.scored, self.recipe.points)
        return PointDataset(self.scored, points, viewing(self.recipe), self.recipe.seed)

    def unmarked(self, count: int | None = None) -> ImageDataset:
        """The images to be scored, alone; of all of them or of the first ones."""
        rows = list(range(len(self.scored)))[:count]
        return ImageDataset(self.scored, rows, viewing(self.recipe), self.recipe.seed, 0)

    def facts(self) -> dict[str, Any]:
        """What data.json says: splits, counts and hashes."""
        supervised = all(stage.learns_from == "masks" for stage in self.recipe.stages)
        return {
            "layout": self.train.layout,
            "train": _facts_of(self.train),
            "scored": _facts_of(self.scored),
            "points": None if supervised else self.points.content_hash,
        }


def points_on(dataset: Dataset, chosen: PointChoice) -> PointFile:
    """The points of a choice on a dataset, sampled where they do not lie there yet."""
    noise = f"-{chosen.jitter_px:g}px" if chosen.kind == "jitter" else ""
    images = dataset.content_hash()[:16]
    path = cache() / "points" / f"{images}-{chosen.kind}{noise}-{chosen.n}-s{chosen.seed}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        jitter = chosen.jitter_px
        made = sample_points(dataset, chosen.kind, chosen.n, chosen.seed, jitter_px=jitter)
        write_points(path, made)
    return read_points(path)


def _facts_of(dataset: Dataset) -> dict[str, Any]:
    return {"split": dataset.split, "images": len(dataset), "sha256": dataset.content_hash()}


def open_corpus(recipe: Recipe) -> Corpus:
    root = bestiary(recipe) if recipe.data in EDITION_NAMED else Path(recipe.data)
    if not root.is_dir():
        raise InputError(f"data: {root} is not a folder; give one as -p data=FOLDER")
    if corpus := clicked(recipe):
        return corpus
    layout = layout_of(root, recipe)
    train = _first(open_dataset(root, recipe.train, layout), recipe.images)
    scored = _first(open_dataset(root, recipe.scored_split, layout), recipe.scored_images)
    if fault := category_fault(train, scored):
        raise InputError(f"{root}: {fault}")
    return Corpus(recipe, train, scored)


def clicked(recipe: Recipe) -> Corpus | None:
    """The corpus of a recipe whose images have points beside them and no masks."""
    root = Path(recipe.data)
    foreign = recipe.data not in EDITION_NAMED and root.is_dir()
    return _clicked(root, recipe) if foreign and layout_of(root, recipe) == "folder" else None


def open_for_study(recipe: Recipe) -> Corpus:
    """A run's data with tune images in the place of val's: studies look and choose, and val is for
    rows that have nothing left to choose."""
    return open_corpus(replace(recipe, scored_on="tune"))


def _clicked(root: Path, recipe: Recipe) -> Corpus:
    """Images with a points.json beside them and no masks: weak methods learn, nothing is scored."""
    images = _first(open_dataset(root, recipe.train, "folder"), recipe.images)
    file = next((f for f in (images.root / CLICKS, root / CLICKS) if f.is_file()), None)
    if file is None:
        raise InputError(f"{root}: has images and neither masks nor a {CLICKS}")
    points = things_first(read_points(file))
    for stage in recipe.stages:
        wanted = getattr(method_class(stage.method), "POINTS", {}).get("kind", points.kind)
        if stage.learns_from == "masks":
            raise InputError(f"{root}: has no masks, from which {stage.method} learns")
        if wanted != points.kind:
            raise InputError(f"{file}: has {points.kind} points, {stage.method} needs {wanted}")
    PointDataset(images, points)  # refuses points of other images
    return Corpus(recipe, images, images, points)


def data_hash(recipe: Recipe) -> str:
    """The data's part of a run's key. Bestiary's pixels follow from its sizes and its code."""
    if recipe.data in EDITION_NAMED:
        counts = f"{recipe.image_size} {recipe.images} {recipe.scored_images}"
        text = (
            f"{recipe.data} {EDITION_NAMED[recipe.data]} {counts} {recipe.scored_split} "
            f"{BESTIARY_SEED}"
        )
        return hashlib.sha256(text.encode()).hexdigest()
    corpus = open_corpus(recipe)
    both = corpus.content_hash + corpus.scored.content_hash()
    return hashlib.sha256(both.encode()).hexdigest()


def bestiary(recipe: Recipe) -> Path:
    """The folder of Bestiary at the recipe's size, written on first use; atomic, also when two
    runs start at once."""
    counts = f"{recipe.image_size}px-{recipe.images}-{recipe.scored_images}"
    edition = EDITION_NAMED[recipe.data]
    folder = cache() / f"bestiary{edition}-all-{counts}-s{BESTIARY_SEED}"
    if folder.exists():
        return folder
    with hidden_folder(folder) as part:
        make(
            part / folder.name,
            "all",
            recipe.images,
            recipe.image_size,
            BESTIARY_SEED,
            val=recipe.scored_images,
            tune=recipe.scored_images,
            edition=edition,
        )
        _settle(part / folder.name, folder)
    return folder


def _settle(made: Path, folder: Path) -> None:
    """Moves a finished folder to its place, unless another run was there first with the same."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def layout_of(root: Path, recipe: Recipe) -> str:
    """The recipe's layout; "auto" takes what the last method's task asks for."""
    if recipe.layout != "auto":
        return recipe.layout
    present = splits_of(root)
    if not present and find_images(root, recipe.train):
        return "folder"
    if method_class(recipe.stage.method).TASK == "panoptic":
        return "panoptic" if "panoptic" in present else "voc-panoptic"
    return "coco" if "coco" in present else "voc"


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


def _first(dataset: Dataset, count: int | None) -> Dataset:
    """The first images of a dataset; None: all."""
    if count:
        dataset.ids = dataset.ids[:count]
    return dataset
