"""The first stage of AttentionShift: its point branch alone, on a bare ViT. [AS Sec. 3.1]"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pointseg.papers.attentionshift.config import CONFIGS, Config
from pointseg.papers.attentionshift.querying import PointBranch
from pointseg.papers.method import PointSupervised
from pointseg.structures import Classes, Loss, Training
from pointseg.students.mask_rcnn import Backbone


class TokenQuerying(PointSupervised):
    """Points teach the query tokens, and the features that key-points will be shifted in."""

    KEY: ClassVar[str] = "AS"
    TASK: ClassVar[str] = "instances"
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    SCORES: ClassVar[tuple[str, ...]] = ()
    FIRST_STAGE: ClassVar[tuple[str, ...]] = (
        "student.vit", "labeller.points", "labeller.classifier"
    )  # fmt: skip
    LOSSES: ClassVar[dict[str, Loss]] = {
        "point_class": Loss(),
        "point_place": Loss(10.0),  # UNSTATED [AS Sec. 4]: weight of l_L1, official code
        "warm_image": Loss(),
        "warm_token": Loss(),
    }
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=1e-3, steps=1000, batch=16),
    }

    def __init__(self, classes: Classes, config: Config):
        student = Backbone(config.student)
        branch = PointBranch(student.vit, classes.things, config.place_weight, config.warmup)
        super().__init__(branch, student)
        self.config = config

    def compiled_parts(self) -> list[nn.Module]:
        return self.student.compiled_parts()
