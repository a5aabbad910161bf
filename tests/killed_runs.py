"""Trains a tiny method again and again in children that are killed at random moments; prints what came of it.

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

import tiny
import torch

from pointseg.progress import Progress
from pointseg.train import fit

STEPS = 40


def train(folder: Path) -> None:
    """One attempt: goes on where the last one was killed."""
    chosen = tiny.recipe(steps=STEPS, ema=0.9, batch=3)
    torch.manual_seed(0)
    method = tiny.Tiny()
    progress = Progress(STEPS, folder, io.StringIO())
    for record in fit(method, tiny.feed(chosen), chosen, folder / "checkpoints", device="cpu"):
        progress(record)
        time.sleep(0.002)
    (folder / "weights").write_bytes(tiny.weights(method))


def attempt(folder: Path, patience: float | None) -> bool:
    """A child that trains; killed after so many seconds. True where the kill came before its end."""
    child = os.fork()
    if child == 0:
        try:
            train(folder)
            os._exit(0)
        finally:
            os._exit(1)
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, f"the child failed: {status}"
    return killed


def main(place: Path, kills: int) -> None:
    torch.set_num_threads(1)
    whole, dice, done, folders = place / "whole", random.Random(0), 0, []
    whole.mkdir()
    began = time.perf_counter()
    attempt(whole, None)
    alone = time.perf_counter() - began
    while done < kills or not (folders[-1] / "weights").exists():
        if not folders or (folders[-1] / "weights").exists():
            folders.append(place / f"killed{len(folders)}")
            folders[-1].mkdir()
        patience = dice.uniform(0.02 * alone, 0.5 * alone) if done < kills else None
        done += attempt(folders[-1], patience)
    names = ("weights", "log.jsonl")
    same = [all((f / name).read_bytes() == (whole / name).read_bytes() for name in names) for f in folders]
    lines = len((whole / "log.jsonl").read_text().splitlines())
    print(json.dumps({"kills": done, "folders": len(folders), "same": same, "lines": lines, "steps": STEPS}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
