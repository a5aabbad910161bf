"""Decoded images, kept in memory that forked loader workers share, when all of them fit."""

from __future__ import annotations

import mmap

import numpy as np


class ImageCache:
    """Gives image i as uint8 [h, w, 3]; decodes each once if `budget` bytes hold them all."""

    def __init__(self, dataset, indices: list[int], budget: int):
        self.dataset, self.budget = dataset, budget
        self.offsets = _offsets(dataset, indices, budget)
        self._open()

    def _open(self) -> None:
        total = sum(np.prod(self.dataset.size(i)) * 3 for i in self.offsets)
        # anonymous shared pages: what one forked worker decodes the others see, and /dev/shm is not
        # needed
        self._pixels = np.frombuffer(mmap.mmap(-1, max(1, int(total))), dtype=np.uint8)
        self._filled = np.frombuffer(mmap.mmap(-1, max(1, len(self.dataset))), dtype=np.uint8)

    def __getitem__(self, index: int) -> np.ndarray:
        if index not in self.offsets:
            return self.dataset.image(index)
        height, width = self.dataset.size(index)
        start = self.offsets[index]
        view = self._pixels[start : start + height * width * 3].reshape(height, width, 3)
        if not self._filled[index]:
            view[:] = self.dataset.image(index)
            self._filled[index] = 1
        return view

    def __getstate__(self) -> dict:
        """A spawned worker gets an empty cache of its own: shared pages do not travel."""
        return {"dataset": self.dataset, "budget": self.budget, "offsets": self.offsets}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._open()


def _offsets(dataset, indices: list[int], budget: int) -> dict[int, int]:
    """Byte offset of each image, or nothing when they do not all fit."""
    offsets, end = {}, 0
    for index in indices:
        offsets[index] = end
        height, width = dataset.size(index)
        end += int(height) * int(width) * 3
        if end > budget:
            return {}
    return offsets
