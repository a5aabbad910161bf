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
# # What a trained AttentionShift sees
#
# `pointseg run book/attentionshift_study.py -p start=RUN -p scale=small` takes the model of a
# finished run and leaves numbers and pictures of its label path in `runs/`; the chapter on
# AttentionShift reads them. Nothing is trained.

# %% tags=["parameters"]
start: str = ""  # id of a run of attentionshift whose model is in work/
scale: str = "small"
compared: int = 300  # training pictures that the numbers are taken from
tried: int = 100  # training pictures that every other setting is tried on
shown: list = [
    0,
    1,
    2,
    3,
    4,
    5,
]  # training pictures in Figure 5, the first three of them in Figure 6
out: str = ""  # the run's folder

# %%
from pathlib import Path

import torch

from pointseg.bookkit import figures
from pointseg.lab.models import load_model
from pointseg.lab.run_data import open_for_study
from pointseg.data.supervision import collate
from pointseg.lab.run_record import Run, home, unrecorded
from pointseg.papers.attentionshift.tokens import token_centres
from pointseg.bookkit.diagnostics.attentionshift import keypoint_study, label_path_study, mask_study
from pointseg.lab.tta import view_scores

run = Run(Path(out)) if out else unrecorded("study")
run.folder.mkdir(parents=True, exist_ok=True)
method, recipe, categories = load_model(Run(home() / "runs" / start).model)
corpus = open_for_study(recipe)
shifted, boxed = {"filtering": False}, {"drawn_by": "box"}
CASES = {
    "no shift, any token of high A^I": {"shift": False, "filtering": False},
    "shift": shifted,
    "shift and filtering": {},
    "shift, means over the box": shifted | boxed,
    "shift and filtering, means over the box": boxed,
    "shift, no iteration": shifted | {"iterations": 0},
    "shift, alpha without limit": shifted | {"alpha": float("inf")},
    "shift, bandwidth at least 0.1": shifted | {"bandwidth_floor": 0.1},
    "shift, soft-max ownership": shifted | {"owner": "softmax"},
    "shift, official boxes": shifted | {"box_rule": "centre"},
    "shift, objects compete": shifted | {"compete": True},
    "shift and filtering, high from a half on": {"seed_threshold": 0.5},
}
torch.manual_seed(0)
run.write(
    "recipe.json",
    {"method": "attentionshift_study", "scale": scale, "seed": recipe.seed, "start": start},
)

# %% [markdown]
# ## Numbers

# %%
metrics = {"label_path": label_path_study(method, corpus, compared)}
metrics["label_path"]

# %% [markdown]
# ## What teaches the mask head
# Where the key-points lie that the mask head is told are object, had this model's label path been
# set otherwise.

# %%
metrics["key_points"] = keypoint_study(method, corpus, CASES, tried)
metrics["key_points"]

# %% [markdown]
# ## How masks lie on their objects
# The pseudo mask of every object, and the detector's answer to its point where it has one.

# %%
metrics["masks"] = mask_study(method, corpus, tried)
metrics["masks"]

# %% [markdown]
# ## Views of a picture
# The official test averages over twelve views. Here: one, a mirrored one too, and three sizes of
# both.

# %%
ways = {
    "one view": ((1.0,), (False,)),
    "and its mirror": ((1.0,), (False, True)),
    "three sizes and their mirrors": ((0.75, 1.0, 1.5), (False, True)),
}
kept = ("voc_mAP25_11pt", "voc_mAP50_11pt", "voc_mAP50_area", "voc_mAP75_11pt", "AP", "AP50")
by_views = {name: view_scores(method, corpus, *way) for name, way in ways.items()}
metrics["views"] = {name: {k: scores[k] for k in kept} for name, scores in by_views.items()}
run.write("metrics.json", metrics)
metrics["views"]

# %% [markdown]
# ## Figure 5: maps and masks

# %%
marked = corpus.marked()
batch = collate([marked[i] for i in shown])
parts = method.explain(batch)[1]
labels, scene, keypoints, region = (
    parts.pseudo_labels(),
    parts.objects,
    parts.keypoints,
    parts.region,
)
with torch.no_grad():
    answers = method.student_labels(batch)
grid, stride = scene.grid, scene.stride
front = [
    int((scene.image == i).nonzero()[0, 0]) for i in range(len(shown))
]  # the first object of each picture
titles = [
    "picture, point",
    "$A^S$",
    "$A^I$",
    "part maps",
    "key-points, box",
    "pseudo mask",
    "student's mask",
]
figure, axes = figures.multiples([t for t in titles for _ in shown], columns=len(shown), size=1.5)
rows = [axes[i * len(shown) : (i + 1) * len(shown)] for i in range(len(titles))]
on_grid = lambda values: values.unflatten(-1, grid)  # noqa: E731
for i, at in enumerate(front):
    picture, mine = batch.images[i], int((scene.image[:at] == i).sum())
    figures.show(rows[0][i], picture)
    figures.points(rows[0][i], scene.xy[at : at + 1], size=24)
    figures.heat(rows[1][i], picture, on_grid(parts.attention[at]))
    figures.heat(rows[2][i], picture, on_grid(parts.instance_map[at]))
    owner = torch.full((grid[0] * grid[1],), -1)
    owner = owner.scatter(
        0, region.index[at][region.inside[at]], keypoints.shifted.owners[-1][at][region.inside[at]]
    )
    figures.owners(rows[3][i], picture, on_grid(owner))
    figures.show(rows[4][i], picture)
    figures.points(
        rows[4][i], token_centres(keypoints.token[at][keypoints.valid[at]], grid, stride), size=14
    )
    left, top, right, bottom = parts.boxes[at].tolist()
    rows[4][i].plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color="red",
        linewidth=1.2,
    )
    figures.masks(rows[5][i], picture, labels[i].masks[mine : mine + 1])
    figures.masks(rows[6][i], picture, answers[i].masks[mine : mine + 1])
figures.save(figure, run.folder / "figure5.png")

# %% [markdown]
# ## Figure 6: the shift, iteration by iteration

# %%
last = len(keypoints.turns) - 1
turns = sorted({0, 1, 2, 5, last} & set(range(last + 1)))
figure, axes = figures.multiples(
    [f"iteration {t}" for _ in front[:3] for t in turns], columns=len(turns), size=1.9
)
for line, at in enumerate(front[:3]):
    picture, inside = batch.images[int(scene.image[at])], region.inside[at]
    for column, turn in enumerate(turns):
        axis = axes[line * len(turns) + column]
        owner = torch.full((grid[0] * grid[1],), -1)
        owner = owner.scatter(
            0, region.index[at][inside], keypoints.shifted.owners[turn][at][inside]
        )
        figures.owners(axis, picture, on_grid(owner))
        centres = token_centres(keypoints.turns[turn][at], grid, stride)
        figures.points(axis, centres, labels=range(len(centres)), size=14)
figures.save(figure, run.folder / "figure6.png")
