"""Trains a tiny method in children that are killed at random moments; prints what came of it.

A program of its own: it forks, which a process that has started threads must not do.
"""

import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from support import tiny_method as tiny

from pointseg.lab.progress import Progress
from pointseg.training.loop import Trainer, fit

STEPS = 40


def train(folder: Path, beat: int) -> None:
    """One attempt: goes on where the last one was killed, and tells of every step by one byte."""
    chosen = tiny.settings(steps=STEPS, ema=0.9, batch=3)
    torch.manual_seed(0)
    method = tiny.Tiny()
    progress = Progress(STEPS, folder, io.StringIO())
    for record in fit(method, tiny.feed(chosen), chosen, folder / "checkpoints", device="cpu"):
        progress(record)
        os.write(beat, b".")
    (folder / "weights").write_bytes(tiny.weights(method))


def attempt(folder: Path, steps: int | None, delay: float = 0.0) -> bool:
    """A child that trains, killed some time after so many steps. True: the kill came in time."""
    heard, beat = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            train(folder, beat)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(beat)
    if steps is not None:
        while steps > 0 and (beats := os.read(heard, 1)):
            steps -= len(beats)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(heard)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, f"the child failed: {status}"
    return killed


def work_lost(folder: Path) -> bool:
    """Whether the log is ahead of the newest checkpoint: a resume must repeat lines of it."""
    saved = [int(path.name[4:12]) for path in (folder / "checkpoints").glob("*.pt")]
    log = folder / "log.jsonl"
    return log.exists() and len(log.read_text().splitlines()) > max(saved, default=0)


def main(place: Path, kills: int) -> None:
    torch.set_num_threads(1)
    Trainer(
        tiny.Tiny(), tiny.settings(), "cpu"
    )  # an optimiser's imports take a second: here, not in every child
    whole, rng, done, lost, folders = place / "whole", random.Random(0), 0, 0, []
    whole.mkdir()
    began = time.perf_counter()
    attempt(whole, None)
    one_step = (time.perf_counter() - began) / STEPS
    while done < kills or not (folders[-1] / "weights").exists():
        if not folders or (folders[-1] / "weights").exists():
            folders.append(place / f"killed{len(folders)}")
            folders[-1].mkdir()
        steps = rng.randint(0, 9) if done < kills else None
        done += attempt(folders[-1], steps, rng.uniform(0, one_step))
        lost += work_lost(folders[-1])
    names = ("weights", "log.jsonl")
    same = [
        all((f / name).read_bytes() == (whole / name).read_bytes() for name in names)
        for f in folders
    ]
    lines = len((whole / "log.jsonl").read_text().splitlines())
    print(json.dumps({"kills": done, "lost": lost, "same": same, "lines": lines, "steps": STEPS}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
