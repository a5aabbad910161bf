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
# # AttentionShift
#
# One point on an object, and a vision transformer that was never told where objects end.
# AttentionShift {cite}`attentionshift` lets the transformer answer with an attention map, splits
# that map into parts, moves a handful of key-points to the dense places of feature space, and
# teaches an ordinary detector with what they own.

# %% tags=["parameters"]
runs: str = "../runs"
claims: str = "claims.yml"
first: int = 0  # the pictures shown are held-out ones, counted from here
images_shown: int = 6
studied: int = 24  # images that the numbers about parts are taken from

# %% tags=["remove-cell"]
from pathlib import Path

import torch
from IPython.display import HTML, Image, display
from myst_nb import glue

from pointseg.bookkit import figures

from pointseg.bookkit import equations, report
from pointseg.data.bestiary import CATEGORIES
from pointseg.papers.attentionshift.config import CONFIGS
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.lab.key_points import ShiftStudy
from pointseg.papers.attentionshift.tokens import token_centres
from pointseg.lab.pretrain import Pretraining, probe_image
from pointseg.structures import Batch, Points

# %matplotlib inline
figures.compact()
torch.manual_seed(0)
held = report.trial(Path(claims), Path(runs))
package = Path("../pointseg")

# %% [markdown]
# ## The claim
#
# The paper's argument has three steps. A point sits on one part of an object, so the meaning that a
# network ties to it is the meaning of that part: *semantic bias*. In its Section 1 a count says
# that only a third of a ViT's attention maps cover more than half of the object. An attention map
# that is cleaned by comparing features (Eq. 1), split among key-points that are shifted to where
# features are dense (Eq. 2-7), and rid of key-points that went astray (Alg. 1) covers more. And
# each step is worth something, in this order (its Table 3): baseline < instance map < key-point
# shift < key-point filtering.
#
# What our runs say of the orders that the paper prints ({doc}`results` explains beds, gates and the
# words for verdicts):

# %% tags=["remove-input"]
display(HTML(report.paper_verdicts(held, "AS")))

# %% [markdown]
# ## Notation
#
# All symbols stand in {doc}`glossary`. Those met on every line below: $\phi_{i,j}$ is the feature
# of the patch token at row $i$ and column $j$; $d$ is the cosine; $A^S$, $A^I$ and $A^{P_k}$ are
# the self-attention map, the instance attention map and the part map of key-point $k$; $\psi_k$ is
# the key-point's feature and $Q_k$ its place.
#
# In the code, $n$ objects of a whole batch lie side by side, with $T$ tokens a picture, the $S$
# tokens of a pseudo box moved to the front, $K$ key-points an object, and $D$ features a token.

# %% tags=["remove-cell"]
config = Pretraining()
scenes = [
    scene
    for scene in (probe_image(config, first + i) for i in range(3 * studied))
    if len(scene.points)
]


def batch_of(scenes):
    """Held-out pictures with the point of each of their things."""
    points = [Points(s.points, s.label, torch.arange(len(s.label)), s.label >= 0) for s in scenes]
    images = torch.stack([s.image for s in scenes])
    return Batch(
        images, [tuple(s.image.shape[1:]) for s in scenes], list(range(len(scenes))), points
    )


def built(**settings):
    """The method at scale small on the shipped backbone.

    Likeness to the point's token stands in for trained queries.
    """
    chosen = {
        "attention": "point",
        "centred": True,
        "foreground": 0.6,
        "background": 0.4,
        **settings,
    }
    return AttentionShift.build(CATEGORIES, "small", **chosen).eval()


shown = batch_of(scenes[:images_shown])
whole = built()
parts = whole.explain(shown)[1]
scene, keypoints, region = parts.objects, parts.keypoints, parts.region
grid, stride = scene.grid, scene.stride
front = [
    int((scene.image == i).nonzero()[0, 0]) for i in range(images_shown)
]  # the first object of each picture
on_grid = lambda values: values.unflatten(-1, grid)  # noqa: E731

