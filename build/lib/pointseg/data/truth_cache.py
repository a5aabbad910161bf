"""Decoded ground truths, kept as bits: masks are decoded once and not at every training step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pointseg.structures import Truth


@dataclass(frozen=True)
class PackedTruth:
    """A Truth whose masks and void are bits, eight pixels a byte."""

    rest: Truth  # without masks and void
    bits: np.ndarray  # [n + 1, ceil(h w / 8)] uint8: masks, then void
    size: tuple[int, int]

    @classmethod
    def of(cls, truth: Truth) -> PackedTruth:
        maps = torch.cat([truth.masks, truth.void[None]])
        nothing = truth.void.new_zeros(0)
        rest = replace(truth, masks=nothing, void=nothing)
        return cls(rest, np.packbits(maps.flatten(1).numpy(), axis=1), tuple(truth.void.shape))

    def truth(self) -> Truth:
        """The Truth it was made of, in tensors of its own where they are maps."""
        flat = np.unpackbits(self.bits, axis=1, count=self.size[0] * self.size[1])
        maps = torch.from_numpy(flat.view(bool)).unflatten(1, self.size)
        return replace(self.rest, masks=maps[:-1], void=maps[-1], parts=_copy(self.rest.parts))

    def nbytes(self) -> int:
        return self.bits.nbytes + (0 if self.rest.parts is None else self.rest.parts.nbytes)


class TruthCache:
    """Gives the Truth of a row; keeps what was decoded until `budget` bytes are full. One a
    process."""

    def __init__(self, dataset, budget: int):
        self.dataset, self.left = dataset, budget
        self.packed: dict[int, PackedTruth] = {}

    def __getitem__(self, row: int) -> Truth:
        if row not in self.packed:
            packed = PackedTruth.of(self.dataset.truth(row))
            if packed.nbytes() > self.left:
                return packed.truth()
            self.packed[row], self.left = packed, self.left - packed.nbytes()
        return self.packed[row].truth()


def _copy(parts: Tensor | None) -> Tensor | None:
    return None if parts is None else parts.clone()
