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
# # Looking inside a ViT
#
# The methods of this book find an object's extent in what a vision transformer already knows: which
# patches it finds alike, and which patches look at which. This chapter opens the small backbone
# that is shipped with the library and shows both, before any point has been given.

# %% tags=["parameters"]
picture: int = 2  # which of the held-out pictures is looked into
thing: int = -1  # whose point is followed; -1 is the one in front
run: str = "pretraining/bestiary-mae/s0"  # the folder below runs/ that recorded the pretraining

# %% tags=["remove-cell"]
import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch
from myst_nb import glue

from pointseg.bookkit import figures

from pointseg.lab import run_record as ledger
from pointseg.nets.attention import attention_rows, rollout_rows
from pointseg.nets.vit import TokenViT
from pointseg.nets.weights import SHIPPED, load_backbone, read_backbone
from pointseg.lab.pretrain import Pretraining, probe_image
from pointseg.training.pretraining.probe import probe

# %matplotlib inline
figures.compact()
folder = ledger.home() / "runs" / run
log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
probes = {
    int(views): scores for views, scores in json.loads((folder / "probes.json").read_text()).items()
}
config = Pretraining()
glue("alone", f"{config.alone:,}", display=False)
held_out = [probe_image(config, index) for index in range(12)]
held_out = [scene for scene in held_out if len(scene.points)]

# %% [markdown]
# ## Where the backbone comes from
#
# It was pretrained as a masked autoencoder on pictures of Bestiary's split `pretrain`, without any
# label and without any picture that is trained on or evaluated later. Three quarters of the patches
# are hidden, the encoder sees the rest, and a small decoder has to predict what is missing. Three
# details differ from the original recipe:
#
# - The stem is convolutional, so a visible token's pixels reach into its neighbours. Hidden pixels
#   are therefore set to the mean colour *before* the stem. A test changes every hidden pixel and
#   finds the encoder's output equal to the bit.
# - Normalised pixels leave out a patch's colour. The decoder also names each hidden patch's mean
#   colour.
# - Predicting pixels soon teaches nothing more than the grain of textures. After the first
#   {glue:text}`alone` views a slowly moving copy of the encoder sees the *whole* picture, and the
#   decoder must also predict that copy's features of each hidden patch. They are standardised over
#   the pictures at each place, so a place alone tells nothing.
#
# The record beside the weights says how they were made.

# %%
record = json.loads(SHIPPED.with_suffix(".json").read_text())
for name in ("command", "views", "images", "device", "seconds"):
    print(f"{name:9s} {record[name]}")

# %% [markdown]
# ## Tokens
#
# The stem turns a picture into a grid of tokens, one for each square of pixels. Fixed sine
# positions are added, and six blocks follow. Query tokens, where a method wants them, are appended
# after the patches and take part in the same attention.

# %%
vit = read_backbone(queries=4, anchored=True).eval()
scene = held_out[picture]
with torch.no_grad():
    outputs = vit(scene.image[None], features=range(vit.depth), trace=True)
prefix, patches, queries = outputs.trace.prefix, outputs.tokens.shape[1], outputs.queries.shape[1]
print(
    f"picture {tuple(scene.image.shape)} -> grid {outputs.grid} of tokens of width {vit.dim}\n"
    f"prefix tokens {prefix} | patches {patches} | queries {queries}"
)

# %% tags=["remove-cell"]
point = scene.points[thing]
column, row = (point / vit.stride).long().tolist()
token = outputs.trace.prefix + row * outputs.grid[1] + column

# %% mystnb={"image": {"alt": "The picture, its grid of tokens, and the token that is followed"}} tags=["remove-input"]
figure, axes = figures.multiples(["the picture and a point", "its tokens"], columns=2, size=3.2)
for axis in axes:
    figures.show(axis, scene.image)
figures.points(axes[0], [point])
for line in range(0, 129, vit.stride):
    axes[1].plot([line, line], [0, 128], color="white", linewidth=0.4)
    axes[1].plot([0, 128], [line, line], color="white", linewidth=0.4)
corner = (column * vit.stride, row * vit.stride)
_ = axes[1].add_patch(
    plt.Rectangle(corner, vit.stride, vit.stride, fill=False, color="red", linewidth=2)
)

# %% [markdown]
# ## Attention, layer by layer and head by head
#
# In every block each token spreads one unit of attention over all tokens, once per head. Fused
# attention never keeps these numbers. They are computed again from the block's input, and only for
# the rows that are needed. Here is the row of the token under the point: blocks from left to right,
# heads from top to bottom.

# %%
rows = torch.tensor([token])
layers = [attention_rows(vit, outputs.trace, block, rows)[0, :, 0] for block in range(vit.depth)]
sums = ", ".join(f"{total:.4f}" for total in layers[0].sum(-1))
print(f"{len(layers)} blocks of {len(layers[0])} heads; a row of each head sums to {sums}")


def to_map(row):
    """The attention to the patches, on their grid."""
    return row[..., outputs.trace.patches].unflatten(-1, outputs.grid)


