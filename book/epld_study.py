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
# # What the layers of trained distance branches say
#
# `pointseg run book/epld_study.py -p 'models=[RUN, RUN]' -p scale=small` takes the models of
# finished runs of EPLD, and of other panoptic labellers beside them, and leaves numbers and maps by
# layer in `runs/`; the chapter on EPLD reads them. Nothing is trained.

# %% tags=["parameters"]
models: list = []  # ids of runs of panoptic labellers whose models are in work/, EPLD's first
scale: str = "small"
seed: int = 0
compared: int = 300  # training images whose labels are held against the truth
shown: list = [0, 1, 2, 3]  # of these, in the figure of labels
layered: int = 0  # of these, whose maps are drawn layer by layer
out: str = ""  # the run's folder

# %%
from pathlib import Path

import numpy as np
import torch

from pointseg.bookkit import figures, layers
from pointseg.bookkit.diagnostics.agreement import agreeing, overlap_by_agreement
from pointseg.bookkit.diagnostics.epld import by_depth, evidence_of, study_by_layer
from pointseg.data.supervision import collate
from pointseg.lab.labels import label_train
from pointseg.lab.models import load_model
from pointseg.lab.run_data import open_for_study
from pointseg.lab.run_record import Run, home, unrecorded
from pointseg.metrics.pseudo import pseudo_masks
from pointseg.structures import InputError

run = Run(Path(out)) if out else unrecorded("epld-study")
run.folder.mkdir(parents=True, exist_ok=True)
run.write("recipe.json", {"method": "epld_study", "scale": scale, "seed": seed, "models": models})
torch.manual_seed(seed)
loaded = {name: load_model(Run(home() / "runs" / name).model) for name in models}
mine = {
    name: method.eval()
    for name, (method, *_) in loaded.items()
    if hasattr(method, "labeller") and method.KEY == "EPLD"
}
if not mine:
    raise InputError("models: no run of epld among them")
corpus = open_for_study(loaded[models[0]][1])
marked = corpus.marked()
compared = min(compared, len(marked))

# %% [markdown]
# ## Overlap with the truth by layer, and by how deep the point lies

# %%
metrics = {"layers": {}, "depth": {}}
for name, method in mine.items():
    tables = study_by_layer(method, corpus, compared)
    metrics["layers"][name] = [round(100 * float(table.iou.mean()), 2) for table in tables]
    metrics["depth"][name] = by_depth(tables).round(2).tolist()

# %% [markdown]
# ## Agreement of labellers as a confidence

# %%
labelled = {
    name: label_train(method, corpus, compared)
    for name, (method, *_) in loaded.items()
    if hasattr(method, "labeller")
}
if len(labelled) > 1:
    confidence, iou = agreeing(list(labelled.values()), corpus)
    metrics["agreement"] = overlap_by_agreement(confidence, iou).round(4).tolist()
    metrics["agreement_correlation"] = round(float(np.corrcoef(confidence, iou)[0, 1]), 3)
run.write("metrics.json", metrics)
metrics

# %% [markdown]
# ## Maps layer by layer

# %%
first = next(iter(mine.values()))
batch = collate([marked[layered]])
evidence = evidence_of(first, batch)
strip = layers.stacked(
    layers.layer_figures(batch.images[0], evidence, layers.target_points(batch.points[0]))
)
(run.folder / "layers.png").write_bytes(strip)
run.write("layers.json", {"count": len(evidence.estimate.label)})

# %% [markdown]
# ## Figure 4: labels of the methods and the truth

# %%
rows = ["image, points", *(f"label, {loaded[name][1].stage.method}" for name in labelled), "truth"]
figure, axes = figures.multiples([row for row in rows for _ in shown], columns=len(shown), size=1.4)
for column, i in enumerate(shown):
    line, sample = list(axes[column :: len(shown)]), marked[i]
    figures.show(line[0], sample.image)
    figures.points(line[0], sample.points.xy, size=20)
    for axis, labels in zip(line[1:], labelled.values()):
        figures.masks(axis, corpus.train.image(labels.rows[i]), pseudo_masks(labels.labels(i)))
    figures.masks(
        line[-1], corpus.train.image(marked.indices[i]), corpus.train.truth(marked.indices[i]).masks
    )
figures.save(figure, run.folder / "figure4.png")
