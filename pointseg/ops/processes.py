"""The processes of one training, and random numbers that do not ask how many there are.

A batch is shared by the processes in blocks: with b rows each, process r holds the global rows
r b to r b + b - 1. Two rules keep the losses of two processes those of one:

- A loss that is normalised by a count divides by `world_mean(count)`, as gradients are averaged;
  by `normaliser(count)` where the count may be 0.
- What is drawn at random in `losses` comes from `draws_of(batch)`, one seed a row, which the loop
  makes of (seed, step, global row) alone: `uniform(draws, 5)` are five numbers for each row. Seeds
  of the objects in a row, or of a second purpose, come from `child`:

      draws = child(draws_of(batch)[row], index_in_row)     # [n objects]
      share = uniform(draws, height, width)                 # [n objects, height, width] in [0, 1)

  The numbers are computed, not drawn one after another: they are the same on every device, and
  whatever was drawn before. Dropout alone draws from torch's generator, which the loop seeds by
  (seed, step, process): a method with dropout repeats itself, but two processes drop out other
  units than one.

A batch that memory does not hold is taken in pieces, one after another, by the same two rules: each
piece stands for a process (`Turns`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pointseg.structures import Batch


def in_world() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    return dist.get_rank() if in_world() else 0


def size() -> int:
    """Parts that the batch of a step comes in: processes, or pieces that one takes in turn."""
    if Turns.now:
        return Turns.now.count
    return dist.get_world_size() if in_world() else 1


def world_mean(count: Tensor) -> Tensor:
    """Mean of a normaliser, such as the number of targets, over all processes."""
    if Turns.now:
        return Turns.now.mean(count)
    if not in_world():
        return count
    total = count.detach().clone()
    dist.all_reduce(total)
    return total / size()


class Turns:
    """The pieces of a batch, which one process takes in turn. A first round, without gradients,
    asks for their counts; the second one divides by the means of these."""

    now: Turns | None = None

    def __init__(self, count: int):
        self.count, self.counts, self.means = count, [], None
        self.answers: Iterator[Tensor] = iter(())

    @contextmanager
    def piece(self) -> Iterator[None]:
        """Inside, losses are those of the next piece."""
        self.counts.append([])
        self.answers = iter(self.means or ())
        Turns.now = self
        try:
            yield
        finally:
            Turns.now = None

    def mean(self, count: Tensor) -> Tensor:
        if self.means is not None:
            return next(self.answers)
        self.counts[-1].append(count.detach())
        return count

    def know(self) -> None:
        """Ends the first round."""
        self.means = [mean_of(counts) for counts in zip(*self.counts, strict=True)]


def mean_of(counts: Sequence[Tensor]) -> Tensor:
    return sum(counts[1:], counts[0]) / len(counts)


def normaliser(count: Tensor | int, device: torch.device | None = None) -> Tensor:
    """What a loss divides by: the mean count over all processes, which together have one."""
    total = world_mean(torch.as_tensor(count, dtype=torch.float32, device=device))
    return total.clamp(min=1 / size())


def row_draws(seed: int, step: int, first: int, count: int) -> Tensor:
    """[count] int64: the seeds of the global rows from `first` on, at a step."""
    rows = [np.random.SeedSequence((seed, step, first + row)) for row in range(count)]
    words = np.array([row.generate_state(1, np.uint64)[0] for row in rows], dtype=np.uint64)
    return torch.from_numpy(words.view(np.int64))


def draws_of(batch: Batch) -> Tensor:
    """[b] int64: one seed a row; outside a loop, which gives them, torch's generator makes some."""
    if batch.draws is not None:
        return batch.draws
    return torch.randint(2**62, (len(batch),)).to(batch.images.device)


def child(draws: Tensor, index: Tensor | int) -> Tensor:
    """[n] int64: other seeds, one for each pair of a seed and a number (an object, a purpose)."""
    return _mixed(_mixed(draws) + 2 * torch.as_tensor(index, device=draws.device) + 1)


def uniform(draws: Tensor, *shape: int) -> Tensor:
    """[n, *shape] float32 in [0, 1): the numbers of n seeds."""
    counter = _GOLDEN * torch.arange(1, math.prod(shape) + 1, device=draws.device)
    words = _mixed(draws[:, None] + counter)
    return (_shifted(words, 40).float() / 2**24).view(len(draws), *shape)


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as int64; products wrap


def _mixed(words: Tensor) -> Tensor:
    """int64, each bit of which depends on all bits that went in: the end of SplitMix64 (2014)."""
    words = (words ^ _shifted(words, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    words = (words ^ _shifted(words, 27)) * (0x94D049BB133111EB - 2**64)
    return words ^ _shifted(words, 31)


def _shifted(words: Tensor, bits: int) -> Tensor:
    """The words to the right, zeros coming in from the left."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)
