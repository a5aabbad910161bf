"""The first stage of AttentionShift: its point branch alone, on a bare ViT. [AS Sec. 3.1]"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from torch import nn

from pointseg.papers.attentionshift.config import SCALES, Config
from pointseg.papers.attentionshift.querying import PointBranch
from pointseg.papers.method import PointSupervised
from pointseg.structures import Category, Loss, Training
from pointseg.students.mask_rcnn import Backbone


class TokenQuerying(PointSupervised):
    """Points teach the query tokens, and the features that key-points will be shifted in."""

    KEY: ClassVar[str] = "AS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ()
    FIRST_STAGE: ClassVar[tuple[str, ...]] = (
        "student.vit", "labeller.points", "labeller.classifier"
    )  # fmt: skip
    PROPERTIES: ClassVar[tuple[str, ...]] = ()
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

    def __init__(self, classes: int, config: Config):
        student = Backbone(config.student)
        branch = PointBranch(student.vit, classes, config.place_weight, config.warmup)
        super().__init__(branch, student)
        self.config = config

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for the thing classes of a dataset; `overrides` replace fields of the
        Config."""
        return cls(sum(c.is_thing for c in categories), SCALES[scale].changed(**overrides))

    def compiled_parts(self) -> list[nn.Module]:
        return self.student.compiled_parts()
