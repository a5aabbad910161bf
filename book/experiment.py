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
# # One experiment
#
# This notebook trains one method at one scale and scores it. `pointseg train METHOD` and `pointseg reproduce`
# run it through papermill; the result lands in `runs/`. Opened by hand, it runs with the parameters below.

# %% tags=["parameters"]
method: str = "attentionshift"  # a name in pointseg.lab.recipe.METHODS
data: str = "bestiary"  # or the folder of a dataset in a VOC or COCO layout
layout: str = "auto"
scale: str = "smoke"  # smoke, small or paper
seed: int = 0
points: str = "uniform"  # kind of point: uniform, centre, border, extreme or jitter
n: int = 1  # points on each target
points_seed: int = 0
start: str = ""  # id of a run whose first stage this one starts from
student: str = ""  # a mask method that is trained on the pseudo labels afterwards
training: dict = {}  # changes to the method's own training, such as {"steps": 100, "lr": 1e-4}
config: dict = {}  # changes to the method's Config
settings: dict = {}  # changes to the recipe, such as {"images": 500, "precision": "bf16"}
processes: int = 1  # of torchrun on this machine
out: str = ""  # the run's folder

# %%
from pathlib import Path

from pointseg.lab import recipe
from pointseg.lab.experiment import experiment
from pointseg.bookkit.run_figures import show_losses, show_predictions
from pointseg.lab.run_record import Run, unrecorded

# %% [markdown]
# ## The recipe
# Everything that enters the result, with the scale's and the method's own values filled in.

# %%
chosen = recipe.from_parameters({
    "method": method, "data": data, "layout": layout, "scale": scale, "seed": seed, "points": points, "n": n,
    "points_seed": points_seed, "start": start, "student": student, "training": training, "config": config, "settings": settings,
})
print(chosen.to_json())

# %% [markdown]
# ## Training and scores
# The log goes to `log.jsonl` of the run, the times to `speed.jsonl`. Stopped or killed, the run goes on from its
# last checkpoint when it is started again.

# %%
run = Run(Path(out)) if out else unrecorded(f"{method}-{chosen.sha8}")
metrics = experiment(chosen, run, processes)

# %%
metrics

# %%
show_losses(run)

# %% [markdown]
# ## What it predicts
# The first images of val, each under its prediction.

# %%
show_predictions(run)
