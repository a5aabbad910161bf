"""Pointly-Supervised Panoptic Segmentation (ECCV 2022): a pixel belongs to the point with the cheapest path."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.colour import colour_edges, window
from pointseg.ops.paths import (
    entering_steps,
    manifold_step,
    path_grid,
    semantic_step,
    target_distances,
    undirected_steps,
)
from pointseg.ops.point_labels import (
    ImageMaps,
    LabelledImage,
    SemanticMap,
    likely_nearest,
    resized,
    semantic_map,
)
from pointseg.ops.semantic_losses import PseudoLabel, dilated_points
from pointseg.papers.panoptic_ground import SMALL_CONFIDENCE, LabellingMethod
from pointseg.structures import Batch, Points, Training

# UNSTATED [PSPS]: the official code's. The student's losses grow from 0 during warm-up, these count from the start.
WEIGHTS = {"point": 1.0, "presence": 2.0, "colour": 3.0, "manifold": 1.0}


@dataclass(frozen=True)
class Config:
    edge_weight: float = 0.1  # UNSTATED [PSPS]: the official code
    manifold_weight: float = 0.1  # UNSTATED [PSPS]: the official code
    path_stride: int = 16  # UNSTATED [PSPS]: the official code
    point_side: float = (
        17.0  # pixels of the square a point grows to; UNSTATED [PSPS]: the official code
    )
    colour_radius: int = 2  # 5 x 5 window, UNSTATED [PSPS]: the official code
    colour_dilation: int = 2  # UNSTATED [PSPS]: the official code
    feature_width: int = 128  # UNSTATED [PSPS]: the official code
    warmup_steps: int = 14_659  # UNSTATED [PSPS]: one COCO epoch, in the official code
    semantic: Literal["queries", "cells"] = (
        "queries"  # UNSTATED [PSPS]: the official code; "cells" see CellClasses
    )
    stage: Literal["points", "whole"] = (
        "whole"  # "points": the shared first stage, the semantic map from points alone
    )
    backbone: str = ""  # "" is the scale's own: ResNet-50 at scale paper
    neck: str = ""  # "" is the scale's own
    queries: int = 0  # 0 is the scale's own
    pretrained: bool = True
    confidence: float = 0.25  # UNSTATED [PSF Alg. 1]: the official code
    candidates: int = 100  # UNSTATED [PSF Sec. 3.6]: the official code


# DEVIATION [PSPS]: small pictures get a finer path grid and smaller squares; a /16 grid of 128 pixels has 64 cells.
# Few steps from random weights get a semantic head that learns from few
SMALL = Config(path_stride=4, point_side=5.0, colour_dilation=1, feature_width=32, warmup_steps=100, semantic="cells",
               candidates=20, confidence=SMALL_CONFIDENCE)  # fmt: skip
CONFIGS = {"smoke": replace(SMALL, warmup_steps=2), "small": SMALL, "paper": Config()}


def traversing_cost(prob: Tensor, features: Tensor, edges: Tensor, config: Config) -> Tensor:
    """[8, h, w] price of each step: class change, colour edge of the pixel entered, change of instance feature."""
    moving = undirected_steps(
        (semantic_step, prob, 1.0), (manifold_step, features, config.manifold_weight)
    )
    return moving + config.edge_weight * entering_steps(edges)


def nearest_labels(
    semantic: SemanticMap, distance: Tensor, label: Tensor, size: tuple[int, int]
) -> PseudoLabel:
    """Distances [n, h, w] of the n things with class `label` -> labels at full size; stuff never competes."""
    fine = semantic.enlarged(size)
    stuff = fine.stuff_target()
    if not len(label):
        return PseudoLabel(torch.full_like(stuff, -1), stuff)
    owner = likely_nearest(resized(distance, size), *fine.likelihood(label))
    return PseudoLabel(torch.where(fine.stuff(), -1, owner), stuff)


class PSPS(LabellingMethod):
    """images and points -> panoptic maps."""

    KEY: ClassVar[str] = "PSPS"
    CONFIGS = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, clip=1.0, steps=400, batch=16),
        # UNSTATED [PSPS]: the official VOC recipe, 20 epochs with a drop at 15; COCO: 12 with a drop at 8, batch 8
        "paper": Training(lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 20,), warmup=0.0, clip=0.1,
                          epochs=20, batch=16),
    }  # fmt: skip

    def __init__(self, things: int, stuff: int, scale: str, config: Config):
        super().__init__(things, stuff, scale, config, boundary=False)

    def label_image(self, maps: ImageMaps, image: Tensor, points: Points) -> LabelledImage:
        """The pseudo label of one image [3, H, W] without padding."""
        size, c = tuple(image.shape[-2:]), self.config
        grown = dilated_points([points], (1, *maps.logits.shape[-2:]), c.point_side, size)[0]
        semantic = semantic_map(maps.logits, points, grown, self.things)
        grid = path_grid(size, c.path_stride)
        features = F.normalize(resized(maps.features, grid), dim=0)
        prices = traversing_cost(
            semantic.enlarged(grid).prob, features, colour_edges(image, grid), c
        )
        things = points.things()
        distance, first = target_distances(prices, things, size)
        return LabelledImage.of(
            nearest_labels(semantic, distance, things.label[first], size), points
        )

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        reading = self.net.read(batch)
        if self.config.stage == "points":
            told = self.net.point_losses(reading, self.config.point_side)
            return {name: WEIGHTS[name] * loss for name, loss in told.items()}
        labels = self.net.label_each(reading, self.label_image)
        ramp = min(1.0, step / max(1, self.config.warmup_steps))
        neighbours = window(self.config.colour_radius, self.config.colour_dilation)
        semantic = self.net.semantic_losses(reading, self.config.point_side, neighbours)
        student, share = self.net.student_losses(reading, labels)
        return ({name: WEIGHTS[name] * share * loss for name, loss in semantic.items()}
                | {"manifold": WEIGHTS["manifold"] * self.net.manifold_loss(reading, labels)}
                | {name: ramp * loss for name, loss in student.items()})  # fmt: skip
