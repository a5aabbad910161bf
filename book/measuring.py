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
# # Measuring
#
# A score is a rule for counting, and most rules were written down only in somebody's code. This
# chapter draws what each score of the library counts, and then changes one rule at a time to see
# how far the number moves. Where two papers differ by less than that, they do not differ.
#
# The pictures come from Bestiary; the predictions are made from its truth by a disturbance of known
# strength, so that we know what went wrong. Every number in the text is computed by this page.

# %% tags=["parameters"]
images: int = 40  # val pictures that are disturbed and scored
size: int = 128  # pixels of a side
seed: int = 0
draws: int = 400  # tables of differences, drawn to see how often an interval holds the truth
runs: str = "../runs"
claims: str = "claims.yml"

# %% tags=["remove-cell"]
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, display
from myst_nb import glue
from scipy import ndimage
from scipy.special import stdtrit  # Student's quantile

# %% tags=["remove-cell"]
from pointseg.bookkit import figures, report
from pointseg.bookkit.intervals import RULES, agreeing, coverage, seed_by_seed
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.lab.verdicts import UNDECIDED, word_of
from pointseg.metrics import pq
from pointseg.metrics.pseudo import part_recall_of_masks, part_recall_of_points, pseudo_scores
from pointseg.metrics.scores import instance_scores, panoptic_scores
from pointseg.metrics.voc_ap import eleven_point_ap, envelope_ap, mask_iou, voc_ap
from pointseg.structures import Instances, Panoptic, Points, Truth

# %matplotlib inline
figures.compact()
truths = [draw(seed, "val", index, size).truth for index in range(images)]

# %% [markdown]
# ## Predictions that are wrong by a known amount
#
# `fields` gives every true mask a signed distance to its border, positive inside, and adds smooth
# noise. An instance is where its own field is positive: its border wobbles by about `amount`
# pixels. In a panoptic prediction each pixel goes to the segment whose field is highest. Each
# object also gets a second, misplaced detection with a lower score.


# %%
def fields(truth, amount, rng):
    """[n, h, w]: signed distance to each mask's border plus smooth noise of `amount` pixels."""
    masks = truth.masks.numpy()
    depth = [ndimage.distance_transform_edt(m) - ndimage.distance_transform_edt(~m) for m in masks]
    noise = ndimage.gaussian_filter(rng.normal(size=masks.shape), (0, 6, 6))
    return torch.as_tensor(np.stack(depth) + amount * noise / noise.std())


# %%
def disturbed(truth, amount, rng):
    """(Instances, Panoptic) of one picture."""
    truth = truth.pick(~truth.is_crowd)
    field, things = fields(truth, amount, rng), truth.is_thing
    guesses = field[things] > 0
    masks = torch.cat([guesses, guesses.roll((9, 9), (1, 2))])
    scores = torch.as_tensor(rng.random(len(masks))) * torch.tensor([1.0, 0.7]).repeat_interleave(
        len(guesses)
    )
    label = truth.label[things].repeat(2)
    instances = Instances(masks, scores, label, torch.zeros(len(masks), 4))
    return instances, Panoptic(field.argmax(0) + 1, truth.label)


# %% tags=["remove-cell"]
amounts = (0, 0.5, 1, 1.5, 2, 3, 4)
disturbances = {
    a: [disturbed(t, a, np.random.default_rng([seed, i])) for i, t in enumerate(truths)]
    for a in amounts
}
instances = {a: [one for one, _ in pairs] for a, pairs in disturbances.items()}
panoptics = {a: [one for _, one in pairs] for a, pairs in disturbances.items()}

# %% mystnb={"image": {"alt": "A creature whose mask is disturbed more and more, with the IoU"}} tags=["remove-input"]
scene = draw(seed, "val", 0, size)
largest = int(scene.truth.masks[scene.truth.is_thing].flatten(1).sum(1).argmax())
true = scene.truth.masks[largest]
guesses = [fields(scene.truth, a, np.random.default_rng(seed))[largest] > 0 for a in amounts[1:]]
ious = [float(mask_iou(g[None], true[None])[0, 0]) for g in guesses]
figure, axes = figures.multiples(
    [f"{a} px, IoU {v:.2f}" for a, v in zip(amounts[1:], ious)], columns=6
)
(top, left), (bottom, right) = true.nonzero().min(0).values - 8, true.nonzero().max(0).values + 9
for axis, guess in zip(axes, guesses):
    shares = torch.stack([true & guess, true & ~guess, guess & ~true])  # right, missed, invented
    figures.masks(axis, scene.image, shares, labels=[2, 4, 5], alpha=0.75)
    axis.set(xlim=(left, right), ylim=(bottom, top))

