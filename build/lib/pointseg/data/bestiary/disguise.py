"""Ground, rocks and plants that borrow creatures' looks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pointseg.data.bestiary.arith import Stream, cosine, noise, sine
from pointseg.data.bestiary.bodies import Body
from pointseg.data.bestiary.edition import Disguise, Individual
from pointseg.data.bestiary.ground import ROCK, WOOD, down
from pointseg.data.bestiary.individual import WARDROBE, departed
from pointseg.data.bestiary.looks import paint, tinted
from pointseg.data.bestiary.members import Capsule, Shape, chain

SOFT = 0.03  # of the noise, over which a borrowed look begins
WHITE = np.ones(3, np.float32)


def recolour(rng: Stream, disguise: Disguise) -> Callable[[np.ndarray], np.ndarray]:
    """A function that turns the hues of a texture [3, h, w], anew at each call."""

    def turned(texture: np.ndarray) -> np.ndarray:
        turn = rng.uniform(-disguise.turn, disguise.turn)
        ranges = (disguise.saturation, disguise.brightness)
        return tinted(texture, turn, *(rng.uniform(*each) for each in ranges))

    return turned


def borrow(image: np.ndarray, rng: Stream, disguise: Disguise, ways: Individual) -> None:
    """Lays two creatures' looks over the hills and the hollows of a noise, on image [3, h, w] in
    place; its own shades stay."""
    size = image.shape[-1]
    field = noise(rng, size, 3, 3) + noise(rng, size, 8, 8) * np.float32(0.4)
    heights = np.sort(field[::4, ::4].ravel())
    ends = int(0.5 * disguise.share * len(heights))
    for limit, far in ((heights[ends], -SOFT), (heights[-ends - 1], SOFT)):
        share = np.clip((field - limit) * np.float32(1.0 / far), 0.0, 1.0)
        look = departed(rng.choice(WARDROBE), rng, ways, 0.0)
        length = rng.uniform(0.2, 0.45)
        u, v = turned_grid(size, rng.random(), length)
        pattern = paint(look, u, v, length * size, WHITE)
        pattern *= np.float32(0.62) + np.float32(0.65) * image[1]
        pattern -= image
        pattern *= share
        image += pattern


def turned_grid(size: int, turn: float, length: float) -> tuple[np.ndarray, np.ndarray]:
    """u, v [size, size] in lengths, turned."""
    y, c, s = down(size), cosine(turn) / length, sine(turn) / length
    x = y.T
    return x * np.float32(c) + y * np.float32(s), y * np.float32(c) - x * np.float32(s)


def boulder(rng: Stream) -> list[Capsule]:
    lean = rng.uniform(-0.3, 0.3)
    return [
        (-0.5, 0.0, 0.4, 0.05, 0.5, 0.55),
        (lean - 0.2, -0.25, lean + 0.3, -0.3, 0.5, 0.4),
    ]


def bush(rng: Stream) -> list[Capsule]:
    balls = [(rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.3), rng.uniform(0.25, 0.4))
             for _ in range(6)]  # fmt: skip
    return [(x, y, x, y, r, r) for x, y, r in balls]


def fronds(rng: Stream) -> list[Capsule]:
    """Long leaves out of one root."""
    return [
        leaf
        for k in range(5)
        for leaf in chain(
            0.0, 0.5, -0.25 + 0.06 * (k - 2), [0.6, 0.6], [0.1, 0.14, 0.05],
            [0, rng.uniform(-0.01, 0.05) * (k - 2)],
        )
    ]  # fmt: skip


KINDS = (boulder, bush, fronds)
STUFF_OF = (ROCK, WOOD, WOOD)


def decoy(kind: int, rng: Stream, ways: Individual) -> Body:
    look = departed(rng.choice(WARDROBE), rng, ways, rng.uniform(-ways.turn, ways.turn))
    capsules = KINDS[kind](rng)
    shape = Shape(None, look, capsules, blend=0.1 * (kind == 0), along=kind == 2)
    return Body([shape], None, (0.0, 0.5))
