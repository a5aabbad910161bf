"""What the panoptic papers share beside their students: heads, what points teach, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from pointseg.nets.label_heads import CellClasses, LabelMaps, QueriedClasses
from pointseg.ops.colour import rgb_to_lab, shrunken
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

    def targets(self, batch: Batch) -> PanopticTargets:
        return PanopticTargets([panoptic_target(i, self.canvas, self.things) for i in self.images])

    def pseudo_labels(self) -> list[Panoptic]:
        return [image.as_panoptic() for image in self.images]

    def on_grid(self, grid: tuple[int, int]) -> PseudoLabel:
        """Labels [b, h, w] at the cells of a grid over the canvas."""
        coarse = [image.on_grid(self.canvas, grid) for image in self.images]
        things, stuff = (
            torch.stack([getattr(c, kind) for c in coarse]) for kind in ("things", "stuff")
        )
        return PseudoLabel(things, stuff)

    def point_masks(self, grid: tuple[int, int]) -> list[PointMasks]:
        return [image.point_masks(self.canvas, grid) for image in self.images]


def panoptic_target(image: LabelledImage, canvas: tuple[int, int], things: int) -> PanopticTarget:
    """What the student learns of one image, on the padded canvas."""
    label, (h, w) = image.on_canvas(canvas), image.label.things.shape
    rows = torch.arange(len(image.thing_label), device=label.things.device)
    masks = label.things == rows[:, None, None]
    known = torch.zeros(canvas, dtype=torch.bool, device=masks.device)
    known[:h, :w] = True
    stuff = torch.where(label.stuff == IGNORE, IGNORE, label.stuff - things)
    return PanopticTarget(masks, image.thing_label, centred_boxes(masks), stuff, known)
