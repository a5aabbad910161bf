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
# A click on a dog says: *there is a dog here*. It does not say where the dog ends. Six papers train
# instance and panoptic segmentation from clicks, extreme points or boxes, and each answers the same
# question in its own way. This book re-implements them in one library, prints each equation beside
# the function that computes it, and measures their tables again. Every number of ours on these
# pages comes from a run that is in the repository.
#
# | paper | supervision | its answer in one line | what it is built from here | official code |
# |---|---|---|---|---|
# | AttentionShift {cite}`attentionshift` | one point an object | key-points move through the features of a vision transformer and own what resembles them | the paper | [AttentionShift](https://github.com/MingXiangL/AttentionShift) |
# | PSPS {cite}`psps` | one or ten points a target | the point that is reached by the cheapest path | **no text of the paper**: its official code, and its numbers in other papers | [PSPS](https://github.com/BraveGroup/PSPS) |
# | Point2Mask {cite}`point2mask` | one or ten points a target | optimal transport between points and pixels on path costs | **the supplement alone** (Tables A1 to A4, its equations) and the official code; the main paper was not at hand | [Point2Mask](https://github.com/LiWentomng/Point2Mask) |
# | EPLD {cite}`epld` | one or ten points a target | a distance from every pixel to every point that is itself learnt | the paper; its supplement was not at hand | none published |
# | EXITS {cite}`exits` | four extreme points | a random walk over attention from the extreme points | **the supplement alone** (Tables a1 to a5); the main paper was not at hand | none published |
# | MAL {cite}`mal` | boxes | a generator of masks taught by boxes and colour | the official code | [mask-auto-labeler](https://github.com/NVlabs/mask-auto-labeler) |
#
# All have chapters and rows. What has been measured so far stands under *What holds* below, and
# {doc}`results` has every verdict.
#
# Start with {doc}`one_question`: all answers have one form, and it is written once.

# %% tags=["parameters", "remove-input"]
runs: str = "../runs"
claims: str = "claims.yml"
images: list = [46, 7, 23, 12, 31, 55]  # of Bestiary's training split

# %% tags=["remove-input"] mystnb={"image": {"alt": "Six Bestiary images with one point on every creature"}}
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML, Image, display

from pointseg.bookkit import figures, readme, report
from pointseg.data.bestiary import draw
from pointseg.data.points import centre

# %matplotlib inline
figures.compact()
scenes = [draw(0, "train", i, 384) for i in images]
_, axes = figures.multiples([""] * len(scenes), columns=3, size=2.6)
for axis, scene in zip(axes, scenes):
    figures.show(axis, scene.image)
    marked = scene.truth.is_thing & ~scene.truth.is_crowd
    for k, mask in enumerate(scene.truth.masks[marked]):
        figures.points(axis, centre(mask.numpy()), labels=[k], size=60)
plt.show()

# %% [markdown]
# This is all the supervision there is: one point on each creature, here on images of *Bestiary*,
# the embedded benchmark. Its creatures are made of parts that look unlike each other. Several of
# them share a head or a body, so one part alone gives away neither the kind nor the extent.
#
# ## What a point owns
#
# One image with six points and the answers of seven rules. PSPS, Point2Mask and EPLD are given the
# true class map, blurred, in place of one that they would learn; AttentionShift and EXITS, which
# gets four clicks a thing, run on the backbone that is shipped with the library.
# {doc}`one_question` explains the rules.
#
# ```{image} _assets/six_points.png
# :alt: One image with six points, the answers of seven rules, and the truth
# ```

# %% tags=["remove-input"] mystnb={"image": {"alt": "Rows of images: points, the answer of each trained method, the truth"}}
beside = report.newest(Path(runs), "side_by_side.py")
if beside:
    display(
        HTML(f"<p>The trained methods on held-out images, from run {report.source(beside)}:</p>")
    )
    display(Image(beside.folder / "side_by_side.png"))

# %% [markdown]
# ## What holds
#
# What the papers claim, held against our runs. A verdict is computed from paired differences and
# their 95 % interval. *Undecided* means that the interval contains zero, or that there is one
# seed. *Outside* means that our data miss something that the claim presupposes. {doc}`results` has
# the exact rules, every claim and every printed cell.

# %% tags=["remove-input"]
display(HTML(readme.claims_page(Path(claims), Path(runs))))

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
# No framework for segmentation at large, no model zoo, no dashboard. A number measured at small
# scale never stands in a paper's column.
