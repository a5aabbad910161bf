"""A panoptic student with a label branch beside it, as PSPS and Point2Mask train them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.nets.deformable_encoder import Memory
from pointseg.ops.colour import rgb_to_lab, shrunken
from pointseg.ops.point_labels import ImageMaps, LabelledImage, LabelMaps
from pointseg.ops.semantic_losses import (
    dilated_points,
    local_colour_loss,
    manifold_loss,
    partial_cross_entropy,
    presence_loss,
)
from pointseg.papers.label_branch import LabelBranch
from pointseg.structures import Batch, Points
from pointseg.students.panoptic_segformer.losses import thing_share
from pointseg.students.panoptic_segformer.network import PanopticSegFormer
from pointseg.students.panoptic_segformer.training import canvas_padding, student_losses

Labeller = Callable[
    [ImageMaps, Tensor, Points], LabelledImage
]  # maps, image [3, h, w] and points of one image


@dataclass(frozen=True)
class Reading:
    """A batch as the branch sees it."""

    batch: Batch
    memory: Memory
    maps: LabelMaps

    @property
    def canvas(self) -> tuple[int, int]:
        return tuple(self.batch.images.shape[-2:])

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(self.maps.logits.shape[-2:])

    @property
    def padding(self) -> Tensor | None:
        """[b, h, w] bool on the grid."""
        return self.memory.padding_of(0)


@dataclass(frozen=True)
class PointPanoptic:
    """Backbone and encoder feed two branches; only the student is used after training."""

    student: PanopticSegFormer
    branch: LabelBranch

    def read(self, batch: Batch) -> Reading:
        padding = canvas_padding(batch.sizes, batch.images.shape[-2:], batch.images.device)
        memory = self.student.encode(batch.images, padding)
        return Reading(batch, memory, self.branch(memory))

    @torch.no_grad()
    def label_each(self, reading: Reading, labeller: Labeller) -> list[LabelledImage]:
        """The pseudo label of every image; nothing flows back through it."""
        labels = []
        for row, ((h, w), points) in enumerate(zip(reading.batch.sizes, reading.batch.points)):
            maps, image = (
                reading.maps.of_image(row, (h, w), reading.canvas),
                reading.batch.images[row, :, :h, :w],
            )
            labels.append(
                labeller(maps, image, points) if len(points) else LabelledImage.void((h, w), points)
            )
        return labels

    def point_losses(self, reading: Reading, point_side: float) -> dict[str, Tensor]:
        """Sums over layers of what the points say of the semantic map; no weights yet."""
        batch, maps = reading.batch, reading.maps
        grown = dilated_points(
            batch.points, (len(batch), *reading.grid), point_side, reading.canvas
        )
        point = sum(partial_cross_entropy(logits, grown) for logits in maps.logits)
        return {"point": point, "presence": presence_loss(maps.presence, batch.points)}

    def semantic_losses(
        self, reading: Reading, point_side: float, offsets: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """The same, and what neighbouring colours say."""
        lab, logits = rgb_to_lab(shrunken(reading.batch.images, reading.grid)), reading.maps.logits
        colour = sum(
            local_colour_loss(z.log_softmax(1), lab, offsets, reading.padding) for z in logits
        )
        return self.point_losses(reading, point_side) | {"colour": colour}

    def manifold_loss(self, reading: Reading, labels: list[LabelledImage]) -> Tensor:
        placed = [label.on_grid(reading.canvas, reading.grid) for label in labels]
        return manifold_loss(reading.maps.features, *zip(*placed))

    def student_losses(
        self, reading: Reading, labels: list[LabelledImage]
    ) -> tuple[dict[str, Tensor], float]:
        """The student's losses on the pseudo labels, weighted, and the share of things among the targets."""
        targets = [label.as_target(reading.canvas, self.student.things) for label in labels]
        seen = self.student(reading.memory)
        return student_losses(self.student, seen, targets, reading.batch.image_ids), thing_share(
            targets
        )