# %% [markdown]
# ## Equations one by one
#
# The pictures of this section are made with the backbone that is shipped with the library: a masked
# autoencoder, no label, no point, no training of queries. The map that a trained query token would
# give is replaced by the likeness of every token to the one under the point. So the pictures show
# the equations at work, not the method at its best.
#
# ### Token querying, and the self-attention map
#
# Learnable query tokens travel through the ViT beside the patches. Two small heads read a class and
# a place from each (Sec. 3.1); every point is matched with one query, at the least total price.
#
# ```{literalinclude} ../pointseg/papers/attentionshift/querying.py
# :pyobject: PointPredictions.matched
# ```
#
# ```{literalinclude} ../pointseg/papers/attentionshift/querying.py
# :pyobject: PointPredictions.losses
# ```
#
# The row of the attention matrix that belongs to a matched query is $A^S$. The official code
# multiplies the last blocks' matrices (roll-out, see {doc}`looking_inside`) and lets a
# multiple-instance head choose the depth; the paper mentions neither. Only the matched queries'
# rows are ever computed.
#
# ### Eq. 1: the instance attention map
#
# $$A^I = \frac{d(\phi, \psi^+)}{\sum_{\Phi^+} d(\phi, \psi^+)} \times
# \Big(1 - \frac{d(\phi, \psi^-)}{\sum_{\Phi^-} d(\phi, \psi^-)}\Big)$$
#
# $\Phi^+$ and $\Phi^-$ are the tokens where $A^S$ is surely high and surely low, $\psi^\pm$ their
# mean features. As printed, the second sum runs over hundreds of background tokens. Each of them
# gets a share near zero, and the factor is nearly one: no background is suppressed. The official
# code leaves the sum out. Both readings exist here:
#
# ```{literalinclude} ../pointseg/papers/attentionshift/instance_map.py
# :pyobject: instance_map_printed
# ```
#
# ```{literalinclude} ../pointseg/papers/attentionshift/instance_map.py
# :pyobject: instance_map_released
# ```

# %% tags=["remove-cell"]
printed = built(instance_map="printed").explain(shown)[1]

# %% mystnb={"image": {"alt": "Pictures with their point, the self-attention map, and both readings of Eq. 1"}} tags=["remove-input"]
titles = (
    ["picture, point"] * images_shown
    + ["$A^S$"] * images_shown
    + ["Eq. 1 as printed"] * images_shown
    + ["Eq. 1 as released"] * images_shown
)
figure, axes = figures.multiples(titles, columns=images_shown, size=1.7)
for i, (at, row) in enumerate(zip(front, scenes)):
    figures.show(axes[i], row.image)
    figures.points(axes[i], scene.xy[at : at + 1], size=24)
    for line, values in enumerate(
        (parts.attention, printed.instance_map, parts.instance_map), start=1
    ):
        figures.heat(axes[line * images_shown + i], row.image, on_grid(values[at]))


# %% tags=["remove-cell"]
low = [parts.attention[at] < 0.4 for at in front]  # sure background of the objects shown
for name, labels in (("printed_ground", printed), ("released_ground", parts)):
    means = [labels.instance_map[at][ground].mean() for at, ground in zip(front, low)]
    glue(name, f"{torch.stack(means).mean():.2f}", display=False)

