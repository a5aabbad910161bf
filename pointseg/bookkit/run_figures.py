"""Pictures of one run: its losses, and what its model predicts."""

from __future__ import annotations

import matplotlib.pyplot as plt

from pointseg.bookkit import figures
from pointseg.lab.evaluation import predictions
from pointseg.lab.models import load_model
from pointseg.lab.predict import shown_segments
from pointseg.lab.progress import read_log
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import Run

SHOWN = 6


def show_losses(run: Run, prefix: str = "") -> None:
    """Every loss over the steps, in one picture."""
    lines = read_log(run.folder / f"{prefix}log.jsonl")
    figure, axis = plt.subplots(figsize=(6.4, 2.6))
    for i, name in enumerate(lines[0]["losses"]):
        values = [line["losses"][name] for line in lines]
        axis.plot(
            [line["step"] for line in lines],
            values,
            color=figures.colour(i),
            label=name,
            linewidth=1,
        )
    axis.set_xlabel("step")
    axis.set_ylabel("weighted loss")
    axis.legend(fontsize=7)
    figure.tight_layout()
    plt.show()


def show_predictions(run: Run, prefix: str = "") -> None:
    """The first val images and what the run's model finds there."""
    method, recipe, categories = load_model(run.scratch / f"{prefix}model.pt")
    corpus = open_corpus(recipe)
    corpus.val.ids = corpus.val.ids[:SHOWN]
    found = list(predictions(method, recipe, corpus))
    _, axes = figures.multiples([""] * len(found), columns=SHOWN)
    for i, (axis, prediction) in enumerate(zip(axes, found)):
        masks, label = shown_segments(prediction)
        figures.masks(axis, corpus.val.image(i), masks, label.tolist())
        axis.set_title(
            ", ".join(dict.fromkeys(categories[k].name for k in label.tolist()))[:28], fontsize=7
        )
    plt.show()
