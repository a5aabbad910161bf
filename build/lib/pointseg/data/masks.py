"""A mask [h, w] bool measured: its inner border, its box, its perimeter."""

from __future__ import annotations

import numpy as np


def inner_border(mask: np.ndarray, frame: bool = True) -> np.ndarray:
    """[h, w] bool: pixels of the mask with a 4-neighbour outside it; `frame`: the image's edge is
    outside."""
    around = np.pad(mask, 1, mode="constant" if frame else "edge")
    core = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~core


def box_of(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the outermost pixels, themselves inside."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def perimeter(mask: np.ndarray) -> int:
    """Pixel edges between mask and the rest, the image's frame included."""
    framed = np.pad(mask, 1)
    return int((framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum())
