"""Point2Mask (ICCV 2023): a pseudo mask is a part of the cheapest transport from points to pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.nets.vit import IMAGENET_STD
from pointseg.ops.colour import shrunken, window
from pointseg.ops.paths import (
    boundary_step,
    grid_cells,
    manifold_step,
    path_grid,
    semantic_step,
    shortest_paths,
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
from pointseg.ops.semantic_losses import PseudoLabel, boundary_loss, dilated_points, long_range_loss
from pointseg.ops.transport import cheapest_supplier, converged_potentials, sinkhorn
from pointseg.ops.tree import spanning_forest
from pointseg.papers.panoptic_ground import SMALL_CONFIDENCE, LabellingMethod
from pointseg.papers.point_panoptic import Reading
from pointseg.structures import Batch, Points, Training

# UNSTATED [P2M Sec. 3.4]: the official code's. RAMPED losses, and the student's, grow from 0 during warm-up.
WEIGHTS = {
    "point": 1.0,
    "presence": 2.0,
    "colour": 3.0,
    "tree": 3.0,
    "manifold": 1.0,
    "boundary": 1.0,
}
RAMPED = (
    "tree",
    "boundary",
    "location_l1",
    "location_giou",
    "thing_dice",
    "stuff_class",
    "stuff_dice",
)
COUNT_FINER = 4  # units are counted on a grid so many times finer than the paths'; the official code: every pixel
UNSHARED = ("manifold", "boundary")  # not multiplied by the share of things


@dataclass(frozen=True)
class Config:
    beta: float = 0.1  # [P2M Eq. 3], [P2M-S Tab. A3]
    manifold_weight: float = 0.1  # UNSTATED [P2M Eq. 3]: kept from PSPS in the official code
    solver: str = "sinkhorn"  # [P2M-S Eq. 2]; "converged" runs to the optimum, "none" stays with the nearest point
    epsilon: float = 1e-3  # UNSTATED [P2M-S Eq. 1]: the official code
    rounds: int = 80  # [P2M-S Tab. A2]
    transport_from: int = (
        12_000  # steps of stage A; UNSTATED [P2M Sec. 3.3]: the official VOC run, COCO 60,000
    )
    path_stride: int = 16  # UNSTATED [P2M Sec. 3.3]: the official code
    point_side: float = 17.0  # UNSTATED [P2M Sec. 3.4]: the official code
    feature_width: int = 128  # UNSTATED [P2M]: the official code
    warmup_steps: int = 14_659  # UNSTATED [P2M]: inherited from PSPS in the official code
    semantic: Literal["queries", "cells"] = (
        "queries"  # UNSTATED [P2M Sec. 3.4]: the official code; or see CellClasses
    )
    backbone: str = ""  # "" is the scale's own: ResNet-50 at scale paper
    neck: str = ""  # "" is the scale's own
    queries: int = 0  # 0 is the scale's own
    pretrained: bool = True
    confidence: float = 0.25  # UNSTATED [PSF Alg. 1]: the official code
    candidates: int = 100  # UNSTATED [PSF Sec. 3.6]: the official code


# DEVIATION [P2M Sec. 3.3]: small pictures get a finer path grid and smaller squares; few steps from random weights
# get a semantic head that learns from few
SMALL = Config(path_stride=4, point_side=5.0, feature_width=32, warmup_steps=100, transport_from=160, semantic="cells",
               candidates=20, confidence=SMALL_CONFIDENCE)  # fmt: skip
CONFIGS = {
    "smoke": replace(SMALL, warmup_steps=2, transport_from=2),
    "small": SMALL,
    "paper": Config(),
}


def pixel_to_point_cost(prob: Tensor, boundary: Tensor, features: Tensor, config: Config) -> Tensor:
    """[8, h, w] price of each step, d(P^s) + beta d(P^b); the cost is the cheapest path's. [P2M Eq. 3]"""
    return undirected_steps((semantic_step, prob, 1.0), (boundary_step, boundary, config.beta),
                            (manifold_step, features, config.manifold_weight))  # fmt: skip


