"""Who is at work in a folder: locks of the kernel, which go with their process however it ends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pointseg.lab.run_record import holder
from pointseg.structures import InputError


@contextmanager
def held(path: Path, what: str) -> Iterator[None]:
    """Nobody else is inside; who is, is named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not taken(file):
            file.seek(0)
            raise InputError(f"{what} ({file.read()[:200]})")
        file.truncate(0)
        print(holder(), end="", file=file, flush=True)
        yield


def taken(file) -> bool:
    """Whether an open file could be locked at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Whether a living process holds a lock."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        return not taken(file)


def wait_until_free(paths: list[Path], seconds: float) -> None:
    """Refuses while a process of an earlier batch lives; one that was asked to stop is waited
    for."""
    end = time.monotonic() + seconds
    while living := [path for path in paths if is_held(path)]:
        if time.monotonic() > end:
            raise InputError(f"{living[0].stem}: a job of an earlier batch is still running "
                             f"({living[0].read_text()[:200]})")  # fmt: skip
        time.sleep(0.2)
