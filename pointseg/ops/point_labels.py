"""From a semantic map and distances to labels of an image: what PSPS and Point2Mask share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.semantic_losses import PseudoLabel, dilated_points
from pointseg.ownership import NOBODY, owner
from pointseg.structures import IGNORE, Panoptic, Points

# Where logits become probabilities and squares about points are drawn: on the logits' own grid, in
# which a cell is of the class of its nearest point; or at the image's size, each class for itself,
# as the official codes do.
SemanticSize = Literal["map", "image"]


@dataclass(frozen=True)
class SemanticMap:
    """P^s: probabilities of the classes that have a point in this image, and of no other."""

    prob: Tensor  # [P, h, w]
    classes: Tensor  # [P] rising, so things come first
    things: int  # how many of all classes are things

    def enlarged(self, size: tuple[int, int]) -> SemanticMap:
        return replace(self, prob=resized(self.prob, size))

    @cached_property
    def best(self) -> tuple[Tensor, Tensor]:
        """[h, w] largest probability and the class that has it."""
        largest = self.prob.max(0)
        return largest.values, self.classes[largest.indices]

    def stuff(self) -> Tensor:
        """[h, w] bool: the map prefers a stuff class."""
        return self.best[1] >= self.things

    def stuff_target(self, sure: float = 0.5) -> Tensor:
        """[h, w] stuff class where the map is sure of one, IGNORE elsewhere.

        UNSTATED [PSPS]: the official code's 0.5.
        """
        certainty, label = self.best
        return torch.where((certainty >= sure) & (label >= self.things), label, IGNORE)

    def likelihood(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """[K, h, w] how likely each thing class here or any stuff is, and each target's row [n].

        UNSTATED [PSPS]: the official code's weight of a target.
        """
        stuff = self.classes >= self.things
        return self.prob[~stuff] + self.prob[stuff].sum(0), torch.searchsorted(self.classes, label)


def semantic_map(logits: Tensor, classes: Tensor, certain: Tensor, things: int) -> SemanticMap:
    """P^s of classes [P] from logits [C, h, w]; `certain` [P, h, w] where each grows from a point.

    UNSTATED [P2M Sec. 3.3], [PSPS]: the softmax runs over all classes and is not normalised again
    over those present, as in the official codes.
    """
    prob = torch.maximum(logits.softmax(0)[classes], certain.to(logits.dtype))
    return SemanticMap(prob, classes, things)


def point_semantics(logits: Tensor, points: Points, things: int, size: tuple[int, int],
                    side: float, at: SemanticSize) -> SemanticMap:  # fmt: skip
    """P^s of logits [C, h, w] of an image of `size`, certain in squares of `side` about points."""
    classes = points.label.unique()
    if at == "map":
        grown = dilated_points([points], (1, *logits.shape[-2:]), side, size)[0]
        return semantic_map(logits, classes, grown == classes[:, None, None], things)
    kinds = [points.pick(points.label == c) for c in classes]
    grown = dilated_points(kinds, (len(kinds), *size), side, size)
    return semantic_map(resized(logits, size), classes, grown != IGNORE, things)


def likelihood_cost(distance: Tensor, likelihood: Tensor, row: Tensor) -> Tensor:
    """[n, h, w] - (1 - D_i / max D) times the likelihood of i's class.

    distance [n, h, w], likelihood [K, h, w], row [n] of it for each target. UNSTATED [PSPS]: the
    official code.
    """
    if not len(row):
        return distance
    return (distance / distance.max().clamp(min=1e-12) - 1) * likelihood[row]


def likely_nearest(distance: Tensor, likelihood: Tensor, row: Tensor) -> Tensor:
    """[h, w] the owner by path and class together."""
    return owner(likelihood_cost(distance, likelihood, row))


def resized(plane: Tensor, grid: tuple[int, int]) -> Tensor:
    """[c, h, w] on another grid, bilinear without anti-aliasing, as the official codes do."""
    if not len(plane):
        return plane.new_zeros(0, *grid)
    if plane.shape[-2:] == grid:
        return plane.float()
    return F.interpolate(plane[None].float(), size=grid, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True)
class LabelledImage:
    """A pseudo label at image size with its points: no target of a point is ever empty."""

    label: PseudoLabel
    points: Points
    owner: Tensor  # [m] target of each point: rows of `thing_label`, then one a stuff class
    thing_label: Tensor  # [n]
    stuff_label: Tensor  # [s] stuff classes with a point, in order of first point

    @classmethod
    def of(cls, label: PseudoLabel, points: Points) -> LabelledImage:
        """Every point's own pixel is written into the label."""
        rows = target_rows(points)
        things, stuff = label.things.clone(), label.stuff.clone()
        h, w = things.shape
        column, row = points.xy[:, 0].long().clamp(0, w - 1), points.xy[:, 1].long().clamp(0, h - 1)
        things[row, column] = torch.where(points.is_thing, rows, NOBODY)
        stuff[row, column] = torch.where(points.is_thing, IGNORE, points.label)
        labels = points.label.new_zeros(int(rows.max()) + 1 if len(rows) else 0)
        labels[rows] = points.label
        count = int(rows[points.is_thing].max()) + 1 if points.is_thing.any() else 0
        return cls(PseudoLabel(things, stuff), points, rows, labels[:count], labels[count:])

    @classmethod
    def void(cls, size: tuple[int, int], points: Points) -> LabelledImage:
        """Nothing but the points themselves."""
        planes = (torch.full(size, fill, device=points.xy.device) for fill in (NOBODY, IGNORE))
        return cls.of(PseudoLabel(*planes), points)

    def as_panoptic(self) -> Panoptic:
        """Things first, then one segment a stuff class, both in the order of first points."""
        segments, n = self.label.things + 1, len(self.thing_label)
        held = [c for c in self.label.stuff.unique().tolist() if c != IGNORE]
        classes = list(dict.fromkeys([*self.stuff_label.tolist(), *held]))
        for k, c in enumerate(classes):
            segments[(self.label.stuff == c) & (self.label.things < 0)] = n + 1 + k
        return Panoptic(
            segments, torch.cat([self.thing_label, self.thing_label.new_tensor(classes)])
        )

    def on_canvas(self, canvas: tuple[int, int]) -> PseudoLabel:
        """The label on the padded canvas."""
        h, w = self.label.things.shape
        margin = (0, canvas[1] - w, 0, canvas[0] - h)
        return PseudoLabel(
            F.pad(self.label.things, margin, value=NOBODY),
            F.pad(self.label.stuff, margin, value=IGNORE),
        )


def target_rows(points: Points) -> Tensor:
    """[m] row of each point's target: things in order of appearance, then stuff classes."""
    rows, thing = torch.zeros_like(points.target), points.is_thing
    rows[thing] = _appearance(points.target[thing])
    things = int(rows.max()) + 1 if thing.any() else 0
    rows[~thing] = things + _appearance(points.label[~thing])
    return rows


def _appearance(values: Tensor) -> Tensor:
    """[m] which distinct value each is, counted in order of first appearance."""
    order = {value: k for k, value in enumerate(dict.fromkeys(values.tolist()))}
    return values.new_tensor([order[value] for value in values.tolist()])
