"""The ground: textured, irregular regions of the stuff classes."""

from __future__ import annotations

import numpy as np

from pointseg.data.bestiary.arith import Dice, clouds, noise, ramp, skyline, wave
from pointseg.data.bestiary.looks import rgb

STUFF_NAMES = ("sky", "water", "meadow", "sand", "rock", "wood")
SKY, WATER, MEADOW, SAND, ROCK, WOOD = range(6)
GROUNDS = (MEADOW, SAND, WATER, ROCK)

SKIES = (
    ("5c9fd6", "d3e8f2"),
    ("7db4dd", "f4ecd8"),
    ("6f6bb0", "f2b8a2"),
    ("8b9fb8", "dfe3e2"),
    ("e19a76", "f8e2b4"),
)
WATERS = (("2c6d92", "6fb3c4"), ("1f7f8c", "7cc9bd"), ("3d5f9a", "86aeda"))
MEADOWS = (("5e8f3f", "9dbf5a"), ("4f8347", "86b46a"), ("8a9a3f", "c3c46b"))
SANDS = (("cfa766", "ecd6a0"), ("d9b98a", "f3e3c0"), ("bf8a5a", "e6bf8c"))
ROCKS = (("6f6c74", "a9a5a6"), ("7b6a5e", "b5a492"), ("5c6672", "98a4ae"))
BARKS = (("4a3424", "86623f"), ("55483f", "94826f"), ("3d2b2a", "7a4f40"))
PETALS = ("fff6dc", "f7df72", "f1a9c6", "ffffff")
WOODS = (("2f5a3c", "5a8a4a"), ("3f5230", "7a8a44"), ("74502f", "c07f3a"))


def blend(low: str, high: str, share: np.ndarray) -> np.ndarray:
    """[3, h, w] between two colours."""
    a, b = rgb(low)[:, None, None], rgb(high)[:, None, None]
    return a + (b - a) * share


def down(size: int) -> np.ndarray:
    """[size, 1] place from the top, 0..1."""
    return ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size))[:, None]


def sky(dice: Dice, size: int) -> np.ndarray:
    top, bottom = dice.pick(SKIES)
    drift = (
        noise(dice, size, 6, 3) * 0.5
        + noise(dice, size, 13, 7) * 0.32
        + noise(dice, size, 27, 17) * 0.18
    )
    puffs = ramp(drift, 0.5, 0.85) * np.float32(0.75)
    picture = blend(top, bottom, np.clip(down(size) * 1.6 + 0.1 * drift, 0, 1))
    return picture + (np.float32(1) - picture) * puffs


def water(dice: Dice, size: int) -> np.ndarray:
    deep, light = dice.pick(WATERS)
    swell = noise(dice, size, 5, 2)
    ripples = wave(down(size) * (11 + 4 * dice.unit()) + swell * 1.8 + noise(dice, size, 10, 5))
    glints = ramp(noise(dice, size, 48, 9), 0.72, 0.9)
    return blend(deep, light, ripples * 0.5 + swell * 0.25) + glints * ripples * np.float32(0.3)


def meadow(dice: Dice, size: int) -> np.ndarray:
    dark, light = dice.pick(MEADOWS)
    picture = blend(
        dark, light, clouds(dice, size, 4) * 0.75 + noise(dice, size, 22, 50) * 0.45 - 0.1
    )
    for _ in range(dice.below(18)):
        bloom(picture, dice.unit(), dice.unit(), dice.between(0.006, 0.012), dice.pick(PETALS))
    return picture


def bloom(picture: np.ndarray, x: float, y: float, radius: float, colour: str) -> None:
    """A small round flower on picture [3, h, w], in place."""
    size = picture.shape[-1]
    left, top = (max(int((k - radius) * size) - 1, 0) for k in (x, y))
    window = (
        slice(None),
        slice(top, int((y + radius) * size) + 2),
        slice(left, int((x + radius) * size) + 2),
    )
    across = (down(size).T - np.float32(x))[:, window[2]] * np.float32(size)
    upright = (down(size) - np.float32(y))[window[1]] * np.float32(size)
    share = np.clip(
        np.float32(radius * size + 0.5) - np.sqrt(across * across + upright * upright), 0.0, 1.0
    )
    picture[window] += (rgb(colour)[:, None, None] - picture[window]) * share


def sand(dice: Dice, size: int) -> np.ndarray:
    dark, light = dice.pick(SANDS)
    dunes = clouds(dice, size, 2.5)
    ripples = wave(down(size) * 16 + dunes * 6 + noise(dice, size, 3, 6) * 2)
    return blend(dark, light, dunes * 0.6 + ripples * 0.28 + noise(dice, size, 60, 60) * 0.14)


def rock(dice: Dice, size: int) -> np.ndarray:
    dark, light = dice.pick(ROCKS)
    lumps = clouds(dice, size, 6)
    ridge = noise(dice, size, 7, 5) - noise(dice, size, 9, 7)
    cracks = 1.0 - ramp(ridge * ridge, 0.0, 0.006)
    return blend(dark, light, lumps * 1.3 - 0.15) * (1.0 - cracks * np.float32(0.4))


