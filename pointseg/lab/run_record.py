"""runs/: a number exists only as a folder that says how it was made."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from pointseg.data.files import write_text
from pointseg.structures import InputError

RUNS = Path("runs")
RUN_BYTES = 1_000_000
ALL_BYTES = 60_000_000
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
FIGURES = (".png", ".webp", ".svg", ".jpg", ".pdf")


class Interrupted(KeyboardInterrupt):
    """Someone asked the run to stop."""


def home() -> Path:
    """The project's folder: the working directory, or the nearest one above that holds the book."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "book" / "_toc.yml").exists():
            return Path() if folder == here else folder
    return Path()


@dataclass(frozen=True)
class Run:
    """One folder of runs/, and its scratch folder for what is too large to keep, such as checkpoints."""

    folder: Path

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def scratch(self) -> Path:
        return self.folder.parent.parent / "work" / self.id

    def sibling(self, name: str) -> Run:
        """Another run of the same folder."""
        return Run(self.folder.parent / name)

    def write(self, name: str, value: Any) -> Path:
        """A value as a JSON file of the folder."""
        return write_text(
            self.folder / name, json.dumps(strict(value), indent=1, sort_keys=True) + "\n"
        )

    def read(self, name: str) -> Any:
        """A JSON file of the folder, {} where there is none."""
        path = self.folder / name
        try:
            return json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise InputError(f"{path}: not readable ({error})") from None

    @property
    def result(self) -> dict[str, Any]:
        return self.read("result.json")

    @property
    def status(self) -> str:
        """ok, crashed, interrupted, running or absent; a run whose process is gone without a word has crashed."""
        result = self.result
        status = result.get("status", "absent")
        return "crashed" if status == "running" and not _alive(result.get("pid", 0)) else status

    @contextmanager
    def recording(self, **facts: Any) -> Iterator[Run]:
        """Keeps result.json true while the work inside runs, ends, fails or is told to stop."""
        self.folder.mkdir(parents=True, exist_ok=True)
        before, began = float(self.result.get("wall_s", 0.0)), time.perf_counter()
        self.write("env.json", environment())
        opened = {"schema": 1, **facts, "started": _now(), "pid": os.getpid()}
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
            del opened["pid"]
            wall = round(before + time.perf_counter() - began, 3)
            self._close(
                {**opened, "finished": _now(), "status": status, "error": error, "wall_s": wall}
            )

    def _close(self, result: dict[str, Any]) -> None:
        result["trimmed"] = trim(self.folder)
        self.write("result.json", {**result, "metrics": self.read("metrics.json")})
        (self.folder / "metrics.json").unlink(missing_ok=True)


def unrecorded(name: str) -> Run:
    """A run for somebody who tries things by hand: below work/, which git does not see."""
    return Run(home() / "work" / "by-hand" / name)


@contextmanager
def raising_on_sigterm() -> Iterator[None]:
    """SIGTERM becomes an exception, as SIGINT is; outside the main thread nothing changes."""

    def stop(number: int, frame: Any) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    with _handling([signal.SIGTERM], stop):
        yield


class StopFlag:
    """Inside `with`, the first SIGTERM or SIGINT only sets `asked`; the second one interrupts."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopFlag:
        self._handler = _handling([signal.SIGTERM, signal.SIGINT], self._note)
        self._handler.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._handler.__exit__(*exception)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise Interrupted(f"stopped by {signal.Signals(number).name}")
        self.asked = True


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
    """JSON has no NaN and no infinity: a number nobody could measure is null, an infinite setting is the text inf."""
    if isinstance(value, dict):
        return {name: strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def environment() -> dict[str, Any]:
    """Where a number was made."""
    cuda = torch.cuda.is_available()
    return {
        "git": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "pointseg", "book")),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if cuda else _processor(),
        "cuda": torch.version.cuda if cuda else None,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", 1)),
    }


def runs_in(folder: Path = RUNS) -> list[Run]:
    return [Run(path.parent) for path in sorted(Path(folder).glob("*/result.json"))]


def kept_runs(folder: Path = RUNS) -> list[Run]:
    """Without the smoke tier, which proves that things run and measures nothing."""
    return [run for run in runs_in(folder) if run.read("recipe.json").get("scale") != "smoke"]


def write_index(folder: Path = RUNS) -> Path:
    """Writes runs/index.csv, one row a kept run; a function of the runs' files alone."""
    rows = [_row(run) for run in kept_runs(folder)]
    first = [
        "run",
        "status",
        "method",
        "data",
        "scale",
        "seed",
        "points",
        "steps",
        "wall_s",
        "device",
        "git",
    ]
    metrics = sorted({name for row in rows for name in row} - set(first))
    text = io.StringIO()
    writer = csv.DictWriter(text, first + metrics, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(Path(folder) / "index.csv", text.getvalue())


def _row(run: Run) -> dict[str, Any]:
    recipe, env, result = run.read("recipe.json"), run.read("env.json"), run.result
    points = recipe.get("points", {})
    facts = {name: recipe.get(name, "") for name in ("method", "data", "scale", "seed")}
    return {
        "run": run.id,
        "status": run.status,
        **facts,
        "points": f"{points['kind']}-{points['n']}-s{points['seed']}" if points else "",
        "steps": recipe.get("training", {}).get("steps", ""),
        "wall_s": result.get("wall_s", ""),
        "device": env.get("device", ""),
        "git": env.get("git", "")[:8],
        **flat(result.get("metrics", {})),
    }


def flat(tree: dict[str, Any], before: str = "") -> dict[str, float]:
    """Numbers of a nested dict under names such as val/AP; tables by class stay in result.json."""
    found: dict[str, float] = {}
    for name, value in tree.items():
        if isinstance(value, dict) and name not in ("per_class", "classes", "by_class"):
            found |= flat(value, f"{before}{name}/")
        elif isinstance(value, int | float):
            found[before + name] = value
    return found


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def trim(folder: Path, limit: int = RUN_BYTES) -> list[str]:
    """Brings a run under its budget: the largest figures go first, then pictures inside the notebook."""
    figures = [path for path in folder.rglob("*") if path.suffix in FIGURES]
    gone = []
    for path in sorted(figures, key=lambda path: path.stat().st_size, reverse=True):
        if size_of(folder) <= limit:
            return gone
        path.unlink()
        gone.append(str(path.relative_to(folder)))
    for path in folder.glob("*.ipynb"):
        if size_of(folder) > limit:
            write_text(path, _without_pictures(path.read_text()))
            gone.append(f"pictures of {path.name}")
    return gone


def over_budget(folder: Path = RUNS) -> list[str]:
    """Faults of size, one line each: a run beyond its megabyte, or all of them beyond their sixty."""
    runs = [run.folder for run in runs_in(folder)]
    faults = [
        f"{run}: {size_of(run)} bytes, {RUN_BYTES} allowed"
        for run in runs
        if size_of(run) > RUN_BYTES
    ]
    if size_of(folder) > ALL_BYTES:
        faults.append(f"{folder}: {size_of(folder)} bytes in all, {ALL_BYTES} allowed")
    return faults


def _without_pictures(text: str) -> str:
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for kind in [kind for kind in output.get("data", {}) if kind.startswith("image/")]:
                del output["data"][kind]
    return json.dumps(notebook, indent=1)


def _alive(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists() if sys.platform == "linux" else pid > 0


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


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} x{os.cpu_count()}" if names else f"{platform.processor()} x{os.cpu_count()}"
