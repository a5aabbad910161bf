"""The jobs of a batch: runs, beds of the label bench with one seed, and the stages that several of
them stand on, each trained once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pointseg.data.files import read_json
from pointseg.lab.batch.choice import MOVED, Choice, chosen
from pointseg.lab.bench import finished
from pointseg.lab.chain import COMMON, head_hash
from pointseg.lab.fingerprint import sha8
from pointseg.lab.methods import METHODS
from pointseg.lab.notebook import Key, Source, checked, differences, key_of, recipe_of
from pointseg.lab.plan import SIZES, Row, beds, folder_of, rows
from pointseg.lab.recipe import SCALES, Recipe
from pointseg.lab.run_record import SMOKE, Run, strict
from pointseg.structures import InputError

RUN, BENCH, STAGE = "run", "bench", "stage"
PAPER_DATA = {"voc": "data/VOCdevkit/VOC2012", "voc-panoptic": "data/VOCdevkit/VOC2012",
              "coco": "data/coco", "panoptic": "data/coco"}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One process of a batch."""

    name: str
    kind: str
    words: dict[str, Any]  # what the process is given
    recipes: tuple[Recipe, ...]
    records: tuple[Path, ...] = ()  # folders below runs/
    needs: tuple[str, ...] = ()  # names of jobs
    k: int | None = None  # of the stage that it trains

    @property
    def processes(self) -> int:
        """Of torchrun, a GPU each."""
        return self.words.get("parameters", {}).get("processes", 1)

    @cached_property
    def heads(self) -> list[str]:
        """Names of the stages that it trains where nobody has; of a bed those that its rows
        share."""
        return heads_of(self.recipes[0])[: self.depth]

    @property
    def depth(self) -> int:
        """How many stages of its recipe these are."""
        stages = len(self.recipes[0].stages)
        return {RUN: stages, BENCH: stages - 1}.get(self.kind, (self.k or 0) + 1)

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "kind": self.kind, "words": strict(self.words),
                "needs": list(self.needs)}  # fmt: skip


def jobs_of(
    names: Sequence[str],
    scale: str | None,
    seeds: Sequence[int] | None,
    source: Source,
    processes: int = 1,
) -> list[Job]:
    """Every job that the names ask for, finished or not, each behind those that it needs."""
    beside = {"processes": processes} if processes > 1 else {}
    methods = [name for name in METHODS if SMOKE in names]
    choice = chosen([name for name in names if name != SMOKE], scale)
    made = [_run_job(name, {"method": name, **beside}, source) for name in methods]
    made += [
        _run_job(name, words_of(rows()[name], seed, scale) | beside, source)
        for name in choice.rows
        for seed in seeds_of(rows()[name].seeds, seeds, scale)
    ]
    return linked([*made, *_bench_jobs(choice, seeds, scale)], apart=processes == 1)


def seeds_of(
    planned: Sequence[int], given: Sequence[int] | None, scale: str | None
) -> Sequence[int]:
    """The seeds given; else the plan's, of which a scale that rows are moved to takes the first."""
    return given if given is not None else planned[:1] if scale in MOVED else planned


def words_of(row: Row, seed: int, scale: str | None) -> dict[str, Any]:
    """Parameters of the notebook for a row. Moved to another scale it keeps its chain, layout and
    points, and takes the lengths and sizes of that scale."""
    words: dict[str, Any] = {"method": row.name, "seed": seed}
    if scale not in MOVED:
        return words
    dial, layout = SCALES[scale], row.given.get("layout", "auto")
    stages = [{k: v for k, v in stage.items() if k != "training"} for stage in row.given["stages"]]
    settings = {name: getattr(dial, name) for name in SIZES} | {"precision": "auto"}
    data = dial.data if scale == SMOKE else PAPER_DATA.get(layout, PAPER_DATA["voc"])
    return {**words, "scale": scale, "stages": stages, "data": data, "settings": settings}


def _run_job(name: str, words: dict[str, Any], source: Source) -> Job:
    recipe = recipe_of(checked(source, words))
    given = {"notebook": str(source.path), "parameters": words}
    return Job(f"{name}-s{recipe.seed}", RUN, given, (recipe,), (folder_of(recipe),))


