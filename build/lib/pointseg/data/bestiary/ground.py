"""The ground: textured, irregular regions of the stuff classes."""

from __future__ import annotations

import numpy as np

from pointseg.data.bestiary.arith import Stream, clouds, noise, ramp, skyline, wave
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
    """[size, 1] heights from the top, 0..1."""
    return ((np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size))[:, None]


def sky(rng: Stream, size: int) -> np.ndarray:
    top, bottom = rng.choice(SKIES)
    drift = (
        noise(rng, size, 6, 3) * 0.5
        + noise(rng, size, 13, 7) * 0.32
        + noise(rng, size, 27, 17) * 0.18
    )
    puffs = ramp(drift, 0.5, 0.85) * np.float32(0.75)
    image = blend(top, bottom, np.clip(down(size) * 1.6 + 0.1 * drift, 0, 1))
    return image + (np.float32(1) - image) * puffs


def water(rng: Stream, size: int) -> np.ndarray:
    deep, light = rng.choice(WATERS)
    swell = noise(rng, size, 5, 2)
    ripples = wave(down(size) * (11 + 4 * rng.random()) + swell * 1.8 + noise(rng, size, 10, 5))
    glints = ramp(noise(rng, size, 48, 9), 0.72, 0.9)
    return blend(deep, light, ripples * 0.5 + swell * 0.25) + glints * ripples * np.float32(0.3)


def meadow(rng: Stream, size: int) -> np.ndarray:
    dark, light = rng.choice(MEADOWS)
    image = blend(dark, light, clouds(rng, size, 4) * 0.75 + noise(rng, size, 22, 50) * 0.45 - 0.1)
    for _ in range(rng.integer(18)):
        bloom(image, rng.random(), rng.random(), rng.uniform(0.006, 0.012), rng.choice(PETALS))
    return image


def bloom(image: np.ndarray, x: float, y: float, radius: float, colour: str) -> None:
    """A small round flower on image [3, h, w], in place."""
    size = image.shape[-1]
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
    image[window] += (rgb(colour)[:, None, None] - image[window]) * share


def sand(rng: Stream, size: int) -> np.ndarray:
    dark, light = rng.choice(SANDS)
    dunes = clouds(rng, size, 2.5)
    ripples = wave(down(size) * 16 + dunes * 6 + noise(rng, size, 3, 6) * 2)
    return blend(dark, light, dunes * 0.6 + ripples * 0.28 + noise(rng, size, 60, 60) * 0.14)


def rock(rng: Stream, size: int) -> np.ndarray:
    dark, light = rng.choice(ROCKS)
    lumps = clouds(rng, size, 6)
    ridge = noise(rng, size, 7, 5) - noise(rng, size, 9, 7)
    cracks = 1.0 - ramp(ridge * ridge, 0.0, 0.006)
    return blend(dark, light, lumps * 1.3 - 0.15) * (1.0 - cracks * np.float32(0.4))


def wood(rng: Stream, size: int) -> np.ndarray:
    dark, light = rng.choice(WOODS)
    crowns = noise(rng, size, 13, 13)
    leaves = noise(rng, size, 40, 40)
    return blend(dark, light, ramp(crowns * 0.75 + leaves * 0.35, 0.2, 0.9)) * (
        0.75 + 0.25 * crowns
    )


TEXTURES = (sky, water, meadow, sand, rock, wood)


def lay(image, label, share: np.ndarray, stuff: int, rng: Stream, recolour) -> None:
    """Lays one stuff over image [3, h, w] and label [h, w] where share [h, w] is 1; in place."""
    texture, top = TEXTURES[stuff](rng, len(label)), int(share.any(1).argmax())
    patch = image[:, top:]
    texture = recolour(texture[:, top:])
    texture -= patch
    texture *= share[top:]
    patch += texture
    label[share >= 0.5] = stuff


def below(line: np.ndarray) -> np.ndarray:
    """[h, w] share of each pixel below a line of heights [w] in 0..1."""
    size = len(line)
    return np.clip((down(size) - line[None, :]) * np.float32(size) + np.float32(0.5), 0.0, 1.0)


