"""The similarity extractor: a ViT whose attention is walked on, from clicks to pseudo points.

[EXITS Sec. C]
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from pointseg.nets.attention import attention_rows
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import ViTConfig
from pointseg.papers.exits.levels import Evidence, calibrated, hidden_scores
from pointseg.papers.exits.retrieval import (
    Levels,
    Retrieved,
    Score,
    Seeds,
    candidates_of,
    pushed_inward,
    retrieved,
    scores,
    seed_columns,
    seeds_of,
    with_neighbours,
)
from pointseg.papers.exits.walk import (
    converged,
    doubly_stochastic_fast,
    propagated,
    similarity,
)
from pointseg.students.mask_generator import ObjectCrops, on_crops

BEFORE = (1.0, 0.5)  # levels of an extractor that has not been calibrated


@dataclass(frozen=True)
class WalkConfig:
    """How pseudo points are found; the defaults are the paper's."""

    vit: ViTConfig = field(
        default_factory=partial(ViTConfig, "vit_base_patch16_224")
    )  # [EXITS Tab. a5]
    weights: str | None = None  # an MAE is best [EXITS Tab. a4]
    # [EXITS Tab. a1]: of twelve, counted from 1; a network of another depth takes the layer at the
    # same share of it. None: the mean of all
    layer: int | None = 10
    rounds: int = 10  # UNSTATED [EXITS]: of Sinkhorn, see doubly_stochastic
    hops: float = 3  # [EXITS Tab. a2]; infinity takes the closed form
    beta: float = 0.25  # of the closed form [EXITS Sec. C]
    delta: float = 24.0  # pixels of a 512 crop: COCO; LVIS 16, VOC 12 [EXITS Sec. B]
    score: Score = "difference"  # UNSTATED [EXITS Sec. H]
    # UNSTATED [EXITS Sec. D]: levels in units of an even walk; None: calibrated before the first
    # step, by the seeds of training crops
    foreground: float | None = None
    background: float | None = None
    neighbours: bool = False  # other objects' clicks as ground: not in the paper [EXITS Sec. H]


class Extractor(nn.Module):
    """Crops and clicks -> seeds and the points that a walk from them retrieves. [EXITS Sec. C]"""

    def __init__(self, config: WalkConfig, side: int):
        super().__init__()
        self.config, self.side = config, side
        self.vit = starting_backbone(config.vit, config.weights)
        self.grid = side // self.vit.stride
        self.register_buffer("measured_levels", torch.tensor(BEFORE))

    def seeds(self, view: ObjectCrops) -> Seeds:
        """Seeds of each crop, from its clicks; from its neighbours' too where that is wanted."""
        points = pushed_inward(
            view.crops.to_crop(view.objects.points), view.crops.box, self.config.delta
        )
        seeds = seeds_of(points, view.crops.box, self.grid, self.side)
        return with_neighbours(seeds, *self.others(view)) if self.config.neighbours else seeds

    def others(self, view: ObjectCrops) -> tuple[Tensor, Tensor]:
        """Tokens [k] that hold another object's click, pushed into its own box, and the crop [k]
        that shows them."""
        crops, everyone, n = view.crops, view.everyone, len(view.everyone)
        clicks = crops.to_crop(everyone.points.flatten(0, 1).expand(len(crops), -1, -1))
        corners = crops.to_crop(everyone.box.view(-1, 2).expand(len(crops), -1, -1))
        pushed = pushed_inward(clicks.view(-1, 4, 2), corners.reshape(-1, 4), self.config.delta)
        cell = (pushed.view(len(crops), 4 * n, 2) / (self.side / self.grid)).floor().long()
        shown = ((cell >= 0) & (cell < self.grid)).all(-1)
        same_image = everyone.image == view.objects.image[:, None]
        other = everyone.target != view.objects.target[:, None]
        shown &= (same_image & other).repeat_interleave(4, 1)
        crop, click = shown.nonzero(as_tuple=True)
        column, row = cell[crop, click].unbind(-1)
        return row * self.grid + column, crop

    def transition(self, pixels: Tensor) -> Tensor:
        """[n, N, N] T of crops [n, 3, s, s]."""
        return doubly_stochastic_fast(on_crops(self.similarity, pixels), self.config.rounds)

    def walked(self, transition: Tensor, columns: Tensor) -> Tensor:
        """[n, N, k] what the walk makes of columns [n, N, k]."""
        c = self.config
        if math.isinf(c.hops):
            return converged(transition, columns, c.beta)
        return propagated(transition, columns, int(c.hops))

    @torch.no_grad()
    def scores(self, pixels: Tensor, seeds: Seeds) -> Tensor:
        """[n, N] how far each token belongs to the object rather than to the ground."""
        return scores(self.walked(self.transition(pixels), seed_columns(seeds)), self.config.score)

    def similarity(self, pixels: Tensor) -> Tensor:
        """[n, N, N] S of the chosen layer, or its mean over all layers. [EXITS Tab. a1]"""
        maps = self.similarities(pixels, self.layers())
        return sum(maps) / len(maps)

    def layers(self) -> list[int]:
        """Numbers of the layers that are looked at, from 0."""
        depth, chosen = self.vit.depth, self.config.layer
        return list(range(depth)) if chosen is None else [max(round(chosen * depth / 12), 1) - 1]

    def similarities(self, pixels: Tensor, layers: list[int]) -> list[Tensor]:
        """[n, N, N] S of each of some layers."""
        trace = self.vit(pixels, trace=True).trace
        every = torch.arange(trace.patches.stop, device=pixels.device)
        return [similarity(attention_rows(self.vit, trace, k, every), trace.prefix) for k in layers]

    def points(self, pixels: Tensor, seeds: Seeds) -> Retrieved:
        """Pseudo points in the boxes."""
        return retrieved(self.scores(pixels, seeds), seeds, self.levels)

    @property
    def levels(self) -> Levels:
        """Those of the config, or else those that were measured."""
        c, (foreground, background) = self.config, self.measured_levels.tolist()
        return Levels(
            foreground if c.foreground is None else c.foreground,
            background if c.background is None else c.background,
        )

    @torch.no_grad()
    def evidence(self, view: ObjectCrops) -> Evidence:
        """What crops say of the levels."""
        seeds, rule = self.seeds(view), self.config.score
        walk = partial(self.walked, self.transition(view.pixels))
        score, candidates = scores(walk(seed_columns(seeds)), rule), candidates_of(seeds)
        highest = score.masked_fill(~candidates, -torch.inf).amax(1)
        lowest = score.masked_fill(~candidates, torch.inf).amin(1)
        return Evidence(highest, lowest, *hidden_scores(walk, seeds, rule))

    def calibrate(self, views: Iterable[ObjectCrops]) -> None:
        """Finds the levels that the config leaves open; where no click can judge them they stay."""
        evidence = Evidence.of([self.evidence(view) for view in views])
        if len(evidence.positive) and len(evidence.negative):
            levels = calibrated(evidence)
            self.measured_levels.copy_(torch.tensor([levels.foreground, levels.background]))
