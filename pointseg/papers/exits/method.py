"""EXITS wired up: a warmed-up extractor finds points in the box, a generator learns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from pointseg.nets.vit import ViTConfig
from pointseg.ops.extreme_points import EXTREME
from pointseg.papers.exits.extractor import Extractor, WalkConfig
from pointseg.papers.exits.losses import point_loss, token_values
from pointseg.papers.exits.retrieval import Levels, Retrieved, Seeds
from pointseg.papers.method import Configured, ramp, weighted
from pointseg.structures import Answer, Batch, Classes, Instances, Loss, Training
from pointseg.students.mask_generator import (
    LABEL_PROPERTIES,
    PHOTOS,
    SMALL,
    SMOKE,
    Autolabeller,
    GeneratorConfig,
    View,
    mean_over_world,
    training_crops,
)


@dataclass(frozen=True)
class Config:
    walk: WalkConfig = field(default_factory=WalkConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    point_weight: float = 0.5  # COCO and LVIS; VOC .05 [EXITS Sec. B]
    colour_weight: float = 0.5  # [EXITS Sec. B]
    balanced: bool = True  # UNSTATED [EXITS Sec. B]: see point_loss
    warmup_steps: int = 4000  # over which the colour term grows; UNSTATED [MAL]: the release

    @property
    def student(self) -> GeneratorConfig:
        return self.generator


# DEVIATION [EXITS Tab. a1]: the small ViT is walked on by the mean of its six layers: chosen on the
# split tune, where its scores order tokens of a box better than those of its fifth layer
SMALL_WALK = WalkConfig(ViTConfig("small"), weights="shipped", layer=None, delta=4.0)
SMOKE_WALK = WalkConfig(SMOKE.vit, layer=12, delta=2.0)
CONFIGS = {
    "paper": Config(),
    "small": Config(SMALL_WALK, SMALL, warmup_steps=100),
    "photos": Config(replace(SMALL_WALK, weights=None), PHOTOS, warmup_steps=100),
    "smoke": Config(SMOKE_WALK, SMOKE, warmup_steps=2),
}


class EXITS(Configured):
    """images and four extreme points -> masks of these objects."""

    KEY: ClassVar[str] = "EXITS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("labels",)
    POINTS: ClassVar[Mapping[str, Any]] = EXTREME
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("extractor",)
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=5e-4, steps=600, batch=12),
        "photos": Training(lr=5e-4, steps=1500, batch=12),
        # UNSTATED [EXITS]: as MAL's release; eight processes with four crops each
        "paper": Training(lr=4.8e-5, weight_decay=5e-4, betas=(0.9, 0.9), epochs=10, batch=32),
    }
    LOSSES: ClassVar[Mapping[str, Loss]] = {
        "mil": Loss(10.0),  # [EXITS Sec. B]
        "point": Loss(),  # weighted by the config, as is the next
        "crf": Loss(ramped=True),  # the ramp is UNSTATED [MAL]: the release
    }
    ANSWER: ClassVar[Answer] = Answer(
        cost="ground score less object score of a random walk",
        price="0",
        refusal="two levels, the rest unknown",
        teachers="extreme points, box, mean field over colours",
        supervision="4 extreme points",
        student="class-agnostic mask generator, then any segmenter",
    )
    PROPERTIES: ClassVar[tuple[str, ...]] = LABEL_PROPERTIES

    def __init__(self, classes: Classes, config: Config):
        """`classes` play no part: the generator knows none."""
        super().__init__()
        self.config, self.auto = config, Autolabeller(config.generator)
        self.extractor = Extractor(config.walk, config.generator.side).requires_grad_(False)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Finds the levels of retrieval that the config leaves open, on training crops."""
        if None in (self.config.walk.foreground, self.config.walk.background):
            crops = (training_crops(batch, self.config.generator) for batch in batches)
            self.extractor.calibrate(crops)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L of [EXITS Sec. B]: multiple instances only where nothing was retrieved in the box."""
        self.auto.follow()
        view = self.auto.view(batch)
        seeds = self.extractor.seeds(view)
        points = self.extractor.points(view.pixels, seeds)
        self.notes = notes_of(self.extractor.levels, seeds, points)
        terms = {
            "mil": self.auto.box_loss(view) * points.nothing,
            "point": self.config.point_weight * self.point_loss(view, seeds, points),
            "crf": self.config.colour_weight * self.auto.colour_loss(view),
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


def notes_of(levels: Levels, seeds: Seeds, points: Retrieved) -> dict[str, Tensor]:
    """Levels, the share of crops in which nothing is retrieved, and those of tokens that are."""
    inside = seeds.inside.float().sum().clamp(min=1)
    return {
        "level foreground": inside.new_tensor(levels.foreground),
        "level background": inside.new_tensor(levels.background),
        "nothing": points.nothing.sum() / max(1, len(points.nothing)),
        "foreground": points.foreground.sum() / inside,
        "background": points.background.sum() / inside,
    }
