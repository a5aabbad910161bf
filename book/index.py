# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which pixels does a point own?
#
# A click on a dog says: *there is a dog here*. It does not say where the dog ends. Four papers train instance and
# panoptic segmentation from such clicks alone, and each answers the same question in its own way:
# AttentionShift {cite}`attentionshift` shifts key-points through the features of a vision transformer, Point2Mask
# {cite}`point2mask` solves a transport problem between points and pixels, EXITS {cite}`exits` walks at random over
# attention affinities, and EPLD {cite}`epld` learns a distance from every pixel to every point.
#
# This book re-implements them in one library, prints each equation beside the function that computes it, and measures
# their tables again. Every number on these pages comes from a run that is in the repository.

# %% tags=["parameters", "hide-input"]
runs: str = "../runs"
claims: str = "claims.yml"
pictures: list = [46, 7, 23, 12, 31, 55]  # of Bestiary's training split

# %% tags=["remove-input"] mystnb={"image": {"alt": "Six Bestiary pictures with one point on every creature"}}
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML, Image, display

from pointseg.bookkit import figures

from pointseg.bookkit import report
from pointseg.data.bestiary import draw
from pointseg.data.points import centre

# %matplotlib inline
figures.compact()
scenes = [draw(0, "train", i, 384) for i in pictures]
_, axes = figures.multiples([""] * len(scenes), columns=3, size=2.6)
for axis, scene in zip(axes, scenes):
    figures.show(axis, scene.image)
    marked = scene.truth.is_thing & ~scene.truth.is_crowd
    for k, mask in enumerate(scene.truth.masks[marked]):
        figures.points(axis, centre(mask.numpy()), labels=[k], size=60)
plt.show()

# %% [markdown]
# All the supervision there is: one point on each creature, here on pictures of *Bestiary*, the embedded benchmark. Its
# creatures are made of parts that look unlike each other, and several of them share a head or a body, so that one part
# alone betrays neither the kind nor the extent.
#
# ## What each method answers
#
# The same held-out pictures and the same points, shown to every method built so far after its training at scale small. A
# row is what a method takes the points' pixels to be; Mask R-CNN and the student with full masks, trained on masks, answer
# from the picture alone.

# %% tags=["remove-input"] mystnb={"image": {"alt": "Rows of pictures: points, the answer of each method, the truth"}}
beside = report.newest(Path(runs), "side_by_side.py")
if beside:
    display(Image(beside.folder / "side_by_side.png"))
display(HTML(f"<p>Run {report.source(beside)}</p>"))

# %% [markdown]
# ## What holds
#
# What the papers claim about the order of their rows, held against our runs. {doc}`results` has every printed cell.

# %% tags=["remove-input"]
held = report.trial(Path(claims), Path(runs))
display(HTML(report.orders_table(held)))

# %% [markdown]
# ## Three commands
#
# ```
# make book                                     # everything at scale smoke, then this book
# pointseg train attentionshift --scale small   # one run of one method
# pointseg verdicts                             # the papers' claims held against the runs
# ```
#
# ## What this is not
#
# No framework for segmentation at large, no model zoo, no dashboard. A number measured at small scale never stands in a
# paper's column. EXITS and EPLD are listed with their claims and not built yet.

