"""The batch: every run of a tier, in order, each only if it has not been run yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pointseg.lab.notebook import prepared, run_notebook
from pointseg.lab.recipe import METHODS, method_class
from pointseg.lab.run_record import Run, home, write_index
from pointseg.structures import InputError

NOTEBOOK = Path("book/experiment.py")
PLAN = Path("book/plan.yml")
TEACHER = {
    "instances": "attentionshift",
    "panoptic": "psps",
}  # the method whose first stage serves all of a task
FIRST_STEPS = {"small": 1000}  # of the first stage that a single training puts before itself
# what a first stage has in common with the rows that start from it
SHARED = ("data", "layout", "scale", "seed", "points", "n", "points_seed", "settings")


def reproduce(tier: str, runs: Path = Path("runs")) -> list[Path]:
    """Runs what the tier lacks. A run that crashes stops the batch with its name; the others are kept."""
    done, wanted = [], planned(tier, runs)
    for number, parameters in enumerate(wanted, start=1):
        words = " ".join(f"{k}={v}" for k, v in parameters.items())
        print(f"[{number}/{len(wanted)}] {words}", flush=True)
        renew_first_stage(parameters, wanted, runs)
        done.append(run_notebook(home() / NOTEBOOK, parameters, runs=runs))
    write_index(runs)
    return done


def trained(
    given: Mapping[str, Any], notebook: Path, steps: int | None, force: bool, runs: Path
) -> Path:
    """One run, after a first stage from points alone as in the plan; by default where the scale has one."""
    steps = FIRST_STEPS.get(given["scale"], 0) if steps is None else steps
    if steps and "start" not in given and "stage" not in str(given.get("config", "")):
        first = first_stage_of(given, steps)
        given = {
            **given,
            "start": with_weights(notebook.with_name(NOTEBOOK.name), first, runs).name,
        }
        print(f"first stage: {runs / given['start']}", flush=True)
    return run_notebook(notebook, given, force=force, runs=runs)


def with_weights(notebook: Path, first: Mapping[str, Any], runs: Path) -> Path:
    """The run of a first stage. Weights are not kept with a run: where they are lost they are made again."""
    stage = prepared(notebook, first, runs)[2]
    lost = stage.status == "ok" and not (stage.scratch / "model.pt").exists()
    return run_notebook(notebook, first, force=lost, runs=runs)


def first_stage_of(given: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Parameters of the first stage that a row with these parameters starts from."""
    teacher = TEACHER[method_class(given["method"]).TASK]
    rest = {name: given[name] for name in SHARED if name in given}
    stage = {"method": "token_querying"} if teacher == "attentionshift" else {
        "method": teacher, "config": {"stage": "points"}}  # fmt: skip
    return rest | stage | {"training": {"steps": steps}}


def planned(tier: str, runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """Parameters of every run of a tier: each method once at scale smoke, or what plan.yml lists."""
    if tier == "smoke":
        return [{"method": name, "scale": "smoke"} for name in METHODS]
    plan = yaml.safe_load((home() / PLAN).read_text())
    if tier not in plan:
        raise InputError(f"{PLAN}: there is no tier '{tier}'; there are smoke, {', '.join(plan)}")
    every = [one for entry in plan[tier] for one in expanded(entry, runs)]
    return [one for i, one in enumerate(every) if one not in every[:i]]


def expanded(entry: dict[str, Any], runs: Path = Path("runs")) -> list[dict[str, Any]]:
    """One set of parameters a seed, each behind that of the first stage it starts from."""
    rest = {k: v for k, v in entry.items() if k not in ("seeds", "start")}
    rows = []
    for seed in entry.get("seeds", [0]):
        first = [{**entry["start"], "seed": seed}] if "start" in entry else []
        row = {**rest, "seed": seed}
        rows += [*first, row | {"start": run_of(first[0], runs).id} if first else row]
    return rows


def renew_first_stage(parameters: dict[str, Any], wanted: list[dict[str, Any]], runs: Path) -> None:
    """Where a row that has not run needs its first stage, that stage has its weights."""
    start = parameters.get("start")
    if start and run_of(parameters, runs).status != "ok":
        with_weights(
            home() / NOTEBOOK, next(one for one in wanted if run_of(one, runs).id == start), runs
        )


def run_of(parameters: dict[str, Any], runs: Path) -> Run:
    return prepared(home() / NOTEBOOK, parameters, runs)[2]
