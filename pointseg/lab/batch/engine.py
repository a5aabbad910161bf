"""A batch run through Snakemake: its order, its resources and its queue are the engine's; what is
left to do, who may start and how it is stopped is decided here."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pointseg.data.files import write_text
from pointseg.data.orphans import die_with_parent
from pointseg.lab.batch.bill import Cost
from pointseg.lab.batch.jobs import Job
from pointseg.lab.batch.locks import held, wait_until_free
from pointseg.lab.batch.states import ENDED_BADLY, Standing, last_lines, place_of, standings
from pointseg.lab.run_record import home
from pointseg.structures import InputError

SNAKEFILE = Path(__file__).with_name("Snakefile")
STOPPING = 60.0  # seconds that a job of an earlier batch has to save and end
LOOK_EVERY = 0.5  # seconds, longer where there is much to look at
LONGEST, LEAST = 24 * 60, 2000  # minutes and megabytes of a job that was never measured

Watch = Callable[[Sequence[Standing]], None]


@dataclass(frozen=True)
class Machine:
    """Where jobs run: so many at once on processors, on GPUs, or where a Slurm profile says."""

    jobs: int
    gpus: tuple[int, ...] = ()
    per_gpu: int = 1
    slurm: Path | None = None

    @classmethod
    def of(cls, jobs: int | None, gpus: Sequence[int], per_gpu: int, slurm: Path | None) -> Machine:
        at_once = len(gpus) * per_gpu if gpus else len(os.sched_getaffinity(0))
        return cls(jobs or at_once, tuple(gpus), per_gpu, slurm)

    @property
    def threads(self) -> int:
        """Of a job: the cores are shared out."""
        return max(1, len(os.sched_getaffinity(0)) // self.jobs)

    def words(self) -> list[str]:
        """Options of Snakemake."""
        if self.slurm:
            return ["--workflow-profile", str(self.slurm.absolute())]
        slots = len(self.gpus) * self.per_gpu if self.gpus else self.jobs
        limits = [f"gpu_slot={slots}", f"mem_mb={memory_mb()}"]
        return ["--cores", str(self.jobs), "--resources", *limits]


def memory_mb() -> int:
    """Of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def run_batch(
    jobs: Sequence[Job],
    machine: Machine,
    runs: Path,
    watch: Watch,
    bill: Mapping[str, Cost] = MappingProxyType({}),
) -> list[Standing]:
    """Runs jobs, shows their standing again and again, and returns the last one. The bill says what
    they take, as far as that was measured.

    One batch at a time writes to a runs/; it begins when no job of an earlier one is alive.
    """
    if importlib.util.find_spec("snakemake") is None:
        raise InputError("reproduce: Snakemake is missing (pip install 'pointseg[batch]')")
    place = place_of(runs)
    with held(place / "lock", f"{runs}: a batch is running"):
        wait_until_free(sorted((place / "locks").glob("*.lock")), STOPPING)
        refuse_read_only(runs)
        prepare(place, jobs, machine, runs, bill)
        try:
            drive(place, machine, watch)
        finally:
            watch(standings(place))
    return standings(place)


def refuse_read_only(runs: Path) -> None:
    """A batch that could keep nothing does not begin."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        write_text(runs / ".writable", "").unlink()
    except OSError as problem:
        raise InputError(f"{runs}: cannot be written ({problem.strerror})") from None


def prepare(
    place: Path, jobs: Sequence[Job], machine: Machine, runs: Path, bill: Mapping[str, Cost]
) -> None:
    """Writes what the engine and the jobs read; of what will be made no mark is left."""
    for name in ("done", "states", "logs", "locks"):
        (place / name).mkdir(parents=True, exist_ok=True)
    for old in (place / "states").iterdir():
        old.unlink()
    for job in jobs:
        (place / "done" / job.name).unlink(missing_ok=True)
        (place / "logs" / f"{job.name}.log").unlink(missing_ok=True)
    made = [{**job.as_json(), **needed(job, machine, bill.get(job.name))} for job in jobs]
    content = {"home": str(home().absolute()), "runs": str(Path(runs).absolute()),
               "gpus": machine.gpus, "per_gpu": machine.per_gpu, "jobs": made}  # fmt: skip
    write_text(place / "jobs.json", json.dumps(content, indent=1))


def needed(job: Job, machine: Machine, cost: Cost | None = None) -> dict[str, Any]:
    """What a job takes of a machine. A GPU is counted in whole slots, of which several processes
    take all: a part of one is cast to none. Time and memory have room to spare over what was
    measured; memory on GPUs is no memory of the machine."""
    on_gpus = bool(machine.gpus or machine.slurm)
    gpus = job.processes if on_gpus else 0
    known = cost is not None and not cost.unknown
    minutes = max(60, round(180 * cost.hours)) if known else LONGEST
    memory = round(1280 * cost.memory_gb) + 1000 if known and not on_gpus else LEAST
    return {"gpus": gpus, "gpu_slots": gpus * machine.per_gpu if gpus > 1 else 1,
            "threads": job.processes if machine.slurm else 1,
            "mem_mb": memory if machine.slurm else min(memory, memory_mb()),
            "minutes": minutes}  # fmt: skip


def drive(place: Path, machine: Machine, watch: Watch) -> None:
    """The engine from its start to its end. Ctrl-C and SIGTERM reach the jobs, which save; a
    second one kills."""
    engine = begun(place, machine)
    try:
        while engine.poll() is None:
            began = time.perf_counter()
            watch(standings(place))
            time.sleep(max(LOOK_EVERY, 20 * (time.perf_counter() - began)))
    except KeyboardInterrupt:
        stop(engine, signal.SIGTERM)
        try:
            engine.wait()
        except KeyboardInterrupt:
            stop(engine, signal.SIGKILL)
            engine.wait()
        raise
    if engine.returncode and not any(s.state in ENDED_BADLY for s in standings(place)):
        log = place / "engine.log"
        raise InputError(
            f"{log}: the engine failed ({' / '.join(last_lines(log, 6).splitlines())})"
        )


def begun(place: Path, machine: Machine) -> subprocess.Popen:
    """The engine in a session of its own; killed with this process, as the jobs are with it."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE),
             "--directory", str(place), "--config", f"plan={place / 'jobs.json'}",
             "--keep-going", "--rerun-triggers", "mtime", "--rerun-incomplete", "--nolock",
             "--latency-wait", "30", *machine.words()]  # fmt: skip
    environment = {
        "OMP_NUM_THREADS": str(machine.threads),
        "XDG_CACHE_HOME": str(place / "cache"),
        **os.environ,
    }
    with (place / "engine.log").open("w") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip


def stop(engine: subprocess.Popen, number: int) -> None:
    """A signal to the engine and all its jobs."""
    try:
        os.killpg(engine.pid, number)
    except ProcessLookupError:
        pass
