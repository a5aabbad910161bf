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
# # Where the point lies
#
# `pointseg run book/points_study.py -p kind=border -p start=RUN -p scale=small` trains AttentionShift with other points
# than the centres: all that `book/experiment.py` does, with the noise of jittered points as one more parameter. The
# first stage of `start` was trained on centres; the label path and the detector are taught by the points named here.

# %% tags=["parameters"]
method: str = "attentionshift"
scale: str = "smoke"
seed: int = 0
kind: str = "uniform"  # uniform, centre, border, extreme or jitter
n: int = 1  # points on each target
points_seed: int = 0
jitter_px: float = 8.0  # spread of jittered points
start: str = ""  # id of a run whose first stage this one starts from
settings: dict = {}  # changes to the recipe
out: str = ""  # the run's folder

# %%
from pathlib import Path

from pointseg.lab import recipe
from pointseg.lab.experiment import experiment
from pointseg.bookkit.run_figures import show_losses, show_predictions
from pointseg.lab.run_record import Run, unrecorded

points = {"kind": kind, "n": n, "seed": points_seed, "jitter_px": jitter_px if kind == "jitter" else 0.0}
chosen = recipe.make(method, scale=scale, seed=seed, points=points, layout="voc", start=start, **settings)
print(chosen.to_json())

# %%
run = Run(Path(out)) if out else unrecorded(f"points-{chosen.sha8}")
metrics = experiment(chosen, run)
metrics

# %%
show_losses(run)

# %%
show_predictions(run)
