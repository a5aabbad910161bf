"""The stages of a recipe, each trained once wherever its head is asked for again.

A head is a stage with all that it stands on. Its hash names a folder of work/stages/ with weights,
checkpoints, log and labels; two runs that share a head share that folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.utils.data import Subset

from pointseg.data.supervision import ImageDataset, MaskDataset, collate
from pointseg.lab.fingerprint import library_hash
from pointseg.lab.labels import Labelled, batches, label_train
from pointseg.lab.methods import method_class
from pointseg.lab.models import load_model, save_model
from pointseg.lab.progress import Progress, read_log
from pointseg.lab.recipe import Recipe, Stage
from pointseg.lab.run_data import Corpus, augmentation
from pointseg.lab.run_record import Interrupted, StopFlag
from pointseg.nets.start import load_first_stage
from pointseg.ops.processes import in_world, rank, row_draws
from pointseg.papers.method import Method
from pointseg.structures import Batch
from pointseg.training.loader import Feed, loaders
from pointseg.training.loop import default_device, fit, seed_all

BEFORE_STEPS = 2**31  # the "step" whose seed draws the first weights
LOOKED_AT = 240  # images
COMMON = ("data", "layout", "scale", "seed", "points", "image_size", "images", "train",
          "precision", "compile")  # fmt: skip


def code_of(method: str, scored_by: str = "experiment") -> str:
    """Hash of the code that trains and scores a method: whole runs, or labels by the bench."""
    return library_hash({method_class(method).__module__, f"pointseg.lab.{scored_by}"})


def head_hash(recipe: Recipe, k: int, images: str) -> str:
    """Name of stage k with all that it stands on; `images` is the hash of the training images."""
    stage = recipe.stages[k]
    linked = {
        "learns_from": _link(recipe, stage.learns_from, images),
        "starts_from": _link(recipe, stage.starts_from, images),
    }
    common = {name: value for name, value in asdict(recipe).items() if name in COMMON}
    parts = [asdict(stage) | linked, common, images, code_of(stage.method)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _link(recipe: Recipe, source: int | str | None, images: str) -> Any:
    if isinstance(source, int):
        return head_hash(recipe, source, images)
    if source and Path(source).is_file():
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return source


@dataclass(frozen=True)
class Chain:
    """The stages of a corpus's recipe in a store."""

    corpus: Corpus
    store: Path

    @property
    def recipe(self) -> Recipe:
        return self.corpus.recipe

    def folder(self, k: int) -> Path:
        name = head_hash(self.recipe, k, self.corpus.content_hash)
        return self.store / f"{self.recipe.stages[k].method}-{name}"

    def model(self, k: int) -> Path:
        """The file of stage k after its training."""
        path = self.folder(k) / "model.pt"
        with self._alone(k):
            if not path.exists():
                StageTraining(self, k).run()
            if rank() == 0:  # also those of a training that was killed after its model was kept
                shutil.rmtree(self.folder(k) / "checkpoints", ignore_errors=True)
        return path

    def method(self, k: int) -> Method:
        """Stage k after its training, on the device that trains."""
        return load_model(self.model(k))[0].to(default_device())

    def labels(self, k: int) -> Labelled:
        """What stage k teaches another one, made once."""
        path, corpus = self.folder(k) / "labels.json.gz", self.corpus.at(k)
        method = self.method(k)
        with self._alone(k):
            if not path.exists() and rank() == 0:
                label_train(method, corpus, teaching=True).write(path)
            _wait_for_all()
        return Labelled.read(path, corpus.train, corpus.categories)

    def record(self) -> list[dict[str, Any]]:
        """What is kept of each stage with a run: its name in the store, its steps, its speed."""
        rows = []
        for k, stage in enumerate(self.recipe.stages):
            speed = read_log(self.folder(k) / "speed.jsonl")
            rows.append({"method": stage.method, "head": self.folder(k).name, **totals(speed)})
        return rows

    @contextlib.contextmanager
    def _alone(self, k: int) -> Iterator[None]:
        """One run at a time: another one that needs the same head waits, then finds it made."""
        self.folder(k).mkdir(parents=True, exist_ok=True)
        with (self.folder(k) / "lock").open("a") as file:
            if rank() == 0:
                fcntl.flock(file, fcntl.LOCK_EX)
            _wait_for_all()
            yield


