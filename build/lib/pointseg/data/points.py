"""Where a point may lie: five ways to turn a mask into points, each fixed by (seed, kind, image,
target) alone."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from tqdm import tqdm

from pointseg.data.files import is_whole
from pointseg.data.masks import inner_border
from pointseg.data.point_file import (
    ImagePoints,
    Jitter,
    PointFile,
    as_points,
    read_points,
    write_points,
)
from pointseg.structures import POINT_KINDS, InputError, Truth

__all__ = ["ImagePoints", "Jitter", "PointFile", "read_points", "sample_points", "write_points"]

EXTREME_SPAN = 0.02  # share of the box side that counts as "at the extreme", ExtremeNet (CVPR 2019)
MOST_JITTER = 1e6  # pixels; no image is as large
EXTREME_SIDES = 4  # top, left, bottom, right


def sample_points(
    dataset,
    kind: str,
    n: int = 1,
    seed: int = 0,
    jitter_px: float = 4.0,
    jitter_of: str = "uniform",
) -> PointFile:
    """`n` points on every target that is no crowd; `extreme` always gives 4, `centre` always 1.

    A target of fewer than n pixels gets all its pixels. The first of n = 10 is the point of n = 1.
    """
    jitter = Jitter(jitter_of, float(jitter_px)) if kind == "jitter" else None
    n = EXTREME_SIDES if kind == "extreme" else n
    fault = request_fault(kind, n, seed, jitter)
    if fault := fault or (None if len(dataset) else "the dataset has no images"):
        raise InputError(f"points of {getattr(dataset, 'root', 'dataset')}: {fault}")
    images = {}
    for index in tqdm(
        range(len(dataset)), desc=f"points: {kind}", unit="image", disable=None, leave=False
    ):
        image_id, (height, width) = dataset.ids[index], dataset.size(index)
        rows = target_rows(dataset.arrays(index), image_id, kind, n, seed, jitter)
        images[image_id] = ImagePoints(int(height), int(width), as_points(rows, dataset.categories))
    return PointFile(
        kind, n, seed, dataset.content_hash(), tuple(dataset.categories), images, jitter
    )


def target_rows(
    truth: Truth, image_id: int | str, kind: str, n: int, seed: int, jitter: Jitter | None
) -> list[tuple[float, float, int, int]]:
    """Rows (x, y, label, target) of one image."""
    rows = []
    columns = (truth.label.tolist(), truth.target.tolist(), truth.is_crowd.tolist())
    for mask, label, target, crowd in zip(truth.masks, *columns):
        if crowd or not mask.any():
            continue
        rng = generator_for(seed, kind, image_id, target)
        xy = jittered(mask, n, rng, jitter) if jitter else CHOOSE[kind](mask, n, rng)
        rows += [(x, y, label, target) for x, y in xy.tolist()]
    return rows


def generator_for(seed: int, kind: str, image_id: int | str, target: int) -> Generator:
    """The random stream of one target: nothing else about the dataset or the call enters."""
    name = json.dumps(
        [seed, kind, image_id if isinstance(image_id, str) else int(image_id), target]
    )
    return np.random.default_rng(
        int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    )


def pixel_centres(flat: np.ndarray, width: int) -> np.ndarray:
    """Raster indices [k] to the (x, y) [k, 2] of the pixels' centres."""
    return np.stack([flat % width, flat // width], axis=1) + 0.5


def uniform(mask: np.ndarray, n: int, rng: Generator) -> np.ndarray:
    """n different pixels, each equally likely, of things and stuff alike. [EPLD Sec. 4.1]"""
    owned = np.flatnonzero(mask)
    chosen: dict[int, None] = {}
    while len(chosen) < min(
        n, len(owned)
    ):  # one draw after another, so that n = 10 begins with n = 1
        chosen[int(rng.random() * len(owned))] = None
    return pixel_centres(owned[list(chosen)], mask.shape[1])


def centre(mask: np.ndarray, n: int = 1, rng: Generator | None = None) -> np.ndarray:
    """The mask's pixel nearest to the centre of its box.

    DEVIATION [AS Sec. 5.1]: the official release takes the box centre itself, which may lie off the
    object.
    """
    owned = pixel_centres(np.flatnonzero(mask), mask.shape[1])
    middle = (owned.min(axis=0) + owned.max(axis=0)) / 2
    return owned[[np.square(owned - middle).sum(axis=1).argmin()]]


def border(mask: np.ndarray, n: int, rng: Generator) -> np.ndarray:
    """n different pixels of the inner border, each equally likely; the image's edge only if nothing
    else is."""
    lines = inner_border(mask, frame=False)
    return uniform(lines if lines.any() else inner_border(mask), n, rng)


def extreme(mask: np.ndarray, n: int = EXTREME_SIDES, rng: Generator | None = None) -> np.ndarray:
    """Top, left, bottom, right [4, 2] by ExtremeNet's rule.

    UNSTATED [EXITS Sec. C]: where its points come from; the lab's release runs this rule on the
    masks.

    The extreme coordinate itself, at the middle of the span that stays within 2 % of the box side.
    On a flat top the middle may therefore sit just off a concave mask. Pixel centres: the box is
    their hull +- 0.5.
    """
    height, width = mask.shape
    top, left = _topmost(mask), _topmost(mask.T)
    bottom, right = _topmost(mask[::-1]), _topmost(mask.T[::-1])
    pixels = [
        top,
        left[::-1],
        (bottom[0], height - 1 - bottom[1]),
        (width - 1 - right[1], right[0]),
    ]
    return np.array(pixels, dtype=np.float64) + 0.5


def _topmost(mask: np.ndarray) -> tuple[int, int]:
    """(column, row) of the top extreme: middle of the connected run within the span below the top
    row."""
    rows = np.flatnonzero(mask.any(axis=1))
    first, last = int(rows[0]), int(rows[-1])
    reach = math.floor(EXTREME_SPAN * (last - first + 1))
    # ExtremeNet walks a polygon's vertices both ways; on pixels that is the piece of the band
    # holding the extreme
    pieces, _ = ndimage.label(mask[first : first + reach + 1], structure=np.ones((3, 3)))
    piece = pieces[0, np.flatnonzero(mask[first])[0]]
    columns = np.flatnonzero((pieces == piece).any(axis=0))
    return int(columns[0] + columns[-1]) // 2, first


def jittered(mask: np.ndarray, n: int, rng: Generator, jitter: Jitter) -> np.ndarray:
    """n points with Gaussian noise: they may leave the mask, never the image (reflected at its
    edges)."""
    start = uniform(mask, n, rng) if jitter.of == "uniform" else centre(mask).repeat(n, axis=0)
    size = np.array(mask.shape[::-1], dtype=np.float64)
    moved = np.abs(start + rng.standard_normal(start.shape) * jitter.px)
    return np.clip(size - np.abs(size - moved), 0, size - 0.01).round(2)


CHOOSE: dict[str, Callable] = {
    "uniform": uniform,
    "centre": centre,
    "border": border,
    "extreme": extreme,
}


def request_fault(kind: str, n: int, seed: int, jitter: Jitter | None) -> str | None:
    """Why nobody can have such points, None when one can; what passes, a points file can say."""
    rules = {
        f"kind: expected one of {', '.join(POINT_KINDS)}, got {kind!r}": kind in POINT_KINDS,
        f"n: expected a positive integer, got {n}": is_whole(n, 1),
        f"n: kind 'centre' gives one point a target, got {n}": kind != "centre" or n == 1,
        f"seed: expected an integer of 0 to 2**63 - 1, got {seed}": is_whole(seed, 0),
    }
    if jitter:
        of, px = jitter.of, jitter.px
        rules[f"jitter: expected uniform or centre, got {of!r}"] = of in ("uniform", "centre")
        rules[f"jitter: expected a positive number of pixels, got {px}"] = 0 < px < MOST_JITTER
    return next((cause for cause, holds in rules.items() if not holds), None)
