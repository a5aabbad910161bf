"""How often rules for an interval hold the truth, and what one seed says beside all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second to import

from pointseg.lab.verdicts import claim_of, ended_in, label_gains, paired, two_way

RULES = ("t over seeds", "images within seeds", "images", "seeds and images crossed")


def drawn(rng: np.random.Generator, seeds: int, by_seed: float, images: int = 100) -> np.ndarray:
    """[seeds, images] differences whose truth is 0; an image moves them by 3, the rest by 6."""
    image, rest = 3 * rng.normal(size=(1, images)), 6 * rng.normal(size=(seeds, images))
    return by_seed * rng.normal(size=(seeds, 1)) + image + rest


def reaches(table: np.ndarray) -> list[float]:
    """Half the width of the interval of each of RULES; the bootstrap of a mean is as wide as its
    normal limit."""
    seeds, images = table.shape
    by_seed = stdtrit(seeds - 1, 0.975) * table.mean(1).std(ddof=1) / seeds**0.5
    within = 1.96 * (table.var(axis=1) / images).mean() ** 0.5 / seeds**0.5
    joint = 1.96 * table.mean(0).std() / images**0.5
    crossed = two_way(table, np.ones(images))
    return [by_seed, within, joint, (crossed.high - crossed.low) / 2]


def coverage(rng: np.random.Generator, draws: int, seeds: int, by_seed: float) -> np.ndarray:
    """[4] percent of intervals of each rule that hold the truth."""
    tables = [drawn(rng, seeds, by_seed) for _ in range(draws)]
    return 100 * np.mean([[abs(t.mean()) < reach for reach in reaches(t)] for t in tables], axis=0)


def seed_by_seed(claims: dict[str, Any], runs: Path, bed: str) -> Iterator[tuple]:
    """(name, effect over all seeds, [seeds] effects of each alone) of every claimed pair on a bed;
    pairs that label alike are left out."""
    for order in claims["orders"]:
        names = claim_of(order, claims)["rows"] if bed in order.get("beds", ()) else ()
        for below, above in pairwise(names):
            rows = [ended_in(runs / f"bench-{bed}" / row) for row in (above, below)]
            pair = paired(*rows, label_gains(order.get("score", "iou")))
            if pair is not None and pair[0].any():
                each = (pair[0] * pair[1] / pair[1].mean()).mean(1)
                yield f"{above} over {below}", two_way(*pair), each


def agreeing(each: Sequence[float]) -> int:
    """Seeds whose effect has the sign of their mean."""
    return int((np.sign(each) == np.sign(np.mean(each))).sum())