# %% [markdown]
# Over these objects the mean of $A^I$ on sure background is {glue:text}`printed_ground` with the
# printed form and {glue:text}`released_ground` with the released one (both stretched to a largest
# value of one).
#
# ### Eq. 2: part attention maps
#
# $$A^{P_k}_{i,j} = \frac{d(\phi_{i,j}, \psi_k)}{\sum_{i,j} d(\phi_{i,j}, \psi_k)}$$
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: part_maps
# ```
#
# A token belongs to the key-point with the largest share, $\delta(A^{P_k}) = 1$. Dividing by the
# sum matters: a key-point that resembles everything has small shares everywhere, so a specialised
# neighbour outbids it. The bare cosine would not do that, and the official code's soft-max weights
# do it more sharply. All three are a switch.
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: token_owners
# ```
#
# ### Eq. 3, 5 and 7: the shift
#
# $$\psi_k = \sum_{\Phi^+} \delta(A^{P_k})\, w(\phi, \psi_k)\, \phi$$
#
# $$w(\phi, \psi_k) = \frac{e^{d(\phi, \psi_k) / (\alpha \beta_k)}}
# {\sum \delta(A^{P_k})\, e^{d(\phi, \psi_k) / (\alpha \beta_k)}}$$
#
# With even weights this is the plain mean of Eq. 3, and $\alpha = \infty$ gives just that. Every
# token of the pseudo box has an owner and counts in $\beta_k$, but only those of $\Phi^+$ draw a
# key-point. Eq. 1 calls the token set of $A^S$ by this name; Alg. 1 calls the high-confidence area
# of $A^I$ so, which is what is taken here. The official code draws from the whole box;
# `drawn_by="box"` does that, and a table below says what it costs.
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: density_weights
# ```
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: weighted_means
# ```
#
# ### Eq. 6: the adaptive bandwidth
#
# $$\beta_k = 1 - \frac{\sum \delta(A^{P_k})\, d(\phi, \psi_k)}{\sum \delta(A^{P_k})}$$
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: bandwidth
# ```
#
# The paper's sentence below this equation says that $\beta_k$ is larger where features are denser.
# The equation says the opposite, and so do the official code and ours.
#
# ### N iterations
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: shift
# ```

# %% mystnb={"image": {"alt": "Part maps and key-points after 0, 1, 2, 5 and 10 iterations for one object"}} tags=["remove-input"]
turns = [0, 1, 2, 5, 10]
rows = front[:3]
figure, axes = figures.multiples(
    [f"iteration {turn}" for _ in rows for turn in turns], columns=len(turns), size=2.0
)
for line, at in enumerate(rows):
    picture = scenes[int(scene.image[at])].image
    inside = region.inside[at]
    for column, turn in enumerate(turns):
        axis, owner = axes[line * len(turns) + column], keypoints.shifted.owners[turn][at]
        full = torch.full((grid[0] * grid[1],), -1).scatter(
            0, region.index[at][inside], owner[inside]
        )
        figures.owners(axis, picture, on_grid(full))
        centres = token_centres(keypoints.turns[turn][at], grid, stride)
        figures.points(axis, centres, labels=range(len(centres)), size=16)

# %% [markdown]
# Each colour is one key-point and the tokens it owns; nothing outside the pseudo box takes part.
#
# ### Alg. 1: filtering and merging
#
# A key-point stays if at least $T_f$ of its part lies on the high-confidence area of $A^I$. Of
# those that stay, the one with the largest part comes first and swallows every key-point whose
# cosine with it exceeds $T_m$.
#
# ```{literalinclude} ../pointseg/papers/attentionshift/filtering.py
# :pyobject: filter_keypoints
# ```
#
# ```{literalinclude} ../pointseg/papers/attentionshift/filtering.py
# :pyobject: merged_members
# ```
#
# A test holds this against a transcription of the paper's lines, over hundreds of random cases.
#
# ### Eq. 4: where a key-point is
#
# $$Q_k = \arg\max_{(i,j)} d(\phi_{i,j}, \psi_k)$$
#
# ```{literalinclude} ../pointseg/papers/attentionshift/shift.py
# :pyobject: nearest_tokens
# ```

# %% mystnb={"image": {"alt": "Self-attention map, instance map, surviving key-points with the pseudo box, and pseudo mask"}} tags=["remove-input"]
titles = (
    ["$A^S$"] * images_shown
    + ["$A^I$"] * images_shown
    + ["key-points, box"] * images_shown
    + ["pseudo mask"] * images_shown
)
figure, axes = figures.multiples(titles, columns=images_shown, size=1.7)
labels = whole.pseudo_labels(shown)
for i, (at, row) in enumerate(zip(front, scenes)):
    figures.heat(axes[i], row.image, on_grid(parts.attention[at]))
    figures.heat(axes[images_shown + i], row.image, on_grid(parts.instance_map[at]))
    axis = axes[2 * images_shown + i]
    figures.show(axis, row.image)
    figures.points(
        axis, token_centres(keypoints.token[at][keypoints.valid[at]], grid, stride), size=20
    )
    left, top, right, bottom = parts.boxes[at].tolist()
    axis.plot(
        [left, right, right, left, left],
        [top, top, bottom, bottom, top],
        color="red",
        linewidth=1.5,
    )
    figures.masks(axes[3 * images_shown + i], row.image, labels[i].masks[:1])

