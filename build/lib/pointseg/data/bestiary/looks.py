"""Looks: colour and texture of a part. Classes share looks, so no part gives its class away."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pointseg.data.bestiary.arith import cosine, ramp, sine, wave


@lru_cache(4096)
def rgb(code: str) -> np.ndarray:
    """[3] float32 in 0..1 of a colour written as six hex digits; not to be written to."""
    colour = np.array([int(code[k : k + 2], 16) for k in (0, 2, 4)], np.float32) / np.float32(255)
    colour.flags.writeable = False
    return colour


def code_of(colour: np.ndarray) -> str:
    """Six hex digits of a colour [3] in 0..1."""
    return "".join(f"{int(value * 255.0 + 0.5):02x}" for value in np.clip(colour, 0.0, 1.0))


def tinted(colour: np.ndarray, turn: float, saturation: float, brightness: float) -> np.ndarray:
    """Colours [3, ...] with their hue turned; in YIQ a turn keeps the brightness."""
    r, g, b = colour
    y = (0.299 * r + 0.587 * g + 0.114 * b) * brightness
    i, q = 0.596 * r - 0.274 * g - 0.322 * b, 0.211 * r - 0.523 * g + 0.312 * b
    c, s = (float(wave(turn) * saturation * brightness) for wave in (cosine, sine))
    i, q = i * c - q * s, i * s + q * c
    return np.stack([y + 0.956 * i + 0.621 * q, y - 0.272 * i - 0.647 * q,
                     y - 1.106 * i + 1.703 * q])  # fmt: skip


@dataclass(frozen=True)
class Look:
    """`base` with a `pattern` in `second`; `pitch` patterns fit in one body length."""

    base: str
    second: str
    pattern: str
    pitch: float = 6.0


def plain(u, v):
    return np.zeros_like(u)


def stripes(u, v):
    return ramp(wave(u + 0.25 * wave(v * 0.5)), 0.62, 0.8)


def rings(u, v):
    return ramp(wave(u), 0.4, 0.6)


def dots(u, v):
    row = np.floor(v)
    x = u + 0.5 * (row - 2.0 * np.floor(row * 0.5))
    x, y = x - np.floor(x) - 0.5, v - row - 0.5
    return 1.0 - ramp(x * x + y * y, 0.06, 0.13)


def scales(u, v):
    row = np.floor(v)
    x = u + 0.5 * (row - 2.0 * np.floor(row * 0.5))
    x, y = x - np.floor(x) - 0.5, v - row
    return ramp(x * x * 2.0 + y * y, 0.35, 0.75)


def checks(u, v):
    return ramp(wave(0.5 * (u + v)) + wave(0.5 * (u - v)), 1.05, 1.3)


def patches(u, v):
    return ramp(
        wave(0.31 * u + 0.23 * v + 0.4 * wave(0.4 * v)) + wave(0.27 * v - 0.17 * u), 1.0, 1.15
    )


def feathers(u, v):
    return ramp(wave(u), 0.1, 0.45) * 0.65


PATTERNS = {f.__name__: f for f in (plain, stripes, rings, dots, scales, checks, patches, feathers)}

HEADS = {
    "cream": Look("f4e2b8", "a8703f", "dots", 9),
    "crimson": Look("cf3a4c", "f6c9ae", "stripes", 6),
    "teal": Look("1f9191", "c9eedd", "plain"),
    "violet": Look("8453bd", "e0c4f2", "patches", 12),
    "orange": Look("ee8f2f", "fff1d0", "stripes", 5),
    "charcoal": Look("3d3f50", "a5abc4", "dots", 8),
}
TORSOS = {
    "royal": Look("2b4596", "efcd63", "stripes", 5),
    "rose": Look("dd6890", "fde8dd", "dots", 6),
    "emerald": Look("27785a", "b6dc6e", "scales", 7),
    "ochre": Look("d9a042", "6d3d1f", "patches", 7),
    "ice": Look("6cb2d9", "edf8fc", "scales", 6),
    "maroon": Look("812c3e", "e8b05e", "checks", 6),
}
LIMBS = {
    "lemon": Look("ecd450", "6a531f", "rings", 5),
    "brown": Look("7c4c2c", "dcb98f", "rings", 6),
    "magenta": Look("c6429b", "f6bfe2", "plain"),
    "slate": Look("4d617e", "ced9e8", "rings", 5),
    "coral": Look("e55d31", "ffd6aa", "plain"),
}
TAILS = {
    "magpie": Look("2b2b36", "f2eee2", "rings", 5),
    "flame": Look("eab630", "b03e20", "rings", 3),
    "plum": Look("6c41a4", "e9cff7", "dots", 9),
    "fern": Look("419d53", "edf4ae", "rings", 5),
}
WINGS = {
    "swan": Look("f0f3f8", "86a2d4", "feathers", 9),
    "leather": Look("ab343d", "f29562", "feathers", 5),
    "amber": Look("f3ae40", "b7452e", "feathers", 8),
}
CRESTS = {
    "ivory": Look("f5edd7", "b89e6d", "rings", 10),
    "scarlet": Look("dc323e", "ffa385", "plain"),
    "indigo": Look("41439f", "aeb8ff", "rings", 8),
    "mint": Look("82d9b4", "2f8f74", "plain"),
}
BEAK = Look("f2a93c", "c46a1e", "plain")


def paint(
    look: Look, u: np.ndarray, v: np.ndarray, pixels_a_unit: float, gain: np.ndarray
) -> np.ndarray:
    """[3, h, w] colour at local u, v [h, w]; the pattern fades where the pixels cannot hold it."""
    base, second = rgb(look.base) * gain, rgb(look.second) * gain
    fade = min(max(pixels_a_unit / look.pitch / 2.0 - 0.6, 0.0), 1.0)
    pattern = PATTERNS[look.pattern](u * np.float32(look.pitch), v * np.float32(look.pitch))
    pattern *= np.float32(fade)
    pattern += np.float32(0.3 * (1.0 - fade) * (look.pattern != "plain"))
    colour = (second - base)[:, None, None] * pattern
    colour += base[:, None, None]
    return colour
