"""What the panoptic methods share: how they are built, how their student answers, and what learns beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from pointseg.nets.panoptic_segformer import PanopticSegFormer
from pointseg.nets.panoptic_student import predictions
from pointseg.nets.point_panoptic import PointPanoptic
from pointseg.ops.panoptic_merge import MergeRule
from pointseg.structures import Category, Prediction

# DEVIATION [PSF Alg. 1]: below the official code's 0.25. A student trained for minutes finds things long before its
# focal class scores grow; at 0.25 most of what it found would be thrown away.
SMALL_CONFIDENCE = 0.15


class PanopticMethod(nn.Module):
    """images -> panoptic maps. A method has `config` and either a bare `student` or a `net` that holds one."""

    TASK: ClassVar[str] = "panoptic"
    CONFIGS: ClassVar[dict[str, Any]]  # scale -> the method's Config

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for things and stuff of a dataset; `overrides` replace fields of the scale's Config."""
        things = sum(c.is_thing for c in categories)
        return cls(things, len(categories) - things, scale, replace(cls.CONFIGS[scale], **overrides))

    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        """The student alone."""
        rule = MergeRule(confidence=self.config.confidence, candidates=self.config.candidates)
        return predictions(self._student(), images, sizes, rule)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """The student's groups, and the label branch at full rate where there is one."""
        branch = list(self.net.branch.parameters()) if hasattr(self, "net") else []
        return self._student().param_groups(lr, weight_decay, branch)

    def _student(self) -> PanopticSegFormer:
        net: PointPanoptic | None = getattr(self, "net", None)
        return self.student if net is None else net.student
