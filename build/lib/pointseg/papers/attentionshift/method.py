"""AttentionShift (CVPR 2023): an instance is what its key-points, shifted to dense places of
feature space, own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from pointseg.papers.attentionshift.config import CONFIGS, Config
from pointseg.papers.attentionshift.frozen import FrozenLabeller
from pointseg.papers.attentionshift.labeller import Evidence, Labeller, Labels
from pointseg.papers.attentionshift.masks import detected_at_points, replaced_rows
from pointseg.papers.attentionshift.token_querying import TokenQuerying
from pointseg.papers.method import PointSupervised
from pointseg.structures import Answer, Batch, Classes, Instances, Loss, Training
from pointseg.students.mask_rcnn import LOSSES, Features, MaskRCNN


class AttentionShift(PointSupervised):
    """The label path's boxes and key-points teach a Mask R-CNN on the very tokens they come
    from."""

    KEY: ClassVar[str] = "AS"
    TASK: ClassVar[str] = "instances"
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    FIRST_STAGE: ClassVar[tuple[str, ...]] = TokenQuerying.FIRST_STAGE
    PROPERTIES: ClassVar[tuple[str, ...]] = (
        "boxes hold their points",
        "labels use only the points' classes",
        "no gradient through assign",
    )
    ANSWER: ClassVar[Answer] = Answer(
        cost="1 - A^I of Eq. 1; inside an object key-points own tokens by Eq. 2",
        price="0",
        refusal="level of the map; Alg. 1 refuses parts",
        teachers="points, multiple instances",
        supervision="1 point an object",
        student="Mask R-CNN on a ViT, taught at points; then refined",
    )
    LOSSES: ClassVar[dict[str, Loss]] = {**TokenQuerying.LOSSES, "mil": Loss(), **LOSSES}
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=1e-3, steps=400, batch=12),
        "photos": Training(lr=1e-3, steps=1500, batch=12),
        # [AS Sec. 5.1]: 12 epochs of 16 images, AdamW 1e-4, decay .05, a tenth after 8 and 11
        "paper": Training(lr=1e-4, weight_decay=0.05, schedule="step",
                          milestones=(8 / 12, 11 / 12), epochs=12, batch=16),
    }  # fmt: skip

    def __init__(self, classes: Classes, config: Config):
        student = MaskRCNN(classes.things, config.student)
        frozen = FrozenLabeller(config) if config.features == "frozen" else None
        super().__init__(frozen or Labeller(student.vit, classes.things, config), student)
        self.config = config

    @torch.no_grad()
    def explain(self, batch: Batch) -> tuple[Evidence, Labels]:
        """What the label path starts from and what it finds in a batch with points, turn by
        turn."""
        evidence = self.labeller.evidence(self.evidence_features(batch), batch)
        return evidence, self.labeller.assign(evidence, batch, keep_path=True)

    def evidence_features(self, batch: Batch) -> Features | None:
        """The student's; a frozen labeller has some of its own."""
        return None if self.config.features == "frozen" else super().evidence_features(batch)

    @torch.no_grad()
    def student_labels(self, batch: Batch) -> list[Instances]:
        """What a refinement trains on: the student's own detection at each point, else the label
        path's. [AS Sec. 5.1]"""
        features = self.student.features(batch.images, batch.sizes)
        labels = self.labeller.assign(self.labeller.evidence(features, batch), batch)
        detections = self.student.detections(features, batch.images, batch.sizes)
        xy = labels.objects.split(labels.objects.xy)
        return [replaced_rows(known, ours, detected_at_points(ours, at, known.label))
                for known, ours, at in zip(labels.pseudo_labels(), detections, xy)
                ]  # fmt: skip

    def compiled_parts(self) -> list[nn.Module]:
        return self.student.compiled_parts()
