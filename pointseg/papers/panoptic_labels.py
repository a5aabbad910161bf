"""What the panoptic papers share beside their students: heads, what points teach, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.label_heads import CellClasses, LabelMaps, QueriedClasses
from pointseg.ops.colour import rgb_to_lab, shrunken
from pointseg.ops.paths import grid_cells
from pointseg.ops.point_labels import LabelledImage
from pointseg.ops.semantic_losses import (
    PointMasks,
    PseudoLabel,
    dilated_points,
    local_colour_loss,
    partial_cross_entropy,
    presence_loss,
)
from pointseg.structures import IGNORE, Answer, Batch, Loss, Panoptic
from pointseg.students.panoptic_segformer.losses import LOSSES as STUDENT_LOSSES
from pointseg.students.panoptic_segformer.losses import (
    PanopticTarget,
    PanopticTargets,
    centred_boxes,
)
from pointseg.students.panoptic_segformer.student import PanopticStudent

SemanticHead = Literal["queries", "cells"]  # of the official codes, or CellClasses
# A row of the design table: the labellers differ, the student is one.
PanopticAnswer = partial(
    Answer, supervision="1 or 10 points a segment", student="Panoptic SegFormer"
)
STUDENT_PARTS = ("student.network.backbone", "student.network.encoder")  # of a first stage


# What one test holds for every method that declares it (tests/test_declarations.py).
LABEL_PROPERTIES = (
    "points keep their own pixel",
    "no target of a point is empty",
    "labels use only the points' classes",
    "no gradient through assign",
    "at a price of zero the nearest owns",
    "a constant on all prices changes no label",
)


def ramped_student_losses() -> dict[str, Loss]:
    """The student's table, in which all but the class of a location grow during warm-up."""
    return {name: replace(loss, ramped=name != "location_class")
            for name, loss in STUDENT_LOSSES.items()}  # fmt: skip


def semantic_head(student: PanopticStudent, kind: SemanticHead) -> nn.Module:
    """From the student's memory to class logits, and how far each class is present."""
    classes, network = len(student.classes), student.network
    if kind == "cells":
        return CellClasses(network.config.width, classes)
    return QueriedClasses(network.class_queries(classes))


def point_losses(maps: LabelMaps, batch: Batch, point_side: float) -> dict[str, Tensor]:
    """What the points alone teach the semantic map; sums over layers."""
    canvas = tuple(batch.images.shape[-2:])
    grown = dilated_points(batch.points, (len(batch), *maps.grid), point_side, canvas)
    point = sum(partial_cross_entropy(logits, grown) for logits in maps.logits)
    return {"point": point, "presence": presence_loss(maps.presence, batch.points)}


def colour_loss(
    maps: LabelMaps, batch: Batch, offsets: Sequence[tuple[int, int]], padding: Tensor | None
) -> Tensor:
    """What neighbours of one colour teach it; a sum over layers."""
    lab = rgb_to_lab(shrunken(batch.images, maps.grid))
    return sum(
        local_colour_loss(logits.log_softmax(1), lab, offsets, padding) for logits in maps.logits
    )


@dataclass(frozen=True)
class PanopticLabels:
    """Which target owns each pixel of a batch of images."""

    images: list[LabelledImage]
    canvas: tuple[int, int]
    things: int  # how many classes are things

    @cached_property
    def planes(self) -> PseudoLabel:
        """Labels [b, H, W] on the padded canvas."""
        labels = [image.on_canvas(self.canvas) for image in self.images]
        return PseudoLabel(torch.stack([label.things for label in labels]),
                           torch.stack([label.stuff for label in labels]))  # fmt: skip

    @cached_property
    def thing_masks(self) -> list[Tensor]:
        """[n, H, W] bool of each image's things on the canvas."""
        counts = [len(image.thing_label) for image in self.images]
        rows = torch.arange(max(counts), device=self.planes.things.device)[:, None, None]
        return [plane == rows[:count] for plane, count in zip(self.planes.things, counts)]

    def targets(self, batch: Batch) -> PanopticTargets:
        masks, planes = self.thing_masks, self.planes
        boxes = centred_boxes(torch.cat(masks)).split([len(each) for each in masks])
        stuff = torch.where(planes.stuff == IGNORE, IGNORE, planes.stuff - self.things)
        known = torch.zeros_like(stuff, dtype=torch.bool)
        for plane, image in zip(known, self.images):
            h, w = image.label.things.shape
            plane[:h, :w] = True
        labels = [image.thing_label for image in self.images]
        return PanopticTargets(list(map(PanopticTarget, masks, labels, boxes, stuff, known)))

    def pseudo_labels(self) -> list[Panoptic]:
        return [image.as_panoptic() for image in self.images]

    def on_grid(self, grid: tuple[int, int]) -> PseudoLabel:
        """Labels [b, h, w] at the cells of a grid over the canvas: of the pixel in the middle of
        each."""
        things, stuff = self.planes.things, self.planes.stuff
        row, column = ((torch.arange(n, device=things.device) * side + side // 2) // n
                       for n, side in zip(grid, self.canvas))  # fmt: skip
        return PseudoLabel(things[:, row[:, None], column], stuff[:, row[:, None], column])

    def point_masks(self, grid: tuple[int, int]) -> list[PointMasks]:
        """Points and the masks of all their targets on a grid over the canvas, of each image."""
        rows = zip(self.thing_masks, self.planes.stuff, self.images)
        masks = [torch.cat([things, stuff == image.stuff_label[:, None, None]])
                 for things, stuff, image in rows]  # fmt: skip
        coarse = on_cells(torch.cat(masks), grid).split([len(each) for each in masks])
        points = [image.points.xy for image in self.images]
        cells = grid_cells(torch.cat(points), self.canvas, grid).split([len(xy) for xy in points])
        for each, at, image in zip(coarse, cells, self.images):
            each.flatten(1)[image.owner, at] = True
        return [PointMasks(at, image.owner, each)
                for at, image, each in zip(cells, self.images, coarse)]  # fmt: skip


def on_cells(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """[n, h, w] bool: masks [n, H, W] on a coarser grid, of the nearest pixel."""
    if not len(masks):
        return masks.new_zeros(0, *grid)
    return F.interpolate(masks[None].float(), size=grid)[0] > 0.5
