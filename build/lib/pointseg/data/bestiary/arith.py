"""Arithmetic that gives the same bits on every platform.

Only `+ - * /`, square roots, comparisons and table look-ups are used: IEEE 754 fixes their results.
Sines, exponentials, matrix products and sums over arrays differ between libraries and are kept out
of the images.
Random numbers are uniform doubles of a Philox counter keyed by (seed, split, index, stream).
"""

from __future__ import annotations

import numpy as np

SPLIT_CODES = {"train": 1, "val": 2, "pretrain": 3, "tune": 4}


class Stream:
    """Uniform draws of one stream of one image."""

    def __init__(self, seed: int, split: str, index: int, stream: int) -> None:
        second = (SPLIT_CODES[split] << 56) | (stream << 48) | index
        self.generator = np.random.Generator(np.random.Philox(key=[seed, second]))

    def random(self) -> float:
        return float(self.generator.random())

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def chance(self, share: float) -> bool:
        return self.random() < share

    def integer(self, n: int) -> int:
        return int(self.random() * n)

    def choice(self, items):
        return items[self.integer(len(items))]

    def field(self, *shape: int) -> np.ndarray:
        return self.generator.random(shape, dtype=np.float32)


def sine(turns: float) -> float:
    """Sine of an angle in full turns, by its power series on a quarter turn."""
    turns = turns - int(turns)
    turns += 1.0 if turns < 0 else 0.0
    sign = 1.0
    if turns >= 0.5:
        turns, sign = turns - 0.5, -1.0
    if turns > 0.25:
        turns = 0.5 - turns
    x = turns * 6.283185307179586
    square = x * x
    series = 1.0 - square / 72.0 * (1.0 - square / 110.0)
    return sign * x * (1.0 - square / 6.0 * (1.0 - square / 20.0 * (1.0 - square / 42.0 * series)))


def cosine(turns: float) -> float:
    return sine(turns + 0.25)


def ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth step from 0 at `low` to 1 at `high`."""
    t = np.clip((x - low) * (1.0 / (high - low)), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def wave(x: np.ndarray) -> np.ndarray:
    """A smooth wave of period 1 with values 0..1, 0 at whole numbers."""
    t = x - np.floor(x)
    arch = 4.0 * t * (1.0 - t)
    return arch * arch * (3.0 - 2.0 * arch)


def lattice_steps(size: int, cells: float) -> tuple[np.ndarray, np.ndarray]:
    """For each of `size` pixels: its lattice cell [size] int and eased position in it [size]."""
    x = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    cell = np.floor(x)
    t = x - cell
    return cell.astype(np.int64), t * t * (3.0 - 2.0 * t)


def noise(rng: Stream, size: int, rows: float, columns: float | None = None) -> np.ndarray:
    """[size, size] smooth value noise in 0..1 with so many cells down and across."""
    columns = rows if columns is None else columns
    lattice = rng.field(int(rows) + 2, int(columns) + 2)
    cell, t = lattice_steps(size, rows)
    bands = mixed(lattice[cell], lattice[cell + 1], t[:, None])
    cell, t = lattice_steps(size, columns)
    return mixed(bands.take(cell, 1), bands.take(cell + 1, 1), t)


def mixed(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> np.ndarray:
    """low * (1 - share) + high * share; the two arrays are overwritten."""
    low *= 1.0 - share
    high *= share
    low += high
    return low


def clouds(rng: Stream, size: int, cells: float) -> np.ndarray:
    """[size, size] three octaves of noise in 0..1."""
    coarse, middle, fine = (noise(rng, size, cells * k) for k in (1, 2, 4))
    return coarse * np.float32(0.55) + middle * np.float32(0.3) + fine * np.float32(0.15)


def skyline(rng: Stream, size: int, cells: float) -> np.ndarray:
    """[size] smooth line with values -1..1."""
    total = np.zeros(size, np.float32)
    for k, weight in ((1, 0.6), (2.7, 0.27), (7.3, 0.13)):
        knots = rng.field(int(cells * k) + 2)
        cell, t = lattice_steps(size, cells * k)
        total += np.float32(weight) * (knots[cell] * (1.0 - t) + knots[cell + 1] * t)
    return total * 2.0 - 1.0
