"""Verdicts of the label bench: paired differences with an interval for seeds and images crossed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from pointseg.lab.bench import objects_of
from pointseg.lab.run_record import RUNS, Run
from pointseg.structures import InputError

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
OUTSIDE, NOT_RUN = "outside", "not run"
WORST_FIRST = (CONTRADICTED, NOT_RUN, OUTSIDE, UNDECIDED, HOLDS)
LEVEL = 0.95
MOST_SEEDS = 1000  # more would never be run


@dataclass(frozen=True)
class Effect:
    """A mean paired difference with its interval."""

    mean: float
    low: float
    high: float
    seeds: int
    objects: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True)
class Step:
    """Two neighbours of a claimed order, and what the bench says of them."""

    below: str
    above: str
    word: str
    effect: Effect | None = None
    needed: int | None = None  # seeds that would decide, where that is undecided
    printed: float | None = None  # the paper's difference


@dataclass(frozen=True)
class Verdict:
    """What a bed says of one claim."""

    id: str
    says: str
    bed: str
    word: str
    steps: tuple[Step, ...]
    missed: tuple[str, ...] = ()  # gates of the bed that the claim needs

    def __str__(self) -> str:
        shown = "; ".join(_phrase(step) for step in self.steps if step.effect)
        gates = f"; misses {', '.join(self.missed)}" if self.missed else ""
        return f"{self.word:16} {self.id} on {self.bed}: {self.says}{gates}" + (
            f"  ({shown})" if shown else ""
        )


def _phrase(step: Step) -> str:
    paper = "" if step.printed is None else f"; paper {step.printed:+.1f}"
    needed = "" if step.needed is None else f"; {step.needed} seeds would decide"
    return f"{step.above} over {step.below} {step.effect}{paper}{needed}"


def two_way(table: np.ndarray, counts: np.ndarray) -> Effect:
    """The mean over objects of differences [seeds, images], means of `counts` objects each.

    Seeds and images are crossed random effects: V = (MS_s + MS_i - MS_si) / (S I), no smaller than
    either alone gives, and Satterthwaite's degrees of freedom.
    """
    cells = table * (counts / counts.mean())
    seeds, images = cells.shape
    mean, by_seed, by_image = cells.mean(), cells.mean(1), cells.mean(0)
    rest = cells - by_seed[:, None] - by_image + mean
    parts = {
        "seed": (images * ((by_seed - mean) ** 2).sum(), seeds - 1),
        "image": (seeds * ((by_image - mean) ** 2).sum(), images - 1),
        "rest": ((rest**2).sum(), (seeds - 1) * (images - 1)),
    }
    squares = {name: total / free if free else 0.0 for name, (total, free) in parts.items()}
    crossed = squares["seed"] + squares["image"] - squares["rest"]
    variance = max(crossed, squares["seed"], squares["image"])
    reach = _reach(variance, [(squares[n], free) for n, (_, free) in parts.items()], cells.size)
    return Effect(mean, mean - reach, mean + reach, seeds, int(counts.sum()))


def _reach(variance: float, parts: Sequence[tuple[float, int]], size: int) -> float:
    """Half the width of the interval."""
    below = sum(square**2 / free for square, free in parts if free)
    free = max(variance**2 / below, 1.0) if below else 1.0
    return float(student_t.ppf((1 + LEVEL) / 2, free) * math.sqrt(variance / size))


def word_of(effect: Effect) -> str:
    """One seed decides nothing."""
    if effect.seeds < 2:
        return UNDECIDED
    return HOLDS if effect.low > 0 else CONTRADICTED if effect.high < 0 else UNDECIDED


def seeds_needed(table: np.ndarray, counts: np.ndarray) -> int | None:
    """The fewest seeds whose interval would leave out zero, were the effect and its variances as
    they were measured; None where the images alone leave it open."""
    seeds, images = table.shape
    if seeds < 2:
        return None
    effect = two_way(table, counts)
    cells = table * (counts / counts.mean())
    by_seed = cells.mean(1).var(ddof=1)
    by_image = max(cells.mean(0).var(ddof=1) / images - by_seed / seeds / images, 0.0)
    for more in range(seeds, MOST_SEEDS + 1):
        reach = student_t.ppf((1 + LEVEL) / 2, more - 1) * math.sqrt(by_seed / more + by_image)
        if abs(effect.mean) > reach:
            return more
    return None


def paired(above: Sequence[Run], below: Sequence[Run], score: str) -> tuple | None:
    """(differences [seeds, images] in points, objects an image) on the seeds that both rows have;
    None where there is none."""
    seeds = sorted({run.folder.name for run in above} & {run.folder.name for run in below})
    rows = []
    for seed in seeds:
        a, b = (next(r for r in runs if r.folder.name == seed) for runs in (above, below))
        rows.append(_by_image(objects_of(a), objects_of(b), score, a.folder))
    if not rows:
        return None
    images, counts = rows[0][0], rows[0][1]
    if not all(np.array_equal(row[0], images) for row in rows):
        raise InputError(f"{above[0].folder.parent}: its seeds were scored on other images")
    return np.stack([row[2] for row in rows]), counts


def _by_image(above: dict, below: dict, score: str, row: Path) -> tuple:
    """Images, things in each, and the mean difference of their scores; an object that one row has
    no score of counts as nothing found there."""
    thing = above["contact"] != "stuff"
    for key in ("image", "target"):
        if not np.array_equal(above[key], below[key]):
            raise InputError(f"{row}: another row of its bed and seed scored other objects")
    gain = 100 * (np.nan_to_num(above[score]) - np.nan_to_num(below[score]))[thing]
    images, which = np.unique(above["image"][thing], return_inverse=True)
    counts = np.bincount(which)
    return images, counts, np.bincount(which, gain) / counts


def judge(claim: dict[str, Any], bed: str, runs: Path = RUNS) -> Verdict:
    """A claim of the form {id, says, score, rows, printed, gates} on one bed."""
    ended = {row: _ended(runs / f"bench-{bed}" / row) for row in claim["rows"]}
    steps = tuple(
        _step(below, above, ended, claim, k) for k, (below, above) in enumerate(pairwise(ended))
    )
    word = next(w for w in WORST_FIRST if w in {step.word for step in steps})
    gates = claim.get("gates", []) if word != NOT_RUN else []
    missed = tuple(missed_gates(gates, bed, runs))
    word = OUTSIDE if missed else word
    return Verdict(claim["id"], claim["says"], bed, word, steps, missed)


def _step(below: str, above: str, ended: dict[str, list[Run]], claim: dict, k: int) -> Step:
    printed = claim.get("printed")
    size = None if printed is None else round(printed[k + 1] - printed[k], 3)
    pair = paired(ended[above], ended[below], claim["score"])
    if pair is None:
        return Step(below, above, NOT_RUN, printed=size)
    effect = two_way(*pair)
    word = word_of(effect)
    needed = seeds_needed(*pair) if word == UNDECIDED else None
    return Step(below, above, word, effect, needed, size)


def missed_gates(gates: Iterable[dict[str, Any]], bed: str, runs: Path) -> list[str]:
    """In words, the gates {row, score, at_least | at_most} that a bed's mean over seeds misses; one
    that has no score is missed. `score` names the score, or several of which the first counts that
    the bed has."""
    missed = []
    for gate in gates:
        known = _scores(_ended(runs / f"bench-{bed}" / gate["row"]), gate["score"])
        if not known:
            missed.append(f"{gate['name']} was not measured")
            continue
        mean, low, high = np.mean(known), gate.get("at_least"), gate.get("at_most")
        if (low is not None and mean < low) or (high is not None and mean > high):
            demand = f"at least {low:g}" if low is not None and mean < low else f"at most {high:g}"
            missed.append(f"{gate['name']} {mean:.1f}, {demand} is needed")
    return missed


def _scores(runs: Sequence[Run], named: str | Sequence[str]) -> list[float]:
    """A score of every run: the first of those named that all of them have."""
    for name in [named] if isinstance(named, str) else named:
        values = [run.metrics["bench"].get(name) for run in runs]
        if values and None not in values:
            return values
    return []


def _ended(folder: Path) -> list[Run]:
    runs = [Run(path) for path in sorted(folder.glob("s*"))]
    return [run for run in runs if run.status == "ok"]


def on_bench(claims: dict[str, Any], runs: Path = RUNS) -> list[Verdict]:
    """Every claimed order that the label bench judges, on each of its beds."""
    return [
        judge(claim_of(order, claims), bed, runs)
        for order in claims.get("orders", []) for bed in order.get("beds", ())
    ]  # fmt: skip


def claim_of(order: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    """An order of claims.yml with our rows and the printed numbers in the place of row numbers."""
    place = (order["paper"], order["table"])
    ours = {m["row"]: m["ours"] for m in claims["measured"]
            if (m["paper"], m["table"]) == place and order["column"] in m["scores"]}  # fmt: skip
    table = next(t for t in claims["papers"][place[0]]["tables"] if t["id"] == place[1])
    return {
        "id": order["id"], "says": order["says"], "score": order.get("score", "iou"),
        "rows": [ours[row] for row in order["rows"]],
        "printed": [table["rows"][row][order["column"]] for row in order["rows"]],
        "gates": claims["gates"][order["gates"]] if "gates" in order else [],
    }  # fmt: skip
