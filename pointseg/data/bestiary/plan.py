"""Who stands where in a scene: numbers, sizes, herds, crowds, occluders and truncation."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointseg.data.bestiary.arith import Dice
from pointseg.data.bestiary.species import SPECIES

CROWDING = {1: 1.1, 2: 1.0, 3: 0.88, 4: 0.78}  # factor on lengths by the number of creatures


@dataclass(frozen=True)
class Place:
    """Where one creature stands: centre and body length in picture widths, tilt in turns."""

    species: int
    x: float
    y: float
    length: float
    mirror: bool
    tilt: float
    row: int  # creatures of one crowd share a row


@dataclass
class Plan:
    places: list[Place] = field(default_factory=list)
    crowd_rows: set[int] = field(default_factory=set)
    tree: tuple[float, float, float, float] | None = (
        None  # x, foot, width, depth: a trunk in front of a creature
    )
    void: bool = False

    def in_depth_order(self) -> list[Place]:
        return sorted(self.places, key=lambda place: place.y)


def number_of_creatures(dice: Dice) -> int:
    value = dice.unit()
    return 1 + sum(value >= limit for limit in (0.27, 0.64, 0.89))


def span(dice: Dice) -> float:
    """Square root of a creature's area, in picture widths: 13 to 85 pixels of 128, median about 35."""
    kind = dice.unit()
    if kind < 0.12:
        return dice.between(0.1, 0.2)
    if kind < 0.74:
        return dice.between(0.25, 0.38)
    return dice.between(0.38, 0.66)


def gap(place: Place, x: float, y: float, length: float) -> float:
    """How clear two creatures are of each other, 1 where their extents (wider than high) just meet."""
    dx, dy = (place.x - x) * 0.9, (place.y - y) * 1.25
    reach = place.length + length
    return (dx * dx + dy * dy) / (reach * reach)


def inside(dice: Dice, reach: float, least: float = 0.0) -> float:
    """A coordinate that keeps `reach` on both sides in the picture, and lies at or after `least`, if that can be."""
    margin = min(reach, 0.5)
    return dice.between(min(max(least, margin), 1.0 - margin), 1.0 - margin)


def free_spot(plan: Plan, dice: Dice, length: float, top: float) -> tuple[float, float, float]:
    """The roomiest of a few random spots as x, y, and the room there."""
    best, spot = -1.0, (0.5, 0.5)
    for _ in range(8):
        x, y = inside(dice, 1.05 * length), inside(dice, 0.75 * length, top)
        room = min([gap(other, x, y, length) for other in plan.places], default=4.0)
        if room > best:
            best, spot = room, (x, y)
        if room > 0.9:
            break
    return *spot, best


def add(
    plan: Plan, dice: Dice, species: int, x: float, y: float, length: float, row: int | None = None
) -> Place:
    row = 1 + max([p.row for p in plan.places], default=-1) if row is None else row
    place = Place(species, x, y, length, dice.chance(0.5), dice.between(-0.06, 0.06), row)
    plan.places.append(place)
    return place


def add_loners(plan: Plan, dice: Dice, number: int, total: int, horizon: float) -> None:
    for _ in range(number):
        species = dice.below(len(SPECIES))
        length = span(dice) * CROWDING[total] / SPECIES[species].bulk
        x, y, room = free_spot(plan, dice, length, horizon - 0.15)
        if dice.chance(0.12):
            x = dice.between(0.0, 0.1) if dice.chance(0.5) else dice.between(0.9, 1.0)
        add(plan, dice, species, x, y, length * (1.0 if room > 0.5 else 0.7))


def add_herd(plan: Plan, dice: Dice, number: int, horizon: float) -> None:
    """Neighbours of one class that touch."""
    species = dice.below(len(SPECIES))
    length = dice.between(0.19, 0.33 if number == 2 else 0.26) / SPECIES[species].bulk
    half = 0.75 * (number - 1) * length
    x, y = inside(dice, half + 1.05 * length) - half, inside(dice, 0.9 * length, max(horizon, 0.35))
    for _ in range(number):
        add(plan, dice, species, x, y, length * dice.between(0.9, 1.1))
        x += length * dice.between(1.25, 1.7)
        y += length * dice.between(-0.3, 0.3)


def add_crowd(plan: Plan, dice: Dice, horizon: float) -> None:
    """A cluster of tiny creatures of a class that is nowhere else in the picture, one row for all."""
    taken = {place.species for place in plan.places}
    species = dice.pick([k for k in range(len(SPECIES)) if k not in taken])
    length = dice.between(0.055, 0.08) / SPECIES[species].bulk
    x, y, _ = free_spot(plan, dice, 2.5 * length, horizon + 0.05)
    row = 1 + max(place.row for place in plan.places)
    plan.crowd_rows.add(row)
    for _ in range(6 + dice.below(4)):
        across, down = dice.between(-1.9, 1.9), dice.between(-1.1, 1.1)
        add(plan, dice, species, x + across * length, y + down * length, length, row)


def add_tree(plan: Plan, dice: Dice) -> None:
    """A trunk before the middle of the largest creature, so that it falls into two pieces."""
    target = max(plan.places, key=lambda place: place.length)
    x = target.x + dice.between(-0.12, 0.12) * target.length
    foot = min(target.y + dice.between(0.62, 0.8) * target.length, 1.2)
    plan.tree = (x, foot, dice.between(0.14, 0.24) * target.length, target.y)


def make_plan(dice: Dice, horizon: float) -> Plan:
    plan, number = Plan(), number_of_creatures(dice)
    if number > 1 and dice.chance(0.28):
        herd = 2 if number == 2 or dice.chance(0.6) else 3
        add_herd(plan, dice, herd, horizon)
        add_loners(plan, dice, number - herd, number, horizon)
    else:
        add_loners(plan, dice, number, number, horizon)
    if dice.chance(0.12):
        add_tree(plan, dice)
    if dice.chance(0.09):
        species = dice.below(len(SPECIES))
        length = dice.between(0.04, 0.085) / SPECIES[species].bulk
        add(plan, dice, species, *free_spot(plan, dice, length, horizon)[:2], length)
    if dice.chance(0.08):
        add_crowd(plan, dice, horizon)
    plan.void = dice.chance(0.3)
    return plan
