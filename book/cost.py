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
# How long does each part take on the machine at hand, and how much of that time could no
# implementation save? Nothing is measured while this page is built. It reads the newest run of
# `pointseg run book/cost_measure.py -p scale=small`, which you can repeat on your own machine.
#
# On a CPU the library works on one thread, and what is counted is the time that the processor spent
# on it. On a GPU it is the time on the wall. Pieces of one group are timed in turn, round after
# round, inside one process. *ms* is the least over the rounds, which disturbances can only raise;
# the median stands beside it. *Peak MB* is the most memory that the tensors made during one call
# held at one time. Weights and inputs that were there before do not count.

# %% tags=["parameters"]
runs: str = "../runs"

# %% tags=["remove-input"]
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML, display
from myst_nb import glue

from pointseg.bookkit import figures, report
from pointseg.bookkit.cost import tables

# %matplotlib inline
figures.compact()
run = report.newest(Path(runs), "cost_measure.py")
metrics = run.result["metrics"] if run else {"machines": [], "rows": [], "memory": []}
display(
    HTML(
        tables.source_line(run) if run else "<p>There is no cost run in this repository yet.</p>"
    )
)
if run and run.read("recipe.json")["scale"] == "steps":
    words = "training steps at scale small, all other pieces at the sizes of scale smoke"
    display(HTML(f"<p><strong>What it measured:</strong> {words}.</p>"))


def show(head, rows):
    """A table of the run, or a word where there is none."""
    display(HTML(report.table(head, rows) if rows else f"<p><em>{tables.NOT_MEASURED}</em></p>"))


def rows_of(*groups):
    return [row for row in metrics["rows"] if row["group"] in groups]


# %% [markdown]
# ## What the machine does at best
#
# The floor of a piece of work is the larger of two times: its multiplications and additions at the
# rate of one large matrix product, and the bytes that it has to move at the rate of one large copy.
# Only the operations of matrix products, convolutions and attention are counted, and as bytes only
# weights, inputs and results, once each. A training step counts its weights ten times: they are
# read forward and backward, their gradient is written and read, the optimiser's two moments and the
# weights are read and written. Everything between is free in this count, so no implementation
# reaches the floor.

# %% tags=["remove-input"]
show(*tables.machine_table(metrics))

# %% [markdown]
# ## Backbones
#
# *Forward* is one image through the backbone. *Roll-out* follows ten rows of attention through all
# blocks; it never holds a matrix of tokens by tokens.

# %% mystnb={"image": {"alt": "Milliseconds of each piece against the side of the image, floors dashed"}} tags=["remove-input"]
groups = [group for group in ("small ViT", "ViT-S/16") if rows_of(group)]
if groups:
    figure, axes = plt.subplots(1, len(groups), figsize=(4.5 * len(groups), 3.2), squeeze=False)
    for group, axis in zip(groups, axes[0]):
        floors = tables.curves(metrics["rows"], group, "floor_ms")
        for k, (piece, line) in enumerate(tables.curves(metrics["rows"], group).items()):
            axis.loglog(*line, "o-", color=figures.colour(k), label=piece, markersize=4)
            axis.loglog(*floors[piece], "--", color=figures.colour(k), linewidth=1)
        axis.set(title=group, xlabel="side of the image", ylabel="ms (floor dashed)")
        sides = sorted({row["side"] for row in rows_of(group)})
        axis.set_xticks(sides, [f"{side:g}" for side in sides])
        axis.set_xticks([], minor=True)
        axis.legend(fontsize=7)
    plt.tight_layout()

# %% tags=["remove-input"]
show(*tables.cost_table(rows_of("small ViT", "ViT-S/16", "ViT-B/16")))

# %% [markdown]
# The products of a block grow with the number of tokens, its attention with their square. Ten rows
# of attention grow with the tokens alone; the roll-out still has to form every row of every block
# once, a piece at a time, so its time turns towards the square while its memory stays a line.
#
# ## A training step, verb by verb
#
# What turns points into labels runs in every training step, so it must cost little beside the step.
# *Features* is the backbone's forward, *evidence* what the paper looks at, *assign* the decision
# who owns what, each without gradients. The *whole step* is features, evidence, assignment, losses,
# backward and update.

# %% tags=["remove-input"]
show(*tables.cost_table(rows_of("attentionshift", "psps", "point2mask", "epld")))

# %% tags=["remove-cell"]
steps = {row["name"]: row["ms"] for row in rows_of("epld")}
branch = next((ms for name, ms in steps.items() if name.startswith("branch")), None)
share = f"{100 * branch / steps['whole step']:.0f} %" if branch else "(not measured)"
glue("branch_share", share, display=False)