def wood(dice: Dice, size: int) -> np.ndarray:
    dark, light = dice.pick(WOODS)
    crowns = noise(dice, size, 13, 13)
    leaves = noise(dice, size, 40, 40)
    return blend(dark, light, ramp(crowns * 0.75 + leaves * 0.35, 0.2, 0.9)) * (
        0.75 + 0.25 * crowns
    )


TEXTURES = (sky, water, meadow, sand, rock, wood)


def lay(picture, label, share: np.ndarray, stuff: int, dice: Dice) -> None:
    """Lays one stuff over picture [3, h, w] and label [h, w] where share [h, w] is 1; in place."""
    picture += (TEXTURES[stuff](dice, len(label)) - picture) * share
    label[share >= 0.5] = stuff


def below(line: np.ndarray) -> np.ndarray:
    """[h, w] share of each pixel below a line of heights [w] in 0..1."""
    size = len(line)
    return np.clip((down(size) - line[None, :]) * np.float32(size) + np.float32(0.5), 0.0, 1.0)


def blob(dice: Dice, size: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """[h, w] share of an irregular patch around (x, y)."""
    across = (down(size).T - np.float32(x)) / np.float32(rx)
    upright = (down(size) - np.float32(y)) / np.float32(ry)
    inside = 1.0 - across * across - upright * upright + (noise(dice, size, 5, 5) - 0.5) * 1.3
    return np.clip(inside * np.float32(size * ry * 0.5) + np.float32(0.5), 0.0, 1.0)


def landscape(dice: Dice, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Picture [3, h, w] float32, stuff label [h, w] int64, and the height where the open ground begins."""
    picture, label = np.zeros((3, size, size), np.float32), np.zeros((size, size), np.int64)
    open_sky = dice.chance(0.8)
    horizon = dice.between(0.2, 0.5) if open_sky else -0.1
    lay(picture, label, np.ones((size, size), np.float32), SKY, dice)
    if open_sky and dice.chance(0.65):
        line = (
            horizon - dice.between(0.04, 0.14) + skyline(dice, size, 4) * dice.between(0.05, 0.12)
        )
        lay(
            picture, label, below(line.astype(np.float32)), WOOD if dice.chance(0.6) else ROCK, dice
        )
    front = dice.below(4)
    line = horizon + skyline(dice, size, 2.5) * dice.between(0.02, 0.07)
    lay(picture, label, below(line.astype(np.float32)), GROUNDS[front], dice)
    if not open_sky or dice.chance(0.6):
        other = GROUNDS[(front + 1 + dice.below(3)) % 4]
        lay(picture, label, patch(dice, size, horizon), other, dice)
    return picture, label, horizon


def patch(dice: Dice, size: int, horizon: float) -> np.ndarray:
    """[h, w] share of a pond, a bank or a near shore on the open ground."""
    if dice.chance(0.5):
        line = dice.between(horizon + 0.2, 0.9) + skyline(dice, size, 2) * 0.14
        return below(line.astype(np.float32))
    y = dice.between(horizon + 0.2, 0.92)
    share = blob(dice, size, dice.unit(), y, dice.between(0.2, 0.42), dice.between(0.1, 0.2))
    return share * below(np.full(size, horizon + 0.08, np.float32))


def trunk(
    dice: Dice, size: int, x: float, foot: float, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """The stem of a tree in front: share [h, w] and bark [3, h, w]; `foot` is where it meets the ground."""
    y, across = down(size), down(size).T
    flare = np.maximum(y - np.float32(foot - 0.1), 0.0) * np.float32(3.0 * width)
    middle = np.float32(x) + (skyline(dice, size, 2) * np.float32(0.02))[:, None]
    half = (
        np.float32(width / 2)
        + flare
        + (noise(dice, size, 9, 2)[:, :1] - 0.5) * np.float32(width * 0.15)
    )
    place = (across - middle) / half
    edge = (1.0 - np.sqrt(place * place)) * half * np.float32(size)
    hem = np.float32(foot) + (noise(dice, size, 2, 24)[:1] - 0.5) * np.float32(0.02)
    share = np.clip(edge + 0.5, 0.0, 1.0) * np.clip((hem - y) * np.float32(size) + 0.5, 0.0, 1.0)
    bark = (
        wave(place * 1.7 + noise(dice, size, 14, 4) * 1.6) * 0.6 + noise(dice, size, 40, 12) * 0.4
    )
    low, high = dice.pick(BARKS)
    return share, blend(low, high, bark) * (1.0 - 0.35 * ramp(place, 0.2, 1.0))


def leaves(dice: Dice, size: int, x: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The crown of that tree, at the upper edge of the picture: share [h, w] and picture [3, h, w]."""
    share = blob(dice, size, x, -0.04, 0.12 + 2.2 * width, 0.1 + 0.9 * width)
    return share, wood(dice, size)
