"""GPUs for the jobs of one machine: who gets which, by locks on files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pointseg.lab.batch.locks import held, taken
from pointseg.structures import InputError


@contextmanager
def on_gpus(folder: Path, gpus: Sequence[int], per_gpu: int, wanted: int) -> Iterator[list[int]]:
    """The GPUs that are this job's inside. One GPU is shared by up to `per_gpu` jobs, and the
    emptiest is given first; a job of several GPUs has them alone. Waits until there are enough."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        while not (given := _try(stack, folder, gpus, per_gpu, wanted)):
            time.sleep(0.2)
        yield given


def _try(
    stack: ExitStack, folder: Path, gpus: Sequence[int], per_gpu: int, wanted: int
) -> list[int]:
    """The GPUs got; [] where there were too few, of which none is kept."""
    try:
        with held(folder / "choosing", "choosing"):
            groups = _groups(gpus, per_gpu, wanted)
            return _enough(stack, folder, groups, wanted)
    except InputError:  # somebody else is choosing
        return []


def _groups(gpus: Sequence[int], per_gpu: int, wanted: int) -> list[list[tuple[int, int]]]:
    """What is taken together: one slot of a GPU, or all of it."""
    if wanted > 1:
        return [[(gpu, k) for k in range(per_gpu)] for gpu in gpus]
    return [[(gpu, k)] for k in range(per_gpu) for gpu in gpus]


def _enough(stack: ExitStack, folder: Path, groups: list, wanted: int) -> list[int]:
    got: list[int] = []
    with ExitStack() as mine:
        for group in groups:
            if _all_taken(mine, [folder / f"gpu{gpu}.{k}" for gpu, k in group]):
                got.append(group[0][0])
            if len(got) == wanted:
                stack.push(mine.pop_all())
                return got
    return []


def _all_taken(stack: ExitStack, paths: list[Path]) -> bool:
    with ExitStack() as mine:
        for path in paths:
            if not taken(mine.enter_context(path.open("a"))):
                return False
        stack.push(mine.pop_all())
    return True
