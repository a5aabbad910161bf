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
# # Cost
#
# Two questions: how long does each part take on the machine at hand, and how much of that time could no
# implementation save? This page measures nothing while it is built. It reads the newest run of
# `pointseg run book/cost_measure.py -p scale=small`, which you can repeat on your own machine; the links lead to it.
#
# How it is measured. On a CPU the library works on one thread, and what is counted is the time the processor spent on
# it; a machine that others use too stretches the time on the wall, but hardly that one. On a GPU it is the time on
# the wall. Ways of doing the same thing are timed in turn, round after round, inside one process. *ms* is the least
# over the rounds, which disturbances can only raise; the median stands beside it. *Peak MB* is the most memory that
# tensors made during one call held at one time: weights and inputs that were there before do not count, nor does what
# scipy and numpy keep for themselves.

# %% tags=["parameters"]
runs: str = "../runs"

# %% tags=["remove-input"]
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML, Markdown, display
from myst_nb import glue

from pointseg.bookkit import figures

from pointseg.bookkit import report
from pointseg.bookkit.cost import shown
from pointseg.bookkit.cost.survey import PROCESSES
from pointseg.lab.notebook import stale

# %matplotlib inline
figures.compact()
run = report.newest(Path(runs), "cost_measure.py")
metrics = run.result["metrics"] if run else None

# %% tags=["remove-input"]
def table_of(tabulate):
    """A table of the run, or a word where there is no run."""
    rows = tabulate() if run else ([], [[shown.NOT_MEASURED]])
    display(HTML(report.table(*rows)))


missing = "There is no cost run in this repository yet, so the tables below are empty: *not measured here*."
old = stale(run.folder, Path()) if run else []
display(HTML(f"<p>{shown.source(run)} {report.badge('stale') if old else ''}</p>") if run else Markdown(missing))

# %% [markdown]
# ## What the machine does at best
#
# The floor of a piece of work is the larger of two times: its multiplications and additions at the rate of one large
# matrix product, and the bytes it has to move at the rate of one large copy. Counted are only the operations of matrix
# products, convolutions and attention, and as bytes only weights, inputs and results, each once (for a training step
# ten times the weights: read forward and backward, their gradient written and read, the optimiser's two moments and
# the weights themselves read and written). Softmax, norms, losses and everything between are free in this count, so no
# implementation reaches the floor; how near one comes says how little there is left to gain without computing less.

# %% tags=["remove-input"]
table_of(lambda: shown.machine_table(metrics))

# %% [markdown]
# ## The network, by the number of tokens
#
# *Forward* is one picture through the backbone. *Attention rows* recomputes ten rows of the attention of every block,
# which is what a look inside costs on top of a forward that keeps nothing. *Roll-out* follows the same ten rows
# through all blocks; it never holds a matrix of tokens by tokens. The *step* is one optimiser step of AttentionShift
# on two pictures: forward, label path, losses, backward, update.

# %% mystnb={"image": {"alt": "Milliseconds of each piece against tokens, floors dashed"}} tags=["remove-input"]
networks = ["small", "ViT-S/16"] if run else []
for network, axis in zip(networks, plt.subplots(1, 2, figsize=(9, 3.4))[1] if run else []):
    drawn, floors = (shown.curves(metrics["network"], network, value) for value in ("ms", "floor_ms"))
    for k, piece in enumerate(drawn):
        axis.loglog(*drawn[piece], "o-", color=figures.colour(k), label=piece, markersize=4)
        axis.loglog(*floors[piece], "--", color=figures.colour(k), linewidth=1)
    axis.set(title=network, xlabel="tokens", ylabel="ms (floor dashed)")
    axis.legend(fontsize=7)
plt.tight_layout() if run else None

# %% tags=["remove-input"]
table_of(lambda: shown.network_table(metrics["network"]))

# %% [markdown]
# The products of a block grow with the tokens, its attention with their square: on a double logarithmic plot the
# curves start along slope one and turn towards slope two. Ten rows of attention grow with the tokens alone. The
# roll-out of ten rows still has to form every row of every block once, a piece at a time, so its time turns towards
# slope two while its memory stays a line.

