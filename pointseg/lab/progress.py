"""How a training shows itself: a bar on a terminal, plain lines elsewhere, two logs in a folder."""

from __future__ import annotations

import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from pointseg.data.files import read_bytes, read_gzip, write_bytes, write_text
from pointseg.training.loop import Record

LINES = 200  # of the log of a stage, however many steps it has
PLAIN_LINES = 12
# what differs from hour to hour, or from one machine to another
TIMES = ("seconds", "data_wait", "images_per_s", "mem_gb", "pieces")


class Progress:
    """Call it with every record. A folder receives log.jsonl, which a resumed training repeats byte
    for byte, and speed.jsonl, which sums up the times since the line before."""

    def __init__(
        self, steps: int, folder: Path | None = None, stream: TextIO | None = None, title: str = ""
    ):
        self.steps, self.every = steps, max(1, steps // LINES)
        self.stream, self.title = stream or sys.stderr, f"{title}: " if title else ""
        self.began = time.perf_counter()
        self.first: int | None = None
        self.folder = Path(folder) if folder else None
        self.sums = _nothing_yet()

    def __call__(self, record: Record) -> None:
        if self.first is None:
            self.first = record.step
            for name in ("log", "speed") if self.folder else ():
                cut(self.folder / f"{name}.jsonl", record.step)
        self._add(record)
        last = record.step + 1 == self.steps
        if self.folder and (record.step % self.every == 0 or last):
            self._log(record)
        self._show(record, last)

    def line(self, record: Record) -> str:
        """Step, loss, speed, time left, memory."""
        done = record.step + 1
        pace = (time.perf_counter() - self.began) / (done - (self.first or 0))
        memory = f"  {record.mem_gb:.1f} GB" if record.mem_gb else ""
        return (
            f"{self.title}step {done}/{self.steps}  loss {record.total:.4f}"
            f"  {record.images_per_s:.1f} images/s"
            f"  left {clock(pace * (self.steps - done))}{memory}"
        )

    def _show(self, record: Record, last: bool) -> None:
        if self.stream.isatty():
            self.stream.write(f"\r{self.line(record)}\033[K" + ("\n" if last else ""))
            self.stream.flush()
        elif last or record.step % max(1, self.steps // PLAIN_LINES) == 0:
            print(self.line(record), file=self.stream, flush=True)

    def _add(self, record: Record) -> None:
        self.sums["seconds"] += record.seconds
        self.sums["data_wait"] += record.data_wait
        self.sums["images"] += record.images_per_s * record.seconds
        for name in ("mem_gb", "pieces"):
            self.sums[name] = max(self.sums[name], getattr(record, name))

    def _log(self, record: Record) -> None:
        kept = {name: value for name, value in vars(record).items() if name not in TIMES}
        times = {name: round(value, 4) for name, value in self.sums.items()}
        for name, value in (("log", kept), ("speed", {"step": record.step, **times})):
            with (self.folder / f"{name}.jsonl").open("a") as file:
                file.write(json.dumps(value) + "\n")
        self.sums = _nothing_yet()


def _nothing_yet() -> dict[str, float]:
    return dict.fromkeys(("seconds", "data_wait", "images", "mem_gb", "pieces"), 0.0)


def cut(path: Path, step: int) -> None:
    """Drops the lines of a log from a step on, and a torn last line: a resumed training writes
    them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] >= step:
            break
        kept.append(line)
    write_text(path, "".join(kept))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log, compressed or not, one dict each; none where there is no file."""
    if not path.exists():
        return []
    read = read_gzip if path.suffix == ".gz" else read_bytes
    lines = read(path).decode().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write_log(path: Path, lines: list[dict[str, Any]]) -> None:
    """A compressed log, a function of its lines alone; numbers to five digits."""
    text = "".join(json.dumps(_short(line)) + "\n" for line in lines)
    write_bytes(path, gzip.compress(text.encode(), 9, mtime=0))


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _short(each) for name, each in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
