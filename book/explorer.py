# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Move the key-points
#
# One point goes in, a box and a mask come out, and every step between them can be moved by hand
# below. Click into the picture, or focus it and use the arrow keys (a patch at a time, with *Shift*
# a pixel at a time). Nothing is asked from outside: this page holds the patch features of a few
# pictures, and does the arithmetic of the label path itself, the same as the Python library does to
# within a thousandth.
#
# The pictures come from Bestiary's validation split, the features from the small ViT in the
# package, which has seen Bestiary's unlabelled pictures and nothing else. No class is learned here:
# the search starts from the patch under the point. In the trained method it starts from a query
# token that has learned to look for its object.
#
# The buttons above the picture are the stages, from left to right in the order in which they are
# computed.

# %% tags=["parameters"]
candidates: int = 24  # pictures among which the clearest cases are searched
size: int = 128
assets: str = "_assets/explorer"

# %% tags=["remove-input"]
from pathlib import Path

from IPython.display import HTML, display

from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.bookkit.explorer import failures, page
from pointseg.bookkit.explorer.bundle import make_bundle, write_script
from pointseg.nets.weights import read_backbone

vit = read_backbone()
scenes = [draw(0, "val", i, size, edition=1) for i in range(candidates)]
chosen = failures.find_cases(vit, [s.image for s in scenes], [s.truth for s in scenes])

# %% tags=["remove-input"]
for old in Path(assets).glob("picture*.js"):
    old.unlink()
starts = {case.picture: case.point for case in chosen.values()}
entries = []
for i, point in starts.items():
    names = {
        CATEGORIES[k].name
        for k, thing in zip(scenes[i].truth.label.tolist(), scenes[i].truth.is_thing)
        if thing
    }
    title = f"{i}: {', '.join(sorted(names))}"
    bundle = make_bundle(vit, scenes[i].image, title, scenes[i].truth, CATEGORIES)
    write_script(bundle, Path(assets), f"picture{i}")
    entries.append({"name": f"picture{i}", "title": title, "start": point})
rows = {i: row for row, i in enumerate(starts)}
display(HTML(page.embed(entries, failures.presets(chosen, rows))))

# %% [markdown]
# ## What to try
#
# 1. **Follow one point.** Press *Play the shift*. The key-points start spread over the high part of
#    the instance map and move to dense places of feature space; in the plot on the right they move
#    among the patches themselves. Patches of one part of a creature lie together there, and
#    key-points that began in the same part end on top of one another.
# 2. **Change how sharp the density is.** With a small $\alpha$ a key-point hears only the patches
#    most like it and hardly moves. Without limit ($\alpha = \infty$) each patch of a cell weighs
#    alike, and a round becomes one of k-means with the cosine as its measure.
# 3. **Ask for less agreement.** The table says what becomes of each key-point. Lower $T_f$ until
#    the ground comes in; lower $T_m$ until the parts of an animal are one. Parts that look
#    different should survive both.
# 4. **Break it.** *Try* offers the clearest case of each failure that this network makes among the
#    pictures searched when the book was built: a neighbour of the same class, an object cut in two
#    by something in front, a mask that stays on one part, and ground that passes for animal. They
#    are found by comparing with the truth, not by taste.
# 5. **Compare ways to begin.** *Map* chooses between the roll-out of attention over the last
#    blocks, the attention of one block and one head, and the plain similarity to the patch pointed
#    at. *Eq. 1* chooses between the instance map as printed, as the official code computes it, and
#    none.
#
# Blue in the stage *Mask* is right, orange lies beyond the object, pink is missed. The white line
# is the true outline; it is used for the figures beside the picture and for nothing else.
#
# ## Keep what you found
#
# The address of this page follows what you do: copy it, and whoever opens it sees the same. *PNG*,
# *SVG* and *JSON* save the picture as drawn and the numbers behind it.
#
# ## With your own pictures and networks
#
# With a kernel the same explorer takes any picture and any plain ViT. In JupyterLab:
#
# ```python
# from pointseg.bookkit.explorer.widget import KeyPointExplorer
#
# explorer = KeyPointExplorer(["cat.jpg", "dog.jpg"])
# explorer
# ```
#
# A second argument names the network: a file written by `pointseg`, the `model.pt` of a trained
# run, any ViT that timm knows (`"timm:NAME"` asks timm for its weights). Settings are traits that
# can be read and set (`explorer.alpha = 0.5`), and so are the answers (`explorer.key_points`,
# `explorer.box`, `explorer.mask_array`). Points kept with *Keep this point* become a points file
# for training with `explorer.save_points("points.json")`.
