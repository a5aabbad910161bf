"""Who stands where in a scene: numbers, sizes, herds, crowds, occluders and truncation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from pointseg.data.bestiary.arith import Stream
from pointseg.data.bestiary.disguise import KINDS
from pointseg.data.bestiary.edition import Cast, Edition, upto
from pointseg.data.bestiary.species import SPECIES


@dataclass(frozen=True)
class Placement:
    """Where one creature stands: centre and body length in image widths, tilt in turns."""

    species: int
    x: float
    y: float
    length: float
    mirror: bool
    tilt: float
    row: int  # creatures of one crowd share a row
    kin: int | None = None  # creatures of one herd share it
    squash: float = 1.0  # of the length, by the view
    shear: float = 0.0


@dataclass(frozen=True)
class Decoy:
    """A rock or a plant that wears a creature's look."""

    kind: int
    x: float
    y: float
    length: float


@dataclass
class Plan:
    placements: list[Placement] = field(default_factory=list)
    decoys: list[Decoy] = field(default_factory=list)
    crowd_rows: set[int] = field(default_factory=set)
    tree: tuple[float, float, float, float] | None = (
        None  # x, foot, width, depth: a trunk in front of a creature
    )
    void: bool = False

    def in_depth_order(self) -> list[Placement | Decoy]:
        return sorted([*self.placements, *self.decoys], key=lambda place: place.y)


def number_of_creatures(rng: Stream, cast: Cast) -> int:
    value = rng.random()
    return 1 + sum(value >= limit for limit in cast.limits)


def span(rng: Stream, cast: Cast) -> float:
    """Square root of a creature's area, in image widths; of edition 1's, the median is .27."""
    return rng.uniform(*upto(cast.spans, rng.random()))


def gap(place: Placement, x: float, y: float, length: float) -> float:
    """How clear two creatures are of each other; 1 where their extents just meet."""
    dx, dy = (place.x - x) * 0.9, (place.y - y) * 1.25
    reach = place.length + length
    return (dx * dx + dy * dy) / (reach * reach)


def inside(rng: Stream, reach: float, least: float = 0.0) -> float:
    """A coordinate with `reach` on both sides in the image and from `least` on, if that can be."""
    margin = min(reach, 0.5)
    return rng.uniform(min(max(least, margin), 1.0 - margin), 1.0 - margin)


def free_spot(plan: Plan, rng: Stream, length: float, top: float) -> tuple[float, float, float]:
    """The roomiest of a few random spots as x, y, and the room there."""
    best, spot = -1.0, (0.5, 0.5)
    for _ in range(8):
        x, y = inside(rng, 1.05 * length), inside(rng, 0.75 * length, top)
        room = min([gap(other, x, y, length) for other in plan.placements], default=4.0)
        if room > best:
            best, spot = room, (x, y)
        if room > 0.9:
            break
    return *spot, best


def add(
    plan: Plan, rng: Stream, cast: Cast, species: int, x: float, y: float, length: float, **known
) -> Placement:
    known.setdefault("row", next_row(plan))
    mirror, tilt = rng.chance(0.5), rng.uniform(-cast.tilt, cast.tilt)
    if cast.squash[0] < 1.0:
        known |= {
            "squash": rng.uniform(*cast.squash),
            "shear": rng.uniform(-cast.shear, cast.shear),
        }
        length /= math.sqrt(known["squash"])
    plan.placements.append(Placement(species, x, y, length, mirror, tilt, **known))
    return plan.placements[-1]


def next_row(plan: Plan) -> int:
    return 1 + max([p.row for p in plan.placements], default=-1)


def add_loners(plan: Plan, rng: Stream, cast: Cast, number: int, total: int, top: float) -> None:
    for _ in range(number):
        species = rng.integer(len(SPECIES))
        length = span(rng, cast) * cast.crowding[total - 1] / SPECIES[species].bulk
        x, y, room = free_spot(plan, rng, length, top - 0.15)
        if rng.chance(0.12):
            x = rng.uniform(0.0, 0.1) if rng.chance(0.5) else rng.uniform(0.9, 1.0)
        add(plan, rng, cast, species, x, y, length * (1.0 if room > 0.5 else 0.7))


def add_herd(plan: Plan, rng: Stream, cast: Cast, number: int, horizon: float) -> None:
    """Neighbours of one class that touch."""
    species, kin = rng.integer(len(SPECIES)), next_row(plan)
    length = rng.uniform(*cast.herd_spans[number - 2]) / SPECIES[species].bulk
    half = cast.half * (number - 1) * length
    x, y = inside(rng, half + 1.05 * length) - half, inside(rng, 0.9 * length, max(horizon, 0.35))
    for k in range(number):
        row = y + (0.5 - k % 2) * cast.zigzag * length
        add(plan, rng, cast, species, x, row, length * rng.uniform(0.9, 1.1), kin=kin)
        x += length * rng.uniform(*cast.step)
        y += length * rng.uniform(-0.3, 0.3)


def add_crowd(plan: Plan, rng: Stream, cast: Cast, horizon: float) -> None:
    """A cluster of tiny creatures of a class that is nowhere else in the image, one row for all."""
    taken = {place.species for place in plan.placements}
    species = rng.choice([k for k in range(len(SPECIES)) if k not in taken])
    length = rng.uniform(0.055, 0.08) / SPECIES[species].bulk
    x, y, _ = free_spot(plan, rng, 2.5 * length, horizon + 0.05)
    row = next_row(plan)
    plan.crowd_rows.add(row)
    for _ in range(6 + rng.integer(4)):
        across, down = rng.uniform(-1.9, 1.9), rng.uniform(-1.1, 1.1)
        add(plan, rng, cast, species, x + across * length, y + down * length, length, row=row)


def add_tree(plan: Plan, rng: Stream) -> None:
    """A trunk before the middle of the largest creature, so that it falls into two pieces."""
    target = max(plan.placements, key=lambda place: place.length)
    x = target.x + rng.uniform(-0.12, 0.12) * target.length
    foot = min(target.y + rng.uniform(0.62, 0.8) * target.length, 1.2)
    plan.tree = (x, foot, rng.uniform(0.14, 0.24) * target.length, target.y)


def make_plan(rng: Stream, horizon: float, edition: Edition) -> Plan:
    cast = edition.cast
    plan, number = Plan(), number_of_creatures(rng, cast)
    if number > 1 and rng.chance(cast.herds):
        larger = number if cast.everybody else 3
        herd = 2 if number == 2 or rng.chance(cast.pairs) else larger
        add_herd(plan, rng, cast, herd, horizon)
        add_loners(plan, rng, cast, number - herd, number, horizon)
    else:
        add_loners(plan, rng, cast, number, number, horizon)
    if rng.chance(0.12):
        add_tree(plan, rng)
    if rng.chance(cast.tiny):
        species = rng.integer(len(SPECIES))
        length = rng.uniform(0.04, 0.085) / SPECIES[species].bulk
        add(plan, rng, cast, species, *free_spot(plan, rng, length, horizon)[:2], length)
    if rng.chance(cast.crowd):
        add_crowd(plan, rng, cast, horizon)
    plan.void = rng.chance(0.3)
    if edition.disguise:
        add_decoys(plan, rng, edition.disguise.decoys, horizon)
    return plan


def add_decoys(plan: Plan, rng: Stream, most: int, horizon: float) -> None:
    for _ in range(rng.integer(most + 1)):
        x, y, size = rng.random(), rng.uniform(horizon, 1.05), rng.uniform(0.07, 0.2)
        plan.decoys.append(Decoy(rng.integer(len(KINDS)), x, y, size))
