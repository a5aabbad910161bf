"""AttentionShift (CVPR 2023): an instance is what its key-points, shifted to dense places of feature
space, own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.nets.roi_heads import DepthChooser
from pointseg.nets.vit import TokenViT, decayed_groups
from pointseg.ops.processes import draws_of, normaliser
from pointseg.papers.attentionshift.config import SCALES, Config
from pointseg.papers.attentionshift.instance_map import unit_range
from pointseg.papers.attentionshift.labels import Labels, label_path
from pointseg.papers.attentionshift.masks import detected_at_points, pseudo_boxes, replaced_rows
from pointseg.papers.attentionshift.querying import (
    Objects,
    PointBranch,
    Queried,
    in_full_precision,
    point_maps,
    rollout_maps,
)
from pointseg.papers.attentionshift.token_querying import TokenQuerying
from pointseg.papers.attentionshift.tokens import Tokens, valid_tokens
from pointseg.papers.method import PointSupervised
from pointseg.structures import Answer, Batch, Category, Instances, Loss, Training
from pointseg.students.mask_rcnn import Features, MaskRCNN


@dataclass(frozen=True)
class Evidence:
    """What the label path starts from, and what the point branch is taught with."""

    queried: Queried
    tokens: Tokens  # Phi, a row an image; no gradient comes back from it
    maps: Tensor  # [n, depths, T] self-attention maps in 0..1
    class_share: Tensor  # [n, depths, C] of each depth's box in saying that it is of a class
    depth: Tensor  # [n] the depth chosen

    @property
    def objects(self) -> Objects:
        return self.queried.objects

    @property
    def attention(self) -> Tensor:
        """[n, T] A^S at the chosen depth."""
        return self.maps[torch.arange(len(self.depth), device=self.depth.device), self.depth]


class Labeller(PointBranch):
    """Points and attention in, pseudo boxes and key-points out. [AS Sec. 3]"""

    def __init__(self, vit: TokenViT, classes: int, config: Config):
        super().__init__(vit, classes, config.place_weight, config.warmup)
        self.config = config
        chooser = DepthChooser(vit.dim, classes, config.student.width)
        self.chooser = chooser if config.depth is None else None

    @in_full_precision
    def evidence(self, features: Features, batch: Batch) -> Evidence:
        """A^S at every depth, the depth whose box looks most like the object's class, and Phi."""
        queried = super().evidence(features, batch)
        objects, config = queried.objects, self.config
        tokens = Tokens.of(self.compared(features, batch.sizes), objects.counts)
        with torch.no_grad():
            maps = (
                point_maps(tokens, objects)
                if config.attention == "point"
                else rollout_maps(features, objects, queried.query, config.depths)
            )
            every = objects.valid[:, None].expand_as(maps).flatten(0, 1)
            maps = unit_range(maps.flatten(0, 1), every).view_as(maps)
        share, depth = self.choice(features, objects, maps)
        return Evidence(queried, tokens, maps, share, depth)

    def compared(self, features: Features, sizes: list[tuple[int, int]]) -> Tensor:
        """[b, T, D] the token features that the label path compares."""
        output = features.output
        tokens = output.tokens.detach().float()
        if not self.config.centred:
            return tokens
        valid = valid_tokens(sizes, output.grid, self.stride, tokens.device).float()[..., None]
        return tokens - (tokens * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True)

    def choice(self, features: Features, objects: Objects, maps: Tensor) -> tuple[Tensor, Tensor]:
        """[n, depths, C] share of each depth in the class of an object, and the depth [n] chosen.

        UNSTATED [AS Sec. 3.1]: "self-attention map"; the official code lets a multiple-instance head
        choose among roll-outs.
        """
        depths = maps.shape[1]
        if self.chooser is None or depths == 1:
            depth = min(self.config.depth or 0, depths - 1)
            share = maps.new_ones(len(objects), depths, self.classes) / depths
            return share, torch.full_like(objects.label, depth)
        c = self.config
        boxes = pseudo_boxes(maps, objects, c.foreground, c.box_rule)
        share = self.chooser(features.output.map().float(), self.stride, boxes, objects.image)
        row = torch.arange(len(objects), device=maps.device)
        return share, share[row, :, objects.label].argmax(1)

    @torch.no_grad()
    @in_full_precision
    def assign(self, evidence: Evidence, batch: Batch, keep_path: bool = False) -> Labels:
        """Boxes, parts and points of every object; `keep_path` remembers every turn of the shift."""
        return label_path(evidence.tokens, evidence.objects, evidence.attention, self.config,
                          draws_of(batch), keep_path)  # fmt: skip

    @in_full_precision
    def losses(self, evidence: Evidence, labels: Labels, batch: Batch) -> dict[str, Tensor]:
        """L_P of [AS Sec. 4], with the MIL head's and the warm-up's beside it."""
        queried, points = evidence.queried, labels.objects.points
        query = queried.query
        if self.config.keypoints_as_points:
            points = labels.keypoint_targets()
            query = queried.predictions.matched(points, self.place_weight)
        losses = queried.predictions.losses(points, query) | self.warmup_losses(queried, batch)
        return losses | ({"mil": self.choice_loss(evidence)} if self.chooser else {})

    def choice_loss(self, evidence: Evidence) -> Tensor:
        """Cross-entropy of what all depths together say of an object's class, with its class."""
        probability = evidence.class_share.sum(1).clamp(1e-6, 1 - 1e-6)
        label = F.one_hot(evidence.objects.label, self.classes).float()
        total = F.binary_cross_entropy(probability, label, reduction="sum")
        return total / normaliser(len(label), label.device) / self.classes


