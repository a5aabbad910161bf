"""EPLD's maps layer by layer, and a slider that goes through them in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pointseg.bookkit import figures
from pointseg.bookkit.diagnostics.labels import maps_of_truth
from pointseg.bookkit.markup import escape
from pointseg.data.bestiary import Scene
from pointseg.ops.colour import rgb_to_lab, shrunken
from pointseg.ownership import NOBODY
from pointseg.papers.epld.branch import Estimate
from pointseg.papers.epld.distance import distance_map, log_probability, pseudo_label
from pointseg.papers.epld.method import Evidence
from pointseg.papers.epld.queries import (
    Targets,
    aggregated,
    cleaned_masks,
    enhanced,
    erosion_passes,
)
from pointseg.papers.method import targets_of
from pointseg.structures import Points, Truth

COLOURS, LARGEST = 48, 60_000  # palette and bytes of a stacked figure


def features_of_truth(truth: Truth, image: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """[1, D, h, w] what a good encoder could give: true classes, blurred, colour, and position."""
    kinds = maps_of_truth(truth, classes, grid).logits.softmax(0)
    lab = rgb_to_lab(shrunken(image[None], grid))[0] / 100
    y, x = torch.meshgrid(*(torch.linspace(0, 2, side) for side in grid), indexing="ij")
    position = torch.stack([x, y])
    return torch.cat([2 * kinds, lab, position])[None]


def iterated(
    features: Tensor, targets: Targets, classes: int, layers: int = 6, passes: int = 1
) -> Evidence:
    """Eq. 1 to 7 with nothing learnt: logits are minus squared distances of features to queries.

    features [1, D, h, w] are both what is averaged and what is looked at; the class embedding
    points along their first channels.
    """
    masks, estimates, sharpness = targets.points, [], 2.0
    embedding = 0.5 * torch.eye(classes, features.shape[1])
    for _ in range(layers):
        queries = enhanced(aggregated(masks, features), embedding, targets.label)
        flat = features.flatten(2).transpose(1, 2)
        away = torch.cdist(queries, flat).square().unflatten(2, features.shape[-2:])
        log_prob = log_probability(-sharpness * away, targets.present)
        label = pseudo_label(distance_map(log_prob.exp()))
        estimates.append(Estimate(-sharpness * away, log_prob, queries[..., :0], label))
        masks = cleaned_masks(label, targets, passes)
    stacked = {k: torch.stack([vars(e)[k] for e in estimates]) for k in vars(estimates[0])}
    return Evidence(targets, Estimate(**stacked))


def layer_figures(image: Tensor, evidence: Evidence, xy: Tensor, shown: int = 2) -> list[Figure]:
    """One figure a layer of the first image of a batch: attention logits and distance of the first
    targets, whose points are xy, the label, and the cells that the next queries are means of."""
    layers = range(len(evidence.estimate.label))
    return [layer_figure(k, image, evidence, xy[:shown]) for k in layers]


def layer_figure(k: int, image: Tensor, evidence: Evidence, xy: Tensor) -> Figure:
    e, shown = evidence.estimate, range(len(xy))
    titles = [f"layer {k + 1}: attention {n + 1}" for n in shown]
    titles += [f"distance {n + 1}" for n in shown] + ["label", "next queries' cells"]
    figure, axes = figures.multiples(titles, columns=len(titles), size=1.3)
    for n in shown:
        figures.heat(axes[n], image, e.logits[k, 0, n])
        figures.heat(axes[len(xy) + n], image, distance_map(e.log_prob[k, 0, n].exp()))
        for axis in (axes[n], axes[len(xy) + n]):
            figures.points(axis, xy[n : n + 1], labels=[n], size=12)
    cells = cleaned_masks(e.label[k], evidence.targets, erosion_passes(e.label.shape[-2:]))[0]
    figures.owners(axes[-2], image, e.label[k, 0])
    figures.owners(axes[-1], image, torch.where(cells.any(0), cells.int().argmax(0), NOBODY))
    return figure


def right_owners(scene: Scene, points: Points, image: Tensor, evidence: Evidence) -> Tensor:
    """[L] share of the cells of `iterated`'s labels whose target is the true one."""
    label = evidence.estimate.label[:, 0]
    step = [side // cells for side, cells in zip(image.shape[-2:], label.shape[-2:])]
    masks = scene.truth.masks[:, step[0] // 2 :: step[0], step[1] // 2 :: step[1]]
    order = targets_of(points).tolist()
    rows = torch.tensor([order.index(target) for target in scene.truth.target.tolist()])
    right = ((label[:, None] == rows[:, None, None]) & masks).sum((1, 2, 3))
    return right / masks.any(0).sum()


def target_points(points: Points) -> Tensor:
    """[n, 2] the first point of each target, in the order of the rows of EPLD's table."""
    at = [points.target.tolist().index(target) for target in targets_of(points).tolist()]
    return points.xy[at]


def stacked(drawn: Sequence[Figure]) -> bytes:
    """The figures below one another, equally high, as one PNG of at most LARGEST bytes."""
    pages = [Image.open(io.BytesIO(figures.rendered(one))).convert("RGB") for one in drawn]
    (width, height), share, data = pages[0].size, 1.0, None
    while data is None or len(data) > LARGEST:
        w, h = round(share * width), round(share * height)
        sheet = Image.new("RGB", (w, h * len(pages)))
        for k, page in enumerate(pages):
            sheet.paste(page.resize((w, h), Image.Resampling.LANCZOS), (0, k * h))
        buffer = io.BytesIO()
        sheet.quantize(COLOURS).save(buffer, format="png", optimize=True)
        data = buffer.getvalue()
        share = figures.smaller(share, len(data), LARGEST)
    return data


def slider(png: bytes, count: int, alt: str, word: str = "layer") -> str:
    """HTML that shows one of `count` equally high parts of a picture; without JavaScript the
    first."""
    width, height = Image.open(io.BytesIO(png)).size
    source = base64.b64encode(png).decode()
    move = (
        "const one = this.closest('figure'); one.querySelector('img').style.transform = "
        f"`translateY(${{-100 * (this.value - 1) / {count}}}%)`; "
        "one.querySelector('output').value = this.value"
    )
    return (
        f'<figure><label>{escape(word)} <input type="range" min="1" max="{count}" value="1" '
        f'step="1" oninput="{escape(move)}"> <output>1</output> of {count}</label>'
        f'<div style="overflow:hidden;aspect-ratio:{width}/{height // count}">'
        f'<img alt="{escape(alt)}" style="width:100%;display:block" '
        f'src="data:image/png;base64,{source}"></div></figure>'
    )