# %% mystnb={"image": {"alt": "Attention of one token in every block and head"}} tags=["remove-input"]
heads = len(layers[0])
titles = [
    f"block {block + 1}, head {head + 1}" for head in range(heads) for block in range(vit.depth)
]
figure, axes = figures.multiples(titles, columns=vit.depth, size=1.6)
for index, axis in enumerate(axes):
    head, block = divmod(index, vit.depth)
    figures.heat(axis, scene.image, to_map(layers[block][head]).sqrt())
    figures.points(axis, [point], size=14)

# %% [markdown]
# The colours follow the square root of the attention, so that weak links are seen too. Early heads
# look at near places or at alike colours; what later heads do differs from head to head. An average
# over heads hides that, and yet it is what roll-out starts from.
#
# ## Roll-out
#
# A block passes on what it attends to *and* what it had. Roll-out models this as
# $\hat A = (A + I) / 2$ with the head mean $A$, and multiplies from the last block downwards. The
# product says where a token's final state comes from. AttentionShift takes the rows of its query
# tokens from this product at several depths {cite}`attentionshift`.
#
# Only a few rows are needed. So the chain keeps a few rows $r$ and computes $r \hat A$ block by
# block, with the matrix $\hat A$ in existence a few hundred rows at a time. The result is that of
# the dense products.

# %%
rolled = rollout_rows(vit, outputs.trace, rows)[:, 0, 0]
print("depths:", len(rolled), " sums:", [round(float(total), 4) for total in rolled.sum(-1)])

# %% mystnb={"image": {"alt": "Roll-out of one token over one to six blocks"}} tags=["remove-input"]
figure, axes = figures.multiples(
    [f"depth {depth + 1}" for depth in range(len(rolled))], columns=6, size=1.9
)
for axis, chain in zip(axes, rolled):
    shares = to_map(chain).clone()
    shares[row, column] = 0  # the identity's share would outshine the rest
    figures.heat(axis, scene.image, shares.sqrt())
    figures.points(axis, [point], size=14)

# %% [markdown]
# ## What a query token sees
#
# A query token is a learnt vector with a learnt position. Pretraining knows none, so these four are
# fresh. With `anchored=True` their positions start as those of four places on the picture, marked
# below. What they attend to at first is what the network does with a token that has a place and no
# content; training on points changes it.

# %%
queries = outputs.trace.query_start + torch.arange(4)
sight = rollout_rows(vit, outputs.trace, queries, depth=1)[0, 0]
anchors = vit.anchors * scene.image.shape[-1]

# %% mystnb={"image": {"alt": "Attention of four fresh query tokens in the last block"}} tags=["remove-input"]
figure, axes = figures.multiples([f"query {index + 1}" for index in range(4)], columns=4, size=2.2)
for axis, chain, anchor in zip(axes, sight, anchors):
    figures.heat(axis, scene.image, to_map(chain))
    figures.points(axis, [anchor], marker="s")

# %% [markdown]
# ## Features grow with training
#
# Attention is one half; the other is the features themselves. Below, held-out pictures as the
# network sees them after growing numbers of views: the three main directions of all patch features
# as red, green and blue. An untrained network tells apart little but places, so the mean of each
# place over many pictures is taken off first. What is left follows colours at the start; later it
# follows creatures, their parts, and kinds of ground.

# %% tags=["remove-cell"]
snapshots = sorted((folder / "looks").glob("views*.npz"))
looks = {int(path.stem.removeprefix("views")): np.load(path) for path in snapshots}
looks = {views: looks[views] for views in sorted(looks)}
shown = len(next(iter(looks.values()))["pca"])
glue("views", f"{record['views']:,}", display=False)

# %% mystnb={"image": {"alt": "Main directions of patch features, a row for each length of training"}} tags=["remove-input"]
titles = ["picture"] * shown + [f"{views:,} views" for views in looks for _ in range(shown)]
figure, axes = figures.multiples(titles, columns=shown, size=1.45)
for index in range(shown):
    figures.show(axes[index], held_out[index].image)
for line, look in enumerate(looks.values(), start=1):
    for index, colours in enumerate(look["pca_centred"]):
        axes[line * shown + index].imshow(colours, interpolation="nearest")

# %% [markdown]
# The same pictures, and for each the likeness (cosine) of every token to the token under the point,
# places left in. This map is the simplest answer to the question which pixels a point owns: those
# that look like it to the network. Untrained, it says "those nearby".

# %% mystnb={"image": {"alt": "Likeness to the token under a point, a row for each length of training"}} tags=["remove-input"]
figure, axes = figures.multiples(titles, columns=shown, size=1.45)
for index in range(shown):
    figures.show(axes[index], held_out[index].image)
    figures.points(axes[index], held_out[index].points[-1:], size=14)
for line, look in enumerate(looks.values(), start=1):
    for index, values in enumerate(look["similarity"]):
        figures.heat(axes[line * shown + index], held_out[index].image, values, alpha=0.9)

