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
# One row a run that is kept in the repository, as a folder `runs/<paper>/<row>/s<seed>/`:
# `recipe.json` (everything that decided it), `env.json` (commit, packages, processor), `data.json`
# (hashes of data and points), `log.jsonl.gz` (losses of every stage), `result.json` (scores, and
# how it ended) and the executed notebook without its pictures. Runs that crashed or were
# interrupted stay and say so. *Stale* marks a run whose notebook, parameters, code or data have
# changed since; *carried* one whose code has changed and was proven to give the same numbers, bit
# by bit (`pointseg carry`).

# %% tags=["parameters", "remove-input"]
runs: str = "../runs"

# %% tags=["remove-input"]
from functools import partial
from pathlib import Path

from IPython.display import HTML

from pointseg.bookkit import report
from pointseg.lab.notebook import state

HTML(report.runs_table(Path(runs), report.states(Path(runs), partial(state, notebooks=Path()))))
