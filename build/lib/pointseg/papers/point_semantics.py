"""The first stage of the panoptic methods: a semantic map from points alone, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from pointseg.ops.weighted_losses import weighted
from pointseg.papers.method import Configured
from pointseg.papers.panoptic_labels import (
    STUDENT_PARTS,
    PanopticAnswer,
    SemanticHead,
    point_losses,
    semantic_head,
)
from pointseg.structures import Batch, Classes, Loss, Training
from pointseg.students.panoptic_segformer.network import STUDENTS, StudentConfig
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class Config:
    point_side: float = 17.0  # UNSTATED [PSPS]: the official code
    semantic: SemanticHead = "queries"  # UNSTATED [PSPS]: the official code
    student: StudentConfig = field(default_factory=StudentConfig)


CONFIGS = {
    "smoke": Config(5.0, "cells", STUDENTS["smoke"]),
    "small": Config(5.0, "cells", STUDENTS["small"]),
    "photos": Config(5.0, "cells", STUDENTS["photos"]),
    "paper": Config(),
}


class Labeller(nn.Module):
    """The semantic head alone."""

    def __init__(self, student: PanopticStudent, config: Config):
        super().__init__()
        self.semantic = semantic_head(student, config.semantic)


class PointSemantics(Configured):
    """DEVIATION [PSPS]: a stage of its own, so that every row of a table starts from one map."""

    KEY: ClassVar[str] = "PSPS"
    TASK: ClassVar[str] = "panoptic"
    SUPERVISION: ClassVar[str] = "points"
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    SCORES: ClassVar[tuple[str, ...]] = ()
    FIRST_STAGE: ClassVar[tuple[str, ...]] = (*STUDENT_PARTS, "labeller.semantic")
    LOSSES: ClassVar[dict[str, Loss]] = {"point": Loss(1.0), "presence": Loss(2.0)}
    ANSWER = PanopticAnswer(cost="-", price="-", refusal="-", teachers="points", student="-")
    # none at scale photos: ImageNet's weights stand for a first stage
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=1000, batch=16),
    }

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.config = config
        self.student = PanopticStudent(classes, config.student)
        self.labeller = Labeller(self.student, config)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        maps = self.labeller.semantic(self.student.features(batch.images, batch.sizes))
        return weighted(point_losses(maps, batch, self.config.point_side), self.LOSSES)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        return self.student.param_groups(lr, weight_decay, self.labeller.parameters())