# %% [markdown]
# ### The student
#
# Pseudo boxes teach a region proposal network and a box head; the mask head is taught at points
# alone: the labelled point and the surviving key-points as object, some pixels of low $A^I$ in the
# box as background.
#
# ```{literalinclude} ../pointseg/papers/attentionshift/masks.py
# :pyobject: MaskPoints.loss
# ```
#
# At inference only the ViT, the detector and the mask head run. All other parts of the detector are
# torchvision's.
#
# ## What the paper leaves unsaid
#
# Every default in `Config` cites its place in the paper or says what it is taken from instead. This
# is that table, read from the source:

# %% tags=["remove-input"]
display(
    HTML(
        report.table(
            equations.SETTING_HEAD,
            equations.setting_rows(package / "papers/attentionshift/config.py"),
        )
    )
)

# %% [markdown]
# Scale small changes some of them. Each change is a deviation: what is compared inside the table
# below is fair, what is printed in the paper was measured with other values.

# %% tags=["remove-input"]
rows = equations.changed_rows(CONFIGS["paper"], CONFIGS["small"])
display(HTML(report.table(["setting", "paper", "small"], rows)))

# %% [markdown]
# And every place where the code leaves the paper (*deviation*) or fills in what it does not say
# (*unstated*), by name, read from the sources:

# %% tags=["remove-input"]
display(HTML(report.remarks_table(package, ["AS"])))

# %% [markdown]
# Three more points decide results and are in no table of the paper: the official annotation is the
# *centre of the box*, its pseudo boxes are made symmetric around that point, and its final test
# averages over twelve views of a picture. Here boxes are tight by default, the symmetric rule is a
# switch, and one view is tested.
#
# ## Runs
#
# Table 1, masks from a point on every object. Row by row the paper's numbers, then ours at scale
# small on Bestiary.

# %% tags=["remove-input"]
display(HTML(report.printed_table(held, "AS", "1")))

# %% [markdown]
# Table 3, one module after another, and Tables 4 and 5, its sweeps.

# %% tags=["remove-input"]
for number in ("3", "4", "5"):
    display(HTML(f"<p>Table {number}</p>" + report.printed_table(held, "AS", number)))

# %% tags=["remove-cell"]
steps = [held.on_bed("as-photos", row) for row in ("as-tab3-map", "as-tab3-shift", "as-full")]
known = all(steps)
printed = next(t for t in held.claims["papers"]["AS"]["tables"] if t["id"] == "3")["rows"]
gain = f"{report.mean(steps[-1]) - report.mean(steps[0]):.1f}" if known else "(not run)"
spreads = f"{max(map(report.spread, steps)):.1f}" if known else "(not run)"
glue("printed_gain", f"{printed[3]['mAP'] - printed[1]['mAP']:.1f}", display=False)
glue("gain", gain, display=False)
glue("largest_spread", spreads, display=False)

# %% [markdown]
# How much an order is worth: from the instance map to the full method the paper's Table 3 gains
# {glue:text}`printed_gain` points of mAP, our labels on photographs {glue:text}`gain` points of
# IoU, while a single one of these rows varies by up to {glue:text}`largest_spread` (standard
# deviation over seeds).
#
# For each sweep of Tables 4 and 5, how far its best row lies above its worst, and how far the seeds
# of one and the same row lie apart (standard deviation). Seeds draw the points, and all rows share
# the draw: the verdicts above are of paired differences, which can be smaller than that.

# %% tags=["remove-input"]
display(HTML(report.sweeps_table(held, "AS")))

