"""EXITS' walk as a labeller by itself: what four clicks own before any generator learns from them.

What a setting of the walk changes, it changes here first, and nothing has to be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.ops.crops import crop_images, crops_of, fixed_margins
from pointseg.ops.extreme_points import EXTREME, clicked_objects
from pointseg.papers.exits.extractor import Extractor
from pointseg.papers.exits.method import CONFIGS, EXITS, Config
from pointseg.papers.exits.retrieval import scores, seed_columns
from pointseg.papers.exits.walk import doubly_stochastic_fast
from pointseg.papers.method import Configured, Losses
from pointseg.structures import Answer, Batch, Classes, Instances, Training
from pointseg.students.mask_generator import ObjectCrops, on_crops, pasted_masks


@dataclass(frozen=True)
class CropAttention:
    """Crops of a batch's objects, and how their tokens look at each other."""

    view: ObjectCrops
    layers: Tensor  # [n, layers, N, N] similarity


@dataclass(frozen=True)
class CropWalk:
    """Crops, and the matrix of their walk."""

    view: ObjectCrops
    transition: Tensor  # [n, N, N]


@dataclass(frozen=True)
class WalkLabels:
    masks: list[Instances]

    def pseudo_labels(self) -> list[Instances]:
        return self.masks


class WalkAlone(Configured):
    """images and four extreme points -> masks, by the costs of EXITS' retrieval.

    Object and ground bid for every token of the box, and none is refused: a mask is where the
    object's cost is the lower one.
    """

    KEY: ClassVar[str] = "EXITS"
    TASK: ClassVar[str] = "instances"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("labels",)
    POINTS: ClassVar[Mapping[str, Any]] = EXTREME
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("extractor",)
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = dict.fromkeys(CONFIGS, Training(steps=0))
    ANSWER: ClassVar[Answer] = replace(EXITS.ANSWER, refusal="none", teachers="-", student="-")

    def __init__(self, classes: Classes, config: Config):
        """`classes` play no part, as in EXITS."""
        super().__init__()
        self.config = config
        self.extractor = Extractor(config.walk, config.generator.side).requires_grad_(False)

    prepare = EXITS.prepare

    @property
    def student(self) -> nn.Module:
        """The network whose attention is looked at."""
        return self.extractor.vit

    @property
    def labeller(self) -> WalkAlone:
        return self

    def losses(self, batch: Batch, step: int) -> Losses:
        return {}

    @torch.no_grad()
    def evidence_features(self, batch: Batch) -> CropAttention:
        """What all settings of the walk share."""
        objects = clicked_objects(batch)
        margins = fixed_margins(objects.box)
        crops = crops_of(objects.box, objects.image, margins, self.extractor.side)
        pixels = crop_images(crops, batch.images, batch.sizes)
        layers = on_crops(self.all_layers, pixels)
        return CropAttention(ObjectCrops(objects, objects, crops, pixels), layers)

    def all_layers(self, pixels: Tensor) -> Tensor:
        """[n, layers, N, N] similarity by each layer."""
        every = list(range(self.extractor.vit.depth))
        return torch.stack(self.extractor.similarities(pixels, every), 1)

    @torch.no_grad()
    def evidence(self, features: CropAttention, batch: Batch) -> CropWalk:
        """The doubly stochastic matrix of the chosen layers."""
        matrix = features.layers[:, self.extractor.layers()].mean(1)
        rounds = self.config.walk.rounds
        return CropWalk(features.view, doubly_stochastic_fast(matrix, rounds))

    @torch.no_grad()
    def assign(self, evidence: CropWalk, batch: Batch) -> WalkLabels:
        """Masks of the boxes."""
        view, extractor = evidence.view, self.extractor
        seeds = extractor.seeds(view)
        walked = extractor.walked(evidence.transition, seed_columns(seeds))
        score, levels = scores(walked, self.config.walk.score), extractor.levels
        lead = score - (levels.foreground - levels.background) / 2  # of the object over the ground
        fine = F.interpolate(lead.unflatten(1, (extractor.grid, -1))[:, None], scale_factor=4,
                             mode="bilinear")[:, 0]  # fmt: skip
        objects, crops = view.objects, view.crops
        return WalkLabels(pasted_masks(fine.sigmoid(), crops, objects, batch, level=0.5))

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> list[Instances]:
        """Masks of the boxes."""
        evidence = self.evidence(self.evidence_features(batch), batch)
        return self.assign(evidence, batch).pseudo_labels()