# %% [markdown]
# ## A probe, not a loss
#
# A falling reconstruction loss says nothing about objects. The probe asks three questions on
# held-out pictures, and it asks an untrained network of the same build as well:
#
# - *Point IoU*: the likeness map, cut at the threshold that suits the object best, against its
#   mask, over the whole picture. One point often lies on one part, so the best map of a perfect
#   part-finder is far from one.
# - *Same-object AUC*: the chance that a token inside the object is more alike to the point's token
#   than one outside.
# - *Part purity*: tokens inside an object in as many clusters as it has parts; the share that falls
#   into its cluster's main part.
# - *Token class*: balanced accuracy of a linear classifier of single tokens into the classes of
#   things, the only question that uses labels. Classes share parts, so a token cannot know its
#   class without its surroundings.
#
# The first three are asked twice, of the features and of the features less the mean of their place
# over all pictures. Near tokens have alike positions, so an untrained network scores by nearness
# alone; taking the mean off removes that.

# %%
start, end = probes[min(probes)], probes[max(probes)]
names = ("point_iou", "point_auc", "part_purity")
print(f"{'':22s} {'untrained':>9s} {'trained':>8s}")
for name in [*names, *(f"{name}_centred" for name in names), "token_class"]:
    print(f"{name:22s} {start[name]:9.3f} {end[name]:8.3f}")

# %% tags=["remove-cell"]
for name in ("point_iou", "point_iou_centred", "token_class"):
    glue(f"{name}_start", f"{start[name]:.2f}", display=False)
    glue(f"{name}_end", f"{end[name]:.2f}", display=False)

# %% mystnb={"image": {"alt": "Probe scores and reconstruction loss against the number of views"}} tags=["remove-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
left.plot(
    probes.keys(),
    [scores["token_class"] for scores in probes.values()],
    "k:",
    marker=".",
    label="token_class",
)
for index, name in enumerate(names):
    for suffix, style in (("", "-"), ("_centred", "--")):
        left.plot(
            probes.keys(),
            [scores[name + suffix] for scores in probes.values()],
            style,
            marker="o",
            color=figures.colour(index + 3),
            label=name + suffix,
        )
left.set(xlabel="views", ylabel="probe", ylim=(0, 1))
left.legend(fontsize=6, ncols=2)
right.plot(
    *zip(*((line["views"], line["loss"]) for line in log if "loss" in line)),
    color=figures.colour(5),
)
right.set(xlabel="views", ylabel="reconstruction loss")
figure.tight_layout()

# %% [markdown]
# After {glue:text}`views` views, point IoU went from {glue:text}`point_iou_start` to
# {glue:text}`point_iou_end`; with the mean of the place taken off, from
# {glue:text}`point_iou_centred_start` to {glue:text}`point_iou_centred_end`. A linear classifier is
# right about the class of a single token in {glue:text}`token_class_end` of cases, untrained in
# {glue:text}`token_class_start`; most of that comes late, when the other scores hardly rise any
# more. Part purity of the plain features hardly rises: parts lie apart, so clusters of places alone
# already separate them; only with the place taken off does it say something. The curve of the loss
# shows none of this. It jumps where the slow copy's features begin to be predicted, because a
# second term is added.
#
# ## On pictures that it never saw the like of
#
# The backbone was pretrained on Bestiary's easy edition, before there was a second. In the second
# one colour and texture vary from one individual to the next, and the ground borrows them. The same
# questions, asked of {glue:text}`probed_images` of its pictures at the size at which rows of scale
# small see them:

# %% tags=["remove-cell"]
second = replace(config, source="bestiary", size=192, probe_images=48)
hard = [probe_image(second, index) for index in range(second.probe_images)]
torch.manual_seed(second.seed)
networks = {"untrained": TokenViT(second.vit), "pretrained": read_backbone()}
answers = {title: probe(network, hard) for title, network in networks.items()}
glue("probed_images", len(hard), display=False)

# %% tags=["remove-input"]
print(f"{'':22s}" + "".join(f"{title:>12s}" for title in answers))
for name in [*names, *(f"{name}_centred" for name in names), "token_class"]:
    print(f"{name:22s}" + "".join(f"{scores[name]:12.3f}" for scores in answers.values()))

# %% [markdown]
# Where nearness counts, an untrained network does no worse. With the place taken off, pretraining
# on the easy edition is worth something here too, and much less than there. Rows at scale small
# begin with these weights nevertheless; `pointseg pretrain mae --source bestiary --start FILE` goes
# on from them.
#
# ## Your own backbone
#
# `TokenViT` takes any plain ViT that timm knows, and `load_backbone` reads a file or asks timm's
# hub. It reports what was loaded and what was missing; it never runs what is in a file. Checkpoints
# with the names of the official MAE release are understood, and positions are resampled. No hub has
# a masked autoencoder of size ViT-S, which AttentionShift-S starts from: pretrain one with
# `pointseg pretrain mae`, or give a file of your own.

# %%
other = TokenViT("vit_tiny_patch16_224", queries=100)
print(other.depth, "blocks of width", other.dim, "on patches of", other.stride, "pixels")
print(load_backbone(read_backbone(), SHIPPED).__str__().split("/")[-1])