# %% tags=["remove-cell"]
still = held.on_bed("as-photos", "as-tab4-n0")
for name, values in (("unmoved", still), ("whole", steps[-1]), ("map_alone", steps[0])):
    glue(name, f"{report.mean(values):.1f}" if values else "(not run)", display=False)

# %% [markdown]
# One row of Table 4 tells what the iterations give. With filtering but without any of them (N = 0)
# the labels' IoU on photographs is {glue:text}`unmoved`, with ten of them {glue:text}`whole`, with
# the instance map alone {glue:text}`map_alone`. What the first two differ by is what the ten
# iterations give; what the last two differ by is what key-points give.
#
# Table 2, the COCO protocol.

# %% tags=["remove-input"]
display(HTML(report.printed_table(held, "AS", "2")))

# %% [markdown]
# Figure 5, what the full method sees after its training at scale small: maps, parts, key-points and
# masks of training pictures. The last row is the detector's answer where it has one to the point,
# else the pseudo mask. Figure 6 is the shift of the same model, iteration by iteration.

# %% tags=["remove-input"]
study = report.newest(Path(runs), "attentionshift_study.py")
measured = study.result["metrics"] if study else {}
display(HTML(report.source_line(study)))

# %% mystnb={"image": {"alt": "Figure 5: point, self-attention map, instance map, part maps, key-points, pseudo mask and detected mask of six training pictures"}} tags=["remove-input"]
if study:
    display(Image(study.folder / "figure5.png"))

# %% mystnb={"image": {"alt": "Figure 6: part maps and key-points of three objects after 0, 1, 2, 5 and 10 iterations"}} tags=["remove-input"]
if study:
    display(Image(study.folder / "figure6.png"))

# %% [markdown]
# ### The count of Section 1
#
# The paper says that a third of a ViT's attention maps cover more than half of the object. Of this
# model's maps, in percent, for every depth of roll-out that the method may choose from, for the
# depth it chose, and for the instance map. A token counts as covered above half of the map's
# largest value; at which level the paper counted it does not say.

# %% tags=["remove-input"]
coverage = {k: v for k, v in measured.get("label_path", {}).items() if k.endswith("covers half")}
display(HTML(report.table(list(coverage), [[f"{v:.0f}" for v in coverage.values()]])))

# %% [markdown]
# ### The premise, measured
#
# The claims speak of maps that miss parts and are sure of the rest. What each bed of the label
# bench shows of that, its mean over seeds, before any claim is judged. A bed without a column has not
# been run; one that misses a gate is *outside* the claims, whatever its rows say. On
# `as-bestiary-frozen` the features of photographs look at drawings whose true parts are known, and
# nothing is trained:

# %% tags=["remove-input"]
display(
    HTML(
        report.gates_table(
            held.claims,
            "AS",
            ["as-photos", "as-people", "as-bestiary-frozen", "as-bestiary"],
            Path(runs),
        )
    )
)

# %% [markdown]
# Of students the premise asks that full masks reach 60 in mAP50 and 35 in mAP75, and a PQ five
# points above the weak methods' students:

# %% tags=["remove-input"]
ceiling = {"full masks on a ViT": "as-tab1-masks"}
display(
    HTML(
        report.ours_table(
            held,
            "students",
            ceiling,
            {"mAP50": "val/voc_mAP50_11pt", "mAP75": "val/voc_mAP75_11pt"},
        )
    )
)
pairs = {
    f"PQ of full masks over {name}'s": ("p2m-tabA1-masks-voc", row)
    for name, row in (("PSPS", "p2m-tabA1-psps1-voc"), ("Point2Mask", "p2m-tabA1-p2m1-voc"))
}
display(HTML(report.gains_table(held, "students", pairs, "val/PQ")))

# %% [markdown]
# Changes that could bring a bed within these limits, in the order in which they were to be tried,
# and what each did to the scores behind the gates on `as-bestiary`. A change without a row has not
# been built.

