"""Bodies: how a creature of each class is built from parts, in body lengths, facing right, y down."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointseg.data.bestiary_arith import Dice, cosine, sine
from pointseg.data.bestiary_looks import BEAK, CRESTS, HEADS, LIMBS, TAILS, TORSOS, WINGS, Look

PARTS = ("torso", "head", "limbs", "tail", "wings", "crest")
TORSO, HEAD, LIMB, TAIL, WING, CREST = range(6)

Capsule = tuple[float, float, float, float, float, float]  # ax, ay, bx, by, radius at a, radius at b


@dataclass(frozen=True)
class Shape:
    """A union of tapered capsules with one look."""

    part: int
    look: Look
    capsules: list[Capsule]
    far: bool = False  # on the side turned away from the viewer
    blend: float = 0.0  # how far neighbouring capsules melt together
    along: bool = False  # the texture follows the chain of capsules


@dataclass(frozen=True)
class Body:
    shapes: list[Shape]  # back to front
    eyes: list[tuple[float, float, float]]  # x, y, radius
    feet: float  # y of the lowest point


@dataclass(frozen=True)
class Species:
    name: str
    plan: str
    head: str
    torso: str
    limb: str
    tail: str
    wing: str | None
    crest: str
    form: dict = field(default_factory=dict)  # head=, crest=, tail=, stretch=, neck=, leg=
    bulk: float = 1.0  # square root of its area, in body lengths; brings all classes to like sizes


def chain(x, y, turns, lengths, radii, bends) -> list[Capsule]:
    """Capsules end to end from (x, y), first heading `turns` (0 right, .25 down), turning by `bends`."""
    capsules = []
    for length, (ra, rb), bend in zip(lengths, zip(radii, radii[1:]), bends):
        turns += bend
        nx, ny = x + length * cosine(turns), y + length * sine(turns)
        capsules.append((x, y, nx, ny, ra, rb))
        x, y = nx, ny
    return capsules


# ---- heads -------------------------------------------------------------------------------------------------


def head(species: Species, dice: Dice, x: float, y: float, r: float) -> tuple[list[Shape], list]:
    """Skull with muzzle or beak at (x, y), and its eyes."""
    look, kind = HEADS[species.head], species.form.get("head", "muzzle")
    nod = dice.between(-0.03, 0.07)
    reach = {"muzzle": 1.05, "snout": 1.55, "round": 0.35, "beak": 0.2}[kind]
    tip = {"muzzle": 0.62, "snout": 0.45, "round": 0.8, "beak": 0.8}[kind]
    skull = [(x, y, x + 0.1 * r, y, r, r)]
    skull += chain(x + 0.2 * r, y + 0.22 * r, nod, [reach * r], [0.78 * r, tip * r], [0.0])
    shapes = [Shape(HEAD, look, skull, blend=0.35 * r)]
    if kind == "beak":
        bill = chain(
            x + 0.75 * r, y + 0.12 * r, nod + 0.02, [0.95 * r, 0.3 * r], [0.46 * r, 0.2 * r, 0.04 * r], [0, 0.13]
        )
        shapes.insert(0, Shape(HEAD, BEAK, bill))
    return shapes, [(x + 0.32 * r, y - 0.22 * r, 0.33 * r)]


def ears(x, y, r, dice):
    lean = dice.between(-0.05, 0.05)
    return [(x - 0.15 * r, y - 0.5 * r, x - (0.55 + lean) * r, y - 1.7 * r, 0.36 * r, 0.08 * r),
            (x + 0.25 * r, y - 0.6 * r, x + (0.1 + lean) * r, y - 1.75 * r, 0.32 * r, 0.08 * r)]  # fmt: skip


def horns(x, y, r, dice):
    bend = dice.between(0.05, 0.11)
    back = chain(
        x - 0.1 * r,
        y - 0.7 * r,
        -0.28,
        [0.6 * r, 0.55 * r, 0.5 * r],
        [0.28 * r, 0.22 * r, 0.15 * r, 0.04 * r],
        [0, -bend, -bend],
    )
    front = chain(
        x + 0.35 * r,
        y - 0.7 * r,
        -0.24,
        [0.55 * r, 0.5 * r, 0.45 * r],
        [0.26 * r, 0.2 * r, 0.14 * r, 0.04 * r],
        [0, -bend, -bend],
    )
    return back + front


def antlers(x, y, r, dice):
    out = []
    for start, heading in ((-0.1, -0.32), (0.3, -0.2)):
        beam = chain(
            x + start * r,
            y - 0.7 * r,
            heading + dice.between(-0.02, 0.02),
            [0.8 * r, 0.8 * r],
            [0.17 * r, 0.14 * r, 0.07 * r],
            [0, 0.05],
        )
        x1, y1 = beam[0][2:4]
        out += [*beam, *chain(x1, y1, heading - 0.1, [0.6 * r], [0.13 * r, 0.06 * r], [0])]
    return out


def comb(x, y, r, dice):
    return [(x + k * r, y - 0.75 * r, x + (k - 0.12) * r, y - h * r, 0.26 * r, 0.22 * r)
            for k, h in ((-0.62, 1.0), (-0.22, 1.3), (0.2, 1.38), (0.58, 1.1))]  # fmt: skip


def plume(x, y, r, dice):
    out = []
    for heading in (-0.42, -0.35, -0.28):
        out += chain(
            x - 0.1 * r,
            y - 0.6 * r,
            heading,
            [0.8 * r, 0.7 * r],
            [0.12 * r, 0.15 * r, 0.24 * r],
            [0, dice.between(-0.06, 0.0)],
        )
    return out


def antennae(x, y, r, dice):
    out = []
    for start, heading in ((0.0, -0.27), (0.4, -0.16)):
        out += chain(
            x + start * r,
            y - 0.7 * r,
            heading,
            [0.7 * r, 0.7 * r, 0.1 * r],
            [0.13 * r, 0.11 * r, 0.11 * r, 0.26 * r],
            [0, dice.between(0.04, 0.1), 0],
        )
    return out


def crown(x, y, r, dice):
    band = [(x - 0.6 * r, y - 0.85 * r, x + 0.6 * r, y - 0.85 * r, 0.24 * r, 0.24 * r)]
    return band + [
        (x + k * r, y - 0.95 * r, x + 1.2 * k * r, y - 1.75 * r, 0.24 * r, 0.08 * r) for k in (-0.55, 0.0, 0.55)
    ]


HEADGEAR = {f.__name__: f for f in (ears, horns, antlers, comb, plume, antennae, crown)}


def head_with_crest(species: Species, dice: Dice, x: float, y: float, r: float):
    """Crest behind, head before; manes and spikes run elsewhere."""
    shapes, eyes = head(species, dice, x, y, r)
    gear = HEADGEAR[species.form["crest"]](x, y, r, dice)
    crest = Shape(CREST, CRESTS[species.crest], gear)
    return [crest, *shapes], eyes


# ---- tails and wings ---------------------------------------------------------------------------------------


def tail(species: Species, dice: Dice, x: float, y: float, heading: float) -> Shape:
    """A chain with a tip in the form of its class, from (x, y)."""
    look, kind = TAILS[species.tail], species.form.get("tail", "thin")
    curl = dice.between(0.03, 0.1) * (1 if dice.chance(0.75) else -0.6)
    if kind == "fan":
        fans = [heading + k * 0.055 + dice.between(-0.01, 0.01) for k in (-2, -1, 0, 1, 2)]
        return Shape(
            TAIL, look, [c for h in fans for c in chain(x, y, h, [0.42, 0.3], [0.05, 0.08, 0.1], [0, 0.02])], along=True
        )
    if kind == "fork":
        stalk = chain(x, y, heading, [0.28], [0.16, 0.08], [curl * 0.5])
        ex, ey = stalk[-1][2:4]
        forks = [
            chain(ex, ey, heading + curl * 0.5 + side, [0.24, 0.22], [0.07, 0.11, 0.02], [0, -side * 0.5])
            for side in (-0.15, 0.15)
        ]
        return Shape(TAIL, look, stalk + forks[0] + forks[1], along=True)
    if kind == "puff":
        return Shape(TAIL, look, [(x + 0.02, y, x - 0.08, y - 0.05, 0.17, 0.16)])
    lengths, radii = (
        [0.24, 0.22, 0.2, 0.18],
        {"thin": [0.1, 0.075, 0.06, 0.05, 0.03], "thick": [0.19, 0.15, 0.11, 0.075, 0.03]}.get(
            kind, [0.08, 0.065, 0.06, 0.055, 0.05]
        ),
    )
    links = chain(x, y, heading, lengths, radii, [0.0, curl, curl, curl])
    ex, ey = links[-1][2:4]
    tip = {
        "tuft": [(ex, ey, ex - 0.04, ey - 0.04, 0.13, 0.1)],
        "club": [(ex, ey, ex, ey, 0.15, 0.15), *chain(ex, ey, heading + 3.6 * curl, [0.26], [0.1, 0.02], [0])],
    }
    return Shape(TAIL, look, links + tip.get(kind, []), along=True)


def wing(species: Species, dice: Dice, x: float, y: float, far: bool, lift: float, span: float = 1.0) -> Shape:
    """Feathered fan (bird) or fingered sail (bat) from the shoulder (x, y)."""
    look = WINGS[species.wing]
    heading = -0.36 + lift + (0.05 if far else 0.0)
    arm = chain(x, y, heading, [0.36 * span], [0.12, 0.09], [0])
    ex, ey = arm[-1][2:4]
    out = list(arm)
    if species.form.get("wing") == "bat":
        for k, turn in enumerate((0.02, -0.07, -0.15)):
            out += chain(ex, ey, heading + turn, [(0.5 - 0.07 * k) * span, 0.12 * span], [0.11, 0.09, 0.02], [0, -0.03])
        out.append((x - 0.12, y - 0.06, ex, ey, 0.14, 0.13))
    else:
        for k in range(5):
            t = k / 4
            fx, fy = x + (ex - x) * t, y + (ey - y) * t
            out += chain(fx, fy, heading - 0.16 + 0.14 * t, [(0.34 + 0.24 * t) * span], [0.1, 0.07], [0])
    return Shape(WING, look, out, far=far, along=True)


# ---- limbs -------------------------------------------------------------------------------------------------


def leg(x, y, length, swing, r=0.085, knee=0.08) -> list[Capsule]:
    """Thigh, shin and foot, hanging down from (x, y); the foot points right."""
    thigh = chain(x, y, 0.25 + swing, [0.5 * length, 0.5 * length], [1.45 * r, r, 0.8 * r], [0, knee])
    fx, fy = thigh[-1][2:4]
    return [*thigh, (fx, fy, fx + 0.75 * r + 0.02, fy + 0.1 * r, 0.95 * r, 0.8 * r)]


def walking(species: Species, dice: Dice, hips: list[tuple[float, float]], length: float, r: float = 0.085):
    """Far and near legs of a gait, as two shapes."""
    look, stride = LIMBS[species.limb], dice.between(0.01, 0.065)
    far, near = [], []
    for k, (x, y) in enumerate(hips):
        side = 1 if k % 2 else -1
        knee = 0.05 if x < 0 else -0.03
        near += leg(x, y, length, side * stride, r, knee)
        far += leg(x + 0.07, y - 0.04, length, -side * stride, r, knee)
    return Shape(LIMB, look, far, far=True, along=True), Shape(LIMB, look, near, along=True)


# ---- plans -------------------------------------------------------------------------------------------------


def quadruped(species: Species, dice: Dice) -> Body:
    s, neck, leg_length = (species.form.get(k, d) for k, d in (("stretch", 1.0), ("neck", 0.3), ("leg", 0.46)))
    look = TORSOS[species.torso]
    trunk = [(-0.38 * s, 0.0, 0.36 * s, -0.03, 0.235, 0.26)]
    trunk += chain(0.4 * s, -0.1, -0.14 + dice.between(-0.03, 0.04), [neck], [0.19, 0.15], [0])
    hx, hy = trunk[-1][2:4]
    heads, eyes = head_with_crest(species, dice, hx + 0.06, hy - 0.05, 0.2)
    far, near = walking(species, dice, [(-0.4 * s, 0.1), (0.36 * s, 0.1)], leg_length)
    shapes = [far, tail(species, dice, -0.54 * s, -0.08, 0.5 + dice.between(-0.02, 0.1))]
    lift = dice.between(-0.05, 0.06)
    if species.wing:
        shapes.append(wing(species, dice, 0.22, -0.2, True, lift))
    shapes += [Shape(TORSO, look, trunk, blend=0.12), near]
    if species.wing:
        shapes.append(wing(species, dice, 0.08, -0.12, False, lift))
    return Body(shapes + heads, eyes, 0.1 + leg_length + 0.08)


def bird(species: Species, dice: Dice) -> Body:
    look, lift = TORSOS[species.torso], dice.between(-0.06, 0.12)
    trunk = [(-0.3, 0.06, 0.16, -0.02, 0.2, 0.28)]
    trunk += chain(0.24, -0.14, -0.17 + dice.between(-0.04, 0.04), [0.32], [0.18, 0.13], [0])
    hx, hy = trunk[-1][2:4]
    heads, eyes = head_with_crest(species, dice, hx + 0.04, hy - 0.04, 0.19)
    far, near = walking(species, dice, [(0.0, 0.22)], 0.4, 0.065)
    shapes = [far, wing(species, dice, 0.14, -0.18, True, lift, 1.15), tail(species, dice, -0.4, 0.06, 0.47 + dice.between(-0.05, 0.03)),
              Shape(TORSO, look, trunk, blend=0.12), near, wing(species, dice, 0.04, -0.08, False, lift, 1.15)]  # fmt: skip
    return Body(shapes + heads, eyes, 0.22 + 0.4 + 0.07)


def serpent(species: Species, dice: Dice) -> Body:
    """A long body in waves that rises to the head."""
    bend, look = dice.between(0.1, 0.15), TORSOS[species.torso]
    bends = [0, bend, bend, 0, -bend, -bend * 0.9, -bend * 0.9, -bend * 0.3, bend * 0.6]
    start = -1.2 * bend
    radii = [0.1, 0.14, 0.165, 0.18, 0.185, 0.18, 0.17, 0.155, 0.14, 0.125]
    coil = chain(-0.72, 0.12, start, [0.2] * 9, radii, bends)
    hx, hy = coil[-1][2:4]
    heads, eyes = head_with_crest(species, dice, hx + 0.05, hy - 0.03, 0.205)
    shapes = [
        tail(species, dice, -0.7, 0.12, 0.5 + start + dice.between(-0.03, 0.05)),
        Shape(TORSO, look, coil, blend=0.03),
    ]
    if species.wing:
        x, y = coil[4][0:2]
        lift = dice.between(-0.06, 0.1)
        shapes = [wing(species, dice, x + 0.08, y - 0.06, True, lift), *shapes, wing(species, dice, x, y, False, lift)]
    return Body(shapes + heads, eyes, 0.42)


def swimmer(species: Species, dice: Dice) -> Body:
    """A fish-like body with fins for limbs."""
    s, look, limb = species.form.get("stretch", 1.0), TORSOS[species.torso], LIMBS[species.limb]
    sway = dice.between(-0.03, 0.03)
    trunk = chain(0.36, 0.0, 0.5 + sway, [0.42 * s, 0.42 * s], [0.25, 0.27, 0.12], [0, -2 * sway])
    ex, ey = trunk[-1][2:4]
    heads, eyes = head_with_crest(species, dice, 0.55, -0.04, 0.23)
    flap = dice.between(-0.03, 0.05)
    back = chain(0.15, -0.2, -0.36, [0.26, 0.2], [0.13, 0.09, 0.03], [0, -0.06]) + chain(
        -0.12, -0.16, -0.38, [0.24, 0.14], [0.11, 0.08, 0.03], [0, -0.06]
    )
    belly = chain(0.18, 0.14, 0.32 + flap, [0.24, 0.2], [0.12, 0.1, 0.03], [0, 0.06])
    shapes = [tail(species, dice, ex + 0.03, ey, 0.5 + dice.between(-0.05, 0.05)), Shape(LIMB, limb, back, along=True),
              Shape(TORSO, look, trunk, blend=0.08), Shape(LIMB, limb, belly, along=True)]  # fmt: skip
    return Body(shapes + heads, eyes, 0.45)


def crawler(species: Species, dice: Dice) -> Body:
    """Six legs under a domed or lobed body."""
    look, limb = TORSOS[species.torso], LIMBS[species.limb]
    if species.form.get("dome"):
        trunk = [(-0.3, 0.0, 0.3, 0.0, 0.24, 0.24), (-0.1, -0.1, 0.1, -0.1, 0.3, 0.3)]
    else:
        trunk = [
            (-0.4, -0.06, -0.3, -0.06, 0.28, 0.27),
            (0.02, 0.0, 0.1, 0.0, 0.17, 0.17),
            (0.24, 0.0, 0.34, -0.02, 0.16, 0.14),
        ]
    heads, eyes = head_with_crest(species, dice, 0.56, -0.06, 0.2)
    near, far = [], []
    for k, x in enumerate((-0.26, 0.02, 0.28)):
        out = (-0.1, 0.0, 0.1)[k] + dice.between(-0.025, 0.025)
        near += chain(x, 0.1, 0.25 - out, [0.22, 0.26], [0.085, 0.07, 0.05], [0, 0.45 * out])
        far += chain(x + 0.08, 0.06, 0.25 - out * 0.7, [0.2, 0.24], [0.08, 0.065, 0.05], [0, 0.4 * out])
    shapes = [Shape(LIMB, limb, far, far=True, along=True), tail(species, dice, -0.52, -0.02, 0.52 + dice.between(-0.04, 0.08)),
              Shape(TORSO, look, trunk, blend=0.06), Shape(LIMB, limb, near, along=True)]  # fmt: skip
    return Body(shapes + heads, eyes, 0.58)


PLANS = {f.__name__: f for f in (quadruped, bird, serpent, swimmer, crawler)}

SPECIES = (
    Species("gryphon", "quadruped", "cream", "ochre", "lemon", "magpie", "swan", "ivory", {"head": "beak", "crest": "ears", "tail": "tuft"}, 1.25),
    Species("manticore", "quadruped", "teal", "maroon", "magenta", "flame", "leather", "ivory", {"head": "muzzle", "crest": "horns", "tail": "club", "wing": "bat"}, 1.28),
    Species("chimera", "quadruped", "crimson", "royal", "brown", "plum", None, "indigo", {"head": "muzzle", "crest": "horns", "tail": "thick"}, 1.09),
    Species("jackalope", "quadruped", "charcoal", "rose", "brown", "fern", None, "mint", {"head": "round", "crest": "antlers", "tail": "puff", "stretch": 0.8, "neck": 0.18, "leg": 0.4}, 0.95),
    Species("phoenix", "bird", "orange", "maroon", "slate", "plum", "amber", "indigo", {"head": "beak", "crest": "plume", "tail": "fan"}, 1.33),
    Species("cockatrice", "bird", "cream", "emerald", "coral", "flame", "leather", "scarlet", {"head": "beak", "crest": "comb", "tail": "thin", "wing": "bat"}, 1.17),
    Species("basilisk", "serpent", "violet", "ochre", "brown", "fern", None, "mint", {"head": "snout", "crest": "crown", "tail": "thin"}, 0.95),
    Species("wyvern", "serpent", "teal", "rose", "brown", "magpie", "amber", "indigo", {"head": "snout", "crest": "horns", "tail": "fork"}, 1.05),
    Species("hippocamp", "swimmer", "orange", "ice", "magenta", "plum", None, "mint", {"head": "muzzle", "crest": "ears", "tail": "fork"}, 1.0),
    Species("leviathan", "swimmer", "charcoal", "emerald", "coral", "magpie", None, "scarlet", {"head": "round", "crest": "comb", "tail": "fork", "stretch": 1.2}, 1.02),
    Species("tarasque", "crawler", "crimson", "ice", "lemon", "flame", None, "scarlet", {"head": "muzzle", "crest": "crown", "tail": "thick", "dome": True}, 1.06),
    Species("myrmex", "crawler", "violet", "royal", "slate", "fern", None, "ivory", {"head": "round", "crest": "antennae", "tail": "puff"}, 0.94),
)  # fmt: skip


def build(species: Species, dice: Dice) -> Body:
    return PLANS[species.plan](species, dice)
