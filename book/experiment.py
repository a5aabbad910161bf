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
# This notebook trains a chain of stages at one scale and scores it. `pointseg train METHOD` and
# `pointseg reproduce` run it through papermill; the result lands in `runs/`. Opened by hand, it
# runs with the parameters below; None leaves a value to the row, the method or the scale.

# %% tags=["parameters"]
method: str = "attentionshift"  # a method, or a row of book/plan.yml
data: str | None = None  # "bestiary", or the folder of a dataset in a VOC or COCO layout
layout: str | None = None
scale: str | None = None  # smoke, small, photos or paper
seed: int = 0
points: str | None = None  # kind of point: uniform, centre, border, extreme or jitter
n: int | None = None  # points on each target
points_seed: int | None = None
stages: list | None = None  # the chain, such as [{"method": "psps"}]; None: the method's usual one
training: dict = {}  # changes to the last stage's training, such as {"steps": 100, "lr": 1e-4}
config: dict = {}  # changes to the last method's Config
settings: dict = {}  # changes to the recipe, such as {"images": 500, "precision": "bf16"}
processes: int = 1  # of torchrun on this machine
out: str | None = None  # the run's folder

# %%
from pathlib import Path

from pointseg.bookkit.run_figures import show_losses, show_predictions
from pointseg.lab.experiment import experiment
from pointseg.lab.notebook import recipe_of
from pointseg.lab.run_record import Run, unrecorded

# %% [markdown]
# ## The recipe
# Everything that enters the result, with the scale's and the methods' own values filled in.

# %%
recipe = recipe_of(
    {
        "method": method,
        "data": data,
        "layout": layout,
        "scale": scale,
        "seed": seed,
        "points": points,
        "n": n,
        "points_seed": points_seed,
        "stages": stages,
        "training": training,
        "config": config,
        "settings": settings,
    }
)
print(recipe.to_json())

# %% [markdown]
# ## Training and scores
# The losses of every stage go to `log.jsonl.gz` of the run. Stopped or killed, the run goes on from
# its last checkpoint when it is started again; a stage that another run has trained is not trained
# again.

# %%
run = Run(Path(out)) if out else unrecorded(f"{method}-{recipe.sha8}")
metrics = experiment(recipe, run, processes)

# %%
metrics

# %%
show_losses(run)

# %% [markdown]
# ## What it predicts
# The first images of the scored split, each under its prediction.

# %%
show_predictions(run)
