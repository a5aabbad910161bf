"""Mask R-CNN taught by full masks: the upper row of AttentionShift's tables and its refinement."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from pointseg.ops.components import tight_boxes
from pointseg.papers.method import StudentAlone
from pointseg.structures import Answer, Batch, Classes, InputError, Loss, Training, Truth
from pointseg.students.mask_rcnn import (
    CONFIGS,
    LOSSES,
    Features,
    FullMasks,
    MaskRCNN,
    MaskRCNNConfig,
    Targets,
)


class MaskRCNNFull(StudentAlone):
    """AttentionShift's student on the truths of a batch, so that rows differ in supervision
    alone."""

    KEY: ClassVar[str] = "AS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "masks"
    CONFIGS: ClassVar[dict[str, MaskRCNNConfig]] = CONFIGS
    LOSSES: ClassVar[dict[str, Loss]] = LOSSES
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("student.vit",)
    ANSWER: ClassVar[Answer] = Answer("ground truth", "-", "-", "-", "masks", "Mask R-CNN")
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=1e-3, steps=400, batch=12),
        "photos": Training(lr=1e-3, steps=1500, batch=12),
        "paper": Training(
            lr=1e-4, schedule="step", milestones=(8 / 12, 11 / 12), epochs=12, batch=16
        ),  # [AS Sec. 5.1]
    }

    def __init__(self, classes: Classes, config: MaskRCNNConfig):
        super().__init__()
        self.config, self.classes = config, classes.things
        self.student = MaskRCNN(classes.things, config)

    def features(self, batch: Batch) -> Features:
        return self.student.features(batch.images, batch.sizes, trace=False)

    def targets(self, batch: Batch) -> Targets:
        """Objects that show at least one pixel."""
        truths = learnable_truths(batch, self.classes)
        return full_targets(truths, tuple(batch.images.shape[-2:]))

    def compiled_parts(self) -> list[nn.Module]:
        return self.student.compiled_parts()


def full_targets(truths: list[Truth], size: tuple[int, int]) -> Targets:
    """Masks and their boxes of the objects of a batch padded to `size`."""
    masks = torch.cat([padded(truth.masks, size) for truth in truths])
    boxes = [tight_boxes(truth.masks)[0] for truth in truths]
    return Targets(boxes, [truth.label for truth in truths], FullMasks(masks))


def learnable_truths(batch: Batch, classes: int) -> list[Truth]:
    """What a student of so many classes learns of each image of a batch."""
    truths = [learnable(truth) for truth in batch.truths]
    highest = max((int(truth.label.max()) for truth in truths if len(truth)), default=-1)
    if highest >= classes:
        raise InputError(
            f"masks: class index {highest} is out of range, there are {classes} thing classes"
        )
    return truths


def learnable(truth: Truth) -> Truth:
    """The things of an image that show at least one pixel and are no crowd."""
    return truth.pick(truth.is_thing & ~truth.is_crowd & truth.masks.flatten(1).any(1))


def padded(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks [m, h, w] filled up right and below to `size`."""
    right, below = size[1] - masks.shape[2], size[0] - masks.shape[1]
    return nn.functional.pad(masks, (0, right, 0, below))
