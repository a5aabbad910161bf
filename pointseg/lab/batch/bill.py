"""What a batch would cost, before it is begun: hours, memory and disk from measured speeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointseg.lab.batch.jobs import BENCH, Job, heads_of
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_record import Run, run_folder

BYTES_KEPT = 4 * 4  # of a parameter while it learns: itself twice, and two moments
PAPER_IMAGES = {"voc": 10_582, "voc-panoptic": 10_582, "coco": 118_287, "panoptic": 118_287}
GB = 2**30


@dataclass(frozen=True)
class Rate:
    """How fast a method trains at a scale, where that was measured, and what it holds."""

    images_per_s: float
    memory_gb: float
    parameters: int
    device: str


@dataclass(frozen=True)
class Cost:
    """Hours of one device to train something; methods nobody has measured are named instead."""

    hours: float = 0.0
    memory_gb: float = 0.0
    disk_gb: float = 0.0
    unknown: frozenset[str] = frozenset()

    def __add__(self, other: Cost) -> Cost:
        most = max(self.memory_gb, other.memory_gb)
        return Cost(self.hours + other.hours, most, self.disk_gb + other.disk_gb,
                    self.unknown | other.unknown)  # fmt: skip

    def __str__(self) -> str:
        if self.unknown:
            return f"not measured ({', '.join(sorted(self.unknown))})"
        return f"{self.hours:8.2f} h {self.memory_gb:6.1f} GB {self.disk_gb:8.3f} GB disk"


def rates(runs: Path, scale: str, device: str) -> dict[str, Rate]:
    """Rates by method as `pointseg gpu-check` has left them; none where it has not run."""
    run = Run(Path(runs) / run_folder("speed", f"{scale}-{device}", "s0"))
    named = run.read("env.json").get("device", "")
    known = {}
    for method, row in run.metrics.get("speeds", {}).items():
        best = row.get("bf16", row.get("float32", {}))
        if "images_per_s" in best:
            known[method] = Rate(best["images_per_s"], best["memory_gb"], best["parameters"], named)
    return known


def stage_cost(recipe: Recipe, k: int, known: dict[str, Rate]) -> Cost:
    """Its training; scoring and start come on top."""
    stage, rate = recipe.stages[k], known.get(recipe.stages[k].method)
    if rate is None:
        return Cost(unknown=frozenset({stage.method}))
    steps = stage.steps_for(recipe.images or PAPER_IMAGES.get(recipe.layout, 0))
    seconds = steps * stage.training.batch / rate.images_per_s
    return Cost(seconds / 3600, rate.memory_gb, rate.parameters * BYTES_KEPT / GB)


def costs(jobs: Sequence[Job], kept: Sequence[Job], runs: Path, device: str) -> dict[str, Cost]:
    """The cost of each job; a stage counts where it is trained first, and not at all where a job
    that is kept has trained it."""
    made = {head for job in kept for head in job.heads}
    tables: dict[str, dict[str, Rate]] = {}
    bill = {}
    for job in jobs:
        scale = job.recipes[0].scale
        known = tables.setdefault(scale, rates(runs, scale, device))
        total = Cost()
        for recipe, k, head in trained_by(job):
            if head not in made:
                total += stage_cost(recipe, k, known)
                made.add(head)
        bill[job.name] = total
    return bill


def trained_by(job: Job) -> Iterator[tuple[Recipe, int, str]]:
    """Every stage that a job trains, with its name; of a bed also the last one of each row."""
    yield from ((job.recipes[0], k, head) for k, head in enumerate(job.heads))
    if job.kind == BENCH:
        for recipe in job.recipes:
            yield recipe, len(recipe.stages) - 1, heads_of(recipe)[-1]


def bill_lines(jobs: Sequence[Job], kept: Sequence[Job], runs: Path, device: str) -> list[str]:
    """One line a job in its order, then the sum and what it rests on."""
    bill = costs(jobs, kept, runs, device)
    lines = []
    for job in jobs:
        after = f"  after {', '.join(job.needs)}" if job.needs else ""
        lines.append(f"{job.kind:6} {job.name:44} {bill[job.name]}{after}")
    return [*lines, *sum_lines(jobs, bill, runs, device)]


def sum_lines(jobs: Sequence[Job], bill: dict[str, Cost], runs: Path, device: str) -> list[str]:
    total = sum(bill.values(), Cost())
    known = Cost(total.hours, total.memory_gb, total.disk_gb)
    unit = "GPU hours" if device == "cuda" else "hours of one core"
    scales = dict.fromkeys(job.recipes[0].scale for job in jobs)
    rests = {r.device for scale in scales for r in rates(runs, scale, device).values()}
    lines = [f"{len(jobs)} jobs; {unit}, largest memory, disk while they train: {known}"]
    lines += [f"rests on: {', '.join(sorted(rests)) or 'nothing measured'}; training only, scoring "
              "and start come on top"]  # fmt: skip
    if total.unknown:
        words = "" if device == "cuda" else "--cpu "
        lines.append(f"not measured and not in the sum: {', '.join(sorted(total.unknown))} "
                     f"(`pointseg gpu-check {words}--scale {'|'.join(scales)}`)")  # fmt: skip
    return lines


def table_lines(jobs: Sequence[Job], claims: dict[str, Any], runs: Path, device: str) -> list[str]:
    """The bill of each of the papers' tables by itself: its rows with all that they stand on."""
    lines = []
    tables = dict.fromkeys((entry["paper"], entry["table"]) for entry in claims["measured"])
    for paper, table in tables:
        ours = {entry["ours"] for entry in claims["measured"]
                if (entry["paper"], entry["table"]) == (paper, table)}  # fmt: skip
        mine = [job for job in jobs if row_of(job) in ours]
        if mine:
            total = sum(costs(mine, [], runs, device).values(), Cost())
            lines.append(f"{paper}/{table:4} {len(mine):3} runs {total}")
    return lines


def row_of(job: Job) -> str | None:
    """The row of the plan that a run is of."""
    return job.words.get("parameters", {}).get("method")