def blob(rng: Stream, size: int, x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """[h, w] share of an irregular patch around (x, y)."""
    across = (down(size).T - np.float32(x)) / np.float32(rx)
    upright = (down(size) - np.float32(y)) / np.float32(ry)
    inside = 1.0 - across * across - upright * upright + (noise(rng, size, 5, 5) - 0.5) * 1.3
    return np.clip(inside * np.float32(size * ry * 0.5) + np.float32(0.5), 0.0, 1.0)


def landscape(rng: Stream, size: int, recolour=lambda texture: texture):
    """Image [3, h, w] float32, stuff label [h, w] int64, height where the open ground begins."""
    image, label = np.zeros((3, size, size), np.float32), np.zeros((size, size), np.int64)
    open_sky = rng.chance(0.8)
    horizon = rng.uniform(0.2, 0.5) if open_sky else -0.1
    image += recolour(sky(rng, size))
    if open_sky and rng.chance(0.65):
        line = horizon - rng.uniform(0.04, 0.14) + skyline(rng, size, 4) * rng.uniform(0.05, 0.12)
        far = WOOD if rng.chance(0.6) else ROCK
        lay(image, label, below(line.astype(np.float32)), far, rng, recolour)
    front = rng.integer(4)
    line = horizon + skyline(rng, size, 2.5) * rng.uniform(0.02, 0.07)
    lay(image, label, below(line.astype(np.float32)), GROUNDS[front], rng, recolour)
    if not open_sky or rng.chance(0.6):
        other = GROUNDS[(front + 1 + rng.integer(3)) % 4]
        lay(image, label, patch(rng, size, horizon), other, rng, recolour)
    return image, label, horizon


def patch(rng: Stream, size: int, horizon: float) -> np.ndarray:
    """[h, w] share of a pond, a bank or a near shore on the open ground."""
    if rng.chance(0.5):
        line = rng.uniform(horizon + 0.2, 0.9) + skyline(rng, size, 2) * 0.14
        return below(line.astype(np.float32))
    y = rng.uniform(horizon + 0.2, 0.92)
    share = blob(rng, size, rng.random(), y, rng.uniform(0.2, 0.42), rng.uniform(0.1, 0.2))
    return share * below(np.full(size, horizon + 0.08, np.float32))


def trunk(
    rng: Stream, size: int, x: float, foot: float, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """The stem of a tree in front: share [h, w] and bark [3, h, w]; it stands at `foot`."""
    y, across = down(size), down(size).T
    flare = np.maximum(y - np.float32(foot - 0.1), 0.0) * np.float32(3.0 * width)
    middle = np.float32(x) + (skyline(rng, size, 2) * np.float32(0.02))[:, None]
    half = (
        np.float32(width / 2)
        + flare
        + (noise(rng, size, 9, 2)[:, :1] - 0.5) * np.float32(width * 0.15)
    )
    across_stem = (across - middle) / half
    edge = (1.0 - np.sqrt(across_stem * across_stem)) * half * np.float32(size)
    hem = np.float32(foot) + (noise(rng, size, 2, 24)[:1] - 0.5) * np.float32(0.02)
    share = np.clip(edge + 0.5, 0.0, 1.0) * np.clip((hem - y) * np.float32(size) + 0.5, 0.0, 1.0)
    bark = (
        wave(across_stem * 1.7 + noise(rng, size, 14, 4) * 1.6) * 0.6
        + noise(rng, size, 40, 12) * 0.4
    )
    low, high = rng.choice(BARKS)
    return share, blend(low, high, bark) * (1.0 - 0.35 * ramp(across_stem, 0.2, 1.0))


def leaves(rng: Stream, size: int, x: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """The crown of that tree, at the upper edge of the image: share [h, w] and image [3, h, w]."""
    share = blob(rng, size, x, -0.04, 0.12 + 2.2 * width, 0.1 + 0.9 * width)
    return share, wood(rng, size)