# %% [markdown]
# Green is what truth and prediction share, blue what was missed, orange-red what was invented.
# **IoU** = green / all three. Everything below is built on it.

# %% [markdown]
# ## Average precision
#
# Detections of a class, from all pictures, are put in order of their score. Each is right or wrong;
# after every detection one notes the **precision** (how many so far were right) and the **recall**
# (how many objects have been found). AP is one number for that curve, and there are several ways to
# take it:
#
# - **11 points** (VOC 2007): the mean of the best precision still to come at recall 0, .1, ... 1;
# - **area** (VOC 2010 on): the area under the curve after each precision is raised to the best one
#   to its right;
# - **COCO**: like 11 points with 101 of them, then a mean over ten IoU thresholds .50, .55 ... .95.
#
# The example has three objects and three detections: right, wrong, right.

# %%
hits = np.array([1, 0, 1])
recall, precision = np.cumsum(hits) / 3, np.cumsum(hits) / np.arange(1, 4)
example = {
    "area": 100 * envelope_ap(recall, precision),
    "eleven": 100 * eleven_point_ap(recall, precision),
}
for name, value in example.items():
    glue(f"measuring-example-{name}", value, display=False)

# %% mystnb={"image": {"alt": "A precision-recall curve at eleven points and as an area"}} tags=["remove-input"]
figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), sharey=True, layout="constrained")
grid = np.arange(11) / 10
heights = [precision[recall >= r].max(initial=0) for r in grid]
axes[0].stem(grid, heights, linefmt="C0-", basefmt=" ")
axes[1].fill_between(
    [0, 1 / 3, 1 / 3, 2 / 3], [1, 1, 2 / 3, 2 / 3], color=figures.colour(1), alpha=0.6
)
for axis, rule in zip(axes, ("eleven", "area")):
    axis.plot(recall, precision, "o--", color=figures.colour(5), label="after each detection")
    axis.set(
        xlabel="recall", xlim=(-0.03, 1.03), ylim=(0, 1.08), title=f"{rule}: {example[rule]:.1f}"
    )
axes[0].set_ylabel("precision")
_ = axes[1].legend(fontsize=8)

# %% [markdown]
# The same detections score {glue:text}`measuring-example-eleven:.1f` under 11 points and
# {glue:text}`measuring-example-area:.1f` as an area. One right detection already earns the four
# points from 0 to .3, though only a third of the objects are found.
#
# ### What the rule moves
# Bestiary's val pictures, disturbed from nothing to 4 pixels, scored at four IoU thresholds under
# both rules:

# %%
table = {a: voc_ap(truths, instances[a]) for a in amounts}
thresholds = ("25", "50", "70", "75")
area = np.array([[table[a][f"voc_mAP{t}_area"] for t in thresholds] for a in amounts])
eleven = np.array([[table[a][f"voc_mAP{t}_11pt"] for t in thresholds] for a in amounts])
gap = eleven - area
spans = {
    "up": gap.max(),
    "down": gap.min(),
    "low": gap[area < 50].mean(),
    "high": gap[area >= 50].mean(),
}
for name, value in spans.items():
    glue(f"measuring-gap-{name}", float(value), display=False)

# %% mystnb={"image": {"alt": "AP against disturbance; gap between the rules against AP"}} tags=["remove-input"]
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.8), layout="constrained")
for k, (threshold, marker) in enumerate(zip(thresholds, "osD^")):
    axes[0].plot(
        amounts, area[:, k], marker=marker, color=figures.colour(k + 3), label=f"IoU .{threshold}"
    )
    axes[1].plot(area[:, k], gap[:, k], marker, color=figures.colour(k + 3))
axes[0].set(xlabel="disturbance, pixels", ylabel="mAP, area rule")
axes[0].legend(fontsize=8)
axes[1].axhline(0, color="grey", linewidth=0.8)
_ = axes[1].set(xlabel="mAP, area rule", ylabel="11 points minus area")

