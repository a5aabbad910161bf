"""From runs/ to what a reader sees: measured values, verdicts on claims, tables, badges.

A verdict is computed, never chosen. At scale paper a printed cell is reproduced or not by a
tolerance fixed before any run. At scale small no value can be compared with a print; there the
order of a table's rows is on trial, by paired differences with intervals.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pointseg.bookkit.equations import REMARK_HEAD, remark_rows
from pointseg.bookkit.markup import Html, breaking, escape, filled, joined
from pointseg.data.measures import is_number
from pointseg.lab import bench
from pointseg.lab.claims import read_claims
from pointseg.lab.plan import Row, beds, rows
from pointseg.lab.run_index import changed
from pointseg.lab.run_record import RUNS, Run, flat, kept_runs, strict
from pointseg.lab.verdicts import (
    CONTRADICTED,
    HOLDS,
    NOT_RUN,
    OUTSIDE,
    UNDECIDED,
    Verdict,
    claim_of,
    gate_reading,
    judge_students,
    on_bench,
    spread_on,
)

REPRODUCED = "reproduced"
FAILED = "not reproduced"
NO_ORDER = "no order claimed"
WORST_FIRST = (FAILED, CONTRADICTED, NOT_RUN, OUTSIDE, UNDECIDED, HOLDS, REPRODUCED, NO_ORDER)
GATE_WORD = {HOLDS: "met", OUTSIDE: "missed"}
HEADLINES = ("val/voc_mAP50_11pt", "val/PQ", "labels/PQ", "labels/mIoU", "bench/iou")
BADGE = {
    HOLDS: "direction",
    CONTRADICTED: "failed",
    UNDECIDED: "none",
    OUTSIDE: "none",
    REPRODUCED: "reproduced",
    FAILED: "failed",
    NO_ORDER: "none",
    NOT_RUN: "none",
    "stale": "stale",
    "carried": "direction",
}


@dataclass(frozen=True)
class Value:
    """One number of ours: a score of one run."""

    run: str
    seed: int
    score: float


@dataclass(frozen=True)
class Cell:
    """One printed number and what our runs say of it."""

    paper: str
    table: str
    row: int
    column: str
    printed: float
    verdict: str
    scale: str | None = None
    values: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.paper} Tab. {self.table} row {self.row + 1} {self.column}"


@dataclass(frozen=True)
class Finished:
    """A run that ended well, the row of the plan that it is a run of, and its scores by name."""

    run: Run
    row: str | None
    recipe: dict[str, Any]
    scores: dict[str, float]


def finished(folder: Path, planned: dict[str, Row] | None = None) -> list[Finished]:
    """Every kept run of an experiment that ended well."""
    planned = rows() if planned is None else planned
    wanted = {_whole(json.loads(row.recipe.to_json())): name for name, row in planned.items()}
    done = []
    for run in kept_runs(folder):
        recipe, result = run.read("recipe.json"), run.result
        if result.get("status") == "ok" and "stages" in recipe:
            scores = flat(result.get("metrics", {}))
            done.append(Finished(run, wanted.get(_whole(recipe)), recipe, scores))
    return done


def _whole(recipe: dict[str, Any]) -> str:
    """All of a recipe but its seed: a run joins the row whose recipe is this one, and no other."""
    return json.dumps(strict({**recipe, "seed": None}), sort_keys=True)


def newest(folder: Path, notebook: str) -> Run | None:
    """The run of a notebook that finished last."""
    runs = [r for r in kept_runs(folder) if r.result.get("notebook") == notebook]
    ended = [run for run in runs if run.status == "ok"]
    return max(ended, key=lambda run: run.result.get("finished", ""), default=None)


def source(run: Run | None) -> str:
    """A link to a run, or a word where there is none."""
    if run is None:
        return "no run yet"
    return filled('<a href="runs.html#{}"><code>{}</code></a>', run.id, run.id)


def source_line(run: Run | None) -> str:
    """A sentence with a link to a run, or what its absence means."""
    if run is None:
        return "<p><em>This part has not been run yet: its tables and figures are empty.</em></p>"
    return filled("<p>From run {}.</p>", source(run))


def values_of(row: str | None, score: str, runs: Iterable[Finished]) -> tuple[Value, ...]:
    """Our values of one score of one row, one a run, by seed."""
    mine = [f for f in runs if row is not None and f.row == row and score in f.scores]
    values = [Value(f.run.id, f.recipe["seed"], f.scores[score]) for f in mine]
    return tuple(sorted(values, key=lambda value: value.seed))


def on_shared_seeds(values: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
    """The values of the seeds that every row has: rows are compared like with like."""
    seeds = set.intersection(*({v.seed for v in row} for row in values))
    return [tuple(v for v in row if v.seed in seeds) for row in values]


def first_of(words: Iterable[str]) -> str:
    """The one word for several: what failed, before what is unknown, before what holds."""
    words = set(words)
    return next((word for word in WORST_FIRST if word in words), NOT_RUN)


def mean(values: Sequence[Value]) -> float:
    return statistics.fmean(v.score for v in values)


def spread(values: Sequence[Value]) -> float:
    """Standard deviation over runs, 0 for one run."""
    return statistics.stdev(v.score for v in values) if len(values) > 1 else 0.0


class Trial:
    """The papers' claims held against a set of runs."""

    def __init__(self, claims: dict[str, Any], runs: Sequence[Finished], folder: Path = RUNS):
        self.claims, self.runs, self.folder = claims, runs, folder

    def measured(self, paper: str, table: str, row: int, column: str) -> dict[str, Any] | None:
        """The row of ours beside a printed number; the columns of one printed row may be measured
        on different layouts."""
        place = (paper, table, row)
        beside = (
            entry
            for entry in self.claims.get("measured", [])
            if (entry["paper"], entry["table"], entry["row"]) == place and column in entry["scores"]
        )
        return next(beside, None)

    def values(self, paper: str, table: str, row: int, column: str, name: str = "ours"):
        """Our values beside a printed number; `name` "at_paper" is the row at scale paper."""
        entry = self.measured(paper, table, row, column)
        return values_of(entry.get(name), entry["scores"][column], self.runs) if entry else ()

    def value(self, row: str, score: str) -> tuple[Value, ...]:
        return values_of(row, score, self.runs)

    def on_bed(self, bed: str, row: str | None, score: str = "iou") -> tuple[Value, ...]:
        """The values of a row's runs on a bed of the label bench, by seed."""
        place, name = f"bench-{bed}/{row}/", f"bench/{score}"
        mine = [f for f in self.runs if f.run.id.startswith(place) and name in f.scores]
        values = [Value(f.run.id, f.recipe["seed"], f.scores[name]) for f in mine]
        return tuple(sorted(values, key=lambda value: value.seed))

    @cached_property
    def on_bench(self) -> list[Verdict]:
        """What the beds of the label bench say of the orders and statements that name them."""
        return on_bench(self.claims, self.folder)

    @cache  # noqa: B019 - a page has one trial
    def on_bench_of(self, paper: str) -> list[Verdict]:
        """The same of one paper; those of others are not judged for it."""
        if "on_bench" in vars(self):
            return [each for each in self.on_bench if each.id.split("-")[0] == paper]
        return on_bench(self.claims, self.folder, paper)

    @cached_property
    def orders_of_students(self) -> list[dict[str, Any]]:
        """The orders that no bed judges."""
        return [order for order in self.claims.get("orders", []) if not order.get("beds")]

    def orders_on(self, paper: str, table: str) -> list[dict[str, Any]]:
        """The orders of a table."""
        place = (paper, table)
        return [o for o in self.claims.get("orders", []) if (o["paper"], o["table"]) == place]

    def beds_of(self, paper: str, table: str) -> list[str]:
        """The beds that judge a table's orders."""
        named = (bed for order in self.orders_on(paper, table) for bed in order.get("beds", []))
        return list(dict.fromkeys(named))

    def has_students(self, paper: str, table: str) -> bool:
        """Whether students judge a table, or nobody does."""
        orders = self.orders_on(paper, table)
        return not orders or any(not order.get("beds") for order in orders)

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """What students say of each order that is theirs, by its id."""
        ended: dict[str | None, list[Run]] = {}
        for each in self.runs:
            ended.setdefault(each.row, []).append(each.run)
        claims = [claim_of(order, self.claims) for order in self.orders_of_students]
        return {claim["id"]: judge_students(claim, ended) for claim in claims}

    def cell(self, paper: str, table: str, row: int, column: str, printed: float) -> Cell:
        place = (paper, table, row, column)
        at_paper = self.values(*place, "at_paper")
        if at_paper:
            near = abs(mean(at_paper) - printed) <= self.claims["tolerance"]
            return Cell(*place, printed, REPRODUCED if near else FAILED, "paper", at_paper)
        small = self.values(*place)
        return Cell(*place, printed, self.by_order(*place), "small" if small else None, small)

    def by_order(self, paper: str, table: str, row: int, column: str) -> str:
        """The verdict at scale small: of every pair of neighbours that the row is one of, on all
        that has judged it."""
        words = set()
        for order in self.orders_on(paper, table):
            words |= self._words(order, row) if order["column"] == column else set()
        if self.values(paper, table, row, column):
            return first_of(words or {NO_ORDER})
        return first_of(words - {NOT_RUN})

    def _words(self, order: dict[str, Any], row: int) -> set[str]:
        """One a bed, or students', and pair: a bed that misses a gate has one for all."""
        students = [self.verdicts[order["id"]]] if order["id"] in self.verdicts else []
        known = self.on_bench_of(order["id"].split("-")[0])
        judged = students or [v for v in known if v.id == order["id"]]
        return {
            OUTSIDE if verdict.missed else step.word
            for verdict in judged
            for pair, step in zip(pairwise(order["rows"]), verdict.steps)
            if row in pair
        }

    def cells(self) -> list[Cell]:
        """One a printed number of every table of every paper."""
        return [
            self.cell(paper, table["id"], i, column, row[column])
            for paper, content in self.claims["papers"].items()
            for table in content["tables"]
            for i, row in enumerate(table["rows"])
            for column in table.get("units", {})
            if is_number(row.get(column)) and table["units"][column] == "percent"
        ]

    def order_rows(self) -> list[dict[str, Any]]:
        """Each order that students judge, the verdict on it and the values it was held against:
        those of the seeds that all its rows share, or all there are while they share none."""
        return [self._order_row(order) for order in self.orders_of_students]

    def _order_row(self, order: dict[str, Any]) -> dict[str, Any]:
        claim = claim_of(order, self.claims)
        values = [self.value(row, claim["of_students"]) for row in claim["rows"]]
        shared, verdict = on_shared_seeds(values), self.verdicts[order["id"]]
        return {**order, "verdict": verdict, "values": shared if shared[0] else values}


