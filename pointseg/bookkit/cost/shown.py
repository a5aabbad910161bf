"""From a cost run to the cells of the chapter's tables: rows of text, nothing measured here."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pointseg.bookkit.cost.feeding import shortest_step
from pointseg.lab.run_record import Run

NOT_MEASURED = "not measured here"
Row = dict[str, Any]

# Measured by us with the official functions, unchanged, on one CPU thread of another machine: seconds of CPU time.
OFFICIAL = {
    "key-point shift, boxes of half the side": 53.406,
    "Point2Mask": 9.25,
    "PSPS": 0.36,
}


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


@dataclass(frozen=True)
class Asked:
    """A number that was asked for. Without `demand` it stands there to be seen."""

    what: str
    value: float
    words: str = "-"
    demand: Callable[[float], bool] | None = None

    @property
    def verdict(self) -> str:
        return "" if self.demand is None else "met" if self.demand(self.value) else "missed"


def asked(metrics: Row) -> list[Asked]:
    """What the label paths were asked for, and how they stand."""
    rows = metrics["labels"]
    return [*asked_of_shift(rows), *asked_of_rollout(rows, metrics["extent"]["depth"]), *asked_of_pictures(metrics),
            *asked_of_memory(metrics["memory"])]  # fmt: skip


def asked_of_shift(rows: Sequence[Row]) -> list[Asked]:
    half, grid = "key-point shift, boxes of half", "key-point shift, boxes of the whole"
    step = "training step"
    labels, attention = (
        100 * ms(rows, step, w) / ms(rows, step, "whole step") for w in ("labels", "attention")
    )
    return [
        Asked("key-point shift, seconds", ms(rows, half, "whole") / 1e3, "at most 0.5", lambda x: x <= 0.5),
        *(
            Asked(f"the same over its bare matrix products, {words}", ms(rows, boxes, "whole") / bare,
                  "at most 1.5", lambda x: x <= 1.5)
            for words, boxes in (("boxes of half the side", half), ("boxes of the whole grid", grid))
            for bare in [ms(rows, boxes, "bare products")]
        ),
        Asked("label path as a share of the step, %", labels, "below 15", lambda x: x < 15),
        Asked("label path and roll-out as a share of the step, %", labels + attention),
    ]  # fmt: skip


def asked_of_rollout(rows: Sequence[Row], depth: int) -> list[Asked]:
    """Roll-out over `depth` blocks: as many matrices to form, one product less."""
    roll = "roll-out"
    dense = (depth - 1) * ms(rows, roll, "one dense product")
    chain = (depth - 1) * ms(rows, roll, "one product of rows")
    whole = dense + depth * ms(rows, roll, "one matrix formed")
    return [
        Asked(
            "roll-out: chain of dense products over chain of rows",
            dense / chain,
            "at least 50",
            lambda x: x >= 50,
        ),
        Asked(
            "roll-out: all of the dense way over all of ours",
            whole / ms(rows, roll, "rows, all of it"),
        ),
    ]


def asked_of_pictures(metrics: Row) -> list[Asked]:
    rows, picture, quality = metrics["labels"], "pseudo label", "panoptic quality"
    seconds = {way: ms(rows, picture, way) / 1e3 for way in ("Point2Mask", "PSPS")}
    loop = ms(rows, quality, "loop") / ms(rows, quality, "table")
    filtered = ms(rows, "tree filter", "tree and filter")
    return [
        Asked("pseudo label of Point2Mask, seconds", seconds["Point2Mask"], "at most 0.09", lambda x: x <= 0.09),
        Asked("pixels labelled as by the full-size solve, worst, %", 100 * min(metrics["same_labels"]), "at least 99.5",
              lambda x: x >= 99.5),
        Asked("pseudo label of PSPS, seconds", seconds["PSPS"], "at most 0.07", lambda x: x <= 0.07),
        Asked("tree and filter, ms", filtered, "at most 10", lambda x: x <= 10),
        Asked("panoptic quality: plain loop over one table", loop, "at least 10", lambda x: x >= 10),
    ]  # fmt: skip


def asked_of_memory(rows: Sequence[Row]) -> list[Asked]:
    """Two pictures hold at most twice what one holds beside the weights."""
    return [
        Asked(f"training step of {row['method']} at scale {row['scale']}, two pictures, GB at most",
              (row["weights_mb"] + 2 * row["peak_mb"]) / 1e3, "below 24", lambda x: x < 24)
        for row in rows
    ]  # fmt: skip


def memory_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = [
        "method",
        "scale",
        "picture",
        "weights, MB",
        "held by a step of one picture beside them, MB",
    ]
    cells = [
        [
            row["method"],
            row["scale"],
            "{} x {}".format(*row["size"]),
            number(row["weights_mb"]),
            number(row["peak_mb"]),
        ]
        for row in rows
    ]
    return head, cells


def feeding_table(
    rows: Sequence[Row], processes: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Beside the cost of a batch: milliseconds of work from which a step is fed, by the number of loader processes."""
    head = ["batch of", "pictures", "ms", "median ms", "fed is a step of, ms, without a process",
            *(f"with {n}" for n in processes)]  # fmt: skip
    cells = [
        [row["method"], str(row["images"]), number(row["ms"]), number(row["cpu_median_ms"]),
         *(number(shortest_step(row["cpu_median_ms"], n)) for n in (0, *processes))]
        for row in rows
    ]  # fmt: skip
    return head, cells


def waiting_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = ["method", "loader processes", "step, ms", "of it waiting for data"]
    cells = [
        [
            row["method"],
            str(row["processes"]),
            number(row["step_ms"]),
            f"{100 * row['waiting']:.1f} %",
        ]
        for row in rows
    ]
    return head, cells


def asked_table(metrics: Row) -> tuple[list[str], list[list[str]]]:
    """Demands, our numbers and whether they are met; the verdict is computed."""
    cells = [
        [html.escape(a.what), number(a.value), html.escape(a.words), a.verdict]
        for a in asked(metrics)
    ]
    return ["what", "ours", "asked for", ""], cells


def number(value: float | None) -> str:
    """Three figures that count; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def curves(
    rows: Sequence[Row], network: str, value: str = "ms"
) -> dict[str, tuple[list[int], list[float]]]:
    """Piece -> its tokens and values, by rising tokens, of one network."""
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row in sorted((r for r in rows if r["network"] == network), key=lambda r: r["tokens"]):
        tokens, values = found.setdefault(row["piece"], ([], []))
        tokens.append(row["tokens"])
        values.append(row[value])
    return found
