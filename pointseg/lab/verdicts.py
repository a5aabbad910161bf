"""Verdicts on what papers claim: paired differences of rows, with an interval for seeds and images
crossed, of labels object by object and of students image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit  # scipy.stats takes a second to import

from pointseg.data.files import shown
from pointseg.lab.bench import OBJECTS, objects_of
from pointseg.lab.evaluation import by_image
from pointseg.lab.row_names import difference
from pointseg.lab.run_record import RUNS, Run
from pointseg.structures import InputError

HOLDS, CONTRADICTED, UNDECIDED = "holds", "contradicted", "undecided"
OUTSIDE, NOT_RUN = "outside", "not run"
WORST_FIRST = (CONTRADICTED, NOT_RUN, OUTSIDE, UNDECIDED, HOLDS)
LEVEL = 0.95
MOST_SEEDS = 1000  # more would never be run
LACKS = "scores by image would decide, which these runs do not keep"


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

    def as_level(self) -> str:
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class Step:
    """Two neighbours of a claimed order, and what our runs say of them; or one row's own level."""

    below: str | None  # None: the level of `above`
    above: str
    word: str
    effect: Effect | None = None
    needed: int | None = None  # seeds that would decide, where that is undecided
    printed: float | None = None  # the paper's difference, or level
    lacks: str | None = None  # what would decide, where the records cannot
    called: str | None = None  # the pair by what differs between its printed rows

    def __str__(self) -> str:
        name = self.above if self.below is None else f"{self.above} over {self.below}"
        name = self.called or name
        needed = None if self.needed is None else f"{self.needed} seeds would decide"
        sign = "+" if self.below else ""
        paper = None if self.printed is None else f"paper {self.printed:{sign}.1f}"
        known = (f"{name}: {self._size()}", needed, self.lacks, paper)
        return "; ".join(part for part in known if part)

    def _size(self) -> str:
        if self.effect is None:
            return "-"
        return str(self.effect) if self.below else self.effect.as_level()


@dataclass(frozen=True)
class Verdict:
    """What a bed, or students, say of one claim."""

    id: str
    says: str
    bed: str | None  # None: students
    word: str
    steps: tuple[Step, ...]
    missed: tuple[str, ...] = ()  # gates of the bed that the claim needs

    @property
    def place(self) -> str:
        return "students" if self.bed is None else self.bed

    def __str__(self) -> str:
        shown = "; ".join(str(step) for step in self.steps if step.effect or step.lacks)
        gates = f"; misses {', '.join(self.missed)}" if self.missed else ""
        return f"{self.word:16} {self.id} on {self.place}: {self.says}{gates}" + (
            f"  ({shown})" if shown else ""
        )


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
    return float(stdtrit(free, (1 + LEVEL) / 2) * math.sqrt(variance / size))


@dataclass(frozen=True)
class Spread:
    """How far a row's mean would move (a standard deviation) with what was drawn."""

    mean: float
    by_seed: float | None  # with another seed; None of one seed
    by_image: float  # with as many other images of the same kind


def spread_of(table: np.ndarray, counts: np.ndarray) -> Spread:
    """Of values [seeds, images], means of `counts` objects each; both crossed, as in `two_way`."""
    cells = table * (counts / counts.mean())
    seeds, images = cells.shape
    by_seed = float(cells.mean(1).std(ddof=1)) if seeds > 1 else None
    return Spread(cells.mean(), by_seed, float(cells.mean(0).std(ddof=1) / math.sqrt(images)))


def spread_on(bed: str, row: str, score: str, runs: Path = RUNS) -> Spread | None:
    """Of a score of the things of a row on a bed; None where it was not run."""
    level = _level(ended_in(runs / f"bench-{bed}" / row), score)
    return None if level is None else spread_of(*level)


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
    more = np.arange(seeds, MOST_SEEDS + 1)
    reach = stdtrit(more - 1, (1 + LEVEL) / 2) * np.sqrt(by_seed / more + by_image)
    enough = more[abs(effect.mean) > reach]
    return int(enough[0]) if len(enough) else None


def paired(above: Sequence[Run], below: Sequence[Run], gains: Gains) -> tuple | None:
    """(differences [seeds, images] in points, objects an image) on the seeds that both rows have;
    None where there is none."""
    seeds = sorted({run.folder.name for run in above} & {run.folder.name for run in below})
    rows = []
    for seed in seeds:
        a, b = (next(r for r in runs if r.folder.name == seed) for runs in (above, below))
        rows.append(gains(a, b))
    return _stacked(rows, above)


def _stacked(rows: Sequence[ByImage], runs: Sequence[Run]) -> tuple | None:
    if not rows:
        return None
    if not len(rows[0].images):
        raise InputError(f"{runs[0].folder.parent}: no thing was scored")
    if not all(np.array_equal(row.images, rows[0].images) for row in rows):
        raise InputError(f"{runs[0].folder.parent}: its seeds were scored on other images")
    return np.stack([row.values for row in rows]), rows[0].counts