def centroids(owner: Tensor, points: Points, first: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, 2] (x, y) where each thing's units are counted from: its first assignment's centre of mass.

    The point stays where the centre or the point itself lies outside that assignment. owner [h, w] row of the thing
    that holds a cell, -1 for none. UNSTATED [P2M Sec. 3.3]: the rule of the official code.
    """
    (rows, columns), (height, width) = owner.shape, size
    scale = points.xy.new_tensor([width / columns, height / rows])
    start = points.xy[first]
    flat, out = owner.flatten(), start.clone()
    held = flat[grid_cells(start, size, owner.shape)]
    for k in range(len(first)):
        cells = (flat == k).nonzero()[:, 0]
        if len(cells) and held[k] == k:
            middle = (
                torch.stack([cells % columns, cells // columns], -1).to(scale.dtype).mean(0) + 0.5
            )
            inside = flat[grid_cells((middle * scale)[None], size, owner.shape)] == k
            out[k] = torch.where(inside, middle * scale, start[k])
    return out


def unit_numbers(prices: Tensor, distance: Tensor, semantic: SemanticMap, things: Points, first: Tensor,
                 size: tuple[int, int]) -> Tensor:  # fmt: skip
    """[n] how many units each thing supplies: cells nearest to its centroid. UNSTATED [P2M Sec. 3.3]: the code's way.

    distance [n, h', w'] on the path grid; counted on the grid of `semantic`. Centroids change counts, never the cost.
    """
    grid, stuff = semantic.prob.shape[-2:], semantic.stuff()
    likelihood = semantic.likelihood(things.label[first])
    before = torch.where(stuff, -1, likely_nearest(resized(distance, grid), *likelihood))
    centres = centroids(before, things, first, size)
    again = shortest_paths(prices, grid_cells(centres, size, distance.shape[-2:]))
    after = likely_nearest(resized(again, grid), *likelihood)[~stuff]
    return after.bincount(minlength=len(distance)).to(distance.dtype)


def transported(distance: Tensor, units: Tensor, demand: Tensor, config: Config) -> Tensor:
    """[n] supplier potentials of sending `units` to cells that want `demand` [h, w] each. [P2M-S Eq. 1-3]

    DEVIATION [P2M-S Eq. 1]: solved on the path grid, where all the information is; only the n potentials are needed
    at full size. Units are scaled to the whole demand.
    """
    wanting = demand > 0
    cost, wanted = distance[:, wanting], demand[wanting]
    units = units * (wanted.sum() / units.sum())
    if config.solver == "sinkhorn":
        return sinkhorn(cost, units, wanted, config.epsilon, config.rounds)
    return converged_potentials(cost, units, wanted, config.epsilon)


class Point2Mask(LabellingMethod):
    """images and points -> panoptic maps."""

    KEY: ClassVar[str] = "P2M"
    CONFIGS = CONFIGS
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, clip=1.0, steps=400, batch=16),
        # UNSTATED [P2M Sec. 4.1]: the official VOC recipe, drops at 15 and 20 of 24; COCO: 15 epochs, lr 2e-4, batch 16
        "paper": Training(lr=1e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 24, 20 / 24), warmup=0.0,
                          clip=0.1, epochs=24, batch=8),
    }  # fmt: skip

    def __init__(self, things: int, stuff: int, scale: str, config: Config):
        super().__init__(things, stuff, scale, config, boundary=True)
        self.register_buffer("steps_seen", torch.zeros((), dtype=torch.long))

    def label_image(self, maps: ImageMaps, image: Tensor, points: Points) -> LabelledImage:
        """The pseudo label of one image [3, H, W] without padding; transport once stage A is over."""
        size, c = tuple(image.shape[-2:]), self.config
        grown = dilated_points([points], (1, *maps.logits.shape[-2:]), c.point_side, size)[0]
        semantic = semantic_map(maps.logits, points, grown, self.things)
        fine, things = semantic.enlarged(size), points.things()
        stuff = fine.stuff_target()
        if not len(things):
            return LabelledImage.of(PseudoLabel(torch.full_like(stuff, -1), stuff), points)
        grid = path_grid(size, c.path_stride)
        features = F.normalize(resized(maps.features, grid), dim=0)
        prices = pixel_to_point_cost(
            semantic.enlarged(grid).prob, resized(maps.boundary, grid), features, c
        )
        distance, first = target_distances(prices, things, size)
        u = self.potentials(prices, distance, semantic, things, first, size)
        owner = cheapest_supplier(resized(distance, size), u)
        return LabelledImage.of(PseudoLabel(torch.where(fine.stuff(), -1, owner), stuff), points)

    def potentials(self, prices: Tensor, distance: Tensor, semantic: SemanticMap, things: Points, first: Tensor,
                   size: tuple[int, int]) -> Tensor:  # fmt: skip
        """[n] supplier potentials: zero in stage A, whose plan is the nearest point's by construction."""
        stage_a = self.steps_seen < self.config.transport_from or self.config.solver == "none"
        grid = distance.shape[-2:]
        counted = semantic.enlarged((COUNT_FINER * grid[0], COUNT_FINER * grid[1]))
        demand = F.avg_pool2d((~counted.stuff()).float()[None], COUNT_FINER)[0]
        if stage_a or len(distance) == 1 or not demand.any():
            return distance.new_zeros(len(distance))
        return transported(
            distance,
            unit_numbers(prices, distance, counted, things, first, size),
            demand,
            self.config,
        )

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        self.steps_seen.fill_(step)
        reading = self.net.read(batch)
        labels = self.net.label_each(reading, self.label_image)
        losses = self.net.semantic_losses(reading, self.config.point_side, window(1, 1))
        losses["tree"] = self.tree_loss(reading)
        losses["manifold"] = self.net.manifold_loss(reading, labels)
        losses["boundary"] = self.boundary_loss(reading, labels)
        student, share = self.net.student_losses(reading, labels)
        weighted = {
            name: WEIGHTS[name] * (1 if name in UNSHARED else share) * loss
            for name, loss in losses.items()
        }
        ramp = min(1.0, step / max(1, self.config.warmup_steps))
        return {
            name: loss * (ramp if name in RAMPED else 1)
            for name, loss in (weighted | student).items()
        }

    def tree_loss(self, reading: Reading) -> Tensor:
        """Sum over layers; one tree an image serves them all. [P2M-S Eq. 7]"""
        guide = shrunken(reading.batch.images, reading.grid)
        guide = (
            guide / guide.new_tensor(IMAGENET_STD)[:, None, None]
        )  # UNSTATED [P2M-S Eq. 6]: the code's unit of RGB
        tree = spanning_forest(guide, padding=reading.padding)
        return sum(
            long_range_loss(logits.softmax(1), tree, reading.padding)
            for logits in reading.maps.logits
        )

    def boundary_loss(self, reading: Reading, labels: list[LabelledImage]) -> Tensor:
        coarse = [label.pseudo_on_grid(reading.canvas, reading.grid) for label in labels]
        return boundary_loss(reading.maps.boundary, coarse, reading.padding)