def trial(claims: Path, runs: Path) -> Trial:
    return Trial(read_claims(claims), finished(runs), runs)


def verdict_lines(claims: Path, runs: Path) -> list[str]:
    """The verdicts as text: labels, students, then how many printed cells got which."""
    held = trial(claims, runs)
    lines = [str(verdict) for verdict in (*held.on_bench, *held.verdicts.values())]
    words = [cell.verdict for cell in held.cells()]
    return [*lines, *(f"{words.count(word):5} printed cells {word}" for word in WORST_FIRST)]


def badge(verdict: str) -> str:
    return filled('<span class="verdict verdict-{}">{}</span>', BADGE[verdict], verdict)


def number(values: Sequence[Value], digits: int = 1) -> str:
    """Our mean and spread with a link to the run, or to the first of them; a dash where there is
    none."""
    if not values:
        return "-"
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {spread(values):.{digits}f}"
    title = ", ".join(v.run for v in values)
    link = filled('<a href="runs.html#{}" title="{}">{}</a>', values[0].run, title, text)
    return filled("{} <small>n={}</small>", link, len(values))


def table(head: Sequence[str], lines: Iterable[Sequence[str]], cards: bool = False) -> Html:
    """HTML table that scrolls by itself on a narrow screen, or with `cards` shows each line there
    as a block of its own; cells that are not marked as HTML are escaped. Long names break at
    underscores."""
    lines = list(lines)
    if not head or not lines:
        return Html("<p><em>Not run yet.</em></p>")
    top = joined("", (filled("<th>{}</th>", breaking(h)) for h in head))
    cell = '<td data-head="{}">{}</td>' if cards else "<td>{1}</td>"
    rows = (joined("", (filled(cell, h, c) for h, c in zip(head, line))) for line in lines)
    body = joined("", (filled("<tr>{}</tr>", row) for row in rows))
    kind = "claims cards" if cards else "claims"
    template = '<div class="table-scroll"><table class="{}"><tr>{}</tr>{}</table></div>'
    return filled(template, kind, top, body)


