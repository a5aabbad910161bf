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
# # Points and data
#
# A weak method is shown a picture and, for each object in it, one click and the name of a class. It
# never sees a mask. This chapter shows what the pictures are, where the clicks come from, how to
# bring your own, and how the library makes sure that a weak method learns from nothing else.

# %% tags=["parameters"]
images: int = 40  # pictures of the small Bestiary that this page makes
size: int = 192  # pixels of a side
seed: int = 0

# %% tags=["remove-cell"]
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, display
from myst_nb import glue

from pointseg.bookkit import figures, report
from pointseg.data import gauge
from pointseg.data.augment import Augment
from pointseg.data.bestiary import draw, make
from pointseg.data.layouts import open_dataset
from pointseg.data.point_file import as_points
from pointseg.data.point_formats import (
    read_coco_points,
    read_point_pngs,
    write_coco_points,
    write_point_pngs,
)
from pointseg.data.points import ImagePoints, PointFile, read_points, sample_points, write_points
from pointseg.data.supervision import PointDataset
from pointseg.lab.run_record import home
from pointseg.metrics.pseudo import part_recall_of_points, point_depth
from pointseg.structures import InputError

# %matplotlib inline
figures.compact()
folder = Path(tempfile.mkdtemp(prefix="points-and-data-"))

# %% [markdown]
# ## Bestiary
#
# The embedded benchmark is drawn, not photographed: creatures put together from parts that look
# unlike each other, on textured ground. One part's look is shared by two classes, so no single part
# betrays the class, nor how far the creature reaches. That is the difficulty a point leaves: the
# click lies on *one* part, and the mask is *all* of them.

# %% mystnb={"image": {"alt": "Twelve Bestiary pictures: creatures on textured ground"}} tags=["remove-input"]
figure, axes = figures.multiples([""] * 12, columns=6)
for index, axis in enumerate(axes):
    figures.show(axis, draw(seed, "train", index, size).image)

# %% [markdown]
# Nothing else is to be relied on. A creature of a class has hues, textures and proportions of its
# own; ground, rocks and plants wear creatures' looks on about a third of the area; ink runs around
# the outline in half of the pictures, around every part in a quarter, and nowhere in the last; two
# to four of a class stand and overlap in most pictures.
#
# Each picture comes with everything that is true of it. Below: the picture, its things, its stuff,
# and its parts. Masks serve the scores and the fully supervised references; parts serve nothing but
# measuring.

# %% mystnb={"image": {"alt": "Three pictures with masks of things, of stuff, and parts"}} tags=["remove-input"]
figure, axes = figures.multiples(["picture", "things", "stuff", "parts"] * 3, columns=4, size=2.1)
for row, index in enumerate((3, 5, 8)):
    scene = draw(seed, "train", index, size)
    truth, cells = scene.truth, axes[4 * row : 4 * row + 4]
    figures.show(cells[0], scene.image)
    figures.masks(cells[1], scene.image, truth.masks[truth.is_thing])
    figures.masks(cells[2], scene.image, truth.masks[~truth.is_thing])
    figures.owners(cells[3], scene.image, truth.parts.int() - 1)

# %% [markdown]
# Picture number $i$ of a split depends on the seed and on $i$ alone, on every machine. The splits
# `pretrain`, `train`, `tune` (to choose on) and `val` (to judge on) never share a picture. On disk
# a Bestiary is an ordinary data set: it is written in the layouts of VOC 2012 (with SBD) and COCO
# 2017, and read back by the same loaders that read those. There is no second way for toys.
#
# ```
# pointseg data make OUT --layout all --images 40 --seed 0
# pointseg data check OUT
# ```

# %%
make(
    folder / "bestiary", "coco", images=images, size=size, seed=seed, val=2, tune=2, progress=False
)
for path in sorted((folder / "bestiary").rglob("*")):
    if path.is_dir() or path.suffix == ".json":
        print(path.relative_to(folder))

# %%
dataset = open_dataset(folder / "bestiary", "train2017", "panoptic")
print(dataset)
print("things:", *(category.name for category in dataset.categories[:6]), "...")
print("stuff: ", *(category.name for category in dataset.categories if not category.is_thing))

