"""A kept run done once more, here: every score beside the kept one, with how far it may move."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pointseg.data.files import shown
from pointseg.lab.bench import score_rows
from pointseg.lab.experiment import experiment
from pointseg.lab.notebook import compare_results, measured
from pointseg.lab.plan import beds
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_record import RUNS, Run, environment, unrecorded
from pointseg.structures import InputError

# Of a score in percent: kernels of another processor round otherwise, and a training multiplies
# what rounding does.
RTOL, ATOL = 0.05, 1.0


def again(name: str, runs: Path = RUNS, data: str | None = None) -> Iterator[str]:
    """Lines about a kept run and its repetition; a score that moved too far is refused at last."""
    kept, recipe = kept_run(name, runs)
    yield f"{name}: kept from {machine(kept.read('env.json'))}; again on {machine(environment())}"
    fresh = done_again(kept, recipe if data is None else replace(recipe, data=data))
    before, now = (measured(run.folder) for run in (kept, fresh))
    yield f"{'':24} {'kept':>8} {'again':>8} {'moved':>8} {'may move':>9}"
    for each, value in before.items():
        yield compared(each, value, now.get(each))
    moved = compare_results(fresh.folder, kept.folder, RTOL, ATOL)
    if moved:
        raise InputError(f"{name} moved further than it may: {'; '.join(moved)}")
    yield f"all {len(before)} scores are within {ATOL:g} points + {100 * RTOL:g} % of the kept one"


def kept_run(name: str, runs: Path) -> tuple[Run, Recipe]:
    run = Run(runs / name)
    if run.status != "ok":
        raise InputError(f"{run.folder}: no finished run lies there")
    return run, Recipe.from_json(json.dumps(run.read("recipe.json")))


def machine(facts: dict[str, Any]) -> str:
    """Processor, what it multiplies with, and torch."""
    known = ", ".join(facts.get("instructions", []))
    return f"{facts.get('cpu', '?')} ({known}), torch {facts.get('packages', {}).get('torch', '?')}"


def done_again(kept: Run, recipe: Recipe) -> Run:
    """The repetition, which no record knows of."""
    fresh = unrecorded(f"again-{recipe.sha8}")
    shutil.rmtree(fresh.root, ignore_errors=True)
    if kept.result.get("kind") != "bench":
        with fresh.recording():
            experiment(recipe, fresh)
        return fresh
    row, bed = (kept.result.get(name) for name in ("row", "bed"))
    if row is None or bed not in beds():
        raise InputError(f"{kept.folder}: its bed {shown(bed)} is no longer in the plan")
    score_rows(bed, {row: recipe}, {row: fresh}, {row: recipe})
    return fresh


def compared(name: str, kept: float, now: float | None) -> str:
    if now is None:
        return f"{name:24} {kept:8.2f} {'-':>8}"
    return f"{name:24} {kept:8.2f} {now:8.2f} {now - kept:+8.2f} {ATOL + RTOL * abs(kept):9.2f}"