# %% [markdown]
# The gap runs from {glue:text}`measuring-gap-down:+.1f` to {glue:text}`measuring-gap-up:+.1f`
# points. Its mean is {glue:text}`measuring-gap-low:+.1f` where the area rule gives less than half
# the marks and {glue:text}`measuring-gap-high:+.1f` where it gives more. The AttentionShift release
# reports 11 points; papers that do not say which rule they used cannot be compared to that
# precision. We always print both.
#
# ### Which object a detection may take
# The VOC rule of the weak literature gives a detection no second choice: it takes the object it
# overlaps most, and if that one is taken, it is wrong. COCO lets it take the best *free* object.
# Two objects side by side; the better detection finds the first, the other covers both and overlaps
# each by half:

# %%
masks = torch.zeros(2, 8, 16, dtype=torch.bool)
masks[0, :, :8] = masks[1, :, 8:] = True
guess = torch.stack([masks[0], masks.any(0)])
no = torch.zeros(2, dtype=torch.bool)
pair = Truth(masks, torch.zeros(2).long(), torch.arange(1, 3), ~no, no, torch.zeros(8, 16).bool())
both = Instances(guess, torch.tensor([0.9, 0.8]), torch.zeros(2).long(), torch.zeros(2, 4))
scores = instance_scores([pair], [both], CATEGORIES)
glue("measuring-pair-voc", scores["voc_mAP50_area"], display=False)
glue("measuring-pair-coco", scores["AP50"], display=False)

# %% [markdown]
# At IoU .5 VOC gives {glue:text}`measuring-pair-voc:.0f` and COCO
# {glue:text}`measuring-pair-coco:.0f`. Masks that cannot overlap never meet this case; a method
# whose pseudo labels spill over neighbours does.
#
# ### Crowds
# A crowd region is a mass of objects that nobody separated. COCO neither asks for it nor punishes a
# detection on it. VOC has no such rule: here crowd regions leave the truth, and what is detected on
# one is wrong. We add one detection on every crowd region and score again:

# %%
with_crowd = [i for i in range(4 * images) if draw(seed, "val", i, size).truth.is_crowd.any()]
crowded = [draw(seed, "val", i, size).truth for i in with_crowd]
plain = [disturbed(t, 1, np.random.default_rng([seed, i]))[0] for i, t in enumerate(crowded)]
more = []
for truth, one in zip(crowded, plain):
    region = truth.pick(truth.is_crowd)
    masks = torch.cat([one.masks, region.masks])
    scores = torch.cat([one.scores, torch.ones(len(region))])
    more.append(
        Instances(masks, scores, torch.cat([one.label, region.label]), torch.zeros(len(masks), 4))
    )

# %% tags=["remove-input"]
before, after = (instance_scores(crowded, one, CATEGORIES) for one in (plain, more))
glue("measuring-crowd-pictures", len(crowded), display=False)
for key, name in (("AP50", "coco"), ("voc_mAP50_area", "voc")):
    glue(f"measuring-crowd-{name}-before", before[key], display=False)
    glue(f"measuring-crowd-{name}-after", after[key], display=False)

# %% [markdown]
# On {glue:text}`measuring-crowd-pictures` pictures with crowds, COCO AP50 goes from
# {glue:text}`measuring-crowd-coco-before:.1f` to {glue:text}`measuring-crowd-coco-after:.1f`, VOC
# mAP50 from {glue:text}`measuring-crowd-voc-before:.1f` to
# {glue:text}`measuring-crowd-voc-after:.1f`.

# %% [markdown]
# ## Panoptic quality
#
# Every pixel has one owner, in truth and in prediction. A predicted and a true segment of one class
# **match** where their IoU is above 1/2; no segment can match twice. What matches nothing is a miss
# (FN) or an invention (FP).
#
# $$\mathrm{PQ} = \underbrace{\frac{\sum \mathrm{IoU}}{\mathrm{TP}}}_{\mathrm{SQ}}\cdot
# \underbrace{\frac{\mathrm{TP}}
# {\mathrm{TP} + \frac12\mathrm{FP} + \frac12\mathrm{FN}}}_{\mathrm{RQ}}$$
#
# for each class, then the mean over the classes that occur. One row of pixels is enough to see it:

