"""Point2Mask (ICCV 2023): a pseudo mask is part of the cheapest transport of points to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.nets.deformable_encoder import Memory
from pointseg.nets.label_heads import LabelMaps, pixel_net
from pointseg.nets.vit import IMAGENET_STD
from pointseg.ops.colour import shrunken, window
from pointseg.ops.paths import (
    StartCell,
    boundary_step,
    grid_cells,
    manifold_step,
    semantic_step,
    start_cells,
    undirected_steps,
)
from pointseg.ops.point_labels import SemanticMap, SemanticSize, likely_nearest, resized
from pointseg.ops.semantic_losses import boundary_loss, long_range_loss, manifold_loss
from pointseg.ops.transport import converged_potentials, sinkhorn
from pointseg.ops.tree import spanning_forest
from pointseg.ownership import NOBODY
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
from pointseg.structures import Batch, Classes, Loss, Points, Training
from pointseg.students.panoptic_segformer.network import STUDENTS, StudentConfig
from pointseg.students.panoptic_segformer.student import PanopticStudent

# Units are counted on a grid so many times finer than the paths'; the official code: every pixel.
COUNT_FINER = 4


@dataclass(frozen=True)
class Config:
    beta: float = 0.1  # [P2M Eq. 3], [P2M-S Tab. A3]
    manifold_weight: float = 0.1  # UNSTATED [P2M Eq. 3]: kept from PSPS in the official code
    # [P2M-S Eq. 2]; "converged" runs to the optimum, "none" stays with the nearest point
    solver: Literal["sinkhorn", "converged", "none"] = "sinkhorn"
    epsilon: float = 1e-3  # UNSTATED [P2M-S Eq. 1]: the official code
    rounds: int = 80  # [P2M-S Tab. A2]
    transport_from: int = (
        12_000  # step that ends stage A; UNSTATED [P2M Sec. 3.3]: VOC, COCO 60,000
    )
    path_stride: int = 16  # UNSTATED [P2M Sec. 3.3]: the official code
    start_cell: StartCell = "stride"  # UNSTATED [P2M Sec. 3.3]: int(y / 16) in the official code
    semantic_size: SemanticSize = "image"  # UNSTATED [P2M Sec. 3.3]: softmax, squares of the code
    point_side: float = 17.0  # UNSTATED [P2M Sec. 3.4]: the official code
    feature_width: int = 128  # UNSTATED [P2M]: the official code
    warmup_steps: int = 14_659  # UNSTATED [P2M]: inherited from PSPS in the official code
    semantic: SemanticHead = "queries"  # UNSTATED [P2M Sec. 3.4]: the official code; or CellClasses
    student: StudentConfig = field(default_factory=StudentConfig)


# DEVIATION [P2M Sec. 3.3]: small images get a finer path grid and smaller squares, on the map's own
# grid; few steps from random weights get a semantic head that learns from few
SMALL = Config(
    path_stride=4, start_cell="share", semantic_size="map", point_side=5.0, feature_width=32,
    warmup_steps=100, transport_from=160, semantic="cells", student=STUDENTS["small"],
)  # fmt: skip
CONFIGS = {
    "smoke": replace(SMALL, warmup_steps=2, transport_from=2, student=STUDENTS["smoke"]),
    "small": SMALL,
    # transport from the same share of all steps on as at scale small
    "photos": replace(SMALL, transport_from=600, student=STUDENTS["photos"]),
    "paper": Config(),
}


def pixel_to_point_cost(planes: Planes, config: Config) -> Tensor:
    """[8, (g,) h, w] price of each step, d(P^s) + beta d(P^b); a path costs its sum. [P2M Eq. 3]"""
    return undirected_steps(
        (semantic_step, planes.prob, 1.0),
        (boundary_step, planes.boundary, config.beta),
        (manifold_step, planes.features, config.manifold_weight),
    )


def centroids(owner: Tensor, points: Points, first: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, 2] (x, y) that each thing's units are counted from: its first cells' centre of mass.

    The point stays where the centre or the point itself lies outside them; owner [h, w] is the
    thing that owns a cell. UNSTATED [P2M Sec. 3.3]: the rule of the official code.
    """
    (rows, columns), (height, width) = owner.shape, size
    scale = points.xy.new_tensor([width / columns, height / rows])
    start, flat, rank = points.xy[first], owner.flatten(), torch.arange(len(first))
    cells = (flat != NOBODY).nonzero()[:, 0]
    coordinates = torch.stack([cells % columns, cells // columns], -1).to(scale.dtype)
    total = torch.zeros_like(start).index_add(0, flat[cells], coordinates)
    count = flat[cells].bincount(minlength=len(first)).clamp(min=1)
    middle = (total / count[:, None] + 0.5) * scale
    inside = [flat[grid_cells(xy, size, owner.shape)] == rank.to(xy.device)
              for xy in (start, middle)]  # fmt: skip
    return torch.where((inside[0] & inside[1])[:, None], middle, start)


def unit_numbers(paths: PathEvidence, counted: SemanticMap, config: Config) -> Tensor:
    """[n] how many units each thing supplies: cells of `counted` nearest to its centroid.

    Centroids change counts, never the cost. UNSTATED [P2M Sec. 3.3]: the official code's way.
    """
    grid, stuff = tuple(counted.prob.shape[-2:]), counted.stuff()
    likelihood = counted.likelihood(paths.label)
    before = likely_nearest(paths.distance_on(grid), *likelihood).masked_fill(stuff, NOBODY)
    centres = centroids(before, paths.things, paths.first, paths.size)
    cells = start_cells(centres, paths.size, paths.grid, config.path_stride, config.start_cell)
    after = likely_nearest(resized(paths.lengths_from(cells), grid), *likelihood)[~stuff]
    return after.bincount(minlength=len(paths.distance)).to(paths.distance.dtype)


def transported(distance: Tensor, units: Tensor, demand: Tensor, config: Config) -> Tensor:
    """[n] prices of sending `units` to cells that want `demand` [h, w] each. [P2M-S Eq. 1-3]

    DEVIATION [P2M-S Eq. 1]: solved on the path grid, where all the information is; only the n
    prices are needed at full size. Units are scaled to the whole demand.
    """
    wanting = demand > 0
    cost, wanted = distance[:, wanting], demand[wanting]
    units = units * (wanted.sum() / units.sum())
    if config.solver == "sinkhorn":
        return sinkhorn(cost, units, wanted, config.epsilon, config.rounds)
    return converged_potentials(cost, units, wanted, config.epsilon)


def tree_loss(maps: LabelMaps, batch: Batch, padding: Tensor | None) -> Tensor:
    """Sum over layers; one tree an image serves them all. [P2M-S Eq. 7]"""
    guide = shrunken(batch.images, maps.grid)
    # UNSTATED [P2M-S Eq. 6]: the official code's unit of RGB
    guide = guide / guide.new_tensor(IMAGENET_STD)[:, None, None]
    tree = spanning_forest(guide, padding=padding)
    return sum(long_range_loss(logits.softmax(1), tree, padding) for logits in maps.logits)


class Labeller(PathLabeller):
    """Path costs and the prices of transport."""

    ASSIGNING: ClassVar[tuple[str, ...]] = ("solver", "epsilon", "rounds", "transport_from")

    def __init__(self, student: PanopticStudent, config: Config):
        super().__init__(student, config)
        self.boundary = pixel_net(student.network.config.width, 1)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def maps(self, memory: Memory, joined: Tensor) -> LabelMaps:
        boundary = self.boundary(joined).float().sigmoid()
        return replace(super().maps(memory, joined), boundary=boundary)

    def step_prices(self, planes: Planes, images: Sequence[Tensor]) -> Tensor:
        return pixel_to_point_cost(planes, self.config)

    def price(self, paths: PathEvidence) -> Tensor:
        """[n] of transport; zero in stage A, whose plan is the nearest point's by construction."""
        (h, w), nearest = paths.grid, super().price(paths)
        waiting = self.step < self.config.transport_from or self.config.solver == "none"
        if waiting or len(nearest) < 2:
            return nearest
        counted = paths.semantic_on((COUNT_FINER * h, COUNT_FINER * w))
        demand = F.avg_pool2d((~counted.stuff()).float()[None], COUNT_FINER)[0]
        if not demand.any():
            return nearest
        units = unit_numbers(paths, counted, self.config)
        return transported(paths.distance, units, demand, self.config)

    def losses(
        self, evidence: PanopticEvidence, labels: PanopticLabels, batch: Batch
    ) -> dict[str, Tensor]:
        maps, padding = evidence.maps, evidence.padding
        return point_losses(maps, batch, self.config.point_side) | {
            "colour": colour_loss(maps, batch, window(1, 1), padding),
            "tree": tree_loss(maps, batch, padding),
            "manifold": manifold_loss(maps.features, labels.point_masks(maps.grid)),
            "boundary": boundary_loss(maps.boundary, labels.on_grid(maps.grid), padding),
        }


class Point2Mask(PointSupervised):
    """images and points -> panoptic maps."""

    KEY: ClassVar[str] = "P2M"
    TASK: ClassVar[str] = "panoptic"
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    FIRST_STAGE: ClassVar[tuple[str, ...]] = (*STUDENT_PARTS, "labeller.semantic")
    # UNSTATED [P2M Sec. 3.4]: weights, shares and ramps are the official code's
    LOSSES: ClassVar[dict[str, Loss]] = {
        "point": Loss(1.0, share="things"),
        "presence": Loss(2.0, share="things"),
        "colour": Loss(3.0, share="things"),
        "tree": Loss(3.0, share="things", ramped=True),
        "manifold": Loss(1.0),
        "boundary": Loss(1.0, ramped=True),
        **ramped_student_losses(),
    }
    ANSWER = PanopticAnswer(
        cost="cheapest path over class and boundary changes",
        price="dual prices of optimal transport",
        refusal="void where no class is sure",
        teachers="points, colour, manifold, tree, boundary",
    )
    PROPERTIES: ClassVar[tuple[str, ...]] = LABEL_PROPERTIES
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=400, batch=16),
        "photos": Training(lr=2e-3, weight_decay=1e-2, steps=1500, batch=16),
        # UNSTATED [P2M Sec. 4.1]: the official VOC recipe, drops at 15 and 20 of 24; COCO: 15
        # epochs, lr 2e-4, batch 16
        "paper": Training(
            lr=1e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 24, 20 / 24), warmup=0.0,
            clip=0.1, epochs=24, batch=8,
        ),
    }  # fmt: skip

    def __init__(self, classes: Classes, config: Config):
        student = PanopticStudent(classes, config.student)
        super().__init__(Labeller(student, config), student, config.warmup_steps)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        self.labeller.step.fill_(step)
        return super().losses(batch, step)
