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
# `pointseg run book/cost_measure.py -p scale=small` measures this machine and leaves its numbers in `runs/`; the
# chapter on cost reads them. A CPU works on one thread here, and its own time is counted, not the wall's.

# %% tags=["parameters"]
scale: str = "smoke"  # smoke proves that it runs; small measures
repeats: int = 5  # rounds of each comparison
budget_s: float = 4.0  # seconds after which a comparison begins no further round
panoptic: str = "../shared/data/coco2017_panoptic/annotations"  # real maps; where they are not, drawn ones
out: str = ""  # the run's folder

# %%
import os

os.environ["KINETO_LOG_LEVEL"] = "6"  # the profiler that counts memory would report that there is no GPU

from dataclasses import asdict
from pathlib import Path

import torch

from pointseg.bookkit.cost import survey
from pointseg.lab.run_record import Run, unrecorded
from pointseg.structures import InputError

if scale not in survey.EXTENTS:
    raise InputError(f"scale: there is no '{scale}'; there are {', '.join(survey.EXTENTS)}")
torch.set_num_threads(1)
extent, patience = survey.EXTENTS[scale], survey.Patience(repeats, budget_s)
run = Run(Path(out)) if out else unrecorded(f"cost-{scale}")
run.folder.mkdir(parents=True, exist_ok=True)
run.write("recipe.json", {"method": "cost", "scale": scale})

# %% [markdown]
# ## What the machine does at best

# %%
machine = survey.cpu_machine(extent)
machine

# %% [markdown]
# ## The network, by size of the picture

# %%
network = survey.network_rows(extent, machine, patience)
print(f"{len(network)} rows")

# %% [markdown]
# ## The label paths

# %%
labels = survey.label_rows(extent, patience, Path(panoptic))
same = survey.same_labels(extent)
print(f"{len(labels)} rows")

# %% [markdown]
# ## The memory of a training step at scale paper

# %%
memory = survey.memory_rows(extent)
memory

# %% [markdown]
# ## Making batches

# %%
feeding, waiting = survey.feeding_rows(extent, patience), survey.waiting_rows(extent)
feeding

# %% [markdown]
# ## A GPU, where there is one

# %%
gpu = survey.gpu_rows(patience)
print("not measured here: no GPU" if gpu is None else f"{len(gpu[1])} rows")

# %%
# lists, not numbers by name: the index of runs compares scores, and times of one machine are none
metrics = {
    "machines": [machine.as_dict()] + ([] if gpu is None else [gpu[0].as_dict()]),
    "network": network, "labels": labels, "same_labels": same, "memory": memory,
    "feeding": feeding, "waiting": waiting,
    "gpu": [] if gpu is None else gpu[1],
    "extent": asdict(extent),
}
run.write("metrics.json", metrics)
metrics
