"""One experiment from a recipe to its scores: data, the stages of its chain, scores, record.

python -m pointseg.lab.experiment RECIPE.json RUN_FOLDER      (the same under torchrun)
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from pointseg.lab import run_data as data
from pointseg.lab.chain import Chain
from pointseg.lab.evaluation import (
    SCORED,
    SHOWN,
    Scored,
    predictions,
    score_labels,
    score_predictions,
    shown_labels,
    shown_predictions,
    write_by_image,
)
from pointseg.lab.labels import Labelled, label_train
from pointseg.lab.methods import method_class, scored_on
from pointseg.lab.progress import read_log, write_log
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import Corpus, open_corpus
from pointseg.lab.run_record import Run
from pointseg.ops.processes import in_world, rank
from pointseg.structures import Prediction
from pointseg.training.distributed import first_goes_on, joined, torchrun


def experiment(recipe: Recipe, run: Run, processes: int = 1) -> dict[str, Any]:
    """Trains, scores and leaves recipe, data, log and metrics in the run's folder."""
    run.folder.mkdir(parents=True, exist_ok=True)
    if processes > 1 and not in_world():
        return launched(recipe, run, processes)
    corpus = corpus_of(recipe)
    if rank() == 0:
        run.write("recipe.json", json.loads(recipe.to_json()))
        run.write("data.json", {**corpus.facts(), "sha256": data.data_hash(recipe)})
    chain = Chain(corpus, run.stages)
    teachers = {k: chain.labels(k) for k in teaching(recipe)}
    chain.model(len(recipe.stages) - 1)
    if not first_goes_on():
        return {}
    scored, shown = scores(chain, teachers)
    metrics = {"stages": chain.record(), **{part: each.whole for part, each in scored.items()}}
    keep_log(chain, run)
    write_by_image(run, scored)
    run.write("answers.json", shown)
    run.write("metrics.json", metrics)
    return metrics


def teaching(recipe: Recipe) -> list[int]:
    """The stages whose labels a later one learns from, in order."""
    return sorted({s.learns_from for s in recipe.stages if isinstance(s.learns_from, int)})


def scores(chain: Chain, teachers: dict[int, Labelled]) -> tuple[dict[str, Scored], dict[str, Any]]:
    """Scores of what the last stage is scored on ("val" or "tune") and of the "labels" of the last
    one that makes any; and the first few of both."""
    recipe, corpus = chain.recipe, chain.corpus
    last, scored, shown = len(recipe.stages) - 1, {}, {}
    if "val" in scored_on(recipe.stage.method) and recipe.stage.student:
        few: list[Prediction] = []
        method, known = chain.method(last), corpus.scored.has_truth
        if known:
            predicted = _noting(predictions(method, recipe, corpus), few)
            scored[recipe.scored_on] = score_predictions(predicted, recipe, corpus)
        else:  # images of one's own: there is nothing to score by
            few += predictions(method, recipe, corpus, SHOWN)
        shown[recipe.scored_on] = shown_predictions(few)
    labelling = [k for k, s in enumerate(recipe.stages) if _labels(s.method)]
    for k in labelling[-1:]:
        labels = pseudo_labels(chain, k, teachers)
        shown["labels"] = shown_labels(labels)
        if corpus.train.has_truth:
            scored["labels"] = score_labels(labels, corpus)
    return scored, shown


def pseudo_labels(chain: Chain, k: int, teachers: dict[int, Labelled]) -> Labelled:
    """The first labels of stage k, those that it teachers where it has no others."""
    if k in teachers and not hasattr(method_class(chain.recipe.stages[k].method), "student_labels"):
        return teachers[k].first(SCORED)
    return label_train(chain.method(k), chain.corpus.at(k), SCORED)


def _labels(method: str) -> bool:
    return "labels" in scored_on(method)


def _noting(predicted: Iterator[Prediction], few: list[Prediction]) -> Iterator[Prediction]:
    """The same stream, its first ones remembered."""
    for one in predicted:
        if len(few) < SHOWN:
            few.append(one)
        yield one


def keep_log(chain: Chain, run: Run) -> None:
    """The logs of all stages as one compressed file of the run."""
    lines = [
        {"stage": k, **line}
        for k in range(len(chain.recipe.stages))
        for line in read_log(chain.folder(k) / "log.jsonl")
    ]
    write_log(run.folder / "log.jsonl.gz", lines)


def corpus_of(recipe: Recipe) -> Corpus:
    """The corpus; among several processes the first one makes what is missing."""
    if in_world():
        if rank() == 0:
            _ = open_corpus(recipe).facts()
        dist.barrier()
    return open_corpus(recipe)


def launched(recipe: Recipe, run: Run, processes: int) -> dict[str, Any]:
    """The same experiment by torchrun in so many processes of this machine."""
    run.write("recipe.json", json.loads(recipe.to_json()))
    paths = [str(run.folder / "recipe.json"), str(run.folder)]
    if torchrun(["-m", "pointseg.lab.experiment", *paths], processes):
        raise RuntimeError(
            f"{run.id}: a process of the distributed training failed; its log is above"
        )
    return run.read("metrics.json")


def main(recipe: str, folder: str) -> int:
    """Exit code: 0 done, 130 interrupted."""
    try:
        with joined():
            chosen = Recipe.from_json(Path(recipe).read_text())
            experiment(chosen, Run(Path(folder)))
    except KeyboardInterrupt as problem:
        print(f"rank {os.environ.get('RANK', 0)}: {problem}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