def remarks_table(package: Path, papers: Iterable[str]) -> Html:
    """Every place where the code leaves the papers or fills in what they do not say."""
    return table(REMARK_HEAD, remark_rows(package, papers), cards=True)


def printed_table(held: Trial, paper: str, table_id: str) -> Html:
    """A paper's table as printed; beside it what is ours and the verdict: scores of students at
    scale small, or the IoU of labels on each bed that judges the table. A word while there is
    nothing."""
    content = _printed(held, paper, table_id)
    columns, units = content["columns"], content.get("units", {})
    scores = [c for c in columns if units.get(c) == "percent"]
    lines = [[plain(row.get(c)) for c in columns] for row in content["rows"]]
    ours = _our_columns(held, paper, content, scores)
    if not ours:
        return joined("", [table(columns, lines), filled("<p>Ours: {}</p>", badge(NOT_RUN))])
    ordered = {row for order in held.orders_on(paper, table_id) for row in order["rows"]}
    for i, (line, row) in enumerate(zip(lines, content["rows"])):
        known = [c for c in scores if is_number(row.get(c))]
        words = {held.cell(paper, table_id, i, c, row[c]).verdict for c in known} - {NOT_RUN}
        ran = any(column[i] for column in ours.values())
        words |= {NO_ORDER} if ran and i not in ordered else set()
        line.insert(1, badge(first_of(words)))
        line += [number(column[i]) for column in ours.values()]
    return table([columns[0], "verdict", *columns[1:], *ours], lines)