# %%
row = {"truth": "aaaaaabbbbb..cccccc", "prediction": "aaaaaaabb....cccddd"}
names, label = {".": 0, "a": 1, "b": 2, "c": 3, "d": 4}, np.zeros(4, int)
maps = {k: np.array([[names[p] for p in text]]) for k, text in row.items()}
sides = [
    pq.Segments(m, np.unique(m[m > 0]), label[: m.max()], np.zeros(m.max(), bool))
    for m in maps.values()
]
counts = pq.count_image(*sides, classes=1)
quality = {name: 100 * float(value[0]) for name, value in pq.by_class(counts).items()}
for name, value in {
    **quality,
    **{k.upper(): int(v[0]) for k, v in counts._asdict().items() if k != "iou"},
}.items():
    glue(f"measuring-row-{name}", value, display=False)

# %% mystnb={"image": {"alt": "Two rows of pixels: three true segments and four predicted ones"}} tags=["remove-input"]
figure, axis = plt.subplots(figsize=(7, 1.3), layout="constrained")
for y, text in enumerate(row.values()):
    for x, letter in enumerate(text):
        tint = figures.colour(names[letter] - 1) if letter != "." else (0.85, 0.85, 0.85)
        axis.add_patch(plt.Rectangle((x, -y), 0.95, 0.85, facecolor=tint))
        axis.text(
            x + 0.48,
            0.42 - y,
            letter if letter != "." else "",
            ha="center",
            va="center",
            fontsize=9,
        )
axis.set(xlim=(0, 19), ylim=(-1.1, 1), xticks=[], yticks=[0.4, -0.6], yticklabels=list(row))
axis.set_frame_on(False)

# %% [markdown]
# All letters are objects of one class, grey is void. *a* matches; *b* is found too small (IoU 2/5:
# a miss and an invention at once); *c* is cut in two halves of IoU exactly 1/2, and neither counts.
# So TP = {glue:text}`measuring-row-TP`, FP = {glue:text}`measuring-row-FP`, FN =
# {glue:text}`measuring-row-FN`, SQ = {glue:text}`measuring-row-SQ:.1f`, RQ =
# {glue:text}`measuring-row-RQ:.1f`, PQ = {glue:text}`measuring-row-PQ:.1f`.
#
# SQ falls as soon as borders move; RQ holds until whole segments drop below 1/2, and each of those
# then costs a miss and an invention at once, while SQ forgets it.

# %%
panoptic = [panoptic_scores(truths, panoptics[a], CATEGORIES) for a in amounts]
for key in ("PQ", "SQ", "RQ"):
    glue(f"measuring-first-{key}", panoptic[1][key], display=False)
    glue(f"measuring-last-{key}", panoptic[-1][key], display=False)

# %% mystnb={"image": {"alt": "PQ, SQ, RQ and PQ of things and stuff against disturbance"}} tags=["remove-input"]
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.6), sharey=True, layout="constrained")
groups = (("PQ", "SQ", "RQ"), ("PQ", "PQ_th", "PQ_st"))
for axis, keys in zip(axes, groups):
    for k, (key, marker) in enumerate(zip(keys, "os^")):
        axis.plot(
            amounts,
            [one[key] for one in panoptic],
            marker=marker,
            color=figures.colour(k + 4),
            label=key,
        )
    axis.set_xlabel("disturbance, pixels")
    axis.legend(fontsize=8)

# %% [markdown]
# From half a pixel to four pixels SQ goes from {glue:text}`measuring-first-SQ:.1f` to
# {glue:text}`measuring-last-SQ:.1f`, RQ from {glue:text}`measuring-first-RQ:.1f` to
# {glue:text}`measuring-last-RQ:.1f`.
#
# ### Void and crowd, one rule at a time
# panopticapi, the referee of COCO, takes the pixels of a prediction that lie on true void out of
# the union, forgives an unmatched prediction of which more than half lies on void or on crowd of
# its class, and of several crowds of one class counts only the last. Every rule below is that one
# with a single change.

# %%
drawn = crowded + truths[:20]
guesses = [disturbed(t, 2, np.random.default_rng([seed, i]))[1] for i, t in enumerate(drawn)]
pairs = [(pq.segments_of_truth(t), pq.segments_of_panoptic(p)) for t, p in zip(drawn, guesses)]
pairs = [
    (t, p._replace(pixels=np.where(np.roll(t.pixels, 5, 0) == 0, 0, p.pixels))) for t, p in pairs
]
rules = {
    "panopticapi": pairs,
    "void is no excuse": [
        (t._replace(pixels=np.where(t.pixels == 0, 2**20, t.pixels)), p) for t, p in pairs
    ],
    "crowd is void": [
        (t._replace(pixels=t.pixels * ~np.isin(t.pixels, t.ids[t.crowd])), p) for t, p in pairs
    ],
    "crowd is an object": [(t._replace(crowd=t.crowd & False), p) for t, p in pairs],
    "predicted void is void": [(t._replace(pixels=t.pixels * (p.pixels > 0)), p) for t, p in pairs],
}

