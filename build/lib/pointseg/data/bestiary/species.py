"""The twelve classes: which body, which looks, which forms."""

from __future__ import annotations

from dataclasses import dataclass

PARTS = ("torso", "head", "limbs", "tail", "wings", "crest")
TORSO, HEAD, LIMB, TAIL, WING, CREST = range(6)


@dataclass(frozen=True)
class Species:
    """A class: its plan, the names of its parts' looks, and the forms of single parts."""

    name: str
    plan: str
    head: str
    torso: str
    limb: str
    tail: str
    wing: str | None
    crest: str
    form: dict  # head=, crest=, tail=, wing=, stretch=, neck=, leg=, dome=
    bulk: float  # square root of its area in body lengths; brings all classes to like sizes


# Each head, torso and limb look stands on two classes or more (wings and tails as well),
# always in another company.
SPECIES = (
    Species("gryphon", "quadruped", "cream", "ochre", "lemon", "magpie", "swan", "ivory",
            {"head": "beak", "crest": "ears", "tail": "tuft"}, 1.25),
    Species("manticore", "quadruped", "teal", "maroon", "magenta", "flame", "leather", "ivory",
            {"head": "muzzle", "crest": "horns", "tail": "club", "wing": "bat"}, 1.28),
    Species("chimera", "quadruped", "crimson", "royal", "brown", "plum", None, "indigo",
            {"head": "muzzle", "crest": "horns", "tail": "thick"}, 1.09),
    Species("jackalope", "quadruped", "charcoal", "rose", "brown", "fern", None, "mint",
            {"head": "round", "crest": "antlers", "tail": "puff",
             "stretch": 0.8, "neck": 0.18, "leg": 0.4}, 0.95),
    Species("phoenix", "bird", "orange", "maroon", "slate", "plum", "amber", "indigo",
            {"head": "beak", "crest": "plume", "tail": "fan"}, 1.33),
    Species("cockatrice", "bird", "cream", "emerald", "coral", "flame", "leather", "scarlet",
            {"head": "beak", "crest": "comb", "tail": "thin", "wing": "bat"}, 1.17),
    Species("basilisk", "serpent", "violet", "ochre", "brown", "fern", None, "mint",
            {"head": "snout", "crest": "crown", "tail": "thin"}, 0.95),
    Species("wyvern", "serpent", "teal", "rose", "brown", "magpie", "amber", "indigo",
            {"head": "snout", "crest": "horns", "tail": "fork"}, 1.05),
    Species("hippocamp", "swimmer", "orange", "ice", "magenta", "plum", None, "mint",
            {"head": "muzzle", "crest": "ears", "tail": "fork"}, 1.0),
    Species("leviathan", "swimmer", "charcoal", "emerald", "coral", "magpie", None, "scarlet",
            {"head": "round", "crest": "comb", "tail": "fork", "stretch": 1.2}, 1.02),
    Species("tarasque", "crawler", "crimson", "ice", "lemon", "flame", None, "scarlet",
            {"head": "muzzle", "crest": "crown", "tail": "thick", "dome": True}, 1.06),
    Species("myrmex", "crawler", "violet", "royal", "slate", "fern", None, "ivory",
            {"head": "round", "crest": "antennae", "tail": "puff"}, 0.94),
)  # fmt: skip
