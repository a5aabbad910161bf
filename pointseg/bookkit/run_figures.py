"""Figures of one run: its losses, and what its model predicts."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from pointseg.bookkit import figures
from pointseg.lab.evaluation import SHOWN, predictions
from pointseg.lab.models import load_model
from pointseg.lab.predict import masks_at, worth_drawing
from pointseg.lab.progress import read_log
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import Run
from pointseg.structures import Category, Prediction


def show_losses(run: Run) -> None:
    """Every loss over the steps, a panel a stage."""
    lines = read_log(run.folder / "log.jsonl.gz")
    stages = sorted({line["stage"] for line in lines})
    figure, axes = plt.subplots(1, len(stages), figsize=(3.2 * len(stages) + 1, 2.6), squeeze=False)
    for axis, k in zip(axes[0], stages):
        _draw_losses(axis, [line for line in lines if line["stage"] == k])
        axis.set_xlabel(f"step of stage {k}")
    axes[0][0].set_ylabel("weighted loss")
    figure.tight_layout()
    plt.show()


def _draw_losses(axis: Axes, lines: list[dict]) -> None:
    steps = [line["step"] for line in lines]
    for i, name in enumerate(lines[0]["losses"]):
        values = [line["losses"].get(name) for line in lines]
        axis.plot(steps, values, color=figures.colour(i), label=figures.literal(name), linewidth=1)
    axis.legend(fontsize=7)


def show_predictions(run: Run) -> None:
    """The first scored images and what the run's model finds there, where it answers alone."""
    method, recipe, categories = load_model(run.model)
    if "val" not in method.SCORES:
        return
    corpus = open_corpus(recipe)
    predicted = list(predictions(method, recipe, corpus, SHOWN))
    _, axes = figures.multiples([""] * len(predicted), columns=SHOWN)
    for i, (axis, prediction) in enumerate(zip(axes, predicted)):
        _draw(axis, prediction, corpus.scored.image(i), categories)
    plt.show()


def _draw(axis: Axes, prediction: Prediction, image: np.ndarray, categories: Sequence[Category]):
    shown = worth_drawing(prediction)
    masks, labels = list(masks_at(shown, image.shape[:2])), shown.label.tolist()
    figures.masks(axis, image, masks, labels)
    names = dict.fromkeys(categories[k].name for k in labels)
    axis.set_title(", ".join(names)[:28], fontsize=7, parse_math=False)
