"""How a training run shows itself: a bar on a terminal, plain lines elsewhere, JSON lines in the run's folder."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TextIO

from pointseg.training.loop import Record

LINES = 500  # of the log of a run, however many steps it has
PLAIN_LINES = 12
TIMES = (
    "seconds",
    "data_wait",
    "images_per_s",
    "mem_gb",
)  # what differs from one machine or hour to the next


class Progress:
    """Call it with every record. With a folder it writes two files there: log.jsonl, which a resumed run
    repeats byte for byte, and speed.jsonl, which holds the times."""

    def __init__(
        self, steps: int, folder: Path | None = None, stream: TextIO | None = None, prefix: str = ""
    ):
        self.steps = steps
        self.every = max(1, steps // LINES)
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.began, self.first = time.perf_counter(), None
        self.waited = self.worked = self.images = self.mem_gb = 0.0
        self.files = (
            [Path(folder) / f"{prefix}{name}.jsonl" for name in ("log", "speed")] if folder else []
        )

    def __call__(self, record: Record) -> None:
        if self.first is None:
            self.first = record.step
            for path in self.files:
                cut(path, record.step)
        self.waited += record.data_wait
        self.worked += record.seconds
        self.images += record.images_per_s * record.seconds
        self.mem_gb = record.mem_gb
        last = record.step + 1 == self.steps
        if record.step % self.every == 0 or last:
            self._log(record)
        if self.terminal:
            self.stream.write(f"\r{self.line(record)}\033[K" + ("\n" if last else ""))
            self.stream.flush()
        elif last or record.step % max(1, self.steps // PLAIN_LINES) == 0:
            print(self.line(record), file=self.stream, flush=True)

    def line(self, record: Record) -> str:
        """Step, loss, speed, time left, memory."""
        done = record.step + 1
        pace = (time.perf_counter() - self.began) / (done - (self.first or 0))
        memory = f"  {record.mem_gb:.1f} GB" if record.mem_gb else ""
        return (
            f"step {done}/{self.steps}  loss {record.total:.4f}  {record.images_per_s:.1f} images/s"
            f"  left {clock(pace * (self.steps - done))}{memory}"
        )

    @property
    def speed(self) -> dict[str, float]:
        """Images a second and the share of time spent waiting for data, since the start or the last resume."""
        if not self.worked:
            return {}
        return {
            "images_per_s": self.images / self.worked,
            "data_wait_share": self.waited / self.worked,
            "mem_gb": self.mem_gb,
        }

    def _log(self, record: Record) -> None:
        if not self.files:
            return
        whole = vars(record)
        told = {name: value for name, value in whole.items() if name not in TIMES}
        times = {"step": record.step} | {name: round(whole[name], 6) for name in TIMES}
        for path, value in zip(self.files, (told, times)):
            with path.open("a") as file:
                file.write(json.dumps(value) + "\n")


def cut(path: Path, step: int) -> None:
    """Drops the lines of a log from a step on, and a torn last line: what a resumed run writes again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n") or json.loads(line)["step"] >= step:
            break
        kept.append(line)
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(kept))
    part.replace(path)


def read_log(path: Path) -> list[dict]:
    """The whole lines of a log, one dict each."""
    return [
        json.loads(line)
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n")
    ]


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
