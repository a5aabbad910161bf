"""What has been measured at all: beds of the label bench with their rows and seeds, and rows of
trained students."""

from __future__ import annotations

from pathlib import Path

from pointseg.bookkit.markup import Html
from pointseg.bookkit.report import Trial, table
from pointseg.lab.plan import Bed, beds
from pointseg.lab.run_record import kept_runs

Scored = dict[str, dict[str, int]]  # bed -> row -> how many seeds of it were scored
HEAD = ["bed", "images", "trained for it", "rows scored, of all", "seeds, of all"]


def scored(runs: Path) -> Scored:
    counts: Scored = {}
    for place, row, _ in (run.id.split("/") for run in kept_runs(runs) if run.status == "ok"):
        if place.startswith("bench-"):
            rows = counts.setdefault(place.removeprefix("bench-"), {})
            rows[row] = rows.get(row, 0) + 1
    return counts


def sentence(runs: Path, held: Trial) -> str:
    """The beds whose labels were scored, and how many rows of students were trained."""
    each = [f"{bed} {len(rows)} × {seeds(rows)}" for bed, rows in scored(runs).items()]
    students = len({run.row for run in held.runs if run.row is not None})
    labels = f"Labels scored so far, rows × seeds: {', '.join(each) or 'none'}."
    return f"{labels} Rows of students trained so far: {students}."


def seeds(rows: dict[str, int]) -> str:
    """How many seeds the rows of a bed have."""
    fewest, most = min(rows.values()), max(rows.values())
    return f"{most}" if fewest == most else f"{fewest}-{most}"


def beds_table(runs: Path) -> Html:
    """Every bed of the plan: what it is made of, and how much of it was scored."""
    counts = scored(runs)
    lines = [_line(bed, counts.get(name, {})) for name, bed in beds().items()]
    return table(HEAD, lines, cards=True)


def _line(bed: Bed, rows: dict[str, int]) -> list[str]:
    of_seeds = f"{seeds(rows)} of {max(len(bed.seeds), *rows.values())}" if rows else "-"
    of_rows = f"{len(rows)} of {len(bed.rows)}" if rows else "-"
    return [bed.name, images_of(bed), trained_for(bed), of_rows, of_seeds]


def images_of(bed: Bed) -> str:
    """The data set of a bed, by name."""
    place = str(bed.given.get("data", ""))
    known = {"PennFudan": "Penn-Fudan's people", "dsb2018": "nuclei of DSB2018"}
    named = next((name for part, name in known.items() if part in place), None)
    photographs = bed.given["scale"] == "photos" or "VOC" in place
    return named or ("photographs of VOC 2012" if photographs else "Bestiary")


def trained_for(bed: Bed) -> str:
    """What learns before the labels of a bed are scored."""
    parts = ["a first stage"] if bed.first else []
    parts += [f"each row's labeller, {bed.steps} steps"] if bed.steps else []
    return ", then ".join(parts) or "nothing"
