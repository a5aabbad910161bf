"""Pointly-Supervised Panoptic Segmentation (ECCV 2022): a pixel is its cheapest path's point's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.nets.label_heads import ImageMaps, joined_levels, pixel_net
from pointseg.ops.colour import colour_edges, window
from pointseg.ops.paths import (
    StartCell,
    entering_steps,
    manifold_step,
    nearest_of_each,
    path_grid,
    semantic_step,
    shortest_paths,
    start_cells,
    undirected_steps,
)
from pointseg.ops.point_labels import (
    LabelledImage,
    SemanticSize,
    likelihood_cost,
    point_semantics,
    resized,
)
from pointseg.ops.semantic_losses import manifold_loss
from pointseg.papers.method import PointSupervised
from pointseg.papers.panoptic_labels import (
    LABEL_PROPERTIES,
    STUDENT_PARTS,
    PanopticEvidence,
    PanopticLabels,
    PathEvidence,
    SemanticHead,
    colour_loss,
    point_losses,
    ramped_student_losses,
    semantic_head,
)
from pointseg.structures import Answer, Batch, Category, Classes, Loss, Points, Training, replaced
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
    "paper": Config(),
}


def traversing_cost(prob: Tensor, features: Tensor, edges: Tensor, config: Config) -> Tensor:
    """[8, h, w] price of each step: change of class and of feature, colour edge entered."""
    moving = undirected_steps(
        (semantic_step, prob, 1.0), (manifold_step, features, config.manifold_weight)
    )
    return moving + config.edge_weight * entering_steps(edges)


class Labeller(nn.Module):
    """Cheapest paths from points, weighted by class likelihood."""

    def __init__(self, student: PanopticStudent, config: Config):
        super().__init__()
        network = student.network.config
        self.config, self.things, self.levels = config, student.classes.things, network.mask_levels
        self.semantic = semantic_head(student, config.semantic)
        self.features = pixel_net(network.width, config.feature_width)

    def evidence(self, features: Memory, batch: Batch) -> PanopticEvidence:
        joined = joined_levels(features, self.levels).detach()
        manifold = F.normalize(self.features(joined).float(), dim=1)
        maps = replace(self.semantic(features), features=manifold)
        return PanopticEvidence.of(maps, features, batch, self.paths)

    @torch.no_grad()
    def paths(self, maps: ImageMaps, image: Tensor, points: Points) -> PathEvidence:
        """What there is to see in one image [3, H, W] without padding."""
        size, c, things = tuple(image.shape[-2:]), self.config, points.things()
        semantic = point_semantics(
            maps.logits, points, self.things, size, c.point_side, c.semantic_size
        )
        grid = path_grid(size, c.path_stride)
        features = F.normalize(resized(maps.features, grid), dim=0)
        edges = colour_edges(image, grid)
        prices = traversing_cost(semantic.enlarged(grid).prob, features, edges, c)
        cells = start_cells(things.xy, size, grid, c.path_stride, c.start_cell)
        distance, first = nearest_of_each(shortest_paths(prices, cells), things.target)
        return PathEvidence(size, semantic, prices, things, distance, first)

    @torch.no_grad()
    def assign(self, evidence: PanopticEvidence, batch: Batch) -> PanopticLabels:
        return PanopticLabels.of(evidence, batch, self.things, self.label_paths)

    def label_image(self, maps: ImageMaps, image: Tensor, points: Points) -> LabelledImage:
        """The pseudo label of one image [3, H, W] without padding, from its maps."""
        return self.label_paths(self.paths(maps, image, points), points)

    def label_paths(self, paths: PathEvidence, points: Points) -> LabelledImage:
        return paths.labelled(self.cost(paths), self.price(paths), points)

    def cost(self, paths: PathEvidence) -> Tensor:
        """[n, H, W] path lengths against class likelihood."""
        distance = resized(paths.distance, paths.size)
        return likelihood_cost(distance, *paths.fine.likelihood(paths.label))

    def price(self, paths: PathEvidence) -> Tensor:
        """[n] zero."""
        return paths.distance.new_zeros(len(paths.distance))

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
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("val", "labels")
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
    ANSWER = Answer(
        cost="cheapest path over colour, class and feature changes, weighted by class likelihood",
        price="0",
        refusal="void where no class is sure",
        teachers="points, colour, manifold",
        supervision="1 or 10 points a segment",
        student="Panoptic SegFormer",
    )
    PROPERTIES: ClassVar[tuple[str, ...]] = LABEL_PROPERTIES
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=400, batch=16),
        # UNSTATED [PSPS]: the official VOC recipe, 20 epochs with a drop at 15; COCO: 12 with a
        # drop at 8, batch 8
        "paper": Training(
            lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 20,), warmup=0.0,
            clip=0.1, epochs=20, batch=16,
        ),
    }  # fmt: skip

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        return cls(Classes.of(categories), replaced(CONFIGS[scale], overrides))

    def __init__(self, classes: Classes, config: Config):
        student = PanopticStudent(classes, config.student)
        super().__init__(Labeller(student, config), student, config.warmup_steps)