# %% mystnb={"image": {"alt": "PQ of the same predictions under five rules for void and crowd"}} tags=["remove-input"]
values = {name: pq.panoptic_quality(pair, CATEGORIES)["PQ"] for name, pair in rules.items()}
figure, axis = plt.subplots(figsize=(6.4, 2), layout="constrained")
bars = axis.barh(list(values)[::-1], list(values.values())[::-1], color=figures.colour(1))
axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
axis.set(xlabel="PQ", xlim=(0, 1.15 * max(values.values())))
glue("measuring-rules-spread", max(values.values()) - min(values.values()), display=False)

# %% [markdown]
# The same predictions, and a spread of {glue:text}`measuring-rules-spread:.1f` points. The last bar
# ignores pixels that the *prediction* leaves open, as one widely used library does; it rewards
# silence. We use panopticapi's rule; `crowds="all"` is for a data set of one's own with several
# crowds of a class in one picture.

# %% [markdown]
# ## Pseudo labels
#
# Before a student learns from them, the pseudo labels themselves can be scored: the IoU of each
# with the object its point stands on, whole and by group. Below, the disturbed masks play the
# pseudo labels, and each object's point is drawn at random from its mask.

# %%
clean = [t.pick(~t.is_crowd & t.is_thing) for t in truths]
labels = [
    Instances(one.masks[: len(t)], one.scores, one.label, one.boxes)
    for t, one in zip(clean, instances[2])
]
rng = np.random.default_rng(seed)
spots = [
    np.array([rng.choice(m.nonzero().numpy())[::-1] + 0.5 for m in t.masks]).reshape(-1, 2)
    for t in clean
]
points = [
    Points(torch.as_tensor(xy).float(), t.label, t.target, t.is_thing)
    for xy, t in zip(spots, clean)
]
quality = pseudo_scores(clean, labels, points)
shown = {
    k.removeprefix("mIoU_"): v for k, v in quality.items() if not np.isnan(v) and "rel" not in k
}

# %% mystnb={"image": {"alt": "Mean IoU of pseudo labels, whole and by group of objects"}} tags=["remove-input"]
figure, axis = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
bars = axis.barh(
    [k.replace("_", " ").replace("mIoU", "all") for k in shown][::-1],
    list(shown.values())[::-1],
    color=figures.colour(4),
)
axis.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
_ = axis.set(xlabel="mean IoU", xlim=(0, 112))
for key in ("small", "medium"):
    glue(f"measuring-pseudo-{key}", shown[key], display=False)

# %% [markdown]
# The disturbance is the same for all, yet small objects keep
# {glue:text}`measuring-pseudo-small:.1f` and medium ones {glue:text}`measuring-pseudo-medium:.1f`:
# the same few pixels of border are a larger share of a small object. A difference by size is
# therefore no sign that a method handles small objects badly, unless it is larger than this. Groups
# also borrow from one another: depth is measured against the deepest place of the object itself,
# and in a small or thin one almost every pixel is close to that, so the group of deep points holds
# many small objects.
#
# ### Parts
# A point lies on one part, and the mask is all of them. **Part recall of points** asks which share
# of an object's visible parts holds one of its (key-)points; **part recall of masks** which share
# lies with more than half of its pixels in the pseudo label. A single point finds one part at best:

# %%
by_points = np.concatenate([part_recall_of_points(t, p) for t, p in zip(clean, points)])
by_masks = np.concatenate([part_recall_of_masks(t, one.masks) for t, one in zip(clean, labels)])
glue("measuring-parts-points", 100 * float(np.nanmean(by_points)), display=False)
glue("measuring-parts-masks", 100 * float(np.nanmean(by_masks)), display=False)

# %% mystnb={"image": {"alt": "A creature, its parts with the point, and its disturbed mask"}} tags=["remove-input"]
counted = [len(t.parts[t.masks.any(0)].unique()) for t in clean]
index = int(np.argmax(counted))
picture = draw(seed, "val", index, size).image
figure, axes = figures.multiples(["parts and points", "pseudo labels"], columns=2, size=2.6)
figures.owners(axes[0], picture, clean[index].parts.int() - 1)
figures.points(axes[0], points[index].xy)
figures.masks(axes[1], picture, labels[index].masks)