# %% [markdown]
# ## An easy edition, and how hard is hard?
#
# The first edition of Bestiary stays as the easy tier (`--edition 1`): each part of a class keeps
# one palette, ink runs around every part, creatures are small and mostly apart.

# %% mystnb={"image": {"alt": "Six pictures of the first edition: small creatures in clear colours"}} tags=["remove-input"]
figure, axes = figures.multiples([""] * 6, columns=6)
for index, axis in enumerate(axes):
    figures.show(axis, draw(seed, "train", index, edition=1).image)

# %% [markdown]
# The gauge puts numbers to it, the same for drawings and photographs: how many tokens an object
# has, how far one pixel's colour tells things from ground (1/2: not at all), how many objects touch
# their own class. The gates are what the papers' mechanisms need: four tokens for each of
# AttentionShift's 20 key-points in most objects, colours that do not give things away, neighbours
# of one class. The colour score rises with the number of images it is fitted on, so all data sets
# of a table are read at the same count; where fewer than 75 images are there to fit on it is not
# judged.
#
# ```
# pointseg data gauge bestiary-easy bestiary VOC2012_320:val_eval --images 300 --json
# ```

# %% tags=["remove-input"]
records = [
    json.loads((home() / "runs/data/gauge" / f"{name}.json").read_text())
    for name in ("result", "pennfudan")
]
measures = records[0] | records[1]
names = {
    "bestiary-easy": "first edition",
    "bestiary": "Bestiary",
    "VOC2012_320:val_eval": "VOC 2012, 320 px",
    "PennFudan_320:train": "Penn-Fudan, 320 px",
}
rows = [
    [text, *(gauge.written(name, measures[key]) for key in names)]
    for name, text in gauge.LINES.items()
]
rows += [
    [f"gate: {gate.text}", *(measures[key]["gates"][gate.name] for key in names)]
    for gate in gauge.GATES
]
display(HTML(report.table(["", *names.values()], rows)))

# %% [markdown]
# The photographs themselves are not shown: VOC 2012 (instances derived from the official class
# masks and boxes, at 320 pixels) and Penn-Fudan pedestrians. Photographs have a wider spread of
# sizes, and nothing that says where a part ends.
#
# ## Five kinds of point
#
# "A point" does not mean one thing in the literature. The kinds here are named, and every method
# gets the same file:
#
# | kind | where the point lies | who uses it |
# |---|---|---|
# | `uniform` | any pixel of the mask, all equally likely; 1 or 10 a target | PSPS, Point2Mask, EPLD |
# | `centre` | the mask's pixel nearest to the centre of its box | AttentionShift's release: the box centre itself |
# | `border` | a pixel with a neighbour outside the mask | worst case |
# | `extreme` | top, left, bottom and right, by ExtremeNet's rule | EXITS |
# | `jitter` | a uniform or centre point moved by Gaussian noise; it may miss the object | a hurried hand |
#
# ExtremeNet's rule: of the connected run that stays within two per cent of the box's side from the
# very top, take the middle, at the height of the very top; likewise on the other sides. Crowd
# regions get no point.

# %% mystnb={"image": {"alt": "One picture with its points, once for each kind of point"}} tags=["remove-input"]
shown = 3
kinds = {
    "uniform, 1": ("uniform", 1),
    "uniform, 10": ("uniform", 10),
    "centre": ("centre", 1),
    "border": ("border", 1),
    "extreme": ("extreme", 4),
    "jitter, 4 px": ("jitter", 1),
}
made = {name: sample_points(dataset, kind, n, seed) for name, (kind, n) in kinds.items()}
figure, axes = figures.multiples(list(kinds), columns=3, size=2.8)
for axis, points_file in zip(axes, made.values()):
    points = points_file.for_image(dataset.ids[shown])
    truth = dataset.truth(shown)
    order = {target: row for row, target in enumerate(truth.target.tolist())}
    rows = [row for target, row in order.items() if truth.is_thing[row]]
    figures.masks(axis, dataset.image(shown), truth.masks[rows], rows, alpha=0.35)
    figures.points(axis, points.xy, [order[target] for target in points.target.tolist()], size=26)

