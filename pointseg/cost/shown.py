"""From a cost run to the cells of the chapter's tables: rows of text, nothing measured here."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pointseg.ledger import Run, kept_runs

NAME = "cost_measure"
NOT_MEASURED = "not measured here"
Row = dict[str, Any]

# Measured by us with the official functions, unchanged, on one CPU thread of another machine: seconds of CPU time.
OFFICIAL = {
    "key-point shift, boxes of half the side": 53.406,
    "Point2Mask": 9.25,
    "PSPS": 0.36,
}


def newest(runs: Path) -> Run | None:
    """The cost run that finished last."""
    found = [run for run in kept_runs(runs) if run.id.startswith(f"{NAME}-") and run.status == "ok"]
    return max(found, key=lambda run: run.result.get("finished", ""), default=None)


def link(run: Run) -> str:
    return f'<a href="runs.html#{run.id}">{html.escape(run.id)}</a>'


def source(run: Run) -> str:
    """Where, when and on how many threads a run's numbers were made."""
    where = html.escape(run.read("env.json").get("device", "") or "an unnamed machine")
    threads = run.result["metrics"]["machines"][0]["threads"]
    return f"Run {link(run)}, finished {run.result.get('finished', '')}, on {where}, {threads} thread(s)."


def machine_table(metrics: Row) -> tuple[list[str], list[list[str]]]:
    head = ["device", "float32, 10⁹ operations/s", "bf16, 10⁹ operations/s", "copy, 10⁹ bytes/s"]
    rows = [
        [html.escape(m["device"]), *(number(m[k] / 1e9) for k in ("float32", "bf16", "bytes"))]
        for m in metrics["machines"]
    ]
    return head, rows


def network_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = ["network", "piece", "picture", "tokens", "ms", "median ms", "images/s", "peak MB", "floor, ms",
            "share of the floor"]  # fmt: skip
    cells = [
        [row["network"], f"{row['piece']} ({row['precision']})", f"{row['images']} x {row['height']} x {row['width']}",
         str(row["tokens"]), number(row["ms"]), number(median(row)), number(row["images_per_s"]),
         number(row["peak_mb"]), number(row["floor_ms"]), f"{100 * row['floor_share']:.0f} %"]
        for row in rows
    ]  # fmt: skip
    return head, cells


def median(row: Row) -> float:
    """By the clock that `ms` was taken by: the wall's on a GPU, the processor's elsewhere."""
    return row["wall_median_ms"] if row.get("precision") == "bf16" else row["cpu_median_ms"]


def label_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = ["what", "how", "ms", "median ms", "peak MB", "official code, ms"]
    cells = [
        [html.escape(row["group"]), html.escape(row["way"]), number(row["ms"]), number(row["cpu_median_ms"]),
         number(row["peak_mb"]), number(official_ms(row))]
        for row in rows
    ]  # fmt: skip
    return head, cells


def official_ms(row: Row) -> float | None:
    if row["way"] == "whole":
        return in_ms(OFFICIAL.get(row["group"]))
    return in_ms(OFFICIAL.get(row["way"]))


def in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def ms(rows: Sequence[Row], group: str, way: str) -> float:
    """Milliseconds of one way; `group` is the beginning of its name."""
    return next(row["ms"] for row in rows if row["group"].startswith(group) and row["way"] == way)


def asked_of_labels(metrics: Row) -> list[tuple[str, float, Callable[[float], bool], str]]:
    """What the label paths were asked for: in words, our number, the demand and its words."""
    rows, depth = metrics["labels"], metrics["extent"]["depth"]
    shift, roll, step = "key-point shift, boxes of half", "roll-out", "training step"
    dense = (depth - 1) * ms(rows, roll, "one dense product")
    chain = (depth - 1) * ms(rows, roll, "one product of rows")
    forming = depth * ms(rows, roll, "one matrix formed")
    picture = "pseudo label"
    share = ms(rows, step, "labels") / ms(rows, step, "whole step")
    attention = ms(rows, step, "attention") / ms(rows, step, "whole step")
    bare = ms(rows, shift, "whole") / ms(rows, shift, "bare products")
    loop = ms(rows, "panoptic quality", "loop") / ms(rows, "panoptic quality", "table")
    return [
        ("key-point shift, seconds", ms(rows, shift, "whole") / 1e3, lambda x: x <= 0.5, "at most 0.5"),
        ("key-point shift over its bare matrix products", bare, lambda x: x <= 1.5, "at most 1.5"),
        ("label path of AttentionShift as a share of the step, %", 100 * share, lambda x: x < 15, "below 15"),
        ("the same with the roll-out, %", 100 * (share + attention), lambda x: x < 15, "below 15"),
        ("roll-out: dense chain over the chain of rows", dense / chain, lambda x: x >= 50, "at least 50"),
        ("roll-out: all of the dense way over all of ours", (forming + dense) / ms(rows, roll, "rows, all of it"),
         lambda x: x > 1, "above 1"),
        ("pseudo label of Point2Mask, seconds", ms(rows, picture, "Point2Mask") / 1e3, lambda x: x <= 0.09,
         "at most 0.09"),
        ("pseudo label of PSPS, seconds", ms(rows, picture, "PSPS") / 1e3, lambda x: x <= 0.07, "at most 0.07"),
        ("pixels labelled as by the full-size solve, %", 100 * metrics["same_labels"][0], lambda x: x >= 99.5,
         "at least 99.5"),
        ("tree and filter, ms", ms(rows, "tree filter", "tree and filter"), lambda x: x <= 10, "at most 10"),
        ("panoptic quality: plain loop over our table", loop, lambda x: x > 1, "above 1"),
    ]  # fmt: skip


def asked_table(metrics: Row) -> tuple[list[str], list[list[str]]]:
    """Demands, our numbers and whether they are met; the verdict is computed."""
    cells = [
        [html.escape(what), number(value), html.escape(words), "met" if demand(value) else "missed"]
        for what, value, demand, words in asked_of_labels(metrics)
    ]
    return ["what", "ours", "asked for", ""], cells


def number(value: float | None) -> str:
    """Three figures that count; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def curves(rows: Sequence[Row], network: str, value: str = "ms") -> dict[str, tuple[list[int], list[float]]]:
    """Piece -> its tokens and values, by rising tokens, of one network."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in sorted((r for r in rows if r["network"] == network), key=lambda r: r["tokens"]):
        tokens, values = found.setdefault(row["piece"], ([], []))
        tokens.append(row["tokens"])
        values.append(row[value])
    return found