# %% [markdown]
# ## On a GPU
#
# ViT-S/16 and ViT-B/16 in bf16 up to pictures of 800 x 1333, and the training steps of AttentionShift and Point2Mask
# at scale paper: two pictures of that size, ten objects each, COCO's numbers of things and stuff.

# %% tags=["remove-input"]
if run and metrics["gpu"]:
    table_of(lambda: shown.network_table(metrics["gpu"]))
else:
    display(Markdown("*Not measured here*: the machine of this run has no GPU. The notebook measures one where it is."))

# %% [markdown]
# ## Making batches
#
# A step that waits for its pictures wastes the device. The table tells what one process needs for a batch at scale small in a
# first epoch, decoded, augmented and collated, and from which length on a step waits for at most a tenth of its time:
# without loader processes a batch is made between two steps; with n of them one is ready n times as often, while the step
# goes on. Beside a GPU there are four unless `-p 'settings={"workers": n}'` asks for others; the pictures and their order
# stay the same, whatever n is.

# %% tags=["remove-input"]
table_of(lambda: shown.feeding_table(metrics["feeding"], PROCESSES))

# %% tags=["remove-cell"]
stages = [s for one in report.finished(Path(runs)) for s in one.run.result["metrics"]["stages"]]
waited = [stage["data_wait_share"] for stage in stages if "data_wait_share" in stage]
glue("worst_wait", f"{100 * max(waited):.1f} %" if waited else shown.NOT_MEASURED, display=False)

# %% [markdown]
# Every run records for each stage the share of its time that it waited (`data_wait_share` in `result.json`).
# On the CPUs that made the runs of this book, without loader processes, it is {glue:text}`worst_wait` at worst. On a GPU:

# %% tags=["remove-input"]
if run and metrics["waiting"]:
    table_of(lambda: shown.waiting_table(metrics["waiting"]))
else:
    display(Markdown("*Not measured here*: the machine of this run has no GPU. The notebook measures it where there is one."))

# %% [markdown]
# ## The label paths
#
# What turns points into labels is computed anew in every training step, so it must cost little beside the step.
#
# The last column is not ours to link: it is the processor time of the official functions, run unchanged by us on one
# CPU thread, but of another machine and at another time. It tells orders of magnitude and no more.

# %% tags=["remove-input"]
table_of(lambda: shown.label_table(metrics["labels"]))

# %% [markdown]
# - *Key-point shift*: ten instances with twenty key-points each, ten iterations, 384 features, tokens of a 64 x 64
#   grid. The bare products are the similarities and weighted sums of every iteration and nothing else.
# - *Roll-out*: ten rows through seven blocks at the tokens of a picture of 800 x 1344. The dense way has to form seven
#   matrices and to multiply six times; one of each is timed here.
# - *Pseudo label*: a picture of 600 x 800 with eight things and 21 classes. The full-size solve counts units and
#   solves the transport among all pixels, as the official code does; ours solves it on the path grid and carries only
#   the suppliers' potentials to full size.
# - *Tree filter*: spanning tree and filter of a 75 x 100 map with 21 channels, forward.
# - *Panoptic quality*: one table of common pixels against a loop over segments that gives the same counts.
# - *Training step*: a whole step of AttentionShift at scale small; *labels* is the map, boxes, shift, filter and mask
#   points in it, *attention* the roll-out that comes before.

# %% [markdown]
# ## The memory of a training step
#
# One picture of COCO's size with ten things and ten kinds of stuff, 133 classes, in bf16 at scale paper: AttentionShift
# on a ViT-S/16, Point2Mask on a ResNet-50. It is counted on a CPU, as the most that tensors made during the step held
# at one time (gradients and the optimiser's moments are among them); they have the same sizes on a GPU, where libraries
# may ask for working space beside them. Two pictures need at most twice as much, and the weights once.

# %% tags=["remove-input"]
table_of(lambda: shown.memory_table(metrics["memory"]))

# %% [markdown]
# ## What was asked for

# %% tags=["remove-input"]
table_of(lambda: shown.asked_table(metrics))

# %% [markdown]
# The third column is what this project asked of itself before anything was measured; *met* and *missed* are computed
# from the run. Where there is no demand the number stands for information.
