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
# # A run, done again
#
# `pointseg run book/again.py -p again=RUN -p scale=small` trains from a kept run's recipe anew and holds every score
# against the kept one, within tolerances. The executed notebook is one that nbval can check later, on another machine:
# `pytest --nbval-lax runs/again-.../notebook.ipynb` trains once more and fails if a score has moved.

# %% tags=["parameters"]
again: str = ""  # id of a kept run of book/experiment.py
scale: str = "small"
rtol: float = 0.05  # of a score
atol: float = 1.0  # percent points

# %%
import shutil

from pointseg.lab.experiment import experiment
from pointseg.lab.run_record import home, unrecorded
from pointseg.lab.run_record import Run
from pointseg.lab.notebook import compare_results, measured
from pointseg.lab.recipe import Recipe

kept = Run(home() / "runs" / again)
recipe = Recipe.from_json((kept.folder / "recipe.json").read_text())
fresh = unrecorded(f"again-{again}")
for folder in (fresh.folder, fresh.scratch):
    shutil.rmtree(folder, ignore_errors=True)

# %% [markdown]
# ## Training
# The first stage that the run started from, if it had one, must be in `work/`.

# %%
if recipe.start:
    first = kept.sibling(recipe.start).scratch
    shutil.copytree(first, fresh.sibling(recipe.start).scratch, dirs_exist_ok=True)
with fresh.recording():
    experiment(recipe, fresh)

# %% [markdown]
# ## Scores that moved further than the tolerances

# %%
# NBVAL_CHECK_OUTPUT
print(len(measured(kept.folder)) > 0, compare_results(fresh.folder, kept.folder, rtol, atol))