# %% tags=["remove-input"]
levers = {
    "nothing (the full method)": "as-full",
    "a ground point, or a ground loss on tokens": None,
    "levels by quantile": None,
    "features less their mean": "as-lever-centred",
    "likeness to the labelled token for A^S": "as-lever-likeness",
    "position subspace projected out": None,
    "finer tokens": None,
    "longer students": None,
}
gated = ("attention_covers", "map_precision", "map_recall", "iou")
display(
    HTML(
        report.bench_table(
            held, "as-bestiary", {k: v or "no row" for k, v in levers.items()}, gated
        )
    )
)

# %% [markdown]
# ### Beyond the paper
#
# *Where the point lies*: labels on photographs from points of other kinds. Elsewhere a point is
# drawn evenly from the mask; five seeds draw anew.

# %% tags=["remove-input"]
kinds_of_points = {
    "anywhere on the mask": ("as-photos", "as-full"),
    "nearest to the centre of the box": ("as-photos-centre", "as-full"),
    "border": ("as-photos-border", "as-full"),
    "anywhere, jittered by 8 px": ("as-photos-jitter8", "as-full"),
    "ten anywhere": ("as-photos-ten", "as-full"),
}
of_labels = ("iou", "precision", "recall", "boundary", "keypoints_on")
display(HTML(report.bench_table(held, "as-photos", kinds_of_points, of_labels)))

# %% [markdown]
# *Remedies and switches* on the full method, and the shift without filtering in two readings of Eq.
# 3: means over the foreground, as printed, or over the whole box, as in the official code. Then a
# floor under the bandwidth $\beta_k$, against the collapse that the last table of this section
# shows; the official code's boxes, symmetric about a centre point; objects that compete for tokens,
# as in the official code; key-points that start from a narrower high part of $A^I$; and the
# official switches together, with their temperature, ownership of tokens and two rounds of
# refining. (The official way of filtering and merging differs too and is not among them.)

# %% tags=["remove-input"]
switches = {
    "as it is": "as-full",
    "without filtering": "as-tab3-shift",
    "without filtering, means over the box": "as-box-means-unfiltered",
    "means over the box": "as-box-means",
    "bandwidth at least 0.1": "as-bandwidth-floor",
    "boxes symmetric about the point": "as-centre-boxes",
    "objects compete for tokens": "as-compete",
    "the official code's switches together": "as-released",
    "high parts of the map from 0.5 on": "as-seed-threshold",
}
display(HTML(report.bench_table(held, "as-photos", switches, of_labels)))

# %% [markdown]
# On these features what keeps more of the object is worth more than what keeps it pure. Means over the
# box draw key-points further and beat the print's means over the foreground; no filtering beats
# filtering; a narrower high part and the official switches together lose the most recall and the most
# overlap. The official levels were chosen for features that have learnt from the points, which these
# have not. Where a single point lies matters more than any sweep: the centre is best, the border
# worst.

# %% [markdown]
# What only a student feels: key-points that teach the query tokens too, as the paper's text says
# and the official settings do not; the official background points, which come from a map of the
# ground of their own and not from where $A^I$ is low; background points from higher up in $A^I$,
# and three times as many, which ask what teaches a mask where it ends.

# %% tags=["remove-input"]
measures = {
    "mAP25": "val/voc_mAP25_11pt",
    "mAP50": "val/voc_mAP50_11pt",
    "mAP50, area under the curve": "val/voc_mAP50_area",
    "mAP75": "val/voc_mAP75_11pt",
    "AP": "val/AP",
    "mean best overlap": "val/voc_ABO",
    "mIoU of pseudo masks": "labels/mIoU",
    "part recall of pseudo masks": "labels/part_recall",
}
felt = {
    "as it is": "as-full",
    "key-points teach the queries": "as-keypoints-teach",
    "background points as released": "as-released-background",
    "background points from below 0.2 of the map": "as-background-level",
    "thirty background points a box": "as-background30",
}
display(HTML(report.ours_table(held, "students", felt, measures)))

