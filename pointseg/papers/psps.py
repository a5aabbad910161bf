"""Pointly-Supervised Panoptic Segmentation (ECCV 2022): a pixel is its cheapest path's point's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from pointseg.ops.colour import colour_edges, window
from pointseg.ops.paths import (
    StartCell,
    entering_steps,
    manifold_step,
    semantic_step,
    undirected_steps,
)
from pointseg.ops.point_labels import SemanticSize, likelihood_cost
from pointseg.ops.semantic_losses import manifold_loss
from pointseg.papers.method import PointSupervised
from pointseg.papers.panoptic_labels import (
    LABEL_PROPERTIES,
    STUDENT_PARTS,
    PanopticAnswer,
    PanopticLabels,
    SemanticHead,
    colour_loss,
    point_losses,
    ramped_student_losses,
)
from pointseg.papers.path_labels import PanopticEvidence, PathEvidence, PathLabeller, Planes
from pointseg.structures import Batch, Classes, Loss, Training
from pointseg.students.panoptic_segformer.network import STUDENTS, StudentConfig
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class Config:
    edge_weight: float = 0.1  # UNSTATED [PSPS]: the official code
    manifold_weight: float = 0.1  # UNSTATED [PSPS]: the official code
    path_stride: int = 16  # UNSTATED [PSPS]: the official code
    start_cell: StartCell = "stride"  # UNSTATED [PSPS]: int(y / 16) in the code
    semantic_size: SemanticSize = "image"  # UNSTATED [PSPS]: softmax and squares of the code
    point_side: float = 17.0  # of the square a point grows to; UNSTATED [PSPS]: the official code
    colour_radius: int = 2  # 5 x 5 window, UNSTATED [PSPS]: the official code
    colour_dilation: int = 2  # UNSTATED [PSPS]: the official code
    feature_width: int = 128  # UNSTATED [PSPS]: the official code
    warmup_steps: int = 14_659  # UNSTATED [PSPS]: one COCO epoch, in the official code
    semantic: SemanticHead = "queries"  # UNSTATED [PSPS]: the official code; or see CellClasses
    student: StudentConfig = field(default_factory=StudentConfig)


# DEVIATION [PSPS]: small images get a finer path grid and smaller squares, on the map's own grid; a
# /16 grid of 128 pixels has 64 cells. Few steps from random weights get a head that learns fast.
SMALL = Config(
    path_stride=4, start_cell="share", semantic_size="map", point_side=5.0, colour_dilation=1,
    feature_width=32, warmup_steps=100, semantic="cells", student=STUDENTS["small"],
)  # fmt: skip
CONFIGS = {
    "smoke": replace(SMALL, warmup_steps=2, student=STUDENTS["smoke"]),
    "small": SMALL,
    "photos": replace(SMALL, student=STUDENTS["photos"]),
    "paper": Config(),
}


def traversing_cost(prob: Tensor, features: Tensor, edges: Tensor, config: Config) -> Tensor:
    """[8, (g,) h, w] price of each step: change of class and of feature, colour edge entered."""
    moving = undirected_steps(
        (semantic_step, prob, 1.0), (manifold_step, features, config.manifold_weight)
    )
    return moving + config.edge_weight * entering_steps(edges)


class Labeller(PathLabeller):
    """Cheapest paths from points, weighted by class likelihood."""

    def step_prices(self, planes: Planes, images: Sequence[Tensor]) -> Tensor:
        grid = tuple(planes.prob.shape[-2:])
        edges = torch.stack([colour_edges(image, grid) for image in images])
        return traversing_cost(planes.prob, planes.features, edges, self.config)

    def cost(self, paths: PathEvidence) -> Tensor:
        """[n, H, W] path lengths against class likelihood."""
        return likelihood_cost(super().cost(paths), *paths.fine.likelihood(paths.label))

    def losses(
        self, evidence: PanopticEvidence, labels: PanopticLabels, batch: Batch
    ) -> dict[str, Tensor]:
        maps, c = evidence.maps, self.config
        neighbours = window(c.colour_radius, c.colour_dilation)
        return point_losses(maps, batch, c.point_side) | {
            "colour": colour_loss(maps, batch, neighbours, evidence.padding),
            "manifold": manifold_loss(maps.features, labels.point_masks(maps.grid)),
        }


class PSPS(PointSupervised):
    """images and points -> panoptic maps."""

    KEY: ClassVar[str] = "PSPS"
    TASK: ClassVar[str] = "panoptic"
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    FIRST_STAGE: ClassVar[tuple[str, ...]] = (*STUDENT_PARTS, "labeller.semantic")
    # UNSTATED [PSPS]: weights, shares and ramps are the official code's; it ramps all losses of the
    # student but the class of a location
    LOSSES: ClassVar[dict[str, Loss]] = {
        "point": Loss(1.0, share="things"),
        "presence": Loss(2.0, share="things"),
        "colour": Loss(3.0, share="things"),
        "manifold": Loss(1.0),
        **ramped_student_losses(),
    }
    ANSWER = PanopticAnswer(
        cost="cheapest path over colour, class and feature changes, weighted by class likelihood",
        price="0",
        refusal="void where no class is sure",
        teachers="points, colour, manifold",
    )
    PROPERTIES: ClassVar[tuple[str, ...]] = LABEL_PROPERTIES
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=400, batch=16),
        "photos": Training(lr=2e-3, weight_decay=1e-2, steps=1500, batch=16),
        # UNSTATED [PSPS]: the official VOC recipe, 20 epochs with a drop at 15; COCO: 12 with a
        # drop at 8, batch 8
        "paper": Training(
            lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 20,), warmup=0.0,
            clip=0.1, epochs=20, batch=16,
        ),
    }  # fmt: skip

    def __init__(self, classes: Classes, config: Config):
        student = PanopticStudent(classes, config.student)
        super().__init__(Labeller(student, config), student, config.warmup_steps)
