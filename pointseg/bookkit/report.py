"""From runs/ to what a reader sees: measured values, verdicts on the papers' claims, tables and badges.

A verdict is computed, never chosen. At scale paper a printed cell is reproduced or not by a tolerance fixed before
any run. At scale small no value can be compared with a print; there the order of a table's rows is on trial.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pointseg.lab.run_record import Run, flat, kept_runs, strict

REPRODUCED, DIRECTION, FAILED, NOT_RUN = (
    "reproduced",
    "direction holds",
    "not reproduced",
    "not run",
)
HEADLINES = ("val/voc_mAP50_11pt", "student/val/voc_mAP50_11pt", "val/PQ", "pseudo/mIoU")
BADGE = {
    REPRODUCED: "reproduced",
    DIRECTION: "direction",
    FAILED: "failed",
    NOT_RUN: "none",
    "stale": "stale",
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
    scale: str = ""
    values: tuple[Value, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.paper} Tab. {self.table} row {self.row + 1} {self.column}"


@dataclass(frozen=True)
class Finished:
    """A run that ended well, with its recipe and its scores under flat names."""

    run: Run
    recipe: dict[str, Any]
    scores: dict[str, float] = field(default_factory=dict)


def read_claims(path: Path) -> dict[str, Any]:
    return yaml.safe_load(Path(path).read_text())


def finished(folder: Path) -> list[Finished]:
    """Every kept run of a method that ended well."""
    runs = [run for run in kept_runs(folder) if run.status == "ok"]
    read = [
        Finished(run, run.read("recipe.json"), flat(run.result.get("metrics", {}))) for run in runs
    ]
    return [one for one in read if {"method", "scale", "seed"} <= set(one.recipe)]


def newest(folder: Path, notebook: str, **wanted: Any) -> Run | None:
    """The run of a notebook that finished last and whose recipe says what is wanted."""
    runs = [
        run
        for run in kept_runs(folder)
        if run.status == "ok" and run.result.get("notebook") == notebook
    ]
    fitting = [
        run for run in runs if all(run.read("recipe.json").get(k) == v for k, v in wanted.items())
    ]
    return max(fitting, key=lambda run: run.result.get("finished", ""), default=None)


def source(run: Run | None) -> str:
    """A link to a run, or a word where there is none."""
    return f'<a href="runs.html#{run.id}"><code>{run.id}</code></a>' if run else "no run yet"


def fits(selector: dict[str, Any], recipe: dict[str, Any]) -> bool:
    """Whether a run is the one a printed row speaks of: same method, data and points, the very same settings.

    Printed rows stand beside runs on Bestiary; other data have to be asked for.
    """
    if strict(recipe.get("config", {})) != strict(selector.get("config", {})):
        return False
    if recipe.get("data", "bestiary") != selector.get("data", "bestiary"):
        return False
    wanted = {k: selector[k] for k in ("method", "student", "layout") if k in selector}
    points = recipe.get("points", {})
    return all(recipe.get(k) == v for k, v in wanted.items()) and all(
        points.get(k) == v for k, v in selector.get("points", {}).items()
    )


def values_of(
    selector: dict, score: str, runs: Iterable[Finished], scale: str
) -> tuple[Value, ...]:
    """Our values of one score beside a printed row, one a run, by seed."""
    matching = [f for f in runs if f.recipe["scale"] == scale and fits(selector, f.recipe)]
    return tuple(sorted((Value(f.run.id, f.recipe["seed"], f.scores[score]) for f in matching if score in f.scores),
                        key=lambda v: v.seed))  # fmt: skip


def order_holds(smaller: Sequence[Value], larger: Sequence[Value]) -> bool:
    """Whether two rows stand in the printed order on the mean over seeds."""
    return mean(smaller) < mean(larger)


def on_shared_seeds(rows: Sequence[Sequence[Value]]) -> list[tuple[Value, ...]]:
    """The values of the seeds that every row has: rows are compared like with like."""
    seeds = set.intersection(*({v.seed for v in row} for row in rows))
    return [tuple(v for v in row if v.seed in seeds) for row in rows]


def verdict_on(rows: Sequence[Sequence[Value]], needed: int) -> str:
    """Whether rows at scale small stand in the printed order, given enough seeds that all of them share."""
    shared = on_shared_seeds(rows)
    if min(len({v.seed for v in row}) for row in shared) < needed:
        return NOT_RUN
    return DIRECTION if all(order_holds(a, b) for a, b in pairwise(shared)) else FAILED


def mean(values: Sequence[Value]) -> float:
    return statistics.fmean(v.score for v in values)


def spread(values: Sequence[Value]) -> float:
    """Standard deviation over runs, 0 for one run."""
    return statistics.stdev(v.score for v in values) if len(values) > 1 else 0.0


class Trial:
    """The papers' claims held against a set of runs."""

    def __init__(self, claims: dict[str, Any], runs: Sequence[Finished]):
        self.claims, self.runs = claims, runs
        self.needed = claims.get("seeds_for_a_verdict", 3)
        self.selectors = claims.get("selectors", [])

    def selector(self, paper: str, table: str, row: int, column: str) -> dict[str, Any] | None:
        """Which runs stand beside a printed number; the columns of one row may be measured on different layouts."""
        place = (paper, table, row)
        fitting = (
            s
            for s in self.selectors
            if (s["paper"], s["table"], s["row"]) == place and column in s["scores"]
        )
        return next(fitting, None)

    def values(
        self, paper: str, table: str, row: int, column: str, scale: str
    ) -> tuple[Value, ...]:
        selector = self.selector(paper, table, row, column)
        if selector is None:
            return ()
        return values_of(selector, selector["scores"][column], self.runs, scale)

    def pairs_of(
        self, paper: str, table: str, row: int, column: str
    ) -> list[tuple[tuple[int, int], int]]:
        """Pairs (smaller row, larger row) of neighbours in a printed order that this row takes part in, and seeds."""
        found = []
        for order in self.claims.get("orders", []):
            if (order["paper"], order["table"], order["column"]) == (paper, table, column):
                found += [
                    (pair, self.needed_for(order))
                    for pair in pairwise(order["rows"])
                    if row in pair
                ]
        return found

    def needed_for(self, order: dict[str, Any]) -> int:
        """Seeds that decide an order: a sweep may name fewer than the rest."""
        return order.get("seeds", self.needed)

    def cell(self, paper: str, table: str, row: int, column: str, printed: float) -> Cell:
        place = (paper, table, row, column)
        at_paper = self.values(*place, "paper")
        if at_paper:
            near = abs(mean(at_paper) - printed) <= self.claims["tolerance"]
            return Cell(*place, printed, REPRODUCED if near else FAILED, "paper", at_paper)
        small = self.values(*place, "small")
        return Cell(*place, printed, self.by_order(*place), "small" if small else "", small)

    def by_order(self, paper: str, table: str, row: int, column: str) -> str:
        """The verdict at scale small: every order the row takes part in, given enough seeds on both sides."""
        words = {
            verdict_on([self.values(paper, table, r, column, "small") for r in pair], needed)
            for pair, needed in self.pairs_of(paper, table, row, column)
        }
        return next((word for word in (NOT_RUN, FAILED, DIRECTION) if word in words), NOT_RUN)

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
        """Each order a paper claims, the verdict on it and the values it was held against."""
        return [self.order_row(order) for order in self.claims.get("orders", [])]

    def order_row(self, order: dict[str, Any]) -> dict[str, Any]:
        """What was held against an order: the seeds that all its rows share, or all there is while they share none."""
        values = [
            self.values(order["paper"], order["table"], r, order["column"], "small")
            for r in order["rows"]
        ]
        shared = on_shared_seeds(values)
        return order | {
            "verdict": verdict_on(values, self.needed_for(order)),
            "values": shared if shared[0] else values,
        }


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def trial(claims: Path, runs: Path) -> Trial:
    return Trial(read_claims(claims), finished(runs))


