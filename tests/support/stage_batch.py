"""A batch of two small stages in a folder, as a program that can be killed.

python -m support.stage_batch RUNS [PROFILE]      (exit code 1 where a job failed)
"""

import sys
from pathlib import Path

from pointseg.lab.batch.engine import Machine, run_batch
from pointseg.lab.batch.jobs import STAGE, Job, stage_is_kept
from pointseg.lab.batch.states import DONE, place_of
from pointseg.lab.recipe import make
from pointseg.structures import InputError

METHODS = ("mal", "point_semantics")


def jobs() -> list[Job]:
    """Two stages of four steps, with a checkpoint after the second."""
    recipes = {name: make(name, stages=[{"method": name}]) for name in METHODS}
    return [Job(name, STAGE, {"recipe": r.to_json(), "k": 0}, (r,), k=0)
            for name, r in recipes.items()]  # fmt: skip


def main(runs: Path, slurm: Path | None = None) -> int:
    left = [job for job in jobs() if not stage_is_kept(place_of(runs) / "done" / job.name)]
    try:
        standing = run_batch(left, Machine(2, slurm=slurm), runs, lambda standing: None)
    except InputError as problem:
        print(f"refused: {problem}")
        return 2
    print(*standing, sep="\n")
    return int(any(each.state != DONE for each in standing))


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