@dataclass(frozen=True)
class StageTraining:
    """One stage being trained. Killed and called again, it goes on."""

    chain: Chain
    k: int

    @property
    def stage(self) -> Stage:
        return self.chain.recipe.stages[self.k]

    @property
    def recipe(self) -> Recipe:
        return self.chain.recipe.head(self.k)

    def run(self) -> None:
        dataset, folder = self.dataset(), self.chain.folder(self.k)
        method, steps = self.started(dataset), self.stage.steps_for(len(dataset))
        if steps:
            self.train(method, dataset, steps)
        if rank() == 0:
            save_model(folder / "model.pt", method, self.recipe, dataset.categories)
        _wait_for_all()

    def train(self, method: Method, dataset: ImageDataset, steps: int) -> None:
        folder = self.chain.folder(self.k)
        feed = self.feed(dataset)
        progress = Progress(steps, folder, title=f"stage {self.k} {self.stage.method}")
        settings = self.recipe.loop_settings(len(dataset))
        records = fit(method, feed, settings, folder / "checkpoints")
        with StopFlag() as stop, contextlib.closing(records):
            for record in records:
                if rank() == 0:
                    progress(record)
                if stop.raised:
                    break
        if stop.raised and record.step + 1 < steps:
            raise Interrupted(f"stopped after step {record.step}, resumable")

    def dataset(self) -> ImageDataset:
        source, corpus = self.stage.learns_from, self.chain.corpus.at(self.k)
        if isinstance(source, int):
            labels = self.chain.labels(source)
            return MaskDataset(labels, augmentation(self.recipe), self.recipe.seed)
        return corpus.supervision()

    def started(self, dataset: ImageDataset) -> Method:
        """The method before its first step, with what its start gives: the parts of a first stage,
        all parts of the same method with other settings."""
        start, name = self.stage.starts_from, self.stage.method
        parts, stages = getattr(method_class(name), "FIRST_STAGE", ()), self.recipe.stages
        if isinstance(start, int):
            parts = ("",) if stages[start].method == name else parts
            start = self.chain.model(start)
        seed_all(self.recipe.seed, BEFORE_STEPS)
        method = self.recipe.build(dataset.categories)
        if not self.stage.student:
            method.student_learns = False
        if start is not None:
            load_first_stage(method, Path(start), parts)
        if hasattr(method, "prepare"):
            method.to(default_device()).prepare(self.looked_at(dataset))
        return method

    def looked_at(self, dataset: ImageDataset) -> Iterator[Batch]:
        """The first training images, for a method that looks at some before its first step."""
        first = Subset(dataset, range(min(LOOKED_AT, len(dataset))))
        draws = row_draws(self.recipe.seed, BEFORE_STEPS, 0, len(first))
        for batch in batches(first, self.stage.training.batch):
            rows, draws = draws[: len(batch)], draws[len(batch) :]
            yield replace(batch, draws=rows).to(default_device())

    def feed(self, dataset: ImageDataset) -> Feed:
        processes = loaders(self.recipe.workers, default_device())
        return Feed(dataset, collate, self.stage.training.batch, self.recipe.seed, processes)


def totals(speed: list[dict[str, float]]) -> dict[str, float]:
    """Steps, seconds, images a second, share of time spent waiting, of a speed log; and the pieces
    of a batch, where memory did not hold a whole one."""
    if not speed:
        return {}
    pieces = round(max(line.get("pieces", 1) for line in speed))
    seconds = sum(line["seconds"] for line in speed)
    return {
        "steps": speed[-1]["step"] + 1,
        "seconds": round(seconds, 1),
        "images_per_s": round(sum(line["images"] for line in speed) / seconds, 2),
        "data_wait_share": round(sum(line["data_wait"] for line in speed) / seconds, 4),
        "mem_gb": max(line["mem_gb"] for line in speed),
        **({"pieces": pieces} if pieces > 1 else {}),
    }


def _wait_for_all() -> None:
    if in_world():
        dist.barrier()
