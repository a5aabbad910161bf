"""How fast each method trains here, and the GPU check: a few steps of every one at a scale.

python -m pointseg.lab.batch.speed METHOD SCALE STEPS DEVICE PRECISION      (one line of JSON)
"""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from pointseg.lab.chain import Chain, StageTraining
from pointseg.lab.methods import METHODS
from pointseg.lab.recipe import Recipe, make
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import RUNS, Run, run_folder
from pointseg.training.loop import fit

LARGEST_IMAGE = 512  # pixels of a Bestiary image; scale paper enlarges it to its own sizes
TIMEOUT = 600  # seconds of one method


def measured(scale: str, steps: int, runs: Path = RUNS) -> Iterator[str]:
    """Measures all methods, a process each, into runs/speed/<scale>-<device>/s0; a line each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precisions = ("bf16", "float32") if device == "cuda" else ("float32",)
    run = Run(runs / run_folder("speed", f"{scale}-{device}", "s0"))
    with run.alone(), run.recording(kind="speed"):
        rows: dict[str, Any] = {}
        for method in METHODS:
            for precision in precisions:
                row = apart(method, scale, steps, device, precision)
                rows.setdefault(method, {})[precision] = row
                yield f"{method:18} {precision:8} {worded(row)}"
        run.write("metrics.json", {"scale": scale, "steps": steps, "speeds": rows})


def worded(row: dict[str, Any]) -> str:
    if "error" in row:
        return row["error"]
    return (f"{row['images_per_s']:8.2f} images/s  waits {row['data_wait_share']:.0%}  "
            f"{row['memory_gb']:.1f} GB")  # fmt: skip


def apart(method: str, scale: str, steps: int, device: str, precision: str) -> dict[str, Any]:
    """One method in a process of its own, so that its memory is its own."""
    words = [sys.executable, "-m", __name__, method, scale, str(steps), device, precision]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {TIMEOUT} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["ended without a word"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def recipe_at(method: str, scale: str, precision: str) -> Recipe:
    """One method on Bestiary at the sizes of a scale: from its first step, nothing before it."""
    settings: dict[str, Any] = {"images": 8, "scored_images": 4, "data": "bestiary",
                                "layout": "auto", "train": "train", "val": "val",
                                "tune": "tune", "precision": precision, "workers": 0}  # fmt: skip
    recipe = make(method, stages=[{"method": method}], scale=scale)
    size = min(recipe.image_size, LARGEST_IMAGE)
    return make(method, stages=[{"method": method}], scale=scale, image_size=size, **settings)


def speed(method: str, scale: str, steps: int, device: str, precision: str) -> dict[str, Any]:
    """Images a second after the first step, memory, and on a GPU how far the losses of the first
    step lie from the processor's."""
    recipe = recipe_at(method, scale, precision)
    with tempfile.TemporaryDirectory() as folder:
        training = StageTraining(Chain(open_corpus(recipe), Path(folder)), 0)
        records = list(steps_of(training, steps, device))
        here = list(steps_of(training, 1, "cpu"))[:1] if device == "cuda" else records[:1]
    later = records[1:] or records
    seconds = sum(each["seconds"] for each in later)
    batch = recipe.stage.training.batch
    return {
        "batch": batch, "image_size": recipe.image_size, "steps": len(later),
        "images_per_s": round(batch * len(later) / seconds, 4),
        "data_wait_share": round(sum(each["wait"] for each in later) / seconds, 4),
        "memory_gb": round(max(memory(device), later[-1]["memory_gb"]), 3),
        "first_loss": records[0]["loss"], "first_loss_cpu": here[0]["loss"],
        "parameters": parameters(training),
    }  # fmt: skip


def steps_of(training: StageTraining, steps: int, device: str) -> Iterator[dict[str, float]]:
    """Times of the steps: on the wall on a GPU; of the processor on a CPU, whatever else it
    does."""
    clock = time.perf_counter if device == "cuda" else time.process_time
    dataset = training.dataset()
    method = training.started(dataset)
    records = fit(method, training.feed(dataset), training.recipe.loop_settings(len(dataset)),
                  device=device)  # fmt: skip
    before = clock()
    for record in records:
        now = clock()
        wait = record.data_wait if device == "cuda" else 0.0  # nobody loads beside a processor
        yield {"seconds": now - before, "wait": wait, "loss": record.total,
               "memory_gb": record.mem_gb}  # fmt: skip
        before, steps = now, steps - 1
        if not steps:
            return


def memory(device: str) -> float:
    """The most that this process has held, in GB; of a GPU each step tells its own."""
    return 0.0 if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def parameters(training: StageTraining) -> int:
    method = training.recipe.build(training.chain.corpus.categories)
    return sum(each.numel() for each in method.parameters())


def check_gpu(scale: str, steps: int, runs: Path = RUNS) -> Iterator[str]:
    """The GPU check; without a GPU one sentence, and nothing is written."""
    if not torch.cuda.is_available():
        yield "not measured: there is no GPU here; `pointseg gpu-check` on a machine with one"
        return
    yield from measured(scale, steps, runs)
    result = Run(runs / run_folder("speed", f"{scale}-cuda", "s0")).metrics["speeds"]
    yield from (f"{name}: {fault}" for name, row in result.items() for fault in faults(row))


def faults(row: dict[str, dict[str, Any]]) -> list[str]:
    """Where a method failed, or its first losses on the GPU are not the processor's."""
    lines = [f"{precision}: {each['error']}" for precision, each in row.items() if "error" in each]
    for precision, tolerance in (("float32", 1e-3), ("bf16", 5e-2)):
        each = row.get(precision, {"error": ""})
        if "error" not in each:
            one, other = each["first_loss"], each["first_loss_cpu"]
            if not math.isclose(one, other, rel_tol=tolerance):
                lines.append(f"{precision}: first loss {one:g}, on the processor {other:g}")
    return lines


def main(words: Sequence[str]) -> None:
    method, scale, steps, device, precision = words
    print(json.dumps(speed(method, scale, int(steps), device, precision)))


if __name__ == "__main__":
    main(sys.argv[1:])
