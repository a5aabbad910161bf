"""One experiment from a recipe to its scores: data, training, evaluation, record.

python -m pointseg.lab.experiment RECIPE.json RUN_FOLDER      (the same under torchrun)
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pointseg.data.supervision import ImageDataset, MaskDataset, collate
from pointseg.lab import run_data as data
from pointseg.lab.evaluation import SCORED, answers, label_train, score_pseudo_labels, score_val
from pointseg.lab.models import save_model
from pointseg.lab.progress import Progress
from pointseg.lab.recipe import Recipe, method_class
from pointseg.lab.run_data import Corpus, open_corpus
from pointseg.lab.run_record import Interrupted, Run, StopFlag
from pointseg.nets.start import load_first_stage
from pointseg.ops.processes import in_world, rank
from pointseg.papers.method import Method
from pointseg.structures import InputError
from pointseg.training.distributed import joined, torchrun
from pointseg.training.loader import Feed, loaders
from pointseg.training.loop import default_device, fit, seed_all

BEFORE_STEPS = 2**31  # the "step" whose seed draws the first weights


def experiment(recipe: Recipe, run: Run, processes: int = 1) -> dict[str, Any]:
    """Trains, scores and leaves recipe.json, data.json, log.jsonl and metrics.json in the run's folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    if processes > 1 and not in_world():
        return launched(recipe, run, processes)
    corpus = corpus_of(recipe)
    recipe = recipe.for_images(len(corpus.supervision()))
    if rank() == 0:
        run.write("recipe.json", json.loads(recipe.to_json()))
        run.write("data.json", {**corpus.facts(), "sha256": data.data_hash(recipe)})
    method, speed = trained(recipe, corpus.supervision(), run)
    if rank() != 0:
        return {}
    metrics = {**speed, "val": score_val(method, recipe, corpus)}
    if method_class(recipe.method).SUPERVISION == "points":
        metrics |= weak_part(method, recipe, corpus, run)
    run.write("answers.json", answers(method, recipe, corpus))
    run.write("metrics.json", metrics)
    return metrics


def weak_part(method: Method, recipe: Recipe, corpus: Corpus, run: Run) -> dict[str, Any]:
    """Quality of the pseudo labels, and the student that learns from them where the recipe names one."""
    labelled = label_train(method, recipe, corpus, SCORED)
    metrics: dict[str, Any] = (
        {"pseudo": score_pseudo_labels(labelled, corpus)} if labelled.labels else {}
    )
    if recipe.student:
        own = "student_labels" if hasattr(method, "student_labels") else "pseudo_labels"
        taught, lesson = recipe.for_student(), label_train(method, recipe, corpus, name=own)
        pupils = MaskDataset(lesson.dataset, data.augmentation(taught), taught.seed)
        student, speed = trained(taught.for_images(len(pupils)), pupils, run, "student-")
        metrics["student"] = {
            **speed,
            "val": score_val(student, taught, replace(corpus, recipe=taught)),
        }
    return metrics


def corpus_of(recipe: Recipe) -> Corpus:
    """The corpus; among several processes the first one makes what is missing."""
    if in_world():
        if rank() == 0:
            _ = open_corpus(recipe).facts()
        dist.barrier()
    return open_corpus(recipe)


def trained(
    recipe: Recipe, dataset: ImageDataset, run: Run, prefix: str = ""
) -> tuple[Method, dict[str, float]]:
    """The method after its training, and how fast that went. Killed and called again, it goes on."""
    seed_all(recipe.seed, BEFORE_STEPS)
    method = recipe.build(dataset.categories)
    if recipe.start:
        load_first_stage(
            method, run.sibling(recipe.start).scratch / "model.pt", first_stage(recipe)
        )
    feed = Feed(
        dataset,
        collate,
        recipe.training.batch,
        recipe.seed,
        loaders(recipe.workers, default_device()),
    )
    progress = Progress(recipe.training.steps, run.folder, prefix=prefix)
    settings = recipe.loop_settings(len(dataset))
    records = fit(method, feed, settings, run.scratch / f"{prefix}checkpoints")
    with StopFlag() as stop, contextlib.closing(records):
        for record in records:
            if rank() == 0:
                progress(record)
            if stop.asked:
                break
    if stop.asked and record.step + 1 < recipe.training.steps:
        raise Interrupted(f"stopped after step {record.step}, resumable")
    if rank() == 0:
        save_model(run.scratch / f"{prefix}model.pt", method, recipe, dataset.categories)
    return method, progress.speed


def first_stage(recipe: Recipe) -> tuple[str, ...]:
    """The parts of the recipe's method that a first stage trains."""
    parts = getattr(method_class(recipe.method), "FIRST_STAGE", ())
    if not parts:
        raise InputError(f"start: {recipe.method} has no first stage to start from")
    return parts


def launched(recipe: Recipe, run: Run, processes: int) -> dict[str, Any]:
    """The same experiment by torchrun in so many processes of this machine."""
    run.write("recipe.json", json.loads(recipe.to_json()))
    words = ["-m", "pointseg.lab.experiment", str(run.folder / "recipe.json"), str(run.folder)]
    if torchrun(words, processes):
        raise RuntimeError(
            f"{run.id}: a process of the distributed training failed; its log is above"
        )
    return run.read("metrics.json")


def main(recipe: str, folder: str) -> int:
    """Exit code: 0 done, 130 interrupted."""
    try:
        with joined():
            experiment(Recipe.from_json(Path(recipe).read_text()), Run(Path(folder)))
    except KeyboardInterrupt as problem:
        print(f"rank {os.environ.get('RANK', 0)}: {problem}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
