"""A scene and what is true of it: instances, ground, parts, void."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pointseg.data.bestiary.arith import SPLIT_CODES
from pointseg.data.bestiary.edition import edition_of
from pointseg.data.bestiary.ground import STUFF_NAMES
from pointseg.data.bestiary.plan import Plan
from pointseg.data.bestiary.scene import Canvas, paint_scene
from pointseg.data.bestiary.species import SPECIES
from pointseg.structures import Category, InputError, Truth, tensors

THINGS = tuple(Category(k + 1, species.name, True) for k, species in enumerate(SPECIES))
STUFF = tuple(Category(len(THINGS) + k + 1, name, False) for k, name in enumerate(STUFF_NAMES))
CATEGORIES = THINGS + STUFF
SMALLEST, LARGEST = 64, 512  # pixels of an image's side
LEAST_PIXELS = 8  # what is smaller at 128 pixels counts for nobody


@dataclass(frozen=True)
class Scene:
    """One image and all that is true of it."""

    image: np.ndarray  # [h, w, 3] uint8
    canvas: Canvas
    plan: Plan

    @cached_property
    def truth(self) -> Truth:
        """Things back to front, then stuff; targets are 1, 2, ..."""
        return self.truth_with(self.plan.void)

    def truth_with(self, border: bool) -> Truth:
        """The truth with or without void lines around things, whatever the plan says."""
        return tensors(self.arrays(border))

    def arrays(self, border: bool | None = None) -> Truth:
        """The same without torch; by default the plan says."""
        return gather_truth(self.canvas, self.plan, self.plan.void if border is None else border)


def check_request(seed: int, split: str, index: int, size: int) -> None:
    if split not in SPLIT_CODES:
        raise InputError(f"bestiary: unknown split {split!r}; known are {', '.join(SPLIT_CODES)}")
    if not SMALLEST <= size <= LARGEST:
        raise InputError(f"bestiary: size {size} is outside {SMALLEST}..{LARGEST}")
    if not (0 <= seed < 1 << 63 and 0 <= index < 1 << 48):
        raise InputError(
            f"bestiary: seed {seed} and index {index} must be whole numbers below 2^63 and 2^48"
        )


def outlines(owner: np.ndarray, width: int) -> np.ndarray:
    """[h, w] bool: lines `width` pixels wide around things, outside or on the later thing."""
    lines = np.zeros(owner.shape, bool)
    reached = owner.copy()
    for _ in range(width):
        grown = reached.copy()
        for here, there in neighbours(reached):
            grown_there = grown[there]
            grown[there] = np.maximum(grown_there, reached[here])
        lines |= grown != owner
        reached = grown
    return lines


def neighbours(array: np.ndarray):
    """Pairs of index tuples of pixels that share an edge, both ways."""
    up, down = (slice(1, None), slice(None)), (slice(None, -1), slice(None))
    left, right = (slice(None), slice(1, None)), (slice(None), slice(None, -1))
    return (up, down), (down, up), (left, right), (right, left)


def gather_truth(canvas: Canvas, plan: Plan, border: bool) -> Truth:
    """Rows for things and stuff that keep enough pixels; the others' pixels become void."""
    void = np.zeros(canvas.owner.shape, bool)
    if border:
        void = outlines(canvas.owner, max(1, canvas.size // 128))
    least = max(1, LEAST_PIXELS * canvas.size * canvas.size // (128 * 128))
    species = sorted({(place.row, place.species) for place in plan.placements})
    ground = (canvas.owner == 0) & ~void
    rows = [(canvas.owner == r + 1, int(s), r in plan.crowd_rows) for r, s in species]
    rows += [((canvas.stuff == k) & ground, len(THINGS) + k, False) for k in range(len(STUFF))]
    kept = [(mask & ~void, label, crowd) for mask, label, crowd in rows]
    kept = [row for row in kept if np.count_nonzero(row[0]) >= least]
    masks = np.stack([mask for mask, _, _ in kept])
    label = np.array([label for _, label, _ in kept], dtype=np.int64)
    covered = masks.any(0)
    parts = np.where(covered & (canvas.owner > 0), canvas.parts, 0).astype(np.uint8)
    return Truth(
        masks=masks,
        label=label,
        target=np.arange(1, len(kept) + 1),
        is_thing=label < len(THINGS),
        is_crowd=np.array([crowd for _, _, crowd in kept]),
        void=~covered,
        parts=parts,
    )


def draw(seed: int, split: str, index: int, size: int | None = None, edition: int = 2) -> Scene:
    """Image `index` of a split, with its truth."""
    chosen = edition_of(edition)
    size = chosen.size if size is None else size
    check_request(seed, split, index, size)
    return Scene(*paint_scene(seed, split, index, size, chosen))
