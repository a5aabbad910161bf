"""What a weak method made of the training images with points: made once, kept, learnt from."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn import functional as F

from pointseg.data.dataset import Dataset
from pointseg.data.files import write_bytes
from pointseg.data.supervision import ImageDataset, PointDataset, collate
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import Corpus
from pointseg.metrics import rle
from pointseg.papers.method import Method
from pointseg.structures import Batch, Category, Instances, Panoptic, Prediction, Truth
from pointseg.training.loop import uses_bf16


class Labelled:
    """A dataset whose truth is what a method made of its points, one row of labels an image.

    Masks are kept as run lengths: those of all of COCO fit into memory.
    """

    def __init__(self, dataset: Dataset, categories: Sequence[Category]):
        self.dataset, self.root = dataset, dataset.root
        self.categories = tuple(categories)
        self.things = torch.tensor([category.is_thing for category in categories])
        self.rows: list[int] = []
        self.kept: list[dict[str, Any]] = []  # "label", "masks" as run lengths, "panoptic"

    def add(self, row: int, labels: Instances | Panoptic) -> None:
        self.rows.append(row)
        self.kept.append(
            {
                "label": labels.label.tolist(),
                "masks": codes(masks_of(labels)),
                "panoptic": isinstance(labels, Panoptic),
            }
        )

    def first(self, count: int) -> Labelled:
        part = Labelled(self.dataset, self.categories)
        part.rows, part.kept = self.rows[:count], self.kept[:count]
        return part

    @property
    def ids(self) -> list[int | str]:
        return [self.dataset.ids[row] for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def size(self, i: int) -> tuple[int, int]:
        return self.dataset.size(self.rows[i])

    def image(self, i: int) -> Any:
        return self.dataset.image(self.rows[i])

    def masks(self, i: int) -> Tensor:
        """[n, h, w] bool."""
        kept = self.kept[i]["masks"]
        if not kept:
            return torch.zeros(0, *self.size(i), dtype=torch.bool)
        return torch.from_numpy(coco_mask.decode(kept)).permute(2, 0, 1).contiguous().bool()

    def labels(self, i: int) -> Instances | Panoptic:
        """The labels of image i as the method gave them, empty ones included."""
        masks, label = self.masks(i), torch.tensor(self.kept[i]["label"], dtype=torch.int64)
        if self.kept[i]["panoptic"]:
            rows = torch.arange(1, len(masks) + 1)
            return Panoptic((masks * rows[:, None, None]).sum(0), label)
        corners = torch.tensor([rle.box(code) for code in self.kept[i]["masks"]]).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        return Instances(masks, torch.ones(len(masks)), label, corners)

    def truth(self, i: int) -> Truth:
        """The labels of image i as a truth to learn from, empty ones dropped.

        A pixel without a segment is void in a Panoptic; among Instances it is background.
        """
        masks = self.masks(i)
        void = ~masks.any(0) if self.kept[i]["panoptic"] else torch.zeros_like(masks[:0].any(0))
        kept = masks.flatten(1).any(1)
        label = torch.tensor(self.kept[i]["label"], dtype=torch.int64)[kept]
        return Truth(
            masks=masks[kept],
            label=label,
            target=torch.arange(1, len(label) + 1),
            is_thing=self.things[label],
            is_crowd=torch.zeros(len(label), dtype=torch.bool),
            void=void,
        )

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        content = json.dumps({"rows": self.rows, "kept": self.kept}).encode()
        write_bytes(path, gzip.compress(content, 6, mtime=0))

    @classmethod
    def read(cls, path: Path, dataset: Dataset, categories: Sequence[Category]) -> Self:
        """Inverse of `write`."""
        labelled, content = cls(dataset, categories), json.loads(gzip.decompress(path.read_bytes()))
        labelled.rows, labelled.kept = content["rows"], content["kept"]
        return labelled


def label_train(
    method: Method, corpus: Corpus, count: int | None = None, teaching: bool = False
) -> Labelled:
    """A method's labels of the training images with points, of all or of the first ones."""
    marked = corpus.marked()
    marked.indices = marked.indices[:count]
    return label_images(method, marked, corpus.recipe, teaching)


@torch.no_grad()
def label_images(
    method: Method, marked: PointDataset, recipe: Recipe, teaching: bool = False
) -> Labelled:
    """A method's labels of images with points, in the size of the images.

    With `teaching`, what a student shall learn from, where the method has labels apart for that.
    """
    method.eval()
    verb = method.pseudo_labels
    if teaching and hasattr(method, "student_labels"):
        verb = method.student_labels
    labelled = Labelled(marked.dataset, marked.categories)
    for batch in batches(marked, recipe.stage.training.batch):
        with autocast(method, recipe) as device:
            answers = verb(batch.to(device))
        for labels in answers:
            row = marked.indices[len(labelled)]
            labelled.add(row, resized(labels, marked.dataset.size(row)))
    return labelled


def batches(dataset: ImageDataset, size: int) -> Iterator[Batch]:
    for start in range(0, len(dataset), size):
        yield collate([dataset[i] for i in range(start, min(start + size, len(dataset)))])


@contextmanager
def autocast(method: Method, recipe: Recipe) -> Iterator[torch.device]:
    """The precision of a recipe where the method is; gives the device."""
    device = next(method.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(recipe.precision, device)):
        yield device


def masks_of(labels: Instances | Panoptic) -> Tensor:
    """[n, h, w] bool."""
    if isinstance(labels, Instances):
        return labels.masks
    rows = torch.arange(1, len(labels.label) + 1, device=labels.segments.device)
    return labels.segments[None] == rows[:, None, None]


def codes(masks: Tensor) -> list[dict[str, Any]]:
    """Run lengths that JSON can hold."""
    return [{**code, "counts": code["counts"].decode()} for code in rle.encode(masks)]


def at_size(prediction: Prediction, image_id: int | str, size: tuple[int, int]) -> Prediction:
    """On the CPU, under its image's id, at its image's size."""
    instances, panoptic = (
        None if part is None else resized(part, size)
        for part in (prediction.instances, prediction.panoptic)
    )
    return Prediction(image_id, instances, panoptic)


def resized(labels: Instances | Panoptic, size: tuple[int, int]) -> Instances | Panoptic:
    """Masks by the nearest pixel centre, boxes by the same factors; everything on the CPU."""
    if isinstance(labels, Panoptic):
        scores = None if labels.scores is None else labels.scores.cpu()
        return Panoptic(nearest(labels.segments[None].cpu(), size)[0], labels.label.cpu(), scores)
    height, width = labels.masks.shape[-2:]
    factors = torch.tensor([size[1] / width, size[0] / height]).repeat(2)
    scores, boxes = labels.scores.cpu().float(), labels.boxes.cpu() * factors
    return Instances(nearest(labels.masks.cpu(), size), scores, labels.label.cpu(), boxes)


def nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, h, w] to [n, h', w'], same type."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    if not len(maps):
        return maps.new_zeros(0, *size)
    return F.interpolate(maps[None].float(), size=size, mode="nearest-exact")[0].to(maps.dtype)