@dataclass(frozen=True)
class ByImage:
    """Means of what the images of one seed hold."""

    images: np.ndarray
    counts: np.ndarray  # things in each
    values: np.ndarray

    @classmethod
    def of_things(cls, table: dict, values: np.ndarray) -> ByImage:
        """From values of objects, in percent points; an object that has none counts as nothing
        found there."""
        thing = table["contact"] != "stuff"
        images, which = np.unique(table["image"][thing], return_inverse=True)
        counts = np.bincount(which)
        return cls(images, counts, np.bincount(which, np.nan_to_num(values)[thing]) / counts)


Gains = Callable[[Run, Run], ByImage]  # of the first of two runs of one seed over the second


def label_gains(score: str, group: Callable[[dict], np.ndarray] | None = None) -> Gains:
    """Differences of a score of the bench, object by object; of all, or of those that `group`
    marks."""

    def gains(above: Run, below: Run) -> ByImage:
        a, b = (scored_objects(run, score) for run in (above, below))
        for key in ("image", "target"):
            if not np.array_equal(a[key], b[key]):
                row = above.folder
                raise InputError(f"{row}: another row of its bed and seed scored other objects")
        differences = 100 * (np.nan_to_num(a[score]) - np.nan_to_num(b[score]))
        kept = slice(None) if group is None else group(a)
        return ByImage.of_things({k: v[kept] for k, v in a.items()}, differences[kept])

    return gains


@lru_cache(maxsize=512)  # an order after another compares the same rows
def _objects(run: Run, path: Path, stamp: int | None) -> dict[str, np.ndarray]:
    return objects_of(run)


def scored_objects(run: Run, score: str) -> dict[str, np.ndarray]:
    """The objects of a run on the bench, which have a score."""
    path = (run.folder / OBJECTS).absolute()
    table = _objects(run, path, path.stat().st_mtime_ns if path.exists() else None)
    if score not in table:
        raise InputError(f"{run.folder}: has no {shown(score)} of its objects")
    return table


def student_gains(score: str) -> Gains:
    """Differences of what each image adds to a score of students, such as val/PQ."""

    def gains(above: Run, below: Run) -> ByImage:
        a, b = by_image(above, score), by_image(below, score)
        if len(a) != len(b) or _images_of(above, score) != _images_of(below, score):
            raise InputError(f"{above.folder}: another row of its seed was scored on other images")
        return ByImage(np.arange(len(a)), np.ones(len(a), int), a - b)

    return gains


def _images_of(run: Run, score: str) -> str | None:
    """Hash of the images that a score was taken on."""
    part = "train" if score.startswith("labels/") else "scored"
    return run.read("data.json").get(part, {}).get("sha256")


def judge(claim: dict[str, Any], bed: str, runs: Path = RUNS) -> Verdict:
    """A claim of the form {id, says, score, rows, printed, gates} on one bed."""
    ended = {row: ended_in(runs / f"bench-{bed}" / row) for row in claim["rows"]}
    steps = steps_of(claim, ended, label_gains(claim["score"]))
    word = worst({step.word for step in steps})
    gates = claim.get("gates", []) if word != NOT_RUN else []
    missed = tuple(missed_gates(gates, bed, runs))
    word = OUTSIDE if missed else word
    return Verdict(claim["id"], claim["says"], bed, word, steps, missed)


def judge_students(claim: dict[str, Any], ended: Mapping[str, Sequence[Run]]) -> Verdict:
    """The same by the runs of students, given by row."""
    score = claim["of_students"]
    ended = {row: ended.get(row, ()) for row in claim["rows"]}
    steps = steps_of(claim, ended, student_gains(score), lambda run: by_image(run, score))
    return Verdict(claim["id"], claim["says"], None, worst({step.word for step in steps}), steps)


def worst(words: set[str]) -> str:
    return next((word for word in WORST_FIRST if word in words), NOT_RUN)


def steps_of(
    claim: dict[str, Any], ended: Mapping[str, Sequence[Run]], gains: Gains,
    kept: Callable[[Run], Any] = lambda run: True,
) -> tuple[Step, ...]:  # fmt: skip
    """Each pair of neighbours; `kept` is None for a run without scores by image."""
    steps = []
    for k, (below, above) in enumerate(pairwise(claim["rows"])):
        step = Step(below, above, NOT_RUN, **beside(claim, k))
        runs = [[run for run in ended[row] if kept(run) is not None] for row in (above, below)]
        pair = paired(*runs, gains)
        if pair is None and all(ended[row] for row in (above, below)):
            steps.append(replace(step, word=UNDECIDED, lacks=LACKS))
        else:
            steps.append(step if pair is None else _measured(step, pair))
    return tuple(steps)


def beside(claim: dict[str, Any], k: int) -> dict[str, Any]:
    """What the paper has on the k-th pair of a claim: its difference, and what tells them apart."""
    printed, called = claim.get("printed"), claim.get("called")
    return {
        "printed": None if printed is None else round(printed[k + 1] - printed[k], 3),
        "called": None if called is None else called[k],
    }