def _bench_jobs(choice: Choice, seeds: Sequence[int] | None, scale: str | None) -> Iterable[Job]:
    changes = {"scale": scale, "data": "bestiary"} if scale == SMOKE else {}
    for name, picked in choice.benches.items():
        bed = beds()[name]
        for seed in seeds_of(bed.seeds, seeds, scale):
            recipes = {row: bed.recipe(rows()[row], seed, **changes) for row in picked}
            folders = tuple(bed.folder(row, recipe) for row, recipe in recipes.items())
            words = {"bed": name, "rows": picked, "seed": seed, "changes": changes}
            yield Job(f"bench-{name}-s{seed}", BENCH, words, tuple(recipes.values()), folders)


def heads_of(recipe: Recipe) -> list[str]:
    """A name for each stage with all that it stands on, data named and code left out."""
    values, heads = strict(asdict(recipe)), []
    common = {name: values[name] for name in COMMON}
    for stage in values["stages"]:
        sources = {name: stage[name] for name in ("learns_from", "starts_from")}
        links = {n: heads[s] if isinstance(s, int) else s for n, s in sources.items()}
        heads.append(sha8({**stage, **links}, common))
    return heads


def linked(jobs: Sequence[Job], apart: bool = True) -> list[Job]:
    """The jobs with those that they need before them: who else trains a stage of theirs, or a job
    of its own for a stage that several need. Where runs take several processes, the first of those
    that need a stage trains it."""
    ordered = _in_order(jobs)
    users = Counter(head for job in ordered for head in job.heads)
    whole, shared = {}, {}
    for job in ordered:
        if job.kind == RUN:
            whole.setdefault(job.heads[-1], job)
    for job in ordered:
        for k, head in enumerate(job.heads):
            if users[head] > 1 and head not in whole and head not in shared:
                shared[head] = _stage_job(job.recipes[0], k) if apart else job
    makers, stages = {**shared, **whole}, [job for job in shared.values() if job.kind == STAGE]
    return [_with_needs(job, makers) for job in _in_order([*stages, *ordered])]


def _in_order(jobs: Iterable[Job]) -> list[Job]:
    """Short chains first: what others stand on comes before them."""
    return sorted(jobs, key=lambda job: (job.depth, job.kind != STAGE))


def _with_needs(job: Job, makers: dict[str, Job]) -> Job:
    needed = (makers[head].name for head in job.heads if head in makers)
    return replace(job, needs=tuple(dict.fromkeys(n for n in needed if n != job.name)))


def _stage_job(recipe: Recipe, k: int) -> Job:
    """Its name changes with the code, so that what another code has trained is not taken."""
    words, name = {"recipe": recipe.to_json(), "k": k}, recipe.stages[k].method
    return Job(f"{name}-{head_hash(recipe, k, '')}", STAGE, words, (recipe,), k=k)


def missing(
    jobs: Sequence[Job], source: Source, runs: Path, markers: Path, force: bool = False
) -> list[Job]:
    """The jobs that have to run: those whose record is absent or no longer what its recipe, code
    and data give, and the shared stages that these need."""
    wanted = {job.name for job in jobs if job.kind != STAGE
              and (force or not is_finished(job, source, runs))}  # fmt: skip
    for job in reversed(jobs):
        if job.name in wanted:
            stages = (each for each in jobs if each.name in job.needs and each.kind == STAGE)
            wanted |= {each.name for each in stages if not stage_is_kept(markers / each.name)}
    kept = [job for job in jobs if job.name in wanted]
    return [replace(job, needs=tuple(n for n in job.needs if n in wanted)) for job in kept]


def is_finished(job: Job, source: Source, runs: Path) -> bool:
    """Whether the records of a job are what it would write."""
    records = [Run(runs / folder) for folder in job.records]
    if job.kind == BENCH:
        return all(finished(run, recipe) for run, recipe in zip(records, job.recipes))
    result = records[0].result
    if records[0].status != "ok" or "key" not in result:
        return False
    try:
        now = key_of(source, checked(source, job.words["parameters"]))
        return not differences(Key(**result["key"]), now)
    except InputError:  # the data are not here: the run itself will say so
        return False


def stage_is_kept(marker: Path) -> bool:
    """Whether a shared stage has been trained by this code and its weights are still there."""
    return marker.exists() and all(Path(name).exists() for name in read_json(marker)["files"])