def _our_columns(
    held: Trial, paper: str, content: dict[str, Any], scores: Sequence[str]
) -> dict[str, list[tuple[Value, ...]]]:
    """Our values of each printed row, by heading; columns without any are left out."""
    place, numbers = (paper, content["id"]), range(len(content["rows"]))
    entries = [[held.measured(*place, i, c) for i in numbers] for c in scores]
    beside = next((column for column in entries if any(column)), [])
    named = [entry["ours"] if entry else None for entry in beside]
    columns = {f"labels, {bed}: IoU": [held.on_bed(bed, row) for row in named]
               for bed in held.beds_of(*place)}  # fmt: skip
    for score in scores if held.has_students(*place) else ():
        columns[f"ours, small: {score}"] = [held.values(*place, i, score) for i in numbers]
    return {head: values for head, values in columns.items() if any(values)}


def _printed(held: Trial, paper: str, table_id: str) -> dict[str, Any]:
    return next(t for t in held.claims["papers"][paper]["tables"] if t["id"] == table_id)


def plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else ""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return escape(text)


def ours_table(held: Trial, what: str, ours: dict[str, str], scores: dict[str, str]) -> str:
    """A table of ours alone, that no paper has: named rows of the plan against named scores."""
    lines = {
        name: [number(held.value(row, score)) for score in scores.values()]
        for name, row in ours.items()
    }
    return measured_table([what, *scores], lines)