def verdict_lines(claims: Path, runs: Path) -> list[str]:
    """The verdicts as text, the orders first, then how many printed cells got which."""
    held = trial(claims, runs)
    lines = [f"{row['verdict']:16} {row['id']}: {row['says']}" for row in held.order_rows()]
    cells = held.cells()
    counts = {
        word: sum(c.verdict == word for c in cells)
        for word in (REPRODUCED, DIRECTION, FAILED, NOT_RUN)
    }
    return [*lines, *(f"{n:5} printed cells {word}" for word, n in counts.items())]


def badge(verdict: str) -> str:
    return f'<span class="verdict verdict-{BADGE[verdict]}">{html.escape(verdict)}</span>'


def number(values: Sequence[Value], digits: int = 1) -> str:
    """Our mean and spread with a link to the run, or to the first of them; a dash where there is none."""
    if not values:
        return "-"
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {spread(values):.{digits}f}"
    title = html.escape(", ".join(v.run for v in values))
    return f'<a href="runs.html#{values[0].run}" title="{title}">{text}</a> <small>n={len(values)}</small>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """HTML table that scrolls by itself on a narrow screen; cells are HTML already. Long names break at underscores."""
    top = "".join(f"<th>{h.replace('_', '_<wbr>')}</th>" for h in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table-scroll"><table class="claims"><tr>{top}</tr>{body}</table></div>'


def printed_table(held: Trial, paper: str, table_id: str) -> str:
    """A paper's table as printed, and beside it our values at scale small and the verdict, in columns of their own."""
    content = next(t for t in held.claims["papers"][paper]["tables"] if t["id"] == table_id)
    scores = [c for c in content["columns"] if content.get("units", {}).get(c) == "percent"]
    shown = [
        c
        for c in scores
        if any(held.selector(paper, table_id, i, c) for i in range(len(content["rows"])))
    ]
    head = (
        [html.escape(content["columns"][0]), "verdict"]
        + [html.escape(c) for c in content["columns"][1:]]
        + [f"ours, small: {html.escape(c)}" for c in shown]
    )
    rows = []
    for i, row in enumerate(content["rows"]):
        cells = {
            c: held.cell(paper, table_id, i, c, row[c]) for c in scores if is_number(row.get(c))
        }
        ours = [number(cells[c].values) if c in cells else "-" for c in shown]
        first, *printed = (plain(row.get(c)) for c in content["columns"])
        rows.append([first, badge(worst(cells.values())), *printed, *ours])
    return table(head, rows)


def worst(cells: Iterable[Cell]) -> str:
    """One word for a row: the least favourable of its decided cells."""
    words = {c.verdict for c in cells}
    return next((w for w in (FAILED, DIRECTION, REPRODUCED) if w in words), NOT_RUN)


def plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return html.escape(", ".join(map(str, value)))
    return (
        {True: "yes", False: ""}.get(value, html.escape(str(value)))
        if isinstance(value, bool)
        else html.escape(str(value))
    )


def own_table(
    held: Trial, what: str, rows: dict[str, dict[str, Any]], scores: dict[str, str]
) -> str:
    """A table of ours alone, that no paper has: named selectors of runs against named scores."""
    cells = [[html.escape(name), *(number(values_of(selector, score, held.runs, "small")) for score in scores.values())]
             for name, selector in rows.items()]  # fmt: skip
    return table([what, *map(html.escape, scores)], cells)


def taught_table(
    held: Trial, what: str, rows: dict[str, dict[str, Any]], quality: dict[str, dict[str, float]]
) -> str:
    """PQ of students, and beside it that of the pseudo labels that taught them: `quality` has it, by run."""
    kinds, cells = ("PQ", "PQ_th", "PQ_st"), []
    for name, selector in rows.items():
        own = [values_of(selector, f"val/{kind}", held.runs, "small") for kind in kinds]
        seen = [v for v in own[0] if v.run in quality]
        labels = [[replace(v, score=quality[v.run][kind]) for v in seen] for kind in kinds]
        cells.append([html.escape(name), *map(number, own), *map(number, labels)])
    return table(
        [what, *(f"student {kind}" for kind in kinds), *(f"pseudo label {kind}" for kind in kinds)],
        cells,
    )


def gains_table(
    held: Trial, what: str, pairs: dict[str, tuple[dict[str, Any], dict[str, Any]]], score: str
) -> str:
    """How far the first of two rows of ours lies above the second: on the mean, and on each seed that both have."""
    cells = []
    for name, pair in pairs.items():
        upper, lower = on_shared_seeds(
            [values_of(selector, score, held.runs, "small") for selector in pair]
        )
        at = lambda row, seed: mean([v for v in row if v.seed == seed])  # noqa: E731
        gains = [at(upper, seed) - at(lower, seed) for seed in sorted({v.seed for v in upper})]
        line = (
            [f"{statistics.fmean(gains):+.1f}", ", ".join(f"{gain:+.1f}" for gain in gains)]
            if gains
            else ["-", "-"]
        )
        cells.append([html.escape(name), *line])
    return table([what, "mean", "seed by seed"], cells)


def orders_table(held: Trial, paper: str | None = None) -> str:
    """What the papers say about orders, what we saw, and the verdict."""
    rows = [r for r in held.order_rows() if paper in (None, r["paper"])]
    return table(
        ["claim", "paper says", "ours, small, in that order", "verdict"],
        [[f"{r['paper']} Tab. {r['table']}", html.escape(r["says"]), in_order(r["values"]),
          badge(r["verdict"])] for r in rows],
    )  # fmt: skip


def in_order(rows: Sequence[Sequence[Value]]) -> str:
    """Our values of rows in the printed order, joined by the signs that are true of ours."""
    text = number(rows[0])
    for before, after in pairwise(rows):
        both = before and after
        sign = "&lt;" if both and order_holds(before, after) else "&ge;" if both else ","
        text += f" {sign} {number(after)}"
    return text


def sweeps_table(held: Trial, paper: str) -> str:
    """How far the rows of each sweep lie apart, printed and ours, beside what the seed alone does to one of them."""
    lines = []
    for order in (o for o in held.order_rows() if o["paper"] == paper and "seeds" in o):
        place = (paper, order["table"])
        printed = next(
            t for t in held.claims["papers"][paper]["tables"] if t["id"] == order["table"]
        )["rows"]
        whole = [held.values(*place, r, order["column"], "small") for r in order["rows"]]
        scores = [[printed[r][order["column"]] for r in order["rows"]]]
        scores += [[mean(v) for v in order["values"]]] if all(order["values"]) else []
        ranges = [f"{max(row) - min(row):.1f}" for row in scores] + ["-"] * (2 - len(scores))
        repeated = [spread(values) for values in whole if len(values) > 1]
        lines.append(
            [html.escape(order["says"]), *ranges, f"{max(repeated):.1f}" if repeated else "-"]
        )
    head = [
        "sweep",
        "best over worst row, printed",
        "best over worst row, ours",
        "spread of one row over seeds",
    ]
    return table(head, lines)


def stale_runs(folder: Path, reasons: Callable[[Path], list[str]]) -> dict[str, list[str]]:
    """Run id -> why a kept notebook's run no longer matches what made it, for those that do not."""
    found = {run.id: reasons(run.folder) for run in kept_runs(folder) if "key" in run.result}
    return {name: why for name, why in found.items() if why}


def headline(scores: dict[str, float]) -> str:
    """The scores that tables ask for, and all others on demand."""
    line = lambda name: f"{html.escape(name)} {scores[name]:.1f}"  # noqa: E731
    first = [line(name) for name in HEADLINES if name in scores]
    rest = [line(name) for name in scores if name not in HEADLINES]
    more = (
        f"<details><summary>{len(rest)} more</summary>{'<br>'.join(rest)}</details>" if rest else ""
    )
    return "<br>".join(first) + more


def file_links(run: Run, runs: Path) -> str:
    """Links to the files of a run, which the book copies beside its pages."""
    folder = run.folder.relative_to(runs).as_posix()
    names = sorted(path.name for path in run.folder.iterdir() if path.is_file())
    return " ".join(f'<a href="runs/{folder}/{name}">{html.escape(name)}</a>' for name in names)


def runs_table(folder: Path, stale: dict[str, list[str]] | None = None) -> str:
    """Every kept run with an anchor of its own: what it is, how it ended, its scores, where its files lie."""
    rows = []
    for run in kept_runs(folder):
        recipe, result = run.read("recipe.json"), run.result
        scores = flat(result.get("metrics", {}))
        shown = headline(scores)
        state = html.escape(run.status) + (
            f" {badge('stale')}" if (stale or {}).get(run.id) else ""
        )
        settings = html.escape(", ".join(f"{k}={v}" for k, v in recipe.get("config", {}).items()))
        what = f'<a id="{run.id}"></a><code>{run.id}</code><br>{file_links(run, folder)}'
        kind = html.escape(recipe.get("method", result.get("kind", "")))
        wall = f"{result.get('wall_s', 0):.0f} s"
        rows.append([what, kind, str(recipe.get("seed", "")), settings, state, wall, shown])
    return table(["run", "method", "seed", "settings", "state", "wall", "scores"], rows)