# %% [markdown]
# EPLD's distance branch with its losses, forward and backward, is {glue:text}`branch_share` of its
# step in float32; the goal was at most a fifth. At test time it costs nothing, for it is dropped.
#
# The goals were 350 ms a step of 16 images for Point2Mask, and 500 ms a step of 12 for
# AttentionShift. They were set on a processor with units for bf16 products; where such a processor
# measures, the whole step stands in both precisions. Where the floor of a step lies above its goal,
# no implementation reaches the goal at this size; only a smaller network or a quicker processor
# does.
#
# *Calls* are the operations that torch is asked for. Two savings of a step, each beside what it
# replaced, timed in turn. The forward pass on a CPU forms the attention of a few hundred tokens for
# its gradient; the roll-out reads it there instead of forming it again. And the steps between cells
# are priced for all images of one size at once. Both change nothing but rounding.

# %% tags=["remove-input"]
show(*tables.cost_table(rows_of("roll-out", "paths")))

# %% tags=["remove-cell"]
stages = [
    stage for one in report.finished(Path(runs)) for stage in one.run.result["metrics"]["stages"]
]
waited = [stage["data_wait_share"] for stage in stages if "data_wait_share" in stage]
glue("worst_wait", f"{100 * max(waited):.1f} %" if waited else "not known yet", display=False)

# %% [markdown]
# Every run also records, for each stage, the share of its time that it waited for images
# (`data_wait_share` in `result.json`). Over the runs of this book it is at worst:
# {glue:text}`worst_wait`.
#
# ## Heavy functions
#
# The key-point shift, at scale small ten instances with twenty key-points each, ten iterations, 384
# features and a grid of 64 x 64 tokens. The *bare products* are the similarities and weighted sums
# of every iteration and nothing else. The official function, run unchanged on one thread of another
# CPU, took 53 seconds; that tells the order of magnitude and no more. The tree filter: spanning
# tree and filter of a map with 21 channels, of 75 x 100 cells at scale small.

# %% tags=["remove-input"]
show(*tables.cost_table(rows_of("key-point shift", "tree filter")))

# %% [markdown]
# What {doc}`exits` adds: a hundred rounds of mean field on four maps, of 128 x 128 at scale small,
# beside the same with the window of every pixel laid out in each round, which is how MAL's release
# writes it (the masks are equal, a test says so); the walk over the 1,024 tokens of one crop, ten
# rounds of Sinkhorn and three hops, beside divisions and a matrix power; and the extreme points of
# a hundred masks.

# %% tags=["remove-input"]
exits = rows_of("mean field", "random walk", "extreme points")
show(*tables.cost_table(exits))

# %% tags=["remove-cell"]
ms = {row["name"]: row["ms"] / row["images"] for row in exits}
masks = next((name for name in ms if name.endswith("masks")), None)
glue(
    "field_gain",
    f"{ms['windows unfolded'] / ms['pairs of views']:.1f}" if ms else "(not measured)",
    display=False,
)
glue("walk_ms", f"{ms['Sinkhorn and hops']:.1f}" if ms else "(not measured)", display=False)
glue("extremes_a_second", f"{1000 / ms[masks]:,.0f}" if ms else "(not measured)", display=False)

# %% [markdown]
# So mean field is {glue:text}`field_gain` times as fast as with windows laid out, the walk of a
# crop takes {glue:text}`walk_ms` ms, and {glue:text}`extremes_a_second` masks a second get their
# extreme points. The goals, set before and for scale small, were three times, 40 ms and 2,000
# masks.

# %% [markdown]
# ## The memory of a training step
#
# One square image with as many pixels as 800 x 1333, 133 classes, in bf16 at scale paper. It is
# counted on a CPU, as the most that tensors made during the step held at one time, gradients and
# the optimiser's moments among them. They have the same sizes on a GPU, where libraries may ask for
# working space beside them.

# %% tags=["remove-input"]
show(*tables.memory_table(metrics["memory"]))

# %% [markdown]
# ## How fast each method trains
#
# A few training steps of every method as it learns at a scale, the first one left out: on a
# processor its own seconds on one thread, on a GPU those of the wall. On a GPU the loss of the
# first step stands beside the processor's. What a batch of runs would cost
# (`pointseg reproduce NAME --dry-run`) is computed from these numbers.

# %% tags=["remove-input"]
for scale, device in [("small", "cpu"), ("photos", "cpu"), ("paper", "cuda")]:
    display(HTML(f"<p>{tables.speed_line(Path(runs), scale, device)}</p>"))
    show(*tables.speed_table(Path(runs), scale, device))