def measured_table(head: Sequence[str], lines: dict[str, list[str]]) -> Html:
    """A table of named rows of numbers; one sentence for those of which nothing has been run."""
    waiting = [name for name, cells in lines.items() if not set(cells) - {"-"}]
    ran = [[name, *cells] for name, cells in lines.items() if name not in waiting]
    template = "<p><em>{} &ndash; not run yet: {}.</em></p>"
    sentence = filled(template, head[0], "; ".join(waiting)) if waiting else Html("")
    return joined("", [table(head, ran) if ran else Html(""), sentence])


def students_table(held: Trial, what: str, ours: dict[str, str]) -> str:
    """PQ of students, and beside it that of the pseudo labels that taught them."""
    kinds, parts = ("PQ", "PQ_th", "PQ_st"), {"student": "val", "pseudo label": "labels"}
    scores = {f"{who} {kind}": f"{part}/{kind}" for who, part in parts.items() for kind in kinds}
    return ours_table(held, what, ours, scores)


def bench_table(
    held: Trial, bed: str, ours: dict[str, str | tuple[str, str]], scores: Sequence[str]
) -> str:
    """Rows that a bed of the label bench has scored: named rows of the plan against its scores; a
    (bed, row) stands on another bed."""
    sources = {n: row if isinstance(row, tuple) else (bed, row) for n, row in ours.items()}
    lines = {n: [number(held.on_bed(b, row, s)) for s in scores] for n, (b, row) in sources.items()}
    return measured_table([f"labels, bed {bed}", *scores], lines)


def spread_table(ours: dict[str, tuple[str, str]], score: str, runs: Path) -> str:
    """Rows on beds, and how far each would move with another seed or with other images."""
    lines = {}
    for name, (bed, row) in ours.items():
        known = spread_on(bed, row, score, runs)
        values = (known.mean, known.by_seed, known.by_image) if known else ()
        numbers = ("-" if v is None else f"{v:.1f}" for v in values)
        lines[name] = [bed, seeds_draw(bed), *numbers] if known else []
    head = ["labels", "bed", "a seed draws", f"{score}, mean", "another seed", "other images"]
    return measured_table(head, lines)


def seeds_draw(bed: str) -> str:
    """What differs between two seeds of a bed: where nothing is trained, where the points lie."""
    planned = beds().get(bed)
    trained = planned is not None and (planned.steps or planned.first)
    return "points and training" if trained else "points"


def gates_table(claims: dict[str, Any], paper: str, benches: Sequence[str], runs: Path) -> str:
    """What a paper's claims presuppose, and what each bed that was run shows of it."""
    gates = claims["gates"][paper]
    read = {bed: [gate_reading(gate, bed, runs) for gate in gates] for bed in benches}
    read = {bed: rs for bed, rs in read.items() if any(r.mean is not None for r in rs)}
    lines = []
    for gate, *mine in zip(gates, *read.values()):
        cells = ["-" if r.mean is None else f"{r.mean:.1f}, {GATE_WORD[r.word]}" for r in mine]
        lines += [[gate["name"], mine[0].demand, *cells]] if mine else []
    return table(["premise", "needed", *read], lines)


def gains_table(held: Trial, what: str, pairs: dict[str, tuple[str, str]], score: str) -> str:
    """How far the first of two rows of ours lies above the second: on the mean, and on each seed
    that both have."""
    lines = {}
    for name, pair in pairs.items():
        gains = gains_of(*on_shared_seeds([held.value(row, score) for row in pair]))
        by_seed = ", ".join(f"{gain:+.1f}" for gain in gains)
        average = f"{statistics.fmean(gains):+.1f}" if gains else "-"
        lines[name] = [average, by_seed or "-"]
    return measured_table([what, "mean", "seed by seed"], lines)


