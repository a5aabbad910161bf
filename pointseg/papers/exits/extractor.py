"""The similarity extractor: a ViT whose attention is walked on, from clicks to pseudo points.

[EXITS Sec. C]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from pointseg.nets.attention import attention_rows
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import ViTConfig
from pointseg.ops.crops import Crops
from pointseg.ops.extreme_points import ClickedObjects
from pointseg.papers.exits.retrieval import (
    Levels,
    Retrieved,
    Score,
    Seeds,
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
from pointseg.students.mask_generator import on_crops


@dataclass(frozen=True)
class WalkConfig:
    """How pseudo points are found; the defaults are the paper's."""

    vit: ViTConfig = field(
        default_factory=partial(ViTConfig, "vit_base_patch16_224")
    )  # [EXITS Tab. a5]
    weights: str | None = None  # an MAE is best [EXITS Tab. a4]
    layer: int | None = 10  # counted from 1 [EXITS Tab. a1]; None: the mean of all
    rounds: int = 10  # UNSTATED [EXITS]: of Sinkhorn, see doubly_stochastic
    hops: float = 3  # [EXITS Tab. a2]; infinity takes the closed form
    beta: float = 0.25  # of the closed form [EXITS Sec. C]
    delta: float = 24.0  # pixels of a 512 crop: COCO; LVIS 16, VOC 12 [EXITS Sec. B]
    score: Score = "difference"  # UNSTATED [EXITS Sec. H]
    foreground: float = (
        1.0  # UNSTATED [EXITS Sec. D]: level in units of an even walk, see calibrated
    )
    background: float = 0.5  # UNSTATED [EXITS Sec. D]
    neighbours: bool = False  # other objects' clicks as ground: not in the paper [EXITS Sec. H]


class Extractor(nn.Module):
    """Crops and clicks -> seeds and the points that a walk from them retrieves. [EXITS Sec. C]"""

    def __init__(self, config: WalkConfig, side: int):
        super().__init__()
        self.config, self.side = config, side
        self.vit = starting_backbone(config.vit, config.weights)
        self.grid = side // self.vit.stride

    def seeds(self, objects: ClickedObjects, crops: Crops) -> Seeds:
        """Seeds of each crop, from its clicks; from its neighbours' too where that is wanted."""
        points = pushed_inward(crops.to_crop(objects.points), crops.box, self.config.delta)
        seeds = seeds_of(points, crops.box, self.grid, self.side)
        return (
            with_neighbours(seeds, *self.others(objects, crops))
            if self.config.neighbours
            else seeds
        )

    def others(self, objects: ClickedObjects, crops: Crops) -> tuple[Tensor, Tensor]:
        """Tokens [k] that hold another object's click, and the crop [k] that shows them."""
        clicks = crops.to_crop(objects.points.flatten(0, 1).expand(len(crops), -1, -1))
        owner = torch.arange(len(objects), device=clicks.device).repeat_interleave(4)
        cell = (clicks / (self.side / self.grid)).floor().long()
        shown = ((cell >= 0) & (cell < self.grid)).all(-1)
        shown &= (objects.image[owner] == crops.image[:, None]) & (owner != crops.target[:, None])
        crop, click = shown.nonzero(as_tuple=True)
        column, row = cell[crop, click].unbind(-1)
        return row * self.grid + column, crop

    @torch.no_grad()
    def scores(self, pixels: Tensor, seeds: Seeds) -> Tensor:
        """[n, N] how far each token belongs to the object rather than to the ground."""
        c = self.config
        transition = doubly_stochastic_fast(on_crops(self.similarity, pixels), c.rounds)
        columns = seed_columns(seeds)
        walked = (
            converged(transition, columns, c.beta)
            if math.isinf(c.hops)
            else propagated(transition, columns, int(c.hops))
        )
        return scores(walked, c.score)

    def similarity(self, pixels: Tensor) -> Tensor:
        """[n, N, N] S of the chosen layer, or its mean over all layers. [EXITS Tab. a1]"""
        trace = self.vit(pixels, trace=True).trace
        layers = range(self.vit.depth) if self.config.layer is None else [self.config.layer - 1]
        every = torch.arange(trace.patches.stop, device=pixels.device)
        maps = [similarity(attention_rows(self.vit, trace, k, every), trace.prefix) for k in layers]
        return sum(maps) / len(maps)

    def points(self, pixels: Tensor, seeds: Seeds) -> Retrieved:
        """Pseudo points in the boxes."""
        levels = Levels(self.config.foreground, self.config.background)
        return retrieved(self.scores(pixels, seeds), seeds, levels)
