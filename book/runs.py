# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Runs: where every number comes from
#
# One row a run that is kept in the repository, as a folder of `runs/`: `recipe.json` (everything that decided it),
# `env.json` (commit, packages, device), `data.json` (hashes of data and points), `log.jsonl` (every step that was
# logged), `result.json` (scores, and how it ended) and the executed notebook. Runs that crashed or were interrupted
# stay and say so. *Stale* marks a run whose notebook, parameters, library or data have changed since.

# %% tags=["parameters", "hide-input"]
runs: str = "../runs"

# %% tags=["remove-input"]
from functools import partial
from pathlib import Path

from IPython.display import HTML

from pointseg.bookkit import report
from pointseg.lab.notebook import stale

HTML(report.runs_table(Path(runs), report.stale_runs(Path(runs), partial(stale, notebooks=Path()))))
