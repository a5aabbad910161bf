"""EXITS' random walk on one object of an image: what it starts from, hop by hop, and what it
retrieves. No network was trained on clicks for it: the extractor is the shipped backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import timm
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pointseg.bookkit import figures
from pointseg.data.bestiary import Scene
from pointseg.data.points import extreme
from pointseg.nets.mask_heads import ConvStem, MaskHeads
from pointseg.ops.crops import Crops, crop_images, crops_of, fixed_margins
from pointseg.ops.extreme_points import ClickedObjects, hulls
from pointseg.papers.exits.extractor import Extractor, WalkConfig
from pointseg.papers.exits.retrieval import (
    Levels,
    Retrieved,
    Seeds,
    candidates_of,
    retrieved,
    scores,
    seed_columns,
)
from pointseg.papers.exits.walk import converged, doubly_stochastic, propagated
from pointseg.students.mask_generator import ObjectCrops

HOPS = (0, 1, 2, 3, 4, 6, 10)
WIDTH, INNER = 768, 256  # of the paper's generator


@dataclass(frozen=True)
class Walk:
    """The crop of one object, its seeds, and where a walk from them goes."""

    view: ObjectCrops
    seeds: Seeds
    similarity: Tensor  # [1, N, N]
    transition: Tensor  # [1, N, N]
    covered: Tensor  # [g, g] share of each token that is the object's

    @property
    def grid(self) -> int:
        return len(self.covered)

    def walked(self, hops: float, beta: float = 0.25) -> Tensor:
        """[1, N, 2] means over both kinds of seeds after so many hops."""
        columns = seed_columns(self.seeds)
        if np.isinf(hops):
            return converged(self.transition, columns, beta)
        return propagated(self.transition, columns, int(hops))

    def auc(self, hops: float) -> float:
        """How often a token of the object has a higher score than one of the ground, among the
        tokens that may be retrieved."""
        score, judged = scores(self.walked(hops))[0], candidates_of(self.seeds)[0]
        right = self.covered.flatten() > 0.5
        ours, theirs = score[judged & right], score[judged & ~right]
        return float((ours[:, None] > theirs).float().mean())


def clicked(scene: Scene) -> ClickedObjects:
    """The things of an image with their extreme points."""
    things = scene.truth.pick(scene.truth.is_thing)
    masks = [np.asarray(mask) for mask in things.masks]
    points = torch.stack([torch.from_numpy(extreme(mask)).float() for mask in masks])
    none = torch.zeros(len(points), dtype=torch.long)
    target = torch.as_tensor(things.target)
    return ClickedObjects(points, hulls(points), none, none, target, [len(points)])


def walk_of(scene: Scene, row: int, extractor: Extractor) -> Walk:
    """The walk on thing `row` of a scene."""
    everyone = clicked(scene)
    one = everyone.pick(torch.tensor([row]))
    crops = crops_of(one.box, one.image, fixed_margins(one.box), extractor.side)
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float()[None] / 255
    view = ObjectCrops(everyone, one, crops, cropped(crops, image))
    with torch.no_grad():
        similarity = extractor.similarity(view.pixels)
    mask = scene.truth.pick(scene.truth.is_thing).masks[row]
    mask = cropped(crops, torch.as_tensor(np.asarray(mask)).float()[None, None])
    covered = torch.nn.functional.adaptive_avg_pool2d(mask, extractor.grid)[0, 0]
    transition = doubly_stochastic(similarity, extractor.config.rounds)
    return Walk(view, extractor.seeds(view), similarity, transition, covered)


def cropped(crops: Crops, image: Tensor) -> Tensor:
    return crop_images(crops, image, [tuple(image.shape[-2:])])


def shipped_extractor(side: int = 96, **changes) -> Extractor:
    """An extractor that nobody has warmed up."""
    config = replace(WalkConfig(weights="shipped", layer=None, delta=4.0), **changes)
    return Extractor(config, side).eval()


def hop_figures(walk: Walk, levels: Levels, hops: Sequence[float] = HOPS) -> list[Figure]:
    """A figure for each number of hops: crop and seeds, the walks from clicks and from outside, the
    score as a share of its largest, and what it retrieves at levels of that share."""
    return [_hop_figure(walk, count, levels) for count in hops]


def _hop_figure(walk: Walk, hops: float, levels: Levels) -> Figure:
    word = "closed form" if np.isinf(hops) else f"{hops:g} hops"
    titles = [f"{word}: seeds", "from the clicks", "from outside", "score", "retrieved"]
    figure, axes = figures.multiples(titles, columns=5, size=1.5)
    picture, side = walk.view.pixels[0], walk.grid
    walked, score = walk.walked(hops)[0], scores(walk.walked(hops), "relative")
    figures.owners(axes[0], picture, _sides(walk.seeds, side))
    for axis, values in zip(axes[1:4], (walked[:, 0], walked[:, 1], score[0])):
        figures.heat(axis, picture, values.view(side, side))
    points = retrieved(score, walk.seeds, levels)
    figures.owners(axes[4], picture, _sides(points, side))
    return figure


def _sides(marks: Seeds | Retrieved, side: int) -> Tensor:
    """[g, g] 0 on foreground, 1 on background, -1 elsewhere."""
    map_ = torch.full((side * side,), -1)
    map_[marks.background[0]] = 1
    map_[marks.foreground[0]] = 0
    return map_.view(side, side)


def sinkhorn_figure(walk: Walk, token: int) -> Figure:
    """S and T: the row of one token as a map, and the sums of all columns."""
    titles = ["S: from one token", "T: from one token"]
    figure, axes = figures.multiples([*titles, "sums of columns"], columns=3, size=2.2)
    picture, side = walk.view.pixels[0], walk.grid
    for axis, matrix in zip(axes, (walk.similarity, walk.transition)):
        figures.heat(axis, picture, matrix[0, token].view(side, side))
        middle = (torch.tensor([token % side, token // side]) + 0.5) * (walk.view.crops.side / side)
        figures.points(axis, middle[None])
    _draw_column_sums(axes[2], walk)
    return figure


def _draw_column_sums(axis: Axes, walk: Walk) -> None:
    axis.axis("on")
    axis.yaxis.tick_right()  # to the left a map ends
    for k, (name, matrix) in enumerate((("S", walk.similarity), ("T", walk.transition))):
        sums = matrix[0].sum(0).sort().values
        axis.plot(sums, color=figures.colour(k + 4), label=name)
    axis.legend(fontsize=7)


def parameters_at_paper_size() -> dict[str, int]:
    """Parameters of extractor and generator as the paper has them, without a weight in memory."""
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224", num_classes=0)
        heads, stem = MaskHeads(WIDTH, INNER), ConvStem(WIDTH)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    generator = count(vit) - count(vit.patch_embed) + count(stem) + count(heads)
    return {"similarity extractor": count(vit), "mask generator": generator}
