"""Mask Auto-Labeler (CVPR 2023): boxes say which rows and columns hold an object, colour the rest.

The labeller of boxes, and the baseline that EXITS is measured against. The mask generator teaches
itself: its mask is brought to agreement among neighbours of like colour, and learnt again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from torch import Tensor

from pointseg.ops.extreme_points import EXTREME
from pointseg.papers.method import Configured, ramp, weighted
from pointseg.structures import Answer, Batch, Classes, Instances, Loss, Training
from pointseg.students.mask_generator import (
    LABEL_PROPERTIES,
    PHOTOS,
    SMALL,
    SMOKE,
    Autolabeller,
    GeneratorConfig,
    mean_over_world,
)


@dataclass(frozen=True)
class Config:
    generator: GeneratorConfig = field(default_factory=lambda: GeneratorConfig(upscale_after=3))
    warmup_steps: int = 4000  # over which the colour term grows; UNSTATED [MAL]: the release


CONFIGS = {
    "paper": Config(),
    "small": Config(replace(SMALL, upscale_after=3), warmup_steps=100),
    "photos": Config(replace(PHOTOS, upscale_after=3), warmup_steps=100),
    "smoke": Config(replace(SMOKE, upscale_after=3), warmup_steps=2),
}


class MAL(Configured):
    """images and boxes -> masks of these boxes."""

    KEY: ClassVar[str] = "MAL"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "boxes"
    SCORES: ClassVar[tuple[str, ...]] = ("labels",)
    POINTS: ClassVar[Mapping[str, Any]] = EXTREME  # whose hulls are the boxes
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("auto.generator.vit",)
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=5e-4, steps=600, batch=12),
        "photos": Training(lr=5e-4, steps=1500, batch=12),
        # UNSTATED [MAL]: the release; eight processes with four crops each
        "paper": Training(lr=4.8e-5, weight_decay=5e-4, betas=(0.9, 0.9), epochs=10, batch=32),
    }
    LOSSES: ClassVar[Mapping[str, Loss]] = {
        "mil": Loss(4.0),  # UNSTATED [MAL]: the release
        "crf": Loss(0.5, ramped=True),  # UNSTATED [MAL]: the release
    }
    ANSWER: ClassVar[Answer] = Answer(
        cost="1 - the generator's mask",
        price="0",
        refusal="a level of the mask",
        teachers="box (multiple instances), mean field over colours",
        supervision="boxes",
        student="class-agnostic mask generator, then any segmenter",
    )
    PROPERTIES: ClassVar[tuple[str, ...]] = LABEL_PROPERTIES

    def __init__(self, classes: Classes, config: Config):
        """`classes` play no part: the generator knows none."""
        super().__init__()
        self.config, self.auto = config, Autolabeller(config.generator)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        self.auto.follow()
        view = self.auto.view(batch)
        terms = {"mil": self.auto.box_loss(view), "crf": self.auto.colour_loss(view)}
        means = {name: mean_over_world(values) for name, values in terms.items()}
        return weighted(means, self.LOSSES, ramp(step, self.config.warmup_steps))

    def pseudo_labels(self, batch: Batch) -> list[Instances]:
        """Masks of the boxes."""
        return self.auto.masks(batch)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return self.auto.param_groups(lr, weight_decay)
