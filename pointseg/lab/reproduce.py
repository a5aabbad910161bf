"""What `train`, `recipe` and `reproduce` say and do: one run, or a batch of what is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointseg.lab.batch.bill import bill_lines, costs, table_lines
from pointseg.lab.batch.engine import Machine, Watch, run_batch
from pointseg.lab.batch.jobs import Job, jobs_of, missing
from pointseg.lab.batch.states import RUNNING, WAITING, Standing, counted, place_of, report
from pointseg.lab.claims import read_claims
from pointseg.lab.explain import Given, explained
from pointseg.lab.notebook import EXPERIMENT, checked, read_notebook, recipe_of, run_notebook
from pointseg.lab.plan import folder_of
from pointseg.lab.recipe import Recipe, Stage
from pointseg.lab.run_data import CLICKS, clicked
from pointseg.lab.run_index import CLAIMS, write_index
from pointseg.lab.run_record import RUNS, SMOKE, home, runs_in
from pointseg.structures import InputError

NOTEBOOK = Path("book/experiment.py")


@dataclass(frozen=True)
class Wanted:
    """What somebody asks a batch for."""

    names: Sequence[str]
    scale: str | None = None
    seeds: Sequence[int] | None = None
    runs: Path = RUNS
    force: bool = False
    processes: int = 1  # of torchrun for each run

    def jobs(self) -> tuple[list[Job], list[Job]]:
        """All jobs, and those of them that have to run."""
        source = read_notebook(home() / NOTEBOOK)
        jobs = jobs_of(self.names, self.scale, self.seeds, source, self.processes)
        marks = place_of(self.runs) / "done"
        return jobs, missing(jobs, source, self.runs, marks, self.force)


def kept_of(jobs: Sequence[Job], left: Sequence[Job]) -> list[Job]:
    """The jobs that are done before."""
    names = {job.name for job in left}
    return [job for job in jobs if job.name not in names]


def dry_run(wanted: Wanted, device: str) -> list[str]:
    """What a batch would do and cost; nothing is begun. At scale paper also a bill a table."""
    jobs, left = wanted.jobs()
    kept = kept_of(jobs, left)
    lines = bill_lines(left, kept, wanted.runs, device)
    if wanted.scale == "paper":
        claims = read_claims(home() / CLAIMS)
        lines += ["each table by itself:", *table_lines(jobs, claims, wanted.runs, device)]
    return [*lines, f"{len(kept)} jobs are done before"]


def reproduce(wanted: Wanted, machine: Machine, watch: Watch) -> list[str]:
    """Runs what is missing; the failures, with the last lines of each log."""
    jobs, left = wanted.jobs()
    print(f"{len(jobs)} jobs, {len(jobs) - len(left)} of them done before", flush=True)
    if not left:
        return []
    kept = kept_of(jobs, left)
    bill = costs(left, kept, wanted.runs, "cuda" if machine.gpus or machine.slurm else "cpu")
    done = run_batch(left, machine, wanted.runs, watch, bill)
    print(counted(done), flush=True)
    if any(run.id.split("/")[0] != SMOKE for run in runs_in(wanted.runs)):
        write_index(wanted.runs)
    return report(place_of(wanted.runs))


class Lines:
    """Prints a line whenever the state of a job changes."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def __call__(self, standing: Sequence[Standing]) -> None:
        for each in standing:
            if self.states.get(each.name, WAITING) != each.state:
                self.states[each.name] = each.state
                left = sum(s.state in (WAITING, RUNNING) for s in standing)
                print(f"[{len(standing) - left}/{len(standing)}] {each}", flush=True)


def trained(notebook: Path, given: Mapping[str, Any], force: bool, runs: Path) -> Path:
    """One run, which says first what it will do."""
    recipe = described(notebook, checked(read_notebook(notebook), given))
    print("\n".join([*summary(recipe), f"record: {runs / folder_of(recipe)}"]), flush=True)
    return run_notebook(notebook, given, force=force, runs=runs)


def described(notebook: Path, values: Mapping[str, Any]) -> Recipe:
    """The recipe of a notebook's experiment."""
    recipe = recipe_of(values)
    if recipe is None:
        needed = ", ".join(sorted(EXPERIMENT))
        raise InputError(f"{notebook}: describes no experiment (parameters {needed})")
    return recipe


def summary(recipe: Recipe) -> list[str]:
    """What a recipe does, in a few lines."""
    corpus, points = clicked(recipe), recipe.points
    if corpus is None:
        layout, drawn = recipe.layout, f"{points.n} {points.kind} a target"
        images = f"{recipe.images or 'all'} images of split {recipe.train}"
        scored = f"split {recipe.scored_split}, {recipe.scored_images or 'all'} images"
    else:
        layout, drawn = "folder", f"{corpus.points.n} {corpus.points.kind} a target, of {CLICKS}"
        images = f"{len(corpus.train)} of {len(corpus.points.images)} images with points"
        scored = "nothing, as there are no masks"
    return [
        f"data: {recipe.data}, layout {layout}, {images}, {recipe.image_size} px",
        *(f"stage {k}: {stage_line(stage, drawn)}" for k, stage in enumerate(recipe.stages)),
        f"scored on: {scored}",
    ]


def stage_line(stage: Stage, drawn: str) -> str:
    """What a stage learns from, where it starts and how long it trains."""
    source, training = stage.learns_from, stage.training
    what = f"the labels of stage {source}" if isinstance(source, int) else source
    what += f" ({drawn})" if source == "points" else ""
    start = "" if stage.starts_from is None else f", starts from {stage.starts_from}"
    steps = training.steps
    long = f"{steps} steps" if steps is not None else f"{training.epochs:g} epochs"
    return f"{stage.method} learns from {what}{start}, {long} of {training.batch} images"


def recipe_lines(notebook: Path, given: Mapping[str, Any], explain: bool) -> list[str]:
    """The recipe that a training would use; with `explain`, where each value comes from."""
    values = checked(read_notebook(notebook), given)
    recipe = described(notebook, values)
    if not explain:
        return [recipe.to_json()]
    names = {"kind": "points", "n": "n", "seed": "points_seed"}
    points = {kind: values.get(name) for kind, name in names.items()}
    changes = {name: value for name, value in values.items() if name in given}
    return explained(recipe, Given(values["method"], {**changes, "points": points}))
