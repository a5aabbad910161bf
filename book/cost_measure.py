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
# # Measuring cost
#
# `pointseg run book/cost_measure.py -p scale=small` measures this machine and leaves its numbers in
# `runs/`; the chapter on cost reads them. On a CPU the library works on one thread here, and the
# time of the processor is counted, not the time on the wall.

# %% tags=["parameters"]
scale: str = "smoke"  # that it runs; "small" measures; "steps" measures training steps alone
repeats: int = 5  # rounds of each group
budget_s: float = 4.0  # seconds after which a group begins no further round
out: str = ""  # the run's folder

# %%
import os

os.environ["KINETO_LOG_LEVEL"] = (
    "6"  # the profiler that counts memory would report that there is no GPU
)

from pathlib import Path

import torch

from pointseg.bookkit.cost import works
from pointseg.bookkit.cost.clock import Patience
from pointseg.lab.run_record import Run, unrecorded
from pointseg.structures import InputError

if scale not in works.EXTENTS:
    raise InputError(f"scale: expected one of {', '.join(works.EXTENTS)}, got '{scale}'")
torch.set_num_threads(1)
run = Run(Path(out)) if out else unrecorded(f"cost-{scale}")
run.folder.mkdir(parents=True, exist_ok=True)
run.write("recipe.json", {"method": "cost", "scale": scale})

# %%
metrics = works.survey(works.EXTENTS[scale], Patience(repeats, budget_s))
run.write("metrics.json", metrics)
metrics["machines"]
