"""The floor of every panoptic table: the student trained on bare points and boxes that all have one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pointseg.ops.point_labels import LabelledImage
from pointseg.papers.panoptic_ground import SMALL_CONFIDENCE, PanopticMethod
from pointseg.structures import IGNORE, Batch, Points, Training
from pointseg.students.panoptic_segformer.losses import PanopticTarget
from pointseg.students.panoptic_segformer.training import canvas_padding, student_losses


@dataclass(frozen=True)
class Config:
    box_share: float = 1.0  # of the shorter side: 600 of VOC's 600 [EPLD Tab. 6]
    backbone: str = ""  # "" is the scale's own: ResNet-50 at scale paper
    neck: str = ""  # "" is the scale's own
    queries: int = 0  # 0 is the scale's own
    pretrained: bool = True
    confidence: float = 0.25  # UNSTATED [PSF Alg. 1]: the official code
    candidates: int = 100  # UNSTATED [PSF Sec. 3.6]: the official code


CONFIGS = {
    "smoke": Config(candidates=12, confidence=SMALL_CONFIDENCE),
    "small": Config(candidates=20, confidence=SMALL_CONFIDENCE),
    "paper": Config(),
}


def boxes_about(
    points: Tensor, side: float, size: tuple[int, int], canvas: tuple[int, int]
) -> Tensor:
    """[n, 4] (x, y, w, h), parts of the canvas: squares of `side` pixels about points [n, 2], cut at the picture."""
    limit = points.new_tensor([size[1], size[0]])
    low, high = (points - side / 2).clamp(min=0), torch.minimum(points + side / 2, limit)
    return torch.cat([(low + high) / 2, high - low], -1) / points.new_tensor(
        [canvas[1], canvas[0]] * 2
    )


def bare_target(
    points: Points, size: tuple[int, int], canvas: tuple[int, int], things: int, box_share: float
):
    """Masks known at the labelled pixels alone. [EPLD Sec. 4.3]

    DEVIATION [EPLD Tab. 6]: the partial loss is this student's dice on labelled pixels, not a cross-entropy, as its
    mask values are no logits.
    """
    labelled = LabelledImage.void(size, points)
    known = (labelled.label.things >= 0) | (labelled.label.stuff != IGNORE)
    target = labelled.as_target(canvas, things)
    first = [labelled.owner.tolist().index(k) for k in range(len(labelled.thing_label))]
    boxes = boxes_about(points.xy[first], box_share * min(size), size, canvas)
    inside = torch.zeros(canvas, dtype=torch.bool, device=known.device)
    inside[: size[0], : size[1]] = known
    return PanopticTarget(target.things, target.thing_label, boxes, target.stuff, inside)


class PointsAlone(PanopticMethod):
    """images and points -> panoptic maps, without any pseudo label."""

    KEY: ClassVar[str] = "PSF"
    SUPERVISION: ClassVar[str] = "points"
    CONFIGS = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, clip=1.0, steps=400, batch=16),
        # UNSTATED [EPLD Tab. 6]: as the other rows of that table
        "paper": Training(lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 20,), warmup=0.0, clip=0.1,
                          epochs=20, batch=16),
    }  # fmt: skip

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        canvas = tuple(batch.images.shape[-2:])
        padding = canvas_padding(batch.sizes, canvas, batch.images.device)
        targets = [
            bare_target(points, size, canvas, self.things, self.config.box_share)
            for points, size in zip(batch.points, batch.sizes)
        ]
        seen = self.student(self.student.encode(batch.images, padding))
        return student_losses(self.student, seen, targets, batch.image_ids)
