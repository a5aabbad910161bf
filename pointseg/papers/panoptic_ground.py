"""What the panoptic methods share: how they are built, how their student answers, and what learns beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pointseg.ops.point_labels import ImageMaps, LabelledImage
from pointseg.papers.label_branch import LabelBranch
from pointseg.papers.point_panoptic import PointPanoptic
from pointseg.structures import Batch, Category, Panoptic, Points, Prediction
from pointseg.students.panoptic_segformer.merge import MergeRule
from pointseg.students.panoptic_segformer.network import PanopticSegFormer, architecture_of
from pointseg.students.panoptic_segformer.training import predictions

# DEVIATION [PSF Alg. 1]: below the official code's 0.25. A student trained for minutes finds things long before its
# focal class scores grow; at 0.25 most of what it found would be thrown away.
SMALL_CONFIDENCE = 0.15


class PanopticMethod(nn.Module):
    """images -> panoptic maps. What a method holds beside its `student` takes part in training only."""

    TASK: ClassVar[str] = "panoptic"
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("student.backbone", "student.encoder")
    CONFIGS: ClassVar[dict[str, Any]]  # scale -> the method's Config

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for things and stuff of a dataset; `overrides` replace fields of the scale's Config."""
        things = sum(c.is_thing for c in categories)
        return cls(
            things, len(categories) - things, scale, replace(cls.CONFIGS[scale], **overrides)
        )

    def __init__(self, things: int, stuff: int, scale: str, config: Any):
        super().__init__()
        self.config, self.things = config, things
        architecture = architecture_of(scale, config.backbone, config.neck, config.queries)
        self.student = PanopticSegFormer(things, stuff, architecture, config.pretrained)

    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        """The student alone."""
        rule = MergeRule(confidence=self.config.confidence, candidates=self.config.candidates)
        return predictions(self.student, images, sizes, rule)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict]:
        """The student's groups, and at full rate what learns beside it."""
        beside = [p for name, p in self.named_parameters() if not name.startswith("student.")]
        return self.student.param_groups(lr, weight_decay, beside)


class LabellingMethod(PanopticMethod):
    """images and points -> panoptic maps. A branch beside the student labels the pictures that the student learns."""

    SUPERVISION: ClassVar[str] = "points"
    FIRST_STAGE: ClassVar[tuple[str, ...]] = (*PanopticMethod.FIRST_STAGE, "branch.semantic")

    def __init__(self, things: int, stuff: int, scale: str, config: Any, boundary: bool):
        super().__init__(things, stuff, scale, config)
        self.branch = LabelBranch(
            self.student, things + stuff, config.semantic, config.feature_width, boundary
        )

    @property
    def net(self) -> PointPanoptic:
        return PointPanoptic(self.student, self.branch)

    def label_image(self, maps: ImageMaps, image: Tensor, points: Points) -> LabelledImage:
        """The pseudo label of one image [3, H, W] without padding; here lies the method."""
        raise NotImplementedError

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> list[Panoptic]:
        return [
            label.as_panoptic()
            for label in self.net.label_each(self.net.read(batch), self.label_image)
        ]
