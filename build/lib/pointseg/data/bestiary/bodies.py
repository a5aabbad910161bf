"""Bodies: how a creature is built from parts, in body lengths, facing right, y down."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pointseg.data.bestiary.arith import Stream
from pointseg.data.bestiary.looks import LIMBS, TORSOS
from pointseg.data.bestiary.members import Face, Shape, chain, head, moved, tail, walking, wing
from pointseg.data.bestiary.species import LIMB, TORSO, Species


@dataclass(frozen=True)
class Body:
    shapes: list[Shape]  # back to front
    face: Face | None
    feet: tuple[float, float]  # where its shadow lies


def quadruped(species: Species, rng: Stream) -> Body:
    s, neck, leg_length = (
        species.form.get(k, d) for k, d in (("stretch", 1.0), ("neck", 0.3), ("leg", 0.46))
    )
    look = TORSOS[species.torso]
    trunk = [(-0.4 * s, -0.02, 0.0, 0.02, 0.23, 0.21), (0.0, 0.02, 0.34 * s, -0.02, 0.21, 0.27)]
    trunk += chain(0.4 * s, -0.1, -0.14 + rng.uniform(-0.03, 0.04), [neck], [0.19, 0.15], [0])
    hx, hy = trunk[-1][2:4]
    heads, face = head(species, rng, hx + 0.06, hy - 0.05, 0.2)
    far, near = walking(
        species, rng.uniform(0.01, 0.065), [(-0.4 * s, 0.1), (0.36 * s, 0.1)], leg_length
    )
    shapes = [far, tail(species, rng, -0.54 * s, -0.08, 0.5 + rng.uniform(-0.02, 0.1))]
    lift = rng.uniform(-0.05, 0.06)
    if species.wing:
        shapes.append(wing(species, 0.22, -0.2, True, lift))
    shapes += [Shape(TORSO, look, trunk, blend=0.12), near]
    if species.wing:
        shapes.append(wing(species, 0.08, -0.12, False, lift))
    return Body(shapes + heads, face, (0.0, 0.18 + leg_length))


def bird(species: Species, rng: Stream) -> Body:
    look, lift = TORSOS[species.torso], rng.uniform(-0.06, 0.12)
    trunk = [(-0.3, 0.06, 0.16, -0.02, 0.2, 0.28)]
    trunk += chain(0.24, -0.14, -0.17 + rng.uniform(-0.04, 0.04), [0.32], [0.18, 0.13], [0])
    hx, hy = trunk[-1][2:4]
    heads, face = head(species, rng, hx + 0.04, hy - 0.04, 0.19)
    far, near = walking(species, rng.uniform(0.03, 0.08), [(0.0, 0.22)], 0.4, 0.065)
    rear = tail(species, rng, -0.4, 0.06, 0.47 + rng.uniform(-0.05, 0.03))
    back, front = (
        wing(species, x, y, x > 0.1, lift, 1.15) for x, y in ((0.14, -0.18), (0.04, -0.08))
    )
    shapes = [far, back, rear, Shape(TORSO, look, trunk, blend=0.12), near, front]
    return Body(shapes + heads, face, (0.0, 0.69))


def serpent(species: Species, rng: Stream) -> Body:
    """A long body in waves that rises to the head."""
    bend, look = rng.uniform(0.1, 0.15), TORSOS[species.torso]
    bends = [0, bend, bend, 0, -bend, -bend * 0.9, -bend * 0.9, -bend * 0.3, bend * 0.6]
    start = -1.2 * bend
    radii = [0.1, 0.14, 0.165, 0.18, 0.185, 0.18, 0.17, 0.155, 0.14, 0.125]
    coil = chain(-0.72, 0.12, start, [0.2] * 9, radii, bends)
    hx, hy = coil[-1][2:4]
    heads, face = head(species, rng, hx + 0.05, hy - 0.03, 0.205)
    shapes = [
        tail(species, rng, -0.7, 0.12, 0.5 + start + rng.uniform(-0.03, 0.05)),
        Shape(TORSO, look, coil, blend=0.03),
    ]
    if species.wing:
        x, y = coil[4][0:2]
        lift = rng.uniform(-0.06, 0.1)
        shapes = [
            wing(species, x + 0.08, y - 0.06, True, lift),
            *shapes,
            wing(species, x, y, False, lift),
        ]
    return Body(shapes + heads, face, (0.0, 0.42))


def swimmer(species: Species, rng: Stream) -> Body:
    """A fish-like body with fins for limbs."""
    s, look, limb = species.form.get("stretch", 1.0), TORSOS[species.torso], LIMBS[species.limb]
    sway = rng.uniform(-0.03, 0.03)
    trunk = chain(0.36, 0.0, 0.5 + sway, [0.42 * s, 0.42 * s], [0.25, 0.27, 0.12], [0, -2 * sway])
    ex, ey = trunk[-1][2:4]
    heads, face = head(species, rng, 0.55, -0.04, 0.23)
    flap = rng.uniform(-0.03, 0.05)
    back = chain(0.15, -0.2, -0.36, [0.26, 0.2], [0.13, 0.09, 0.03], [0, -0.06])
    back += chain(-0.12, -0.16, -0.38, [0.24, 0.14], [0.11, 0.08, 0.03], [0, -0.06])
    belly = chain(0.18, 0.14, 0.32 + flap, [0.24, 0.2], [0.12, 0.1, 0.03], [0, 0.06])
    rear = tail(species, rng, ex + 0.03, ey, 0.5 + rng.uniform(-0.05, 0.05))
    fins = [Shape(LIMB, limb, capsules, along=True) for capsules in (back, belly)]
    shapes = [rear, fins[0], Shape(TORSO, look, trunk, blend=0.08), fins[1]]
    return Body(shapes + heads, face, (0.0, 0.45))


def crawler(species: Species, rng: Stream) -> Body:
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
    heads, face = head(species, rng, 0.56, -0.06, 0.2)
    near, far = [], []
    for k, x in enumerate((-0.26, 0.02, 0.28)):
        out = (-0.1, 0.0, 0.1)[k] + rng.uniform(-0.025, 0.025)
        near += chain(x, 0.1, 0.25 - out, [0.22, 0.26], [0.085, 0.07, 0.05], [0, 0.45 * out])
        far += chain(
            x + 0.08, 0.06, 0.25 - out * 0.7, [0.2, 0.24], [0.08, 0.065, 0.05], [0, 0.4 * out]
        )
    rear = tail(species, rng, -0.52, -0.02, 0.52 + rng.uniform(-0.04, 0.08))
    legs = [
        Shape(LIMB, limb, capsules, far=capsules is far, along=True) for capsules in (far, near)
    ]
    shapes = [legs[0], rear, Shape(TORSO, look, trunk, blend=0.06), legs[1]]
    return Body(shapes + heads, face, (0.0, 0.58))


PLANS = {f.__name__: f for f in (quadruped, bird, serpent, swimmer, crawler)}


def build(species: Species, rng: Stream) -> Body:
    """A body of this class in a random pose, with the middle of its extent at the origin."""
    return centred(PLANS[species.plan](species, rng))


def centred(body: Body) -> Body:
    capsules = [capsule for shape in body.shapes for capsule in shape.capsules]
    across = [x for ax, _, bx, _, _, _ in capsules for x in (ax, bx)]
    upright = [y for _, ay, _, by, _, _ in capsules for y in (ay, by)]
    x, y = -0.5 * (min(across) + max(across)), -0.5 * (min(upright) + max(upright))
    shapes = [replace(shape, capsules=moved(shape.capsules, x, y)) for shape in body.shapes]
    eye_x, eye_y, radius = body.face.eye
    face = Face((eye_x + x, eye_y + y, radius), moved(body.face.mouth, x, y))
    return Body(shapes, face, (body.feet[0] + x, body.feet[1] + y))