# %% [markdown]
# A point depends on the seed, the kind, the image's id and the target's id, and on nothing else:
# not on the order of the files, nor on how many images there are. The first of ten uniform points
# is the one uniform point.

# %%
image_id = dataset.ids[shown]
one, ten = made["uniform, 1"].for_image(image_id), made["uniform, 10"].for_image(image_id)
for target, xy in zip(one.target.tolist(), one.xy.tolist()):
    first = ten.xy[ten.target == target][0].tolist()
    print(f"target {target:9d}:  the one point {xy}, the first of ten {first}")

# %% [markdown]
# ## What a kind of point tells
#
# Two measurements on this page's {glue:text}`n_images` pictures. *Depth* is how far inside its
# object a point lies, zero on the border and one at the deepest place. *Part recall* is the share
# of an object's visible parts that hold a point: what one click leaves to be found.

# %% tags=["remove-input"]
truths = [dataset.truth(i) for i in range(len(dataset))]
depth, recall = {}, {}
for name, points_file in made.items():
    points = [points_file.for_image(image_id) for image_id in dataset.ids]
    things = [truth.is_thing & ~truth.is_crowd for truth in truths]
    depth[name] = np.concatenate(
        [point_depth(t, p)[k.numpy()] for t, p, k in zip(truths, points, things)]
    )
    recall[name] = np.nanmean(
        np.concatenate(
            [part_recall_of_points(t, p)[k.numpy()] for t, p, k in zip(truths, points, things)]
        )
    )
glue("n_images", images, display=False)
glue("recall_one", f"{100 * recall['uniform, 1']:.0f} %", display=False)
glue("recall_ten", f"{100 * recall['uniform, 10']:.0f} %", display=False)

# %% mystnb={"image": {"alt": "Depth of points, and part recall, for each kind of point"}} tags=["remove-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for i, (name, values) in enumerate(depth.items()):
    values = np.sort(np.nan_to_num(values))
    left.step(
        values, np.arange(1, len(values) + 1) / len(values), color=figures.colour(i), label=name
    )
left.set(xlabel="depth of the (deepest) point", ylabel="share of creatures")
left.legend(fontsize=8)
right.barh(
    list(recall),
    [100 * value for value in recall.values()],
    color=[figures.colour(i) for i in range(6)],
)
right.invert_yaxis()
right.set(xlabel="part recall, per cent", xlim=(0, 100))
plt.show()

# %% [markdown]
# One uniform point touches {glue:text}`recall_one` of a creature's visible parts, ten touch
# {glue:text}`recall_ten`. Everything else has to come from the features.
#
# ## The points file
#
# `pointseg points DIR --kind uniform --n 1 --seed 0 --out points.json` writes a JSON file, one
# image a line. Its form is described in `pointseg/data/points.schema.json`. It names the data it
# was sampled from and carries its own hash.

# %%
write_points(folder / "points.json", made["uniform, 1"])
text = (folder / "points.json").read_text()
print(text[: text.index(' "categories"')] + " ...")
print(text.splitlines()[-4][:88], "...")

# %% [markdown]
# Whatever is wrong with a file, reading it ends in one line that says where. Here one coordinate is
# moved out of its picture, first with the hash left as it was, then in a file that claims to be
# clicked by hand and needs no hash:

# %%
record = json.loads(text)
record["images"][0]["targets"][0]["points"][0][0] += 1000
for change in ({}, {"kind": "manual", "content_hash": None}):
    (folder / "spoilt.json").write_text(json.dumps(record | change))
    try:
        read_points(folder / "spoilt.json")
    except InputError as error:
        print(str(error).replace(str(folder), "..."))

# %% [markdown]
# ## Your own points
#
# An annotator has pictures and clicks and no masks. Name the classes, list the clicks as
# `(x, y, label, target)`, and write the file; its kind is `manual`, with no seed and no source.
# Coordinates are in pixels of the stored picture; the pixel in column $c$ and row $r$ covers
# $[c, c+1) \times [r, r+1)$, so its centre is $(c + 0.5, r + 0.5)$.