def _measured(step: Step, pair: tuple) -> Step:
    effect = two_way(*pair)
    word = word_of(effect)
    needed = seeds_needed(*pair) if word == UNDECIDED else None
    lacks = "one seed" if effect.seeds < 2 else None
    return replace(step, word=word, effect=effect, needed=needed, lacks=lacks)


def judge_statement(statement: dict[str, Any], bed: str, runs: Path = RUNS) -> Verdict:
    """A claimed level: whether ours lies between two limits that were fixed before."""
    row, score = statement["row"], statement["score"]
    ended = ended_in(runs / f"bench-{bed}" / row)
    level = _level(ended, score)
    says, printed = statement["says"], statement["value"]
    if level is None:
        step = Step(None, row, NOT_RUN, printed=printed)
    else:
        effect = two_way(*level)
        word = within(effect, statement["at_least"], statement["at_most"])
        step = Step(None, row, word, effect, printed=printed)
    return Verdict(statement["id"], says, bed, step.word, (step,))


def _level(ended: Sequence[Run], score: str) -> tuple | None:
    """(values [seeds, images] in points, objects an image) of a row's things; None of no run."""
    tables = [scored_objects(run, score) for run in ended]
    return _stacked([ByImage.of_things(t, 100 * t[score]) for t in tables], ended)


def within(effect: Effect, low: float, high: float) -> str:
    """Whether a level lies between limits; one seed decides nothing."""
    if effect.seeds > 1 and low <= effect.low and effect.high <= high:
        return HOLDS
    outside = effect.high < low or effect.low > high
    return CONTRADICTED if effect.seeds > 1 and outside else UNDECIDED


def missed_gates(gates: Iterable[dict[str, Any]], bed: str, runs: Path) -> list[str]:
    """In words, the gates {row, score, at_least | at_most} that a bed's mean over seeds misses; one
    that has no score is missed. `score` names the score, or several of which the first counts that
    the bed has."""
    readings = [gate_reading(gate, bed, runs) for gate in gates]
    return [reading.complaint for reading in readings if reading.word != HOLDS]


@dataclass(frozen=True)
class GateReading:
    """A gate {name, row, score, at_least | at_most} and what a bed shows, its mean over seeds."""

    name: str
    low: float | None
    high: float | None
    mean: float | None  # None: not measured

    @property
    def word(self) -> str:
        if self.mean is None:
            return NOT_RUN
        below = self.low is not None and self.mean < self.low
        return OUTSIDE if below or (self.high is not None and self.mean > self.high) else HOLDS

    @property
    def demand(self) -> str:
        limits = (("at least", self.low), ("at most", self.high))
        return ", ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)

    @property
    def complaint(self) -> str:
        if self.mean is None:
            return f"{self.name} was not measured"
        return f"{self.name} {self.mean:.1f}, {self.demand} is needed"


def gate_reading(gate: dict[str, Any], bed: str, runs: Path = RUNS) -> GateReading:
    known = _scores(ended_in(runs / f"bench-{bed}" / gate["row"]), gate["score"])
    mean = float(np.mean(known)) if known else None
    return GateReading(gate["name"], gate.get("at_least"), gate.get("at_most"), mean)


def _scores(runs: Sequence[Run], named: str | Sequence[str]) -> list[float]:
    """A score of every run: the first of those named that all of them have."""
    for name in [named] if isinstance(named, str) else named:
        values = [run.metrics.get("bench", {}).get(name) for run in runs]
        if values and None not in values:
            return values
    return []


def ended_in(folder: Path) -> list[Run]:
    runs = [Run(path) for path in sorted(folder.glob("s*"))]
    return [run for run in runs if run.status == "ok"]


def on_bench(claims: dict[str, Any], runs: Path = RUNS, paper: str | None = None) -> list[Verdict]:
    """Every claimed order and statement that the label bench judges, on each of its beds; those of
    one paper, or of all."""

    def judged(kind: str) -> list[tuple[dict[str, Any], str]]:
        mine = [each for each in claims.get(kind, []) if paper in (None, each["id"].split("-")[0])]
        return [(each, bed) for each in mine for bed in each.get("beds", ())]

    orders = [judge(claim_of(order, claims), bed, runs) for order, bed in judged("orders")]
    return orders + [judge_statement(each, bed, runs) for each, bed in judged("statements")]


def claim_of(order: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    """An order of claims.yml with our rows and the printed numbers in the place of row numbers."""
    place = (order["paper"], order["table"])
    beside = (m for m in claims["measured"] if (m["paper"], m["table"]) == place)
    measured = {m["row"]: m for m in beside if order["column"] in m["scores"]}
    table = next(t for t in claims["papers"][place[0]]["tables"] if t["id"] == place[1])
    return {
        "id": order["id"], "says": order["says"], "score": order.get("score", "iou"),
        "of_students": measured[order["rows"][0]]["scores"][order["column"]],
        "rows": order.get("ours") or [measured[row]["ours"] for row in order["rows"]],
        "printed": [table["rows"][row][order["column"]] for row in order["rows"]],
        "called": [difference(table, up, low) for low, up in pairwise(order["rows"])],
        "gates": claims["gates"][order["gates"]] if "gates" in order else [],
    }  # fmt: skip
