"""Heads, crests, tails, wings and legs, in body lengths, facing right, y down."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pointseg.data.bestiary.arith import Stream, cosine, sine
from pointseg.data.bestiary.looks import BEAK, CRESTS, HEADS, LIMBS, TAILS, WINGS, Look
from pointseg.data.bestiary.species import CREST, HEAD, LIMB, TAIL, WING, Species

Capsule = tuple[
    float, float, float, float, float, float
]  # ax, ay, bx, by, radius at a, radius at b


@dataclass(frozen=True)
class Shape:
    """A union of tapered capsules with one look."""

    part: int | None  # None: a thing of the ground
    look: Look
    capsules: list[Capsule]
    far: bool = False  # on the side turned away from the viewer
    blend: float = 0.0  # how far neighbouring capsules melt together
    along: bool = False  # the texture follows the chain of capsules


def chain(x, y, turns, lengths, radii, bends) -> list[Capsule]:
    """Capsules end to end from (x, y), heading `turns` (0 right, .25 down), bent by `bends`."""
    capsules = []
    for length, (ra, rb), bend in zip(lengths, pairwise(radii), bends):
        turns += bend
        nx, ny = x + length * cosine(turns), y + length * sine(turns)
        capsules.append((x, y, nx, ny, ra, rb))
        x, y = nx, ny
    return capsules


def moved(capsules: list[Capsule], x: float, y: float, r: float = 1.0) -> list[Capsule]:
    """Capsules given in units of r around the origin, brought to (x, y)."""
    return [
        (x + ax * r, y + ay * r, x + bx * r, y + by * r, ra * r, rb * r)
        for ax, ay, bx, by, ra, rb in capsules
    ]


# ---- heads: in units of the skull's radius, around its middle ----

MUZZLES = {
    "muzzle": (1.05, 0.62),
    "snout": (1.55, 0.45),
    "round": (0.35, 0.8),
    "beak": (0.2, 0.8),
}  # reach, tip


def ears(rng: Stream) -> list[Capsule]:
    lean = rng.uniform(-0.05, 0.05)
    return [
        (-0.15, -0.5, -0.55 - lean, -1.7, 0.36, 0.08),
        (0.25, -0.6, 0.1 + lean, -1.75, 0.32, 0.08),
    ]


def horns(rng: Stream) -> list[Capsule]:
    bend = rng.uniform(0.05, 0.11)
    back = chain(-0.1, -0.7, -0.28, [0.6, 0.55, 0.5], [0.28, 0.22, 0.15, 0.04], [0, -bend, -bend])
    return back + chain(
        0.35, -0.7, -0.24, [0.55, 0.5, 0.45], [0.26, 0.2, 0.14, 0.04], [0, -bend, -bend]
    )


def antlers(rng: Stream) -> list[Capsule]:
    out = []
    for start, heading in ((-0.1, -0.32), (0.3, -0.2)):
        beam = chain(
            start,
            -0.7,
            heading + rng.uniform(-0.02, 0.02),
            [0.8, 0.8],
            [0.2, 0.16, 0.09],
            [0, 0.05],
        )
        out += beam + chain(*beam[0][2:4], heading - 0.1, [0.6], [0.15, 0.08], [0])
    return out


def comb(rng: Stream) -> list[Capsule]:
    lean = rng.uniform(0.05, 0.2)
    teeth = ((-0.62, 1.0), (-0.22, 1.3), (0.2, 1.38), (0.58, 1.1))
    return [(x, -0.75, x - lean, -height, 0.26, 0.22) for x, height in teeth]


def plume(rng: Stream) -> list[Capsule]:
    bends = [rng.uniform(-0.06, 0.0) for _ in range(3)]
    feathers = zip((-0.42, -0.35, -0.28), bends)
    return [
        c
        for h, bend in feathers
        for c in chain(-0.1, -0.6, h, [0.8, 0.7], [0.12, 0.15, 0.24], [0, bend])
    ]


def antennae(rng: Stream) -> list[Capsule]:
    bends = [rng.uniform(0.04, 0.1) for _ in range(2)]
    radii = [0.14, 0.12, 0.12, 0.26]
    back = chain(0.0, -0.7, -0.27, [0.7, 0.7, 0.1], radii, [0, bends[0], 0])
    return back + chain(0.4, -0.7, -0.16, [0.7, 0.7, 0.1], radii, [0, bends[1], 0])


def crown(rng: Stream) -> list[Capsule]:
    tall = rng.uniform(1.6, 1.85)
    band = (-0.6, -0.85, 0.6, -0.85, 0.24, 0.24)
    return [band, *((x, -0.95, 1.2 * x, -tall, 0.24, 0.08) for x in (-0.55, 0.0, 0.55))]


HEADGEAR = {f.__name__: f for f in (ears, horns, antlers, comb, plume, antennae, crown)}


@dataclass(frozen=True)
class Face:
    """What is drawn in ink on a head."""

    eye: tuple[float, float, float]  # x, y, radius
    mouth: list[Capsule]


def head(species: Species, rng: Stream, x: float, y: float, r: float) -> tuple[list[Shape], Face]:
    """Crest, bill if any, and skull with muzzle at (x, y), back to front, and the face on it."""
    kind, nod = species.form["head"], rng.uniform(-0.03, 0.07)
    crest = HEADGEAR[species.form["crest"]](rng)
    reach, tip = MUZZLES[kind]
    muzzle = chain(0.2, 0.22, nod, [reach], [0.78, tip], [0.0])
    shapes = [Shape(CREST, CRESTS[species.crest], moved(crest, x, y, r))]
    if kind == "beak":
        bill = chain(0.75, 0.12, nod + 0.02, [0.95, 0.3], [0.46, 0.2, 0.04], [0, 0.13])
        shapes.append(Shape(HEAD, BEAK, moved(bill, x, y, r)))
    skull = moved([(0.0, 0.0, 0.1, 0.0, 1.0, 1.0), *muzzle], x, y, r)
    shapes.append(Shape(HEAD, HEADS[species.head], skull, blend=0.35 * r))
    mouth = [] if kind == "beak" else smile(*muzzle[0][2:4], tip, nod)
    return shapes, Face((x + 0.32 * r, y - 0.22 * r, 0.33 * r), moved(mouth, x, y, r))


def smile(x: float, y: float, tip: float, nod: float) -> list[Capsule]:
    """A line from the end of the muzzle back into the cheek, turning up."""
    return chain(
        x + 0.55 * tip, y + 0.42 * tip, 0.5 + nod - 0.03, [0.4, 0.3], [0.07, 0.07, 0.05], [0, 0.07]
    )


# ---- tails and wings ----


def fan(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    plumes = [heading + k * 0.055 + rng.uniform(-0.01, 0.01) for k in (-2, -1, 0, 1, 2)]
    return [c for h in plumes for c in chain(x, y, h, [0.42, 0.3], [0.05, 0.08, 0.1], [0, 0.02])]


def fork(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    stalk = chain(x, y, heading, [0.28], [0.16, 0.08], [0.5 * curl])
    for side in (-0.15, 0.15):
        flukes = chain(
            *stalk[0][2:4],
            heading + 0.5 * curl + side,
            [0.24, 0.22],
            [0.07, 0.11, 0.02],
            [0, -side / 2],
        )
        stalk += flukes
    return stalk


def puff(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    return [(x + 0.02, y, x - 0.08, y - 0.05, 0.17, 0.16)]


def rope(
    rng: Stream, x: float, y: float, heading: float, curl: float, radii: list[float]
) -> list[Capsule]:
    return chain(x, y, heading, [0.24, 0.22, 0.2, 0.18], radii, [0, curl, curl, curl])


def thin(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    return rope(rng, x, y, heading, curl, [0.1, 0.075, 0.06, 0.05, 0.03])


def thick(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    return rope(rng, x, y, heading, curl, [0.19, 0.15, 0.11, 0.075, 0.03])


def tuft(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    links = rope(rng, x, y, heading, curl, [0.08, 0.065, 0.06, 0.055, 0.05])
    ex, ey = links[-1][2:4]
    return [*links, (ex, ey, ex - 0.04, ey - 0.04, 0.13, 0.1)]


def club(rng: Stream, x: float, y: float, heading: float, curl: float) -> list[Capsule]:
    links = rope(rng, x, y, heading, curl, [0.08, 0.065, 0.06, 0.055, 0.05])
    ex, ey = links[-1][2:4]
    return [
        *links,
        (ex, ey, ex, ey, 0.15, 0.15),
        *chain(ex, ey, heading + 3.6 * curl, [0.26], [0.1, 0.02], [0]),
    ]


TAIL_FORMS = {f.__name__: f for f in (fan, fork, puff, thin, thick, tuft, club)}


def tail(species: Species, rng: Stream, x: float, y: float, heading: float) -> Shape:
    """From (x, y) in the form of its class, curling up or, less often, down."""
    kind, curl = species.form["tail"], rng.uniform(0.03, 0.1)
    curl *= 1.0 if rng.chance(0.75) else -0.6
    capsules = TAIL_FORMS[kind](rng, x, y, heading, curl)
    return Shape(TAIL, TAILS[species.tail], capsules, along=kind != "puff")


def bird_wing(x: float, y: float, heading: float, span: float) -> list[Capsule]:
    arm = chain(x, y, heading, [0.36 * span], [0.12, 0.09], [0])
    ex, ey = arm[0][2:4]
    for t in (0.0, 0.25, 0.5, 0.75, 1.0):
        root = (x + (ex - x) * t, y + (ey - y) * t)
        arm += chain(*root, heading - 0.16 + 0.14 * t, [(0.34 + 0.24 * t) * span], [0.1, 0.07], [0])
    return arm


def bat_wing(x: float, y: float, heading: float, span: float) -> list[Capsule]:
    arm = chain(x, y, heading, [0.36 * span], [0.12, 0.09], [0])
    ex, ey = arm[0][2:4]
    for turn, reach in ((0.02, 0.5), (-0.07, 0.43), (-0.15, 0.36)):
        arm += chain(
            ex, ey, heading + turn, [reach * span, 0.12 * span], [0.11, 0.09, 0.02], [0, -0.03]
        )
    return [*arm, (x - 0.12, y - 0.06, ex, ey, 0.14, 0.13)]


def wing(species: Species, x: float, y: float, far: bool, lift: float, span: float = 1.0) -> Shape:
    """Feathered fan or fingered sail from the shoulder (x, y)."""
    heading = -0.36 + lift + (0.05 if far else 0.0)
    draw = bat_wing if species.form.get("wing") == "bat" else bird_wing
    return Shape(WING, WINGS[species.wing], draw(x, y, heading, span), far=far, along=True)


# ---- limbs ----


def leg(x, y, length, swing, r=0.085, knee=0.08) -> list[Capsule]:
    """Thigh, shin and foot, hanging down from (x, y); the foot points right."""
    thigh = chain(
        x, y, 0.25 + swing, [0.5 * length, 0.5 * length], [1.45 * r, r, 0.8 * r], [0, knee]
    )
    fx, fy = thigh[-1][2:4]
    return [*thigh, (fx, fy, fx + 0.75 * r + 0.02, fy + 0.1 * r, 0.95 * r, 0.8 * r)]


def walking(
    species: Species,
    stride: float,
    hips: list[tuple[float, float]],
    length: float,
    r: float = 0.085,
):
    """Far and near legs of a gait, as two shapes; `stride` in turns."""
    look = LIMBS[species.limb]
    far, near = [], []
    for k, (x, y) in enumerate(hips):
        side = 1 if k % 2 else -1
        knee = 0.05 if x < 0 else -0.03
        near += leg(x, y, length, side * stride, r, knee)
        far += leg(x + 0.07, y - 0.04, length, -side * stride, r, knee)
    return Shape(LIMB, look, far, far=True, along=True), Shape(LIMB, look, near, along=True)