# %%
clicks = [(40.0, 52.5, 0, 1), (91.5, 30.0, 2, 2)]
garden = ImagePoints(height=96, width=128, points=as_points(clicks, dataset.categories))
mine = PointFile("manual", 1, None, None, dataset.categories, {"garden.jpg": garden})
write_points(folder / "mine.json", mine)
print(read_points(folder / "mine.json").for_image("garden.jpg").xy)

# %% [markdown]
# Two forms that others use are read and written, too: the panoptic PNG of PSPS and Point2Mask in
# which only the points' pixels carry their segment's id, and COCO annotations with a `point` (or
# `extreme_points`) and neither box nor mask, as AttentionShift's loader reads them.

# %%
names = {image_id: dataset.path(i).name for i, image_id in enumerate(dataset.ids)}
write_point_pngs(made["uniform, 10"], folder / "pngs.json", folder / "pngs", names)
write_coco_points(made["extreme"], folder / "coco.json", names)
from_pngs = read_point_pngs(folder / "pngs.json", folder / "pngs")
from_coco = read_coco_points(folder / "coco.json")
print(f"{len(made['uniform, 10'])} points, {len(from_pngs)} back from PNGs")
print(f"{len(made['extreme'])} points, {len(from_coco)} back from COCO")

# %% [markdown]
# ## Points move with the picture
#
# Augmentation flips, resizes and recolours. A point is carried as a coordinate, so it cannot vanish
# when the picture shrinks; in the releases of PSPS and Point2Mask points travel as one-pixel masks,
# which resizing may drop or double. What a training set shows depends on the seed, the epoch and
# the index alone.

# %% mystnb={"image": {"alt": "One picture in six epochs, its points on the same creatures"}} tags=["remove-input"]
augment = Augment(short_sides=(32, 64, 128, 192), brightness=0.3, contrast=0.3, saturation=0.3)
training = PointDataset(dataset, made["uniform, 1"], augment, seed=seed)
figure, axes = figures.multiples([f"epoch {epoch}" for epoch in range(6)], columns=6)
for epoch, axis in enumerate(axes):
    training.set_epoch(epoch)
    sample = training[shown]
    figures.show(axis, sample.image)
    figures.points(axis, sample.points.xy, range(len(sample.points)), size=18)

# %% [markdown]
# ## The firewall
#
# A weak method trains on a `PointDataset`. It hands over pictures, points and classes, and does not
# even call the function that reads masks:

# %%
sample = training[shown]
print("image", tuple(sample.image.shape))
print("points", len(sample.points))
print("truth", sample.truth)

# %% [markdown]
# To say so is not enough. A test gives each weak method two data sets that differ in one thing: in
# the second, every mask, box and part is noise.

# %% mystnb={"image": {"alt": "A picture with true masks, and with noise for masks"}} tags=["remove-input"]
truth, points = truths[shown], made["uniform, 1"].for_image(dataset.ids[shown])
lot = torch.Generator().manual_seed(seed)
noise = replace(truth, masks=torch.rand(truth.masks.shape, generator=lot) < 0.5)
figure, axes = figures.multiples(
    ["true masks", "noise for masks, same points"], columns=2, size=2.6
)
for axis, shown_truth in zip(axes, (truth, noise)):
    figures.masks(axis, dataset.image(shown), shown_truth.masks, alpha=0.5)
    figures.points(axis, points.xy, range(len(points)), size=22)

# %% [markdown]
# After some steps on each, the weights and the pseudo labels must agree bit for bit. Planted
# leaks - a training set that hands the masks over, a method that asks only for the width of a box -
# must be, and are, found out.
#
# ```{literalinclude} ../tests/test_firewall.py
# :pyobject: outcomes
# ```
#
# ```{literalinclude} ../tests/test_firewall.py
# :pyobject: test_weak_methods_learn_nothing_from_masks
# ```
