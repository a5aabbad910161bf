"""The order of the images: an endless stream of batches that can start at any step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from pointseg.ops.processes import rank, size
from pointseg.structures import Batch, InputError

BESIDE_A_GPU = 4  # loading processes for each training process


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """[count] int: the images in the order of an epoch, a function of (seed, epoch) alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)


class Order(Sampler):
    """Lists of (epoch, index), one a step from `start` on without end, cut to one process's share.

    The images form one endless sequence, epoch after epoch: none is dropped or comes twice in one.
    """

    def __init__(
        self, count: int, batch: int, seed: int, start: int = 0, rank: int = 0, world: int = 1
    ):
        self.count, self.batch, self.seed, self.start = count, batch, seed, start
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, epoch, order = self.start, -1, None
        while True:
            whole = []
            for position in range(step * self.batch, (step + 1) * self.batch):
                if position // self.count != epoch:
                    epoch = position // self.count
                    order = epoch_order(self.count, self.seed, epoch)
                whole.append((epoch, int(order[position % self.count])))
            share = self.batch // self.world
            yield whole[self.rank * share : (self.rank + 1) * share]
            step += 1


class _Epochs(Dataset):
    """Items named by (epoch, index): workers need no word from the loop when an epoch turns."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        self.dataset.set_epoch(epoch)
        return self.dataset[index]


def loaders(wanted: int | None, device: torch.device) -> int:
    """Processes that load images: as many as wanted; by default none where the processor itself
    trains, else a few.

    A GPU is through with a small batch before one process has made the next; the chapter on cost
    has the numbers.
    """
    if wanted is not None:
        return wanted
    return min(BESIDE_A_GPU, os.cpu_count() or 1) if device.type == "cuda" else 0


class Feed:
    """A dataset as batches, functions of (seed, step) whatever the workers and processes."""

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list], Batch],
        batch: int,
        seed: int,
        workers: int = 0,
    ):
        if batch % size():
            raise InputError(
                f"batch: {batch} images cannot be shared equally by {size()} processes"
            )
        if not len(dataset):
            raise InputError("training data: there is no image")
        self.dataset, self.collate, self.workers = dataset, collate, workers
        self.batch, self.seed = batch, seed

    def epoch(self, step: int) -> int:
        return step * self.batch // len(self.dataset)

    def batches(self, start: int = 0) -> Iterator[Batch]:
        order = Order(len(self.dataset), self.batch, self.seed, start, rank(), size())
        loader = DataLoader(
            _Epochs(self.dataset),
            batch_sampler=order,
            collate_fn=self.collate,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
        )
        return iter(loader)
