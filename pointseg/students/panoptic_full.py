"""Panoptic SegFormer trained on full masks: the upper row of every panoptic table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.ops.weighted_losses import weighted
from pointseg.structures import (
    IGNORE,
    Answer,
    Batch,
    Category,
    Classes,
    Prediction,
    Training,
    Truth,
    replaced,
)
from pointseg.students.panoptic_segformer.losses import (
    LOSSES,
    PanopticTarget,
    PanopticTargets,
    centred_boxes,
)
from pointseg.students.panoptic_segformer.network import STUDENTS, StudentConfig
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class Config:
    student: StudentConfig = field(default_factory=StudentConfig)


class PanopticFull(nn.Module):
    """images and masks -> panoptic maps."""

    KEY: ClassVar[str] = "PSF"
    TASK: ClassVar[str] = "panoptic"
    SUPERVISION: ClassVar[str] = "masks"
    SCORES: ClassVar[tuple[str, ...]] = ("val",)
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("student.network.backbone", "student.network.encoder")
    LOSSES = LOSSES
    ANSWER = Answer(
        cost="ground truth", price="-", refusal="-", teachers="-", supervision="masks",
        student="Panoptic SegFormer",
    )  # fmt: skip
    PROPERTIES: ClassVar[tuple[str, ...]] = ()
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=400, batch=16),
        # [PSF Sec. 4.1]: AdamW 1.4e-4, weight decay 1e-4, 12 epochs with a drop at 8
        # clip: UNSTATED [PSF Sec. 4.1]: the official code
        "paper": Training(
            lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(8 / 12,), warmup=0.0,
            clip=0.1, epochs=12, batch=8,
        ),
    }  # fmt: skip

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        config = replaced(Config(STUDENTS[scale]), overrides)
        return cls(Classes.of(categories), config)

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.config, self.classes = config, classes
        self.student = PanopticStudent(classes, config.student)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        features = self.student.features(batch.images, batch.sizes)
        targets = true_targets(batch, self.classes.things)
        return weighted(self.student.losses(features, targets, batch), self.LOSSES, targets=targets)

    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        return self.student.predict(images, sizes)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return self.student.param_groups(lr, weight_decay)


def true_targets(batch: Batch, things: int) -> PanopticTargets:
    """Ground truth as targets; crowds and void take no part."""
    canvas = batch.images.shape[-2:]
    return PanopticTargets([true_target(truth, canvas, things) for truth in batch.truths])


def true_target(truth: Truth, canvas: tuple[int, int], things: int) -> PanopticTarget:
    h, w = truth.masks.shape[-2:]
    margin = (0, canvas[1] - w, 0, canvas[0] - h)
    whole = truth.is_thing & ~truth.is_crowd
    masks = F.pad(truth.masks[whole], margin)
    stuff = torch.full(canvas, IGNORE, device=masks.device)
    for mask, label in zip(truth.masks[~truth.is_thing], truth.label[~truth.is_thing]):
        stuff[:h, :w][mask] = label - things
    ignored = truth.void | truth.masks[truth.is_crowd].any(0)
    known = F.pad(~ignored, margin)
    return PanopticTarget(masks, truth.label[whole], centred_boxes(masks), stuff, known)
