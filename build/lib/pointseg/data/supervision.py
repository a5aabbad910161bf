"""What a method is allowed to see. Weak methods get a PointDataset, which never asks for the ground
truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.utils import data

from pointseg.data.image_cache import ImageCache
from pointseg.data.point_file import PointFile
from pointseg.data.truth_cache import TruthCache
from pointseg.ops.extreme_points import boxed
from pointseg.structures import Batch, Category, InputError, Sample

Augmentation = Callable[[Sample, Generator], Sample]
CACHE_BYTES = 2**30  # of decoded images, and as many again of decoded masks


class ImageDataset(data.Dataset):
    """Images in a fixed order; sample i of an epoch depends on (seed, epoch, i) only."""

    def __init__(
        self, dataset, indices: list[int], augment: Augmentation | None, seed: int, cache: int
    ):
        self.dataset, self.indices, self.augment, self.seed = dataset, indices, augment, seed
        self.images = ImageCache(dataset, indices, cache)
        self._epoch = torch.zeros(
            (), dtype=torch.int64
        ).share_memory_()  # persistent workers see it change

    @property
    def categories(self) -> tuple[Category, ...]:
        return tuple(self.dataset.categories)

    @property
    def image_ids(self) -> list[int | str]:
        return [self.dataset.ids[i] for i in self.indices]

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        sample = self.plain(self.indices[index])
        if self.augment is None:
            return sample
        return self.augment(sample, np.random.default_rng([self.seed, int(self._epoch), index]))

    def plain(self, row: int) -> Sample:
        """Row `row` of the dataset before augmentation."""
        return Sample(self.dataset.ids[row], _as_tensor(self.images[row]))


class PointDataset(ImageDataset):
    """Images that hold at least one point, with their points. Never calls `dataset.truth`."""

    def __init__(
        self, dataset, points: PointFile, augment: Augmentation | None = None, seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ):  # fmt: skip
        _check_fit(dataset, points)
        self.points = points
        marked = {image_id for image_id, image in points.images.items() if len(image.points)}
        held = [i for i, image_id in enumerate(dataset.ids) if image_id in marked]
        if not held:
            raise InputError(f"{dataset.root}: none of its images holds a point of the points file")
        super().__init__(dataset, held, augment, seed, cache_bytes)

    @property
    def categories(self) -> tuple[Category, ...]:
        return self.points.categories  # a plain folder has none of its own

    def plain(self, row: int) -> Sample:
        sample = super().plain(row)
        return Sample(sample.image_id, sample.image, points=self.points.for_image(sample.image_id))


class BoxDataset(PointDataset):
    """Images with the boxes of their things, each as the middles of its sides.

    A box is the hull of an object's extreme points; where on its sides they lie is not handed on.
    """

    def plain(self, row: int) -> Sample:
        sample = super().plain(row)
        return replace(sample, points=boxed(sample.points, sample.image_id))


class MaskDataset(ImageDataset):
    """Images with their full ground truth: for fully supervised references, which ask for it by
    this name."""

    def __init__(
        self,
        dataset,
        augment: Augmentation | None = None,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ):
        if not len(dataset):
            raise InputError(f"{dataset.root}: has no images")
        super().__init__(dataset, list(range(len(dataset))), augment, seed, cache_bytes)
        self.truths = TruthCache(dataset, cache_bytes)

    def plain(self, row: int) -> Sample:
        sample = super().plain(row)
        return Sample(sample.image_id, sample.image, truth=self.truths[row])


def collate(samples: Sequence[Sample]) -> Batch:
    """Pad right and below to the largest height and width; bytes become 0..1."""
    sizes = [sample.size for sample in samples]
    height, width = (max(side) for side in zip(*sizes))
    images = torch.zeros(len(samples), 3, height, width)
    for canvas, sample, (h, w) in zip(images, samples, sizes):
        canvas[:, :h, :w] = sample.image
    points, truths = ([getattr(s, name) for s in samples] for name in ("points", "truth"))
    return Batch(
        images.div_(255), sizes, [sample.image_id for sample in samples],
        points=None if points[0] is None else points, truths=None if truths[0] is None else truths,
    )  # fmt: skip


def _as_tensor(image: np.ndarray) -> Tensor:
    """uint8 [h, w, 3] to a uint8 tensor [3, h, w]."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


def _check_fit(dataset, points: PointFile) -> None:
    """The points must have been measured on this very dataset; an annotator may have left images
    out."""
    where = f"{dataset.root}: points file"
    if points.source_hash not in (None, dataset.content_hash()):
        raise InputError(
            f"{where} was sampled from other data (source hash {points.source_hash[:12]}...)"
        )
    if dataset.categories and tuple(points.categories) != tuple(dataset.categories):
        raise InputError(f"{where} has other categories than the dataset")
    for index, image_id in enumerate(dataset.ids):
        image = points.images.get(image_id)
        size = tuple(dataset.size(index)) if image else None
        if image and (image.height, image.width) != size:
            measured = f"{image.width} x {image.height}"
            raise InputError(
                f"{where} measured image {image_id!r} as {measured}, it is {size[1]} x {size[0]}"
            )
