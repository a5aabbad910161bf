"""Panoptic SegFormer trained on full masks: the upper row of every panoptic table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pointseg.papers.panoptic_ground import SMALL_CONFIDENCE, PanopticMethod
from pointseg.structures import Batch, Training
from pointseg.students.panoptic_segformer.training import canvas_padding, student_losses, targets_of


@dataclass(frozen=True)
class Config:
    backbone: str = ""  # "" is the scale's own: ResNet-50 at scale paper [PSF Sec. 4.1]
    neck: str = ""  # "" is the scale's own; "deformable" or "conv"
    queries: int = 0  # 0 is the scale's own
    pretrained: bool = True  # ImageNet weights of a timm backbone [PSF Sec. 4.1]
    confidence: float = 0.25  # UNSTATED [PSF Alg. 1]: the official code
    candidates: int = 100  # UNSTATED [PSF Sec. 3.6]: the official code


CONFIGS = {
    "smoke": Config(candidates=12, confidence=SMALL_CONFIDENCE),
    "small": Config(candidates=20, confidence=SMALL_CONFIDENCE),
    "paper": Config(),
}


class PanopticFull(PanopticMethod):
    """images and masks -> panoptic maps."""

    KEY: ClassVar[str] = "PSF"
    SUPERVISION: ClassVar[str] = "masks"
    CONFIGS = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, clip=1.0, steps=400, batch=16),
        # [PSF Sec. 4.1]: AdamW 1.4e-4, weight decay 1e-4, 12 epochs with a drop at 8; clip: UNSTATED, the official code
        "paper": Training(lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(8 / 12,), warmup=0.0, clip=0.1,
                          epochs=12, batch=8),
    }  # fmt: skip

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        padding = canvas_padding(batch.sizes, batch.images.shape[-2:], batch.images.device)
        seen = self.student(self.student.encode(batch.images, padding))
        return student_losses(self.student, seen, targets_of(batch, self.things), batch.image_ids)