# %% [markdown]
# *What teaches the mask head.* Without filtering every key-point does, wherever it went. The table
# counts, for the model of Figure 5 and with its label path set otherwise, how many of the
# key-points lie on their object, in percent, and how many an object has.

# %% tags=["remove-input"]
kept = measured.get("key_points", {})
lines = [
    [name, *(f"{row[k]:.1f}" for k in ("on the object", "an object"))] for name, row in kept.items()
]
display(
    HTML(report.table(["label path", "key-points on the object", "key-points an object"], lines))
)

# %% [markdown]
# *How masks lie on their objects*: for the same model, its pseudo masks and the detector's masks of
# the same objects, in percent, means over objects. The detector learns as object also those
# key-points that lie beside it. It learns as background only the pixels where $A^I$ is lowest. So
# its mask may reach further than the pseudo mask.

# %% tags=["remove-input"]
lying = measured.get("masks", {})
names = list(next(iter(lying.values()), {}))
display(
    HTML(
        report.table(
            ["mask", *names], [[k, *(f"{row[n]:.0f}" for n in names)] for k, row in lying.items()]
        )
    )
)

# %% [markdown]
# *More views of a picture at the test*, with the trained model of Figure 5, in float32: the
# official code pools twelve.

# %% tags=["remove-input"]
views = measured.get("views", {})
names = list(next(iter(views.values()), {}))
order = [k for k in ("one view", "and its mirror", "three sizes and their mirrors") if k in views]
display(
    HTML(
        report.table(
            ["views", *names], [[k, *(f"{views[k][n]:.1f}" for n in names)] for k in order]
        )
    )
)

# %% [markdown]
# *Nuclei.* Real microscopy, one point a nucleus: the pictures of DSB2018 cut into tiles of 128
# pixels (`pointseg data tile`), the full method, its Mask R-CNN student, and Mask R-CNN with full
# masks.

# %% tags=["remove-input"]
nuclei = {
    "AttentionShift, refined": "as-nuclei-refined",
    "Mask R-CNN, full masks": "as-nuclei-masks",
}
display(HTML(report.ours_table(held, "nuclei", nuclei, measures)))

# %% tags=["remove-cell"]
untrained = held.on_bed("as-nuclei-frozen", "as-full")
glue("nuclei_labels", f"{report.mean(untrained):.1f}" if untrained else "(not run)", display=False)

# %% [markdown]
# Nuclei are hard for this method. Half of them cover no more than four tokens of the small network.
# They look alike, and they lie in crowds, so the high part of one's instance map may run on over
# its neighbours. On frozen features of ImageNet, with nothing trained, its labels have an IoU of
# {glue:text}`nuclei_labels` percent ({doc}`exits` sets four clicks beside it). Finer tokens or
# enlarged tiles have not been tried.

# %% [markdown]
# ### What no photograph can tell
#
# Bestiary knows the parts of its creatures. So it can be counted how many visible parts hold a
# key-point (*recall*), and how much of a key-point's cell is one true part (*purity*), before the
# shift and after every iteration: first for the trained model of Figure 5.

# %% tags=["remove-input"]
kinds = ("part recall", "purity", "one-token cells", "frozen key-points")
last = CONFIGS["small"].iterations
trained = measured.get("label_path", {})
rows = [
    [kind, *(f"{trained[f'{kind}, iteration {turn}']:.0f}" for turn in range(last + 1))]
    for kind in kinds
    if trained
]
display(HTML(report.table(["percent", *map(str, range(last + 1))], rows)))

# %% [markdown]
# The same numbers for the shipped backbone and the point's own map, where no detector and no label
# takes part:

# %% tags=["remove-cell"]
many = scenes[:studied]
batch = batch_of(many)


cases = {"base": {}} | {
    f"alpha {alpha}, floor {floor:g}": {"alpha": alpha, "bandwidth_floor": floor}
    for alpha in (0.1, 1.0, 10.0, float("inf"))
    for floor in (1e-10, 1e-1)
}
cases |= {"cosine ownership": {"owner": "cosine"}, "soft-max ownership": {"owner": "softmax"}}
scores, looked = {}, built()
with torch.no_grad():  # once: what differs between the cases comes after the maps
    evidence = looked.labeller.evidence(looked.evidence_features(batch), batch)
