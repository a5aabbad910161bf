"""From a cost run to the cells of the chapter's tables: rows of text, nothing measured here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pointseg.bookkit.markup import Html, escape, filled
from pointseg.bookkit.report import source
from pointseg.lab.batch.speed import command_of, speed_run
from pointseg.lab.run_record import Run

NOT_MEASURED = "not measured here"
Row = dict[str, Any]


def source_line(run: Run) -> str:
    """Where, when and on how many threads a run's numbers were made."""
    made = run.read("env.json")
    where = made.get("device", "") or "an unnamed machine"
    if made.get("instructions"):
        where += f" ({', '.join(made['instructions'])})"
    count = run.result["metrics"]["machines"][0]["threads"]
    threads = "one thread" if count == 1 else f"{count} threads"
    day = run.result.get("finished", "")[:10]
    return filled("Run {}, finished on {}, on {}, {}.", source(run), day, escape(where), threads)


def machine_table(metrics: Row) -> tuple[list[str], list[list[str]]]:
    head = ["device", "float32, 10⁹ operations/s", "bf16, 10⁹ operations/s", "copy, 10⁹ bytes/s"]
    rates = ("float32", "bf16", "bytes")
    rows = [
        [escape(m["device"]), *(number(m[k] / 1e9) for k in rates)] for m in metrics["machines"]
    ]
    return head, rows


def cost_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = ["what", "piece", "images", "side", "ms", "median ms", "calls", "peak MB", "floor, ms"]
    numbers = ("ms", "median_ms", "calls", "peak_mb", "floor_ms")
    cells = [
        [escape(row["group"]), piece(row),
         str(row["images"]), str(row["side"]), *(number(row.get(k)) for k in numbers)]
        for row in rows
    ]  # fmt: skip
    return head, cells


def piece(row: Row) -> Html:
    """A piece and its precision, which tells apart two of one name."""
    name, precision = row["name"], row["precision"]
    return filled("{} ({})", name.removesuffix(f", {precision}"), precision)


def memory_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    head = ["method", "scale", "side of the image", "weights, MB", "held by a step beside them, MB"]
    cells = [
        [
            row["method"],
            row["scale"],
            str(row["side"]),
            number(row["weights_mb"]),
            number(row["peak_mb"]),
        ]
        for row in rows
    ]
    return head, cells


def speed_line(runs: Path, scale: str, device: str) -> str:
    """Where the speeds of a scale were measured, or the command that measures them."""
    run = speed_run(runs, scale, device)
    if not run.metrics:
        return filled("Scale {}: <code>{}</code>", scale, command_of(scale, device))
    where = run.read("env.json").get("device", "an unnamed machine")
    return filled("Scale {}, on {}: {}.", scale, where, source(run))


def speed_table(runs: Path, scale: str, device: str) -> tuple[list[str], list[list[str]]]:
    head = ["method", "precision", "images a step", "side", "s a step", "images/s", "waits, %",
            "GB", "first loss, its own less the processor's, %"]  # fmt: skip
    speeds = speed_run(runs, scale, device).metrics.get("speeds", {})
    rows = [[method, precision, *speed_cells(row)] for method, each in speeds.items()
            for precision, row in each.items()]  # fmt: skip
    return head, rows


def speed_cells(row: Row) -> list[str]:
    if "error" in row:
        return [escape(row["error"]), *[number(None)] * 6]
    apart = row["first_loss"] / row["first_loss_cpu"] - 1
    numbers = (row["batch"] / row["images_per_s"], row["images_per_s"],
               100 * row["data_wait_share"], row["memory_gb"], 100 * apart)  # fmt: skip
    return [str(row["batch"]), str(row["image_size"]), *map(number, numbers)]


def number(value: float | None) -> str:
    """Three figures that count; a dash for nothing."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def curves(
    rows: Sequence[Row], group: str, key: str = "ms"
) -> dict[str, tuple[list[int], list[float]]]:
    """Piece -> sides and values, by rising side, of one group."""
    lines: dict[str, tuple[list[int], list[float]]] = {}
    for row in sorted((r for r in rows if r["group"] == group), key=lambda r: r["side"]):
        sides, values = lines.setdefault(row["name"], ([], []))
        sides.append(row["side"])
        values.append(row[key])
    return lines