def gains_of(upper: Sequence[Value], lower: Sequence[Value]) -> list[float]:
    """Upper less lower, seed by seed."""
    seeds = sorted({v.seed for v in upper})
    above, below = ([[v for v in row if v.seed == s] for s in seeds] for row in (upper, lower))
    return [mean(a) - mean(b) for a, b in zip(above, below)]


def paper_verdicts(held: Trial, paper: str) -> Html:
    """What beds and students say of a paper's claims."""
    return joined("", [bench_verdicts_table(held.on_bench_of(paper)), orders_table(held, paper)])


def orders_table(held: Trial, paper: str | None = None) -> Html:
    """What the papers say about orders, what our students say, and the verdict; orders of which no
    row was run are folded away."""
    mine = [row for row in held.order_rows() if paper in (None, row["paper"])]
    ran = [r for r in mine if r["verdict"].word != NOT_RUN or any(r["values"])]
    lines = [
        [f"{r['paper']} Tab. {r['table']}", escape(r["says"]), in_order(r["values"]),
         _step_lines(r["verdict"]), badge(r["verdict"].word)]
        for r in ran
    ]  # fmt: skip
    head = ["claim", "paper says", "ours, in that order", "differences, and the paper's",
            "verdict"]  # fmt: skip
    waiting = [r["verdict"] for r in mine if r not in ran]
    return _with_waiting(head, lines, waiting, "on students")


def bench_verdicts_table(verdicts: Sequence[Verdict]) -> Html:
    """What the label bench says of the claims that it judges, pair by pair; those of which a row
    is missing everywhere are folded away."""
    ran = [v for v in verdicts if v.word != NOT_RUN or any(step.effect for step in v.steps)]
    lines = [
        [f"{v.id}, {v.place}", escape(v.says), _step_lines(v),
         filled("{}{}", badge(v.word), joined("", (f" {gate}." for gate in v.missed)))]
        for v in ran
    ]  # fmt: skip
    head = ["claim and bed", "paper says", "ours, and the paper's difference", "verdict"]
    return _with_waiting(head, lines, [v for v in verdicts if v not in ran], "on labels")


def _with_waiting(
    head: Sequence[str], lines: list[list[str]], waiting: Sequence[Verdict], where: str
) -> Html:
    """A table of what was run, and in one folded line the claims that wait for their rows."""
    ran = table(head, lines, cards=True) if lines else Html("")
    if not waiting:
        return ran
    rows = [[f"{v.id}, {v.place}", v.says, _printed_steps(v)] for v in waiting]
    whole = table(["claim", "paper says", "the paper's differences"], rows, cards=True)
    count = "1 claim" if len(waiting) == 1 else f"{len(waiting)} claims"
    template = "{}<details><summary>{} {}: {}</summary>{}</details>"
    return filled(template, ran, count, where, badge(NOT_RUN), whole)


def _printed_steps(verdict: Verdict) -> str:
    sizes = [step.printed for step in verdict.steps if step.printed is not None]
    sign = "+" if verdict.steps[0].below else ""
    return ", ".join(f"{size:{sign}.1f}" for size in sizes) or "-"


def _step_lines(verdict: Verdict) -> Html:
    known = [step for step in verdict.steps if step.effect or step.lacks]
    return joined("<br>", known) if known else Html("-")


def in_order(values: Sequence[Sequence[Value]]) -> str:
    """Our values of rows in the printed order, joined by the signs that are true of ours."""
    text = number(values[0])
    for before, after in pairwise(values):
        both = before and after
        sign = ("<" if mean(before) < mean(after) else "≥") if both else ","
        text = filled("{} {} {}", text, sign, number(after))
    return text


