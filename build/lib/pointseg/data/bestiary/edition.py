"""The editions of Bestiary as data: what varies, and by how much. The drawing code is one.

The first edition is the easy tier: colours give creatures away, ink runs around every part. The
second is hard where photographs are hard.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pointseg.structures import InputError

Range = tuple[float, float]


@dataclass(frozen=True)
class Cast:
    """How many creatures stand in an image, how large and how close. Lengths in image widths."""

    limits: tuple[float, ...] = (0.27, 0.64, 0.89)  # of a draw; above each stands one more
    crowding: tuple[float, ...] = (1.1, 1.0, 0.88, 0.78)  # factor on lengths by their number
    spans: tuple[tuple[float, Range], ...] = (  # up to this draw: square root of the area
        (0.12, (0.1, 0.2)),
        (0.74, (0.25, 0.38)),
        (1.0, (0.38, 0.66)),
    )
    herds: float = 0.28  # share of images of two or more creatures that hold a herd
    pairs: float = 0.6  # share of herds of two, where three or more creatures stand
    everybody: bool = False  # in such a herd, else in the others
    herd_spans: tuple[Range, ...] = ((0.19, 0.33), (0.19, 0.26), (0.19, 0.26))  # of 2, 3, 4
    half: float = 0.75  # of the way between neighbours of a herd, in lengths
    step: Range = (1.25, 1.7)  # between neighbours of a herd, in lengths
    zigzag: float = 0.0  # of a herd's rows, in lengths
    tilt: float = 0.06  # at most, in turns
    squash: Range = (1.0, 1.0)  # of the body's length, as when seen from the front or behind
    shear: float = 0.0  # at most, of heights along the length
    tiny: float = 0.09  # share of images with one more, tiny creature
    crowd: float = 0.08


@dataclass(frozen=True)
class Light:
    """The range of light and camera."""

    turn: Range = (-0.36, -0.14)  # where the light stands; -.25 is overhead
    relief: Range = (0.3, 0.3)  # of rounded bodies
    warmth: float = 0.05
    exposure: Range = (0.88, 1.06)
    slope: Range = (0.0, 0.22)  # fall-off to one side
    grain: float = 0.03
    dapple: float = 0.0  # darkness of leaf shadows at most
    haze: float = 0.0  # share of a mist's colour at most


@dataclass(frozen=True)
class Individual:
    """How an individual departs from its class."""

    turn: float = 0.06  # of its hues, all together, at most; a part adds half of it
    swap: float = 0.12  # chance of a part to wear another look's colours; of a pattern likewise
    saturation: Range = (0.5, 1.05)
    brightness: Range = (0.65, 1.2)
    earth: float = 0.25  # share of a colour of the ground at most
    pitch: Range = (0.7, 1.5)
    girth: Range = (0.82, 1.22)
    pose: float = 1.5  # factor on the range of every joint
    kin: float = 0.6  # chance to look like the herd


@dataclass(frozen=True)
class Disguise:
    """What of the ground looks like creatures."""

    share: float = 0.33  # of the area
    turn: float = 0.09  # of the hues of a stuff at most
    saturation: Range = (0.3, 1.0)
    brightness: Range = (0.75, 1.1)
    decoys: int = 4  # rocks and plants with a body's shape, at most


@dataclass(frozen=True)
class Edition:
    number: int
    name: str  # of the data in a recipe
    size: int  # of an image's side, unless another one is wanted
    cast: Cast = field(default_factory=Cast)
    light: Light = field(default_factory=Light)
    individual: Individual | None = None
    disguise: Disguise | None = None
    ink: tuple[tuple[float, str], ...] = ((1.0, "parts"),)  # up to this draw: where ink runs


EDITIONS = {
    1: Edition(1, "bestiary-easy", 128),
    2: Edition(
        2,
        "bestiary",
        192,
        Cast(
            limits=(0.17, 0.57, 0.88),
            crowding=(1.0, 1.0, 0.9, 0.85),
            spans=((0.1, (0.15, 0.28)), (0.6, (0.4, 0.5)), (1.0, (0.46, 0.66))),
            herds=0.68,
            pairs=0.35,
            everybody=True,
            herd_spans=((0.42, 0.54), (0.38, 0.46), (0.36, 0.42)),
            half=0.55,
            step=(0.85, 1.45),
            zigzag=0.3,
            tilt=0.11,
            squash=(0.55, 1.0),
            shear=0.2,
        ),
        Light((-0.48, -0.02), (0.15, 0.5), 0.12, (0.78, 1.2), (0.0, 0.45), 0.05, 0.35, 0.2),
        Individual(),
        Disguise(),
        ink=((0.25, "nowhere"), (0.75, "outline"), (1.0, "parts")),
    ),
}


EDITION_NAMED = {edition.name: number for number, edition in EDITIONS.items()}


def edition_of(number: int) -> Edition:
    if number not in EDITIONS:
        raise InputError(f"bestiary: unknown edition {number!r}; known are 1, 2")
    return EDITIONS[number]


def upto(table, draw: float):
    """The entry of a table of (limit, entry) that a draw in 0..1 falls into."""
    return next(entry for limit, entry in table if draw < limit)
