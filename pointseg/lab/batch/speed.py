"""How fast each method trains here, and the GPU check: a few steps of every one at a scale.

python -m pointseg.lab.batch.speed '{"method": ...}'      (fields of Trial; one line of JSON)
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pointseg.lab.chain import Chain, StageTraining
from pointseg.lab.methods import METHODS
from pointseg.lab.recipe import Recipe, make
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import RUNS, Run, run_folder
from pointseg.nets.weights import to_be_replaced
from pointseg.training.loop import fit

LARGEST_IMAGE = 512  # pixels of a Bestiary image; scale paper enlarges it to its own sizes
TIMEOUT = {"cuda": 600, "cpu": 3600}  # seconds of one method


@dataclass(frozen=True)
class Trial:
    """A few steps of one method at the sizes of a scale; its own batch unless one is given."""

    method: str
    scale: str
    steps: int
    device: str = "cpu"
    precision: str = "float32"
    batch: int | None = None

    @property
    def recipe(self) -> Recipe:
        """On Bestiary, from the first step, with nothing before it."""
        settings: dict[str, Any] = {"images": 8, "scored_images": 4, "data": "bestiary",
                                    "layout": "auto", "train": "train", "val": "val",
                                    "tune": "tune", "workers": 0}  # fmt: skip
        batch = {} if self.batch is None else {"batch": self.batch}
        chosen = {"stages": [{"method": self.method}], "scale": self.scale, "training": batch}
        size = min(make(self.method, **chosen).image_size, LARGEST_IMAGE)
        return make(self.method, **chosen, image_size=size, precision=self.precision, **settings)


def measured(
    scale: str, steps: int, runs: Path = RUNS, batch: int | None = None,
    methods: Sequence[str] = (),
) -> Iterator[str]:  # fmt: skip
    """Measures methods, a process each, into the record of scale and device; a line each. Of
    methods that are not chosen the record keeps what it has."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    precisions = ("bf16", "float32") if device == "cuda" else ("float32",)
    run = speed_run(runs, scale, device, batch)
    rows: dict[str, Any] = run.metrics.get("speeds", {}) if methods else {}
    with run.alone(), run.recording(kind="speed"):
        for method in methods or METHODS:
            for precision in precisions:
                row = apart(Trial(method, scale, steps, device, precision, batch))
                rows.setdefault(method, {})[precision] = row
                yield f"{method:18} {precision:8} {worded(row)}"
            run.write("metrics.json", {"scale": scale, "steps": steps, "speeds": rows})


def speed_run(runs: Path, scale: str, device: str, batch: int | None = None) -> Run:
    """The record of what was measured at a scale on a kind of device."""
    name = f"{scale}-{device}" + ("" if batch is None else f"-batch{batch}")
    return Run(Path(runs) / run_folder("speed", name, "s0"))


def command_of(scale: str, device: str) -> str:
    """What measures a scale on a kind of device."""
    words = [] if device == "cuda" else ["--cpu"]
    return " ".join(["pointseg gpu-check", *words, f"--scale {scale}"])


def worded(row: dict[str, Any]) -> str:
    if "error" in row:
        return row["error"]
    return (f"{row['images_per_s']:8.2f} images/s  waits {row['data_wait_share']:.0%}  "
            f"{row['memory_gb']:.1f} GB")  # fmt: skip


def apart(trial: Trial) -> dict[str, Any]:
    """One trial in a process of its own, so that its memory is its own."""
    words = [sys.executable, "-m", __name__, json.dumps(asdict(trial))]
    longest = TIMEOUT[trial.device]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=longest, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"took longer than {longest} s"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["ended without a word"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def speed(trial: Trial) -> dict[str, Any]:
    """Images a second after the first step, memory, and on a GPU how far the losses of the first
    step lie from the processor's."""
    recipe, device = trial.recipe, trial.device
    with tempfile.TemporaryDirectory() as folder, to_be_replaced():  # weights change no speed
        training = StageTraining(Chain(open_corpus(recipe), Path(folder)), 0)
        records = list(steps_of(training, trial.steps, device))
        here = list(steps_of(training, 1, "cpu"))[:1] if device == "cuda" else records[:1]
        count = parameters(training)
    later = records[1:] or records
    seconds = sum(each["seconds"] for each in later)
    batch = recipe.stage.training.batch
    return {
        "batch": batch, "image_size": recipe.image_size, "steps": len(later),
        "images_per_s": round(batch * len(later) / seconds, 4),
        "data_wait_share": round(sum(each["wait"] for each in later) / seconds, 4),
        "memory_gb": round(max(memory(device), later[-1]["memory_gb"]), 3),
        "first_loss": records[0]["loss"], "first_loss_cpu": here[0]["loss"],
        "parameters": count,
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


def check_gpu(scale: str, steps: int, runs: Path = RUNS, **chosen: Any) -> Iterator[str]:
    """The GPU check; without a GPU one sentence, and nothing is written."""
    if not torch.cuda.is_available():
        yield "not measured: there is no GPU here; `pointseg gpu-check` on a machine with one"
        return
    yield from measured(scale, steps, runs, **chosen)
    result = speed_run(runs, scale, "cuda", chosen.get("batch")).metrics["speeds"]
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


if __name__ == "__main__":
    print(json.dumps(speed(Trial(**json.loads(sys.argv[1])))))
