"""EXITS wired up: a warmed-up extractor finds points in the box, a generator learns from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pointseg.nets.attention import attention_rows
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import ViTConfig
from pointseg.ops.box_losses import mil_loss
from pointseg.ops.crops import Crops, crop_images, crops_of, random_margins
from pointseg.ops.extreme_points import ClickedObjects, clicked_objects
from pointseg.ops.parameter_groups import decay_groups
from pointseg.ops.processes import child, uniform
from pointseg.papers.exits.losses import point_loss, token_values
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
from pointseg.papers.method import ramp, weighted
from pointseg.structures import Answer, Batch, Category, Instances, Loss, Training
from pointseg.students.mask_generator import (
    SMALL,
    SMOKE,
    Autolabeller,
    GeneratorConfig,
    View,
    chosen_objects,
    mean_over_world,
    object_draws,
    on_crops,
)


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


@dataclass(frozen=True)
class Config:
    walk: WalkConfig = field(default_factory=WalkConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    balanced: bool = True  # UNSTATED [EXITS Sec. B]: see point_loss
    warmup_steps: int = 4000  # over which the colour term grows; UNSTATED [MAL]: the release


SMALL_WALK = WalkConfig(ViTConfig("small"), "shipped", layer=5, delta=4.0)
SMOKE_WALK = WalkConfig(SMOKE.vit, layer=2, delta=2.0)
CONFIGS = {
    "paper": Config(),
    "small": Config(SMALL_WALK, SMALL, warmup_steps=100),
    "smoke": Config(SMOKE_WALK, SMOKE, warmup_steps=2),
}
TRAINING = {
    "smoke": Training(lr=1e-3, steps=4, batch=2),
    "small": Training(lr=5e-4, steps=600, batch=12),
    # UNSTATED [EXITS]: as MAL's release; eight processes with four crops each
    "paper": Training(lr=4.8e-5, weight_decay=5e-4, betas=(0.9, 0.9), epochs=10, batch=32),
}


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


class EXITS(nn.Module):
    """images and four extreme points -> masks of these objects."""

    KEY: ClassVar[str] = "EXITS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("labels",)
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("extractor",)
    TRAINING: ClassVar[dict[str, Training]] = TRAINING
    LOSSES: ClassVar[Mapping[str, Loss]] = {  # [EXITS Sec. B]
        "mil": Loss(10.0),
        "point": Loss(0.5),  # COCO and LVIS; VOC .05
        "crf": Loss(0.5, ramped=True),  # the ramp is UNSTATED [MAL]: the release
    }
    ANSWER: ClassVar[Answer] = Answer(
        cost="ground score less object score of a random walk",
        price="0",
        refusal="two levels, the rest unknown",
        teachers="extreme points, box, mean field over colours",
        supervision="4 extreme points",
        student="class-agnostic mask generator, then any segmenter",
    )
    PROPERTIES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.auto = config, Autolabeller(config.generator)
        self.extractor = Extractor(config.walk, config.generator.side).requires_grad_(False)

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """Extractor and generator at a scale; they know no classes."""
        return cls(replace(CONFIGS[scale], **overrides))

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L of [EXITS Sec. B]: multiple instances only where nothing was retrieved in the box."""
        self.auto.follow()
        view = self.auto.view(batch)
        seeds = self.extractor.seeds(view.objects, view.crops)
        points = self.extractor.points(view.pixels, seeds)
        terms = {
            "mil": self.auto.box_loss(view) * points.nothing,
            "point": self.point_loss(view, seeds, points),
            "crf": self.auto.colour_loss(view),
        }
        means = {name: mean_over_world(values) for name, values in terms.items()}
        return weighted(means, self.LOSSES, ramp(step, self.config.warmup_steps))

    def point_loss(self, view: View, seeds: Seeds, points: Retrieved) -> Tensor:
        """[n] L_point of each crop."""
        values = token_values(view.prob, self.extractor.grid)
        return point_loss(values, seeds, points, self.config.balanced)

    def pseudo_labels(self, batch: Batch) -> list[Instances]:
        """Masks of the clicked objects, by the generator alone. [EXITS Sec. F]"""
        return self.auto.masks(batch)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return self.auto.param_groups(lr, weight_decay)


class SimilarityWarmup(nn.Module):
    """The extractor's warm-up: its tokens learn to tell seeds from what lies outside the box.

    UNSTATED [EXITS Sec. E]: the text says that warm-up sharpens foreground against background, not
    from what. Crops and clicks are all that a class-agnostic method has.
    """

    KEY: ClassVar[str] = "EXITS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ()
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("extractor",)
    TRAINING: ClassVar[dict[str, Training]] = TRAINING
    LOSSES: ClassVar[Mapping[str, Loss]] = {"seed": Loss(1.0), "mil": Loss(1.0)}
    ANSWER: ClassVar[Answer] = EXITS.ANSWER
    PROPERTIES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.extractor = Extractor(config.walk, config.generator.side)
        self.classifier = nn.Linear(self.extractor.vit.dim, 1)

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The extractor at a scale, with a linear look at its tokens."""
        return cls(replace(CONFIGS[scale], **overrides))

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        c, grid = self.config.generator, self.extractor.grid
        objects = chosen_objects(clicked_objects(batch), batch, c)
        margins = random_margins(uniform(child(object_draws(objects, batch), 1), 6))
        crops = crops_of(objects.box, objects.image, margins, c.side)
        prob = on_crops(self.prob, crop_images(crops, batch.images, batch.sizes))
        seeds = self.extractor.seeds(objects, crops)
        nothing = torch.zeros_like(seeds.inside)
        terms = {
            "seed": point_loss(prob, seeds, Retrieved(nothing, nothing)),
            "mil": mil_loss(prob.unflatten(1, (grid, grid)), crops.box_map(grid)),
        }
        return weighted({k: mean_over_world(v) for k, v in terms.items()}, self.LOSSES)

    def prob(self, pixels: Tensor) -> Tensor:
        """[n, N] foreground probability of each token."""
        return self.classifier(self.extractor.vit(pixels).tokens.float()).sigmoid()[..., 0]

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return decay_groups(self.parameters(), lr, weight_decay)
