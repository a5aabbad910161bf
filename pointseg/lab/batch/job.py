"""One job of a batch in a process of its own, with a log, a state and GPUs.

python -m pointseg.lab.batch.job JOBS.json NAME PARENT      (started by the engine, see Snakefile)
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from pointseg.data.files import read_json, write_text
from pointseg.data.orphans import die_with
from pointseg.lab.batch.locks import held
from pointseg.lab.batch.slots import on_gpus
from pointseg.structures import InputError


def main(plan: Path, name: str, parent: int) -> int:
    """Exit code: 0 done, 1 failed, 130 stopped and resumable."""
    die_with(parent, signal.SIGTERM)
    content = read_json(plan)
    job = next(job for job in content["jobs"] if job["name"] == name)
    place = Path(plan).parent
    os.chdir(content["home"])
    with logged(place / "logs" / f"{name}.log"), held(place / "locks" / f"{name}.lock", name):
        with slots_of(content, job, place):
            return noted(job, Path(content["runs"]), place)


def noted(job: Mapping[str, Any], runs: Path, place: Path) -> int:
    """Does the job and keeps its state true; the marker that the engine waits for comes last."""
    began, state = time.time(), place / "states" / f"{job['name']}.json"
    facts = {"gpus": os.environ.get("CUDA_VISIBLE_DEVICES"), "began": began}
    write_text(state, json.dumps({**facts, "state": "running"}))
    word, error, code = "done", "", 0
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        made = WORK[job["kind"]](job["words"], runs)
        write_text(place / "done" / job["name"], json.dumps({"files": [str(f) for f in made]}))
    except KeyboardInterrupt:
        word, code = "interrupted", 130
    except Exception as problem:
        word, code = "failed", 1
        error = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
        print(error, file=sys.stderr, flush=True)
    ended = {"ended": time.time(), "state": word, "error": error}
    write_text(state, json.dumps({**facts, **ended}))
    return code


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What this process and its children say goes to a file of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        yield


@contextmanager
def slots_of(content: Mapping[str, Any], job: Mapping[str, Any], place: Path) -> Iterator[None]:
    """Where the batch has GPUs to give, this job sees its own only; a queue gives them itself."""
    gpus, per_gpu = content["gpus"], content["per_gpu"]
    with on_gpus(place / "slots", gpus, per_gpu, job["gpus"]) if gpus else nullcontext() as given:
        if given:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, given))
        yield


def make_run(words: Mapping[str, Any], runs: Path) -> list[Path]:
    from pointseg.lab.notebook import run_notebook

    return [run_notebook(Path(words["notebook"]), words["parameters"], runs=runs)]


def make_bench(words: Mapping[str, Any], runs: Path) -> list[Path]:
    from pointseg.lab.bench import bench

    lines = bench(words["bed"], words["rows"], [words["seed"]], runs, **words["changes"])
    for line in lines:
        print(line, flush=True)
    return []


def make_stage(words: Mapping[str, Any], runs: Path) -> list[Path]:
    """A stage that several runs stand on: its weights, and its labels where one learns from
    them."""
    from pointseg.lab.chain import Chain
    from pointseg.lab.recipe import Recipe
    from pointseg.lab.run_data import open_corpus

    recipe, k = Recipe.from_json(words["recipe"]), words["k"]
    return [Chain(open_corpus(recipe), runs.parent / "work" / "stages").model(k)]


WORK = {"run": make_run, "bench": make_bench, "stage": make_stage}

if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise InputError("job: expected JOBS.json NAME PARENT")
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