class AttentionShift(PointSupervised):
    """The label path's boxes and key-points teach a Mask R-CNN on the very tokens they come from."""

    KEY: ClassVar[str] = "AS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("val", "labels")
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
    LOSSES: ClassVar[dict[str, Loss]] = TokenQuerying.LOSSES | {
        name: Loss() for name in ("mil", "rpn_class", "rpn_box", "class", "box", "mask")
    }
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=1e-3, steps=400, batch=12),
        # [AS Sec. 5.1]: 12 epochs of 16 images, AdamW 1e-4, decay .05, a tenth after 8 and 11
        "paper": Training(lr=1e-4, weight_decay=0.05, schedule="step",
                          milestones=(8 / 12, 11 / 12), epochs=12, batch=16),
    }  # fmt: skip

    def __init__(self, classes: int, config: Config):
        student = MaskRCNN(classes, config.student)
        super().__init__(Labeller(student.vit, classes, config), student)
        self.config = config

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for the thing classes of a dataset; `overrides` replace fields of the Config."""
        return cls(sum(c.is_thing for c in categories), SCALES[scale].changed(**overrides))

    @torch.no_grad()
    def explain(self, batch: Batch) -> tuple[Evidence, Labels]:
        """What the label path starts from and what it finds in a batch with points, turn by turn."""
        features = self.student.features(batch.images, batch.sizes)
        evidence = self.labeller.evidence(features, batch)
        return evidence, self.labeller.assign(evidence, batch, keep_path=True)

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> list[Instances]:
        """Masks and boxes of the label path, a row an object in the order of the points."""
        features = self.student.features(batch.images, batch.sizes)
        labels = self.labeller.assign(self.labeller.evidence(features, batch), batch)
        return labels.instances(batch.sizes)

    @torch.no_grad()
    def student_labels(self, batch: Batch) -> list[Instances]:
        """What a refinement trains on: the student's own detection at each point, else the label
        path's. [AS Sec. 5.1]"""
        features = self.student.features(batch.images, batch.sizes)
        labels = self.labeller.assign(self.labeller.evidence(features, batch), batch)
        detections = self.student.detections(features, batch.images, batch.sizes)
        xy = labels.objects.split(labels.objects.xy)
        return [replaced_rows(known, own, detected_at_points(own, at, known.label))
                for known, own, at in zip(labels.instances(batch.sizes), detections, xy)
                ]  # fmt: skip

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Early blocks of the pretrained ViT learn more slowly than what stands on top of it."""
        decay = self.config.student.layer_decay
        return decayed_groups(self, self.student.vit, lr, weight_decay, decay)
