"""Bestiary, the embedded benchmark: creatures of unlike parts on textured ground.

Twelve classes share the looks of their parts: the same head sits on two classes, the same torso on
two others. One part alone betrays neither the class nor the extent of a creature. Image `index`
depends on (seed, split, index) alone, bit for bit on every platform. The first edition is the easy
tier, the second as hard as photographs.
"""

from pointseg.data.bestiary.draw import CATEGORIES, STUFF, THINGS, Scene, draw
from pointseg.data.bestiary.edition import EDITION_NAMED
from pointseg.data.bestiary.species import PARTS, SPECIES
from pointseg.data.bestiary.write import make

__all__ = [
    "CATEGORIES",
    "EDITION_NAMED",
    "PARTS",
    "SPECIES",
    "STUFF",
    "THINGS",
    "Scene",
    "draw",
    "make",
]
