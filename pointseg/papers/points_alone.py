"""The floor of every panoptic table: the student taught by bare points and boxes of one size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from pointseg.ops.point_labels import LabelledImage
from pointseg.papers.method import StudentAlone
from pointseg.papers.panoptic_labels import STUDENT_PARTS, PanopticAnswer, PanopticLabels
from pointseg.structures import IGNORE, Batch, Classes, Loss, Training
from pointseg.students.panoptic_segformer.losses import LOSSES, PanopticTarget, PanopticTargets
from pointseg.students.panoptic_segformer.network import STUDENTS, StudentConfig
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class Config:
    box_share: float = 1.0  # of the shorter side: 600 of VOC's 600 [EPLD Tab. 6]
    student: StudentConfig = field(default_factory=StudentConfig)


def boxes_about(
    points: Tensor, side: float, size: tuple[int, int], canvas: tuple[int, int]
) -> Tensor:
    """[n, 4] (x, y, w, h), parts of the canvas, of squares of `side` pixels about points [n, 2].

    What reaches beyond the image is cut off.
    """
    limit = points.new_tensor([size[1], size[0]])
    low, high = (points - side / 2).clamp(min=0), torch.minimum(points + side / 2, limit)
    boxes = torch.cat([(low + high) / 2, high - low], -1)
    return boxes / points.new_tensor([canvas[1], canvas[0]] * 2)


def bare_target(
    target: PanopticTarget, labelled: LabelledImage, canvas: tuple[int, int], box_share: float
) -> PanopticTarget:
    """Masks known at the labelled pixels alone. [EPLD Sec. 4.3]

    DEVIATION [EPLD Tab. 6]: the partial loss is this student's dice on labelled pixels, not a
    cross-entropy, as its mask values are no logits.
    """
    size, points = tuple(labelled.label.things.shape), labelled.points
    first = [labelled.owner.tolist().index(k) for k in range(len(labelled.thing_label))]
    boxes = boxes_about(points.xy[first], box_share * min(size), size, canvas)
    known = target.things.any(0) | (target.stuff != IGNORE)
    return replace(target, boxes=boxes, known=known)


class PointsAlone(StudentAlone):
    """images and points -> panoptic maps, without any pseudo label."""

    KEY: ClassVar[str] = "PSF"
    TASK: ClassVar[str] = "panoptic"
    SUPERVISION: ClassVar[str] = "points"
    CONFIGS: ClassVar[dict[str, Config]] = {
        name: Config(student=student) for name, student in STUDENTS.items()
    }
    FIRST_STAGE: ClassVar[tuple[str, ...]] = STUDENT_PARTS
    LOSSES: ClassVar[dict[str, Loss]] = LOSSES
    ANSWER = PanopticAnswer(
        cost="infinite but at the points", price="0", refusal="all other pixels", teachers="-"
    )
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=400, batch=16),
        "photos": Training(lr=2e-3, weight_decay=1e-2, steps=1500, batch=16),
        # UNSTATED [EPLD Tab. 6]: as the other rows of that table
        "paper": Training(
            lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 20,), warmup=0.0,
            clip=0.1, epochs=20, batch=16,
        ),
    }  # fmt: skip

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.config, self.classes = config, classes
        self.student = PanopticStudent(classes, config.student)

    def targets(self, batch: Batch) -> PanopticTargets:
        canvas, share = tuple(batch.images.shape[-2:]), self.config.box_share
        images = list(map(LabelledImage.void, batch.sizes, batch.points))
        targets = PanopticLabels(images, canvas, self.classes.things).targets(batch).images
        return PanopticTargets([bare_target(*row, canvas, share) for row in zip(targets, images)])
