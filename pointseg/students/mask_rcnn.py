"""Mask R-CNN on the same ViT, taught by full masks: the upper row of AttentionShift's tables and its refinement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pointseg.nets.start import start_heads, starting_backbone
from pointseg.nets.token_levels import TokenLevels
from pointseg.nets.vit import ViTConfig, layer_decay_groups
from pointseg.ops.components import tight_boxes
from pointseg.ops.parameter_groups import decay_groups
from pointseg.papers.attentionshift.mask_points import full_mask_loss
from pointseg.structures import Batch, Category, InputError, Prediction, Training, Truth
from pointseg.students.detector import BoxTargets, Detector, DetectorConfig


@dataclass(frozen=True)
class Config:
    """Backbone and student of AttentionShift, so that the rows differ in their supervision alone. [AS Tab. 1]"""

    backbone: ViTConfig = field(
        default_factory=partial(ViTConfig, "vit_small_patch16_224")
    )  # [AS Sec. 5.1]
    weights: str = ""  # "shipped", a file, or nothing
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    levels: tuple[int, ...] = (3, 5, 7, 11, 11)  # as in AttentionShift
    level_scales: tuple[float, ...] = (4, 2, 1, 0.5, 0.25)
    layer_decay: float = 0.75


SCALES = {
    "paper": Config(),
    "small": Config(
        backbone=ViTConfig("small", queries=20, anchored=True),
        weights="shipped",
        levels=(5, 5, 5),
        level_scales=(2, 1, 0.5),
        detector=DetectorConfig.small(),
        layer_decay=0.9,
    ),
    "smoke": Config(
        backbone=ViTConfig("small", dim=32, depth=2, heads=2, image_size=64, queries=6),
        levels=(1, 1, 1),
        level_scales=(2, 1, 0.5),
        detector=DetectorConfig.smoke(),
    ),
}


class MaskRCNN(nn.Module):
    """ViT, feature levels, detector; nothing of points."""

    KEY: ClassVar[str] = "AS"
    SUPERVISION: ClassVar[str] = "masks"
    TASK: ClassVar[str] = "instances"
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("vit",)
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=1e-3, steps=400, batch=12),
        "paper": Training(
            lr=1e-4, schedule="step", milestones=(8 / 12, 11 / 12), epochs=12, batch=16
        ),  # [AS Sec. 5.1]
    }

    def __init__(self, classes: int, config: Config):
        super().__init__()
        self.config, self.classes = config, classes
        self.vit = starting_backbone(config.backbone, config.weights)
        self.levels = TokenLevels(
            self.vit.dim, config.detector.channels, config.levels, config.level_scales
        )
        self.detector = Detector(classes, config.detector)
        start_heads(self.detector, config.weights)

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for the thing classes of a dataset; `overrides` replace fields of the scale's Config."""
        return cls(sum(c.is_thing for c in categories), replace(SCALES[scale], **overrides))

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Losses of region proposals, boxes and masks."""
        truths = [learnable(truth) for truth in batch.truths]
        self._check(truths)
        seen = self.vit(batch.images, self.config.levels)
        size = tuple(batch.images.shape[-2:])
        masks = torch.cat([padded(truth.masks, size) for truth in truths])
        targets = [BoxTargets(tight_boxes(truth.masks)[0], truth.label) for truth in truths]
        counts = torch.tensor([len(truth) for truth in truths], device=masks.device)
        starts = counts.cumsum(0) - counts

        def mask_loss(logits: Tensor, boxes: Tensor, image: Tensor, target: Tensor) -> Tensor:
            return full_mask_loss(logits, boxes, masks, starts[image] + target)

        return self.detector.losses(
            self.levels(seen.features), size, batch.sizes, targets, mask_loss
        )

    def _check(self, truths: list[Truth]) -> None:
        highest = max((int(truth.label.max()) for truth in truths if len(truth)), default=-1)
        if highest >= self.classes:
            raise InputError(
                f"masks: class index {highest} is out of range, there are {self.classes} thing classes"
            )

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        """Instances of each picture."""
        seen = self.vit(images, self.config.levels)
        found = self.detector.detect(self.levels(seen.features), images.shape[-2:], sizes)
        return [Prediction(row, instances=instances) for row, instances in enumerate(found)]

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Early blocks of the pretrained ViT learn more slowly than what stands on top of it."""
        groups = layer_decay_groups(self.vit, lr, weight_decay, self.config.layer_decay)
        beside = [*self.levels.parameters(), *self.detector.parameters()]
        return [*groups, *decay_groups(beside, lr, weight_decay)]


def learnable(truth: Truth) -> Truth:
    """The things of a picture that show at least one pixel and are no crowd."""
    return truth.pick(truth.is_thing & ~truth.is_crowd & truth.masks.flatten(1).any(1))


def padded(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks [m, h, w] filled up right and below to `size`."""
    right, below = size[1] - masks.shape[2], size[0] - masks.shape[1]
    return nn.functional.pad(masks, (0, right, 0, below))