def sweeps_table(held: Trial, paper: str) -> str:
    """How far the rows of each sweep lie apart, as printed and on each bed that was run, beside
    what the seed alone does to one of them."""
    sweeps = [o for o in held.claims.get("orders", []) if o["paper"] == paper and o.get("sweep")]
    head = ["sweep", "best over worst row, printed", "bed", "best over worst row, IoU of labels",
            "spread of one row over seeds"]  # fmt: skip
    lines = [_sweep(held, sweep, bed) for sweep in sweeps for bed in sweep.get("beds", [])]
    return table(head, [line for line in lines if set(line[3:]) != {"-"}])


def _sweep(held: Trial, sweep: dict[str, Any], bed: str) -> list[str]:
    claim = claim_of(sweep, held.claims)
    values = [held.on_bed(bed, row, claim["score"]) for row in claim["rows"]]
    ours = [mean(v) for v in on_shared_seeds(values)] if all(values) else []
    repeated = [spread(each) for each in values if len(each) > 1]
    seeds = f"{max(repeated):.1f}" if repeated else "-"
    return [escape(sweep["says"]), _range(claim["printed"]), bed, _range(ours), seeds]


def _range(scores: Sequence[float]) -> str:
    return f"{max(scores) - min(scores):.1f}" if scores else "-"


def states(folder: Path, state: Callable[[Path], str]) -> dict[str, str]:
    """Run id -> "stale" or "carried" for the kept runs that are not simply current; `state` says it
    of a notebook's."""
    kept = kept_runs(folder)
    words = {run.id: state(run.folder) for run in kept if "key" in run.result}
    words |= {run.id: bench.state(run) for run in kept if run.result.get("kind") == "bench"}
    return {name: word for name, word in words.items() if word != "current"}


def headline(scores: dict[str, float]) -> str:
    """The scores that tables ask for, and all others on demand."""
    lines = {name: f"{name} {value:.1f}" for name, value in scores.items()}
    rest = [line for name, line in lines.items() if name not in HEADLINES]
    more = "<details><summary>{} more</summary>{}</details>"
    first = joined("<br>", (lines[name] for name in HEADLINES if name in lines))
    return filled("{}" + more, first, len(rest), joined("<br>", rest)) if rest else first


def runs_table(folder: Path, words: dict[str, str] | None = None) -> str:
    """Every kept run with an anchor of its own: what it is, how it ended, its scores, its files.

    `words` has a word, "stale" or "carried", for runs whose code is not what it was.
    """
    lines = [_run_line(run, folder, (words or {}).get(run.id)) for run in kept_runs(folder)]
    return table(["run", "stages", "settings", "state", "wall", "scores"], lines)


def file_links(run: Run, runs: Path) -> str:
    """Links to the files of a run, which the book copies beside its pages."""
    folder = run.folder.relative_to(runs).as_posix()
    names = sorted(path.name for path in run.folder.iterdir() if path.is_file())
    link = '<a href="runs/{}/{}">{}</a>'
    return joined(" ", (filled(link, quote(folder), quote(name), name) for name in names))


def _run_line(run: Run, runs: Path, word: str | None) -> list[str]:
    recipe, result = run.read("recipe.json"), run.result
    stages = [stage["method"] for stage in recipe.get("stages", [])]
    dotted = [{"config": _dotted(stage["config"])} for stage in recipe.get("stages", [])]
    return [
        filled('<a id="{}"></a><code>{}</code><br>{}', run.id, run.id, file_links(run, runs)),
        escape(" > ".join(stages) or result.get("kind", "")),
        escape(changed({**recipe, "stages": dotted})),
        filled("{} {}", run.status, badge(word)) if word else run.status,
        f"{result.get('wall_s', 0):.0f}\u00a0s",
        headline(flat(result.get("metrics", {}))),
    ]


def _dotted(config: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Settings under names such as walk.hops, those inside others too."""
    named: dict[str, Any] = {}
    for name, value in config.items():
        inside = isinstance(value, dict)
        named |= _dotted(value, f"{before}{name}.") if inside else {before + name: value}
    return named
