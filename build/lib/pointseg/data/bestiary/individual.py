"""An individual: hues, textures and proportions that depart from those of its class."""

from __future__ import annotations

from dataclasses import replace

from pointseg.data.bestiary import ground, looks
from pointseg.data.bestiary.arith import Stream
from pointseg.data.bestiary.bodies import Body
from pointseg.data.bestiary.edition import Individual
from pointseg.data.bestiary.looks import PATTERNS, Look, code_of, rgb, tinted

WARDROBE = tuple(
    look
    for table in (looks.HEADS, looks.TORSOS, looks.LIMBS, looks.TAILS, looks.WINGS, looks.CRESTS)
    for look in table.values()
)
EARTHS = ground.MEADOWS + ground.SANDS + ground.ROCKS + ground.BARKS + ground.WOODS + ground.SKIES


class Limber(Stream):
    """Draws whose ranges are wider by a factor: the poses of a body that bends further."""

    def __init__(self, factor: float, *key) -> None:
        super().__init__(*key)
        self.factor = factor

    def uniform(self, low: float, high: float) -> float:
        middle, half = 0.5 * (low + high), 0.5 * (high - low) * self.factor
        return super().uniform(middle - half, middle + half)


def individual(body: Body, rng: Stream, ways: Individual) -> Body:
    """The body in the looks and the girths of one individual; a part keeps one look."""
    turn = rng.uniform(-ways.turn, ways.turn)
    coats: dict[Look, Look] = {}
    girths: dict[int, float] = {}
    shapes = []
    for shape in body.shapes:
        if shape.look not in coats:
            coats[shape.look] = departed(shape.look, rng, ways, turn)
        if shape.part not in girths:
            girths[shape.part] = rng.uniform(*ways.girth)
        girth = girths[shape.part]
        capsules = [(*ends, ra * girth, rb * girth) for *ends, ra, rb in shape.capsules]
        shapes.append(replace(shape, look=coats[shape.look], capsules=capsules))
    return replace(body, shapes=shapes)


def departed(look: Look, rng: Stream, ways: Individual, turn: float) -> Look:
    """A look with other hues, now and then the colours or the pattern of another one."""
    colours = rng.choice(WARDROBE) if rng.chance(ways.swap) else look
    pattern = rng.choice(sorted(PATTERNS)) if rng.chance(ways.swap) else look.pattern
    turn += 0.5 * rng.uniform(-ways.turn, ways.turn)
    saturation, brightness = rng.uniform(*ways.saturation), rng.uniform(*ways.brightness)
    earth, share = rng.choice(EARTHS), rng.uniform(0.0, ways.earth)
    codes = [
        code_of(tinted(rgb(a), turn, saturation, brightness) * (1.0 - share) + rgb(b) * share)
        for a, b in zip((colours.base, colours.second), earth)
    ]
    return Look(*codes, pattern, look.pitch * rng.uniform(*ways.pitch))
