"""runs/: a number exists only as a folder that says how it was made."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

from pointseg.data.files import read_json, shown, write_text
from pointseg.data.shapes import refuse_misshapen
from pointseg.structures import InputError

RUNS = Path("runs")
SMOKE = "smoke"  # the folder of runs that prove that things run and measure nothing
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "pillow",
    "pycocotools",
    "hotcoco",
    "papermill",
    "jupytext",
)
FAST_ARITHMETIC = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


class StageRecord(TypedDict, total=False):
    method: Required[str]
    head: Required[str]
    seconds: float


class Metrics(TypedDict, total=False):
    stages: list[StageRecord]
    bench: dict[str, float | None]
    seconds: float


class KeyRecord(TypedDict):
    notebook: str
    parameters: dict[str, Any]
    code: dict[str, str]
    data: str | None


class Result(TypedDict, total=False):
    status: Literal["ok", "crashed", "interrupted", "running"]
    notebook: str
    kind: str
    row: str
    bed: str
    key: KeyRecord
    code: str
    pid: int
    host: str
    born: int | None
    started: str
    finished: str
    wall_s: float
    metrics: Metrics


class StageSettings(TypedDict):
    method: str
    config: dict[str, Any]


class KeptPoints(TypedDict):
    n: int
    kind: str


class KeptRecipe(TypedDict, total=False):
    stages: list[StageSettings]
    points: KeptPoints
    seed: int | None
    layout: str
    scored_on: str
    train: str
    tune: str
    val: str


class Environment(TypedDict, total=False):
    git: str
    device: str
    cpu: str
    instructions: list[str]
    packages: dict[str, str]


SHAPES = {"result.json": Result, "metrics.json": Metrics, "recipe.json": KeptRecipe,
          "env.json": Environment}  # fmt: skip


class Interrupted(KeyboardInterrupt):
    """Someone raised the run to stop."""


def run_folder(*parts: str) -> Path:
    """A folder below runs/ whose parts are safe everywhere: no part leads out of it or means
    anything to a page, a shell or another file system."""
    for part in parts:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", part):
            raise InputError(
                f"{shown(part)}: cannot name a run (letters, digits, '.', '_', '+', '-')"
            )
    return Path(*parts)


def home() -> Path:
    """The project's folder: the working directory, or the nearest one above that holds the book."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "book" / "_toc.yml").exists():
            return Path() if folder == here else folder
    return Path()


