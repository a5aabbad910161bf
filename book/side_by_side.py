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
# # The same points, every method
#
# `pointseg run book/side_by_side.py -p 'models=[RUN, RUN]' -p scale=small` shows finished methods
# the same held-out pictures with the same points and keeps what they answer. Nothing is trained.
# The first page shows the picture.

# %% tags=["parameters"]
models: list = []  # ids of runs whose models are in work/, in the order of the figure's rows
scale: str = "small"
seed: int = 0
first: int = 500  # pictures of Bestiary's split tune from here on; nothing was chosen on them
compared: int = 100  # that the numbers are taken from
shown: list = [1, 2, 4, 6, 8]  # of these, in the figure
size: int = 128
out: str = ""  # the run's folder

# %%
from pathlib import Path

import numpy as np
import torch

from pointseg.bookkit import figures
from pointseg.lab.models import load_model
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.data.points import centre
from pointseg.lab.run_record import Run, home, unrecorded
from pointseg.papers.method import targets_of
from pointseg.metrics.pseudo import object_table, pseudo_masks
from pointseg.structures import Batch, InputError, Points

run = Run(Path(out)) if out else unrecorded("side-by-side")
run.folder.mkdir(parents=True, exist_ok=True)
run.write("recipe.json", {"method": "side_by_side", "scale": scale, "seed": seed, "models": models})
torch.manual_seed(seed)

# %% [markdown]
# ## Pictures and points
# One point on every thing and every patch of ground: the pixel nearest to the middle of its box.

# %%
scenes = [draw(seed, "tune", first + i, size) for i in range(compared)]
truths = [
    scene.truth.pick(~scene.truth.is_crowd & scene.truth.masks.flatten(1).any(1))
    for scene in scenes
]
middles = [
    torch.tensor(np.concatenate([centre(mask.numpy()) for mask in t.masks])).float() for t in truths
]
marks = [Points(xy, t.label, t.target, t.is_thing) for xy, t in zip(middles, truths)]
images = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) / 255 for scene in scenes])

# %% [markdown]
# ## What each method answers
# `label` is what it makes of the picture and its points; a method without such a thing answers from
# the picture alone.

# %%
answers, metrics = {}, {}
targets = {
    "instances": [targets_of(m.things()) for m in marks],
    "panoptic": [targets_of(m) for m in marks],
}
for name in models:
    method, recipe, categories = load_model(Run(home() / "runs" / name).model)
    if [c.name for c in categories] != [c.name for c in CATEGORIES[: len(categories)]]:
        raise InputError(f"{name}: was trained on other classes than Bestiary's")
    answered = []
    for at in range(0, compared, 20):
        these = range(at, min(at + 20, compared))
        batch = Batch(
            images[these], [(size, size)] * len(these), list(these), [marks[i] for i in these]
        )
        with torch.no_grad():
            if hasattr(method, "pseudo_labels"):
                answered += method.pseudo_labels(batch)
            else:
                answered += [
                    p.instances or p.panoptic for p in method.predict(batch.images, batch.sizes)
                ]
    answers[recipe.stage.method] = answered
    if hasattr(method, "pseudo_labels"):
        table = object_table(truths, answered, targets=targets[method.TASK])
        things = table.label < sum(c.is_thing for c in CATEGORIES)
        metrics[recipe.stage.method] = {"thing_mIoU": 100 * float(table.iou[things].mean())}
run.write("metrics.json", metrics)
metrics

# %%
rows = ["picture, points", *answers, "truth"]
figure, axes = figures.multiples([row for row in rows for _ in shown], columns=len(shown), size=1.5)
for column, i in enumerate(shown):
    line = axes[column :: len(shown)]
    picture, truth = images[i], truths[i]
    figures.show(line[0], picture)
    figures.points(line[0], marks[i].xy[truth.is_thing], size=26)
    for axis, answered in zip(line[1:], answers.values()):
        masks = pseudo_masks(answered[i])
        sure = (
            torch.ones(len(masks), dtype=torch.bool)
            if answered[i].scores is None
            else answered[i].scores >= 0.1
        )
        figures.masks(axis, picture, masks[sure])
    figures.masks(line[-1], picture, truth.masks)
figures.save(figure, run.folder / "side_by_side.png")
