"""What leads to the runs: runs/index.csv, runs/README.md, and the limits of their sizes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pointseg.lab.claims import read_claims
from pointseg.lab.plan import Row, rows
from pointseg.lab.run_record import RUNS, Run, flat, home, kept_runs, runs_in, write_text

RUN_BYTES = 80_000
ALL_BYTES = 25_000_000
CLAIMS = Path("book/claims.yml")
COLUMNS = ("run", "paper", "row", "changed", "layout", "stages", "seed", "split", "score_name",
           "score", "seconds", "device", "commit", "status", "date")  # fmt: skip
KEY_SCORES = ("voc_mAP50_11pt", "PQ", "AP", "mIoU")  # the first that a run has leads
HEADING = """# Runs

A number of the book is a folder `runs/<paper>/<row>/s<seed>/`: `recipe.json` has everything that
decided it, `env.json` where it was made, `data.json` the hashes of images and points,
`log.jsonl.gz` its losses, `answers.json` its first predictions, `result.json` its scores,
`notebook.ipynb` the executed notebook without its pictures. `index.csv` lists them.
This page and the list are made by `pointseg index`.
"""


def write_index(folder: Path = RUNS) -> list[Path]:
    """Writes runs/index.csv and runs/README.md; functions of the runs, the plan and the claims."""
    folder = Path(folder)
    kept = kept_runs(folder)
    texts = {"index.csv": index_of(kept), "README.md": readme_of(kept)}
    return [write_text(folder / name, text) for name, text in texts.items()]


def index_of(runs: Iterable[Run]) -> str:
    """One line a kept run, whatever its texts hold."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for run in runs:
        writer.writerow({name: " ".join(str(cell).split()) for name, cell in _row(run).items()})
    return text.getvalue()


def _row(run: Run) -> dict[str, Any]:
    recipe, env, result = run.read("recipe.json"), run.read("env.json"), run.result
    name, score = key_score(run)
    paper, row, _ = run.id.split("/")
    stages = result.get("metrics", {}).get("stages", [])
    return {
        "run": run.id,
        "paper": paper,
        "row": row,
        "changed": changed(recipe),
        "layout": recipe.get("layout", ""),
        "stages": " > ".join(stage["method"] for stage in recipe.get("stages", [])),
        "seed": recipe.get("seed", ""),
        "split": recipe.get(recipe.get("scored_on", ""), ""),
        "score_name": name,
        "score": score,
        "seconds": round(sum(stage.get("seconds", 0) for stage in stages)) or "",
        "device": env.get("device", ""),
        "commit": env.get("git", "")[:8],
        "status": run.status,
        "date": result.get("started", "")[:10],
    }


def changed(recipe: dict[str, Any]) -> str:
    """Points, and the settings of each stage that its method does not state."""
    points = recipe.get("points", {})
    words = [f"{points['n']} {points['kind']}"] if points else []
    for stage in recipe.get("stages", []):
        words += [f"{name}={value}" for name, value in stage["config"].items()]
    return ", ".join(words)


def key_score(run: Run) -> tuple[str, Any]:
    """The name and the value of the score that stands for a run."""
    scores = flat(run.result.get("metrics", {}))
    for name in (f"{part}/{kind}" for part in ("val", "tune", "labels") for kind in KEY_SCORES):
        if name in scores:
            return name, round(scores[name], 2)
    return "", ""


def readme_of(runs: Iterable[Run]) -> str:
    """From the rows of the papers' tables to our folders."""
    made: dict[str, list[Run]] = {}
    for run in runs:
        made.setdefault(run.folder.parts[-2], []).append(run)
    lines, cited, planned = [HEADING], _citations(), rows()
    for paper in dict.fromkeys(row.paper for row in planned.values()):
        mine = (row for row in planned.values() if row.paper == paper)
        body = [_line(row, cited.get(row.name, []), made.pop(row.name, [])) for row in mine]
        lines += _section(paper, "| printed row | our row | runs |", body)
    if made:
        body = [f"| | {name} | {_links(runs)} |" for name, runs in made.items()]
        lines += _section("Others", "| | | runs |", body)
    return "\n".join(lines)


def _section(title: str, head: str, body: list[str]) -> list[str]:
    return [f"## {title}\n", head, "|---|---|---|", *body, ""]


def _line(row: Row, cited: list[str], runs: list[Run]) -> str:
    return f"| {'; '.join(cited)} | {row.name} | {_links(runs)} |"


def _links(runs: list[Run]) -> str:
    words = []
    for run in runs:
        name, score = key_score(run)
        shown = f" {name} {score}" if name else ""
        words.append(f"[{run.folder.name}]({run.id}){shown} ({run.status})")
    return ", ".join(words) or "not made yet"


def _citations() -> dict[str, list[str]]:
    """Our row -> the printed rows that it stands beside."""
    claims = read_claims(home() / CLAIMS)
    cited: dict[str, list[str]] = {}
    for entry in claims.get("measured", []):
        place = f"{entry['paper']} Tab. {entry['table']} row {entry['row'] + 1}"
        cited.setdefault(entry["ours"], []).append(place)
    return cited


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def over_budget(folder: Path = RUNS) -> list[str]:
    """Faults of size, one line each: a run beyond its 80 kB, or all of them beyond 25 MB."""
    sizes = {run.folder: size_of(run.folder) for run in runs_in(folder)}
    faults = [
        f"{run}: {size} bytes, {RUN_BYTES} allowed"
        for run, size in sizes.items()
        if size > RUN_BYTES
    ]
    if sum(sizes.values()) > ALL_BYTES:
        faults.append(f"{folder}: {sum(sizes.values())} bytes in all, {ALL_BYTES} allowed")
    return faults