@dataclass(frozen=True)
class Run:
    """One folder runs/<paper>/<row>/s<seed>."""

    folder: Path

    @property
    def id(self) -> str:
        return "/".join(self.folder.parts[-3:])

    @property
    def root(self) -> Path:
        """The folder that holds runs/."""
        return self.folder.absolute().parents[3]

    @property
    def stages(self) -> Path:
        """Where its trained stages lie, with those of all other runs."""
        return self.root / "work" / "stages"

    @property
    def scratch(self) -> Path:
        """What is too large to keep; git does not see it."""
        return self.root / "work" / "runs" / self.id

    @property
    def model(self) -> Path:
        """The weights of the last stage, where they are still on this machine."""
        return self.stage_folder(-1) / "model.pt"

    def stage_folder(self, k: int) -> Path:
        stages = self.metrics.get("stages") or [{"head": "absent"}]
        return self.stages / run_folder(stages[k]["head"])

    def write(self, name: str, value: Any) -> Path:
        """A value as a JSON file of the folder."""
        text = json.dumps(strict(value), indent=1, sort_keys=True)
        return write_text(self.folder / name, text + "\n")

    def read(self, name: str) -> Any:
        """A JSON file of the folder, {} where there is none."""
        path = self.folder / name
        if not path.exists():
            return {}
        value = read_json(path)
        refuse_misshapen(path, value, SHAPES.get(name, dict[str, Any]))
        return value

    @property
    def result(self) -> dict[str, Any]:
        return self.read("result.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """Those of the result; while the run is going on, what it has written so far."""
        return self.result.get("metrics") or self.read("metrics.json")

    @property
    def status(self) -> str:
        """ok, crashed, interrupted, running or absent; a run whose process is gone without a word
        has crashed."""
        result = self.result
        status = result.get("status", "absent")
        return "crashed" if status == "running" and not _alive(result) else status

    @contextmanager
    def alone(self, force: bool = False) -> Iterator[None]:
        """Nobody else makes the run inside. The lock is the kernel's, so it goes with its process;
        its file says who holds it. `force` does not ask."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        with (self.scratch / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                if not force:
                    raise InputError(f"{self.folder}: is running ({file.read()[:200]})") from None
            except OSError:  # a file system without locks blocks nobody
                pass
            else:
                file.truncate(0)
                print(holder(), end="", file=file, flush=True)
                self.sweep()
            yield

    def sweep(self) -> None:
        """Removes what a kill left of a write, or of the work after its result was kept."""
        over = [self.folder / "metrics.json"] if self.status == "ok" else []
        for path in [*self.folder.glob(".*.part"), *over]:
            path.unlink(missing_ok=True)

    @contextmanager
    def recording(self, **facts: Any) -> Iterator[Run]:
        """Keeps result.json true while the work inside runs, ends, fails or is stopped."""
        self.folder.mkdir(parents=True, exist_ok=True)
        before, began = float(self.result.get("wall_s", 0.0)), time.perf_counter()
        self.write("env.json", environment())
        opened = {"schema": 2, **facts, "started": _now(), **_process()}
        self.write("result.json", {**opened, "status": "running", "wall_s": before})
        status, error = "ok", ""
        try:
            with raising_on_sigterm():
                yield self
        except BaseException as problem:
            status = "interrupted" if isinstance(problem, KeyboardInterrupt) else "crashed"
            error = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
            raise
        finally:
            opened = {name: fact for name, fact in opened.items() if name not in _process()}
            wall = round(before + time.perf_counter() - began, 3)
            ended = {"finished": _now(), "status": status, "error": error, "wall_s": wall}
            self.write("result.json", {**opened, **ended, "metrics": self.read("metrics.json")})
            (self.folder / "metrics.json").unlink(missing_ok=True)


def unrecorded(name: str) -> Run:
    """A run for somebody who tries things by hand: below work/, which git does not see."""
    root = home().absolute() / "work" / "by-hand" / name.replace("/", "-")
    return Run(root / "runs" / "tried" / "by-hand" / "s0")


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """SIGTERM becomes an exception, as SIGINT is; outside the main thread nothing changes."""

    def stop(number: int, frame: Any) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    with _handling([signal.SIGTERM], stop):
        yield


class StopFlag:
    """Inside `with`, the first SIGTERM or SIGINT only sets `raised`; the second one interrupts."""

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> StopFlag:
        self._handler = _handling([signal.SIGTERM, signal.SIGINT], self._note)
        self._handler.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._handler.__exit__(*exception)

    def _note(self, number: int, frame: Any) -> None:
        if self.raised:
            raise Interrupted(f"stopped by {signal.Signals(number).name}")
        self.raised = True


@contextmanager
def _handling(numbers: list[int], handler: Any) -> Iterator[None]:
    try:
        before = {number: signal.signal(number, handler) for number in numbers}
    except ValueError:  # only the main thread may listen to signals
        before = {}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def strict(value: Any) -> Any:
    """The same value for JSON, which has neither NaN nor infinity: what nobody could measure is
    null, an infinite setting is the text inf."""
    if isinstance(value, dict):
        return {name: strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def environment() -> dict[str, Any]:
    """Where a number was made: the same recipe gives other digits on another processor."""
    import torch  # seconds, and who only reads runs needs none of it

    cuda = torch.cuda.is_available()
    return {
        "git": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "pointseg", "book")),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "cpu": _processor(),
        "instructions": _instructions(),
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }


def runs_in(folder: Path = RUNS) -> list[Run]:
    return [Run(path.parent) for path in sorted(Path(folder).glob("*/*/*/result.json"))]


def kept_runs(folder: Path = RUNS) -> list[Run]:
    """Without the smoke tier."""
    return [run for run in runs_in(folder) if run.folder.parts[-3] != SMOKE]


def flat(tree: dict[str, Any], before: str = "") -> dict[str, float]:
    """Numbers of a nested dict under names such as val/AP; tables by class stay in result.json."""
    numbers: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name not in ("per_class", "classes", "by_class"):
            numbers |= flat(value, f"{before}{name}/")
        elif isinstance(value, int | float):
            numbers[before + name] = value
    return numbers


def holder() -> str:
    """Who this process is, for the file of a lock that it holds."""
    return f"process {os.getpid()} of {platform.node()}, begun {_now()}"


def _process() -> dict[str, Any]:
    """This process, told from another one that has its number later or elsewhere."""
    return {"pid": os.getpid(), "host": platform.node(), "born": _born(os.getpid())}


def _alive(result: Any) -> bool:
    """Whether the process of a result is still there: same host, same number, same birth."""
    pid, born = result.get("pid"), result.get("born")
    if not isinstance(pid, int) or result.get("host", platform.node()) != platform.node():
        return False
    return _born(pid) is not None and born in (None, _born(pid))


def _born(pid: int) -> int | None:
    """When a process was started, in the system's ticks; 0 where nobody can tell, None without
    it."""
    if sys.platform != "linux":
        return 0
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=20, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpuinfo(*names: str) -> str | None:
    """The first value under one of these names in /proc/cpuinfo."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return None


def _processor() -> str:
    return f"{_cpuinfo('model name') or platform.processor()} x{os.cpu_count()}"


def _instructions() -> list[str]:
    """Those of the processor's instruction sets that decide how products are rounded."""
    flags = (_cpuinfo("flags", "Features") or "").split()
    return [name for name in FAST_ARITHMETIC if name in flags]
