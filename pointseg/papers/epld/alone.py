"""The distance branch without a student: what tables 1 to 5 change, and nothing beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pointseg.ops.weighted_losses import weighted
from pointseg.papers.epld.method import EPLD, Config, Distance
from pointseg.papers.method import Configured, Losses, PointSupervised
from pointseg.structures import Batch, Classes, Loss
from pointseg.students.panoptic_segformer.student import PanopticStudent


class LearntDistance(Configured):
    """images and points -> labels; L_distance alone teaches branch, encoder and backbone.

    DEVIATION [EPLD Eq. 12]: L_pan is left out, and with it its gradients in encoder and backbone,
    so that a row of tables 1 to 5 costs its labels alone. Rows with a student stand beside it.
    """

    KEY: ClassVar[str] = "EPLD"
    TASK: ClassVar[str] = "panoptic"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("labels",)
    CONFIGS = EPLD.CONFIGS
    FIRST_STAGE = EPLD.FIRST_STAGE
    LOSSES: ClassVar[dict[str, Loss]] = {
        name: EPLD.LOSSES[name] for name in ("partial", "class", "self_training", "colour_prior")
    }
    ANSWER = replace(EPLD.ANSWER, student="-")
    PROPERTIES = EPLD.PROPERTIES
    TRAINING = EPLD.TRAINING

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.student = PanopticStudent(classes, config.student)  # its features are looked at
        self.labeller = Distance(self.student, config)

    notes = EPLD.notes
    param_groups = PointSupervised.param_groups
    pseudo_labels = PointSupervised.pseudo_labels

    def losses(self, batch: Batch, step: int) -> Losses:
        evidence = self.labeller.evidence(self.student.features(batch.images, batch.sizes), batch)
        return weighted(self.labeller.losses(evidence, None, batch), self.LOSSES)