# %% [markdown]
# Here the points reach {glue:text}`measuring-parts-points:.0f` % of the parts, the disturbed masks
# {glue:text}`measuring-parts-masks:.0f` %. What lies between is what a method has to supply.

# %% [markdown]
# ## How sure a difference is
#
# Two rows of a table are compared on the same seeds and the same images, and a seed draws weights
# and points. So an object that is hard is hard for both, and goes out of their difference:
# **pairing**. What is left of chance has three sources. A seed may favour one row on all images; an
# image may favour one row under all seeds; and there is the rest. The images are the *same* under
# every seed, and a rule that forgets this promises more than it holds. Here differences are drawn
# with a known truth, and four rules for a 95 % interval are asked how often it lies inside:
#
# - **t over seeds**: the means of the seeds, and Student's t with one degree of freedom less;
# - **images within seeds**: images drawn again and again (bootstrap) for each seed on its own;
# - **images**: the same with one draw of images for all seeds;
# - **seeds and images crossed**: the variance of both, less what is counted twice (`two_way`),
#   which every verdict of this book stands on.

# %%
rng = np.random.default_rng(seed)
cases = {"5 seeds": (5, 0.3), "3 seeds": (3, 0.3), "5 seeds that differ much": (5, 2.0)}
held = {name: coverage(rng, draws, *case) for name, case in cases.items()}

# %% tags=["remove-input"]
lines = [[rule, *(f"{held[name][k]:.0f}" for name in cases)] for k, rule in enumerate(RULES)]
display(HTML(report.table(["percent of intervals that hold the truth", *cases], lines)))

# %% [markdown]
# An interval that is called 95 % should hold the truth in 95 of 100 cases. Crossing seeds and
# images comes nearest in every column; a rule that looks at one of the two alone fails where the
# other one matters.
#
# ### Power: how many seeds a difference takes
# However many images there are, a difference that moves with the seed needs seeds. For a paired
# difference of so many points (left) and so large a standard deviation of it over seeds (top), the
# seeds after which its interval leaves out zero.

# %% tags=["remove-input"]
deviations, effects = (0.5, 1.0, 2.0, 4.0, 6.0), (0.5, 1.0, 2.5, 5.0)
many = np.arange(2, 1001)
reach = stdtrit(many - 1, 0.975) / many**0.5
needed = [[many[e > d * reach] for d in deviations] for e in effects]
lines = [[f"{e:g}", *(str(n[0]) for n in line)] for e, line in zip(effects, needed)]
display(HTML(report.table(["points", *(f"sd {d:g}" for d in deviations)], lines)))

# %% [markdown]
# ### What one seed is worth
# AttentionShift's settings were scored on photographs with five seeds. Each line is one claimed
# pair of neighbours: the difference with its interval over all seeds, and what each seed alone
# would have said. `agree` counts the seeds whose difference has the sign of the mean.

# %% tags=["remove-input"]
pairs = list(seed_by_seed(report.read_claims(Path(claims)), Path(runs), "as-photos"))
lines = [
    [
        name,
        str(effect),
        ", ".join(f"{value:+.2f}" for value in each),
        f"{agreeing(each)} of {len(each)}",
    ]
    for name, effect, each in pairs
]
for name, decided in (("sure", True), ("open", False)):
    shares = [
        agreeing(each) / len(each)
        for _, effect, each in pairs
        if (word_of(effect) != UNDECIDED) == decided
    ]
    glue(
        f"measuring-one-seed-{name}",
        100 * float(np.mean(shares)) if shares else float("nan"),
        display=False,
    )
display(HTML(report.table(["pair", "all seeds", "seed by seed", "agree"], lines)))

# %% [markdown]
# Where five seeds decide, a single one has the right sign in
# {glue:text}`measuring-one-seed-sure:.0f` % of the cases; where they leave it open,
# {glue:text}`measuring-one-seed-open:.0f` % agree with the mean, and a coin would come to more than
# half as well, since the mean is made of these seeds. Nothing in a single seed says which case it
# is. So one seed of a student decides nothing in this book; on the label bench it can only hint.
#
# AP and PQ are no means over images. A run keeps what each image adds to its score: how far the
# score moves when the image goes (jackknife, `metrics/by_image.py`), and rows are paired on that.
