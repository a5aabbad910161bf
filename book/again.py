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
# `pointseg run book/again.py -p again=RUN` trains from a kept run's recipe anew, all its stages,
# and holds every score against the kept one, within tolerances. The executed notebook is one that
# nbval can check later, on another machine:
# `pytest --nbval-lax runs/notebooks/again-.../s0/notebook.ipynb` trains once more and fails if a
# score has moved.

# %% tags=["parameters"]
again: str | None = (
    None  # a kept run of book/experiment.py, such as point2mask/p2m-tabA1-p2m1-voc/s0
)
rtol: float = 0.05  # of a score
atol: float = 1.0  # percent points

# %%
from pointseg.lab.again import done_again, kept_run
from pointseg.lab.notebook import compare_results, measured
from pointseg.lab.run_record import home

kept, recipe = kept_run(again, home() / "runs")

# %% [markdown]
# ## Training

# %%
fresh = done_again(kept, recipe)

# %% [markdown]
# ## Scores that moved further than the tolerances

# %%
# NBVAL_CHECK_OUTPUT
print(len(measured(kept.folder)) > 0, compare_results(fresh.folder, kept.folder, rtol, atol))
