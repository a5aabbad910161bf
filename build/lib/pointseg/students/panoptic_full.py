"""Panoptic SegFormer trained on full masks: the upper row of every panoptic table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F

from pointseg.papers.method import StudentAlone
from pointseg.structures import IGNORE, Answer, Batch, Classes, Loss, Training, Truth
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


class PanopticFull(StudentAlone):
    """images and masks -> panoptic maps."""

    KEY: ClassVar[str] = "PSF"
    TASK: ClassVar[str] = "panoptic"
    SUPERVISION: ClassVar[str] = "masks"
    CONFIGS: ClassVar[dict[str, Config]] = {name: Config(each) for name, each in STUDENTS.items()}
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("student.network.backbone", "student.network.encoder")
    LOSSES: ClassVar[dict[str, Loss]] = LOSSES
    ANSWER = Answer(
        cost="ground truth", price="-", refusal="-", teachers="-", supervision="masks",
        student="Panoptic SegFormer",
    )  # fmt: skip
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=400, batch=16),
        "photos": Training(lr=2e-3, weight_decay=1e-2, steps=1500, batch=16),
        # [PSF Sec. 4.1]: AdamW 1.4e-4, weight decay 1e-4, 12 epochs with a drop at 8
        # clip: UNSTATED [PSF Sec. 4.1]: the official code
        "paper": Training(
            lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(8 / 12,), warmup=0.0,
            clip=0.1, epochs=12, batch=8,
        ),
    }  # fmt: skip

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.config, self.classes = config, classes
        self.student = PanopticStudent(classes, config.student)

    def targets(self, batch: Batch) -> PanopticTargets:
        """Ground truth; crowds and void take no part."""
        canvas, things = batch.images.shape[-2:], self.classes.things
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
