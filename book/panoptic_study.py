# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What trained panoptic methods see
#
# `pointseg run book/panoptic_study.py -p 'models=[RUN, RUN]' -p scale=small` takes the models of
# finished runs and leaves the quality of their pseudo labels and pictures of their answers in
# `runs/`; the chapters on PSPS and Point2Mask read them. Nothing is trained.

# %% tags=["parameters"]
models: list = []  # ids of runs of panoptic methods whose models are in work/
scale: str = "small"
seed: int = 0
compared: int = 300  # training pictures whose pseudo labels are compared with the truth
shown: list = [0, 1, 2, 3, 4, 5]  # training and held-out pictures in the figures
out: str = ""  # the run's folder

# %%
from pathlib import Path

import torch

from pointseg.bookkit import figures
from pointseg.lab.models import load_model
from pointseg.lab.run_data import open_for_study
from pointseg.data.supervision import collate
from pointseg.lab.run_record import Run, home, unrecorded
from pointseg.papers.method import PointSupervised
from pointseg.papers.point2mask import Point2Mask
from pointseg.metrics.pseudo import pseudo_masks
from pointseg.bookkit.diagnostics.panoptic import (
    boundary_maps,
    pseudo_panoptic_quality,
    quality_by_solver,
)
from pointseg.structures import InputError

run = Run(Path(out)) if out else unrecorded("panoptic-study")
run.folder.mkdir(parents=True, exist_ok=True)
run.write(
    "recipe.json", {"method": "panoptic_study", "scale": scale, "seed": seed, "models": models}
)
torch.manual_seed(seed)
loaded = {name: load_model(Run(home() / "runs" / name).model) for name in models}
strangers = [name for name, (method, _, _) in loaded.items() if method.TASK != "panoptic"]
if strangers or not loaded:
    raise InputError(
        f"models: {', '.join(strangers) or 'none given'}; this study is of panoptic methods"
    )

# %% [markdown]
# ## Pseudo labels against the truth

# %%
metrics = {"pseudo": {}, "solver": {}}
for name, (method, recipe, _) in loaded.items():
    if isinstance(method, Point2Mask):
        metrics["solver"][name] = quality_by_solver(method, open_for_study(recipe), compared)
        metrics["pseudo"][name] = metrics["solver"][name][method.labeller.config.solver]
    elif isinstance(method, PointSupervised):
        metrics["pseudo"][name] = pseudo_panoptic_quality(method, open_for_study(recipe), compared)
run.write("metrics.json", metrics)
metrics

# %% [markdown]
# ## Figure A1: learnt boundaries

# %%
first = {}  # the first model of each method with one point a target speaks for it in the pictures
for method, recipe, _ in loaded.values():
    if recipe.points.n == 1:
        first.setdefault(recipe.stage.method, (method, recipe))
corpus = open_for_study(next(iter(loaded.values()))[1])
marked = corpus.marked()
batch = collate([marked[i] for i in shown])
labelling = {name: one for name, (one, _) in first.items() if isinstance(one, PointSupervised)}
labels = {name: one.eval().pseudo_labels(batch) for name, one in labelling.items()}
boundaries = {
    name: boundary_maps(one, batch)
    for name, one in labelling.items()
    if hasattr(one.labeller, "boundary")
}
rows = [
    "picture, points",
    *(f"boundary, {name}" for name in boundaries),
    *(f"pseudo label, {name}" for name in labels),
    "truth",
]
figure, axes = figures.multiples([row for row in rows for _ in shown], columns=len(shown), size=1.5)
for column, picture in enumerate(batch.images):
    line = list(axes[column :: len(shown)])
    figures.show(line[0], picture)
    figures.points(line[0], batch.points[column].xy, size=20)
    for axis, plane in zip(line[1:], boundaries.values()):
        figures.heat(axis, picture, plane[column])
    for axis, predicted in zip(line[1 + len(boundaries) :], labels.values()):
        figures.masks(axis, picture, pseudo_masks(predicted[column]))
    figures.masks(line[-1], picture, corpus.train.truth(marked.indices[shown[column]]).masks)
figures.save(figure, run.folder / "figure_a1.png")

# %% [markdown]
# ## Figures A2 and A3: what the students answer on held-out pictures

# %%
held = collate([corpus.unmarked()[i] for i in shown])
predicted = {}
for name, (method, _) in first.items():
    with torch.no_grad():
        predicted[name] = method.eval().predict(held.images, held.sizes)
rows = ["picture", *predicted, "truth"]
figure, axes = figures.multiples([row for row in rows for _ in shown], columns=len(shown), size=1.5)
for column, picture in enumerate(held.images):
    line = axes[column :: len(shown)]
    figures.show(line[0], picture)
    for axis, answers in zip(line[1:], predicted.values()):
        figures.masks(axis, picture, pseudo_masks(answers[column].panoptic))
    figures.masks(line[-1], picture, corpus.scored.truth(shown[column]).masks)
figures.save(figure, run.folder / "figure_a2.png")
