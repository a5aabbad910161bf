"""How each job of a batch stands, read from its folder by whoever wants to know."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

from pointseg.data.files import read_json, refuse_special
from pointseg.data.shapes import refuse_misshapen
from pointseg.lab.batch.locks import is_held
from pointseg.lab.progress import clock
from pointseg.structures import InputError

DONE, RUNNING, WAITING, FAILED = "done", "running", "waiting", "failed"
STOPPED, KILLED, BLOCKED = "interrupted", "killed", "blocked"
ENDED_BADLY = (FAILED, STOPPED, KILLED, BLOCKED)
TAIL = 4000  # bytes of a log


class JobFacts(TypedDict):
    name: str
    needs: list[str]


class Plan(TypedDict):
    jobs: list[JobFacts]


class State(TypedDict, total=False):
    state: Required[Literal["done", "running", "failed", "interrupted"]]
    began: Required[float]
    ended: float
    gpus: str | None


@dataclass(frozen=True)
class Standing:
    """One job: its state, for how long, on which GPU, and the last line of its log."""

    name: str
    state: str
    seconds: float | None = None
    gpus: str | None = None
    line: str = ""

    def __str__(self) -> str:
        took = "" if self.seconds is None else clock(self.seconds)
        gpu = f"  gpu {self.gpus}" if self.gpus else ""
        return f"{self.state:11} {self.name:44} {took:>8}{gpu}  {self.line}".rstrip()


def place_of(runs: Path) -> Path:
    """The folder of the batch that writes to these runs; git does not see it."""
    return Path(runs).absolute().parent / "work" / "batch"


def standings(place: Path) -> list[Standing]:
    """All jobs of the last batch, in its order."""
    if not (place / "jobs.json").exists():
        raise InputError(f"{place}: there has been no batch")
    known: dict[str, Standing] = {}
    for job in read_shaped(place / "jobs.json", Plan)["jobs"]:
        standing = _standing(place, job["name"])
        failed = any(need in known and known[need].state in ENDED_BADLY for need in job["needs"])
        if standing.state == WAITING and failed:
            standing = Standing(job["name"], BLOCKED, line="what it needs has not been made")
        known[job["name"]] = standing
    return list(known.values())


def _standing(place: Path, name: str) -> Standing:
    path = place / "states" / f"{name}.json"
    if not path.exists():
        return Standing(name, DONE if (place / "done" / name).exists() else WAITING)
    facts = read_shaped(path, State)
    state, ended = facts["state"], facts.get("ended")
    if state == RUNNING:
        state, ended = (RUNNING if is_held(place / "locks" / f"{name}.lock") else KILLED), ended
    seconds = (ended or time.time()) - facts["began"] if ended or state == RUNNING else None
    line = "" if state == DONE else last_lines(place / "logs" / f"{name}.log", 1)
    return Standing(name, state, seconds, facts.get("gpus"), line)


def read_shaped(path: Path, shape: Any) -> Any:
    value = read_json(path)
    refuse_misshapen(path, value, shape)
    return value


def last_lines(log: Path, count: int) -> str:
    """The end of a log; what a bar has overwritten is left out."""
    if not log.exists():
        return ""
    refuse_special(log)
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        text = file.read(TAIL).decode(errors="replace")
    lines = [line.rsplit("\r", 1)[-1].strip() for line in text.splitlines()]
    return "\n".join([line for line in lines if line][-count:])


def counted(standing: Sequence[Standing]) -> str:
    """How many are in which state."""
    counts = Counter(each.state for each in standing)
    words = (DONE, RUNNING, WAITING, FAILED, STOPPED, KILLED, BLOCKED)
    return ", ".join(f"{counts[word]} {word}" for word in words if counts[word]) or "no jobs"


def report(place: Path) -> list[str]:
    """What went wrong, with the last lines of each log."""
    lines = []
    for each in standings(place):
        if each.state in ENDED_BADLY:
            log = place / "logs" / f"{each.name}.log"
            lines.append(f"{each.state} {each.name}  (log: {log})")
            lines += [f"    {line}" for line in last_lines(log, 8).splitlines()]
    return lines