for name, settings in cases.items():
    study = ShiftStudy()
    labels = built(**settings).labeller.assign(evidence, batch, keep_path=True)
    true_parts = torch.stack([many[i].parts for i in labels.objects.image.tolist()])
    study.add(labels, evidence.tokens, torch.cat([s.masks for s in many]), true_parts)
    scores[name] = study.scores()

# %% tags=["remove-cell"]
base = scores.pop("base")
glue("half_self", f"{base['A^S covers half']:.0f}", display=False)
glue("half_instance", f"{base['A^I covers half']:.0f}", display=False)

# %% tags=["remove-input"]
rows = [
    [kind, *(f"{base[f'{kind}, iteration {turn}']:.0f}" for turn in range(last + 1))]
    for kind in kinds
]
display(HTML(report.table(["percent", *map(str, range(last + 1))], rows)))

# %% [markdown]
# Columns are iterations. A *frozen* key-point points in the direction of one token, however many it
# owns: where $\alpha \beta_k$ is small, that token has all the weight, and the key-point cannot
# leave it. How $\alpha$, a floor under $\beta_k$ and the rule of ownership change the end of the
# shift:

# %% tags=["remove-input"]
rows = [
    [name, *(f"{ends[f'{kind}, iteration {last}']:.0f}" for kind in kinds)]
    for name, ends in scores.items()
]
display(HTML(report.table(["after the last iteration", *kinds], rows)))

# %% [markdown]
# The count of Section 1, for these maps: {glue:text}`half_self` percent of the maps $A^S$ and
# {glue:text}`half_instance` percent of the maps $A^I$ hold more than half of their object above
# half of their largest value. (The paper does not say at which level it counted.)
#
# ## Paper vs ours
#
# - The paper trains a ViT-S on photographs for days; scale small trains a network a tenth of that
#   size on drawn creatures for minutes. No number of ours is an estimate of a printed one, and none
#   shares a column with it.
# - The order of rows is what can be tried at both scales. The verdicts at the head of this chapter
#   are computed from paired differences with intervals over seeds and images; one seed is
#   *undecided*.
# - The key-point shift is the official one rewritten as two matrix products an iteration, on the
#   tokens inside the box. What that is worth in time is measured in the chapter on cost.
# - Tokens outside the box are excluded. The official code keeps them as zero vectors, which always
#   fall to one key-point and spoil it.
# - Mask losses are means over the points that are known. The official code divides by all of them,
#   padding included.
#
# ## What did not work
#
# These trials were made on Bestiary's first edition, with the backbone of that time. Their runs are
# retired, so no number stands here. The tables above try some of them anew.
#
# - *Roll-out maps of a small, briefly trained ViT* follow the object far less than its features do.
#   Scale small therefore has a class-aware warm-up from the points' own labels, and features may be
#   centred before they are compared.
# - *Eq. 1 as printed* hardly suppresses background, as the figure above shows; everything else uses
#   the released form.
# - *Means over the whole box* instead of the foreground are the official code's reading of Eq. 3.
#   The key-points left the object, and without filtering all of them taught the mask head.
# - *Five times as much pretraining* made boxes, pseudo masks and the ceiling better. The masks
#   learnt from points became a little worse, because they outgrew their objects. Three times as
#   many background points a box brought most of it back. {doc}`log` tells what else was tried.
# - *A small $\alpha$* freezes key-points on single tokens from the start. Then almost nothing
#   shifts.
# - *Taking each place's mean over many pictures off the features* removes the position code, and
#   with it the horizontal stripes in the maps above. Pseudo masks became worse, not better:
#   nearness in the picture is worth more than it costs.
# - *Thresholds of the official code* (0.2 and 0.1 for $\Phi^+$ and $\Phi^-$) suit sharp attention
#   maps. On the smooth likeness maps of this chapter they make $\Phi^+$ most of the picture, so the
#   pictures here use higher ones.
