"""From a semantic map and distances to the targets of a panoptic student; what PSPS and Point2Mask share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.paths import grid_cells
from pointseg.ops.semantic_losses import PseudoLabel
from pointseg.structures import IGNORE, Panoptic, Points
from pointseg.students.panoptic_segformer.losses import PanopticTarget, centred_boxes


@dataclass(frozen=True)
class LabelMaps:
    """What a label branch says of a batch, on one grid over the padded canvas."""

    logits: Tensor  # [l, b, C, h, w] of every layer, all classes: things, then stuff
    presence: Tensor  # [l, b, C]
    features: Tensor  # [b, D, h, w], of unit length
    boundary: Tensor | None  # [b, 1, h, w] in 0..1, where the method has one

    def of_image(self, row: int, size: tuple[int, int], canvas: tuple[int, int]) -> ImageMaps:
        """The last layer's maps of one image, detached and without padding."""
        grid = self.logits.shape[-2:]
        h, w = (
            max(1, round(part * cells / whole)) for part, cells, whole in zip(size, grid, canvas)
        )
        boundary = None if self.boundary is None else self.boundary[row, :, :h, :w].detach()
        return ImageMaps(
            self.logits[-1, row, :, :h, :w].detach(),
            self.features[row, :, :h, :w].detach(),
            boundary,
        )


@dataclass(frozen=True)
class ImageMaps:
    """Maps of one image alone."""

    logits: Tensor  # [C, h, w]
    features: Tensor  # [D, h, w]
    boundary: Tensor | None  # [1, h, w]


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
        """[h, w] largest probability and the class that has it; at full size this is a good part of a label's time."""
        largest = self.prob.max(0)
        return largest.values, self.classes[largest.indices]

    def stuff(self) -> Tensor:
        """[h, w] bool: the map prefers a stuff class."""
        return self.best[1] >= self.things

    def stuff_target(self, sure: float = 0.5) -> Tensor:
        """[h, w] stuff class where the map is sure of one, IGNORE elsewhere. UNSTATED [PSPS]: the code's 0.5."""
        certainty, wanted = self.best
        return torch.where((certainty >= sure) & (wanted >= self.things), wanted, IGNORE)

    def likelihood(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """How likely a pixel is of each thing class here or of any stuff [K, h, w], and the row [n] of every target.

        UNSTATED [PSPS]: the official code's weight of a target.
        """
        stuff = self.classes >= self.things
        return self.prob[~stuff] + self.prob[stuff].sum(0), torch.searchsorted(self.classes, label)


def semantic_map(logits: Tensor, points: Points, grown: Tensor, things: int) -> SemanticMap:
    """P^s from logits [C, h, w], certain at the (grown) points; grown [h, w] class of labelled cells or IGNORE.

    UNSTATED [P2M Sec. 3.3], [PSPS]: the softmax runs over all classes and is not normalised again over those present,
    as in the official codes.
    """
    classes = points.label.unique()
    certain = grown == classes[:, None, None]
    return SemanticMap(
        torch.maximum(logits.softmax(0)[classes], certain.to(logits.dtype)), classes, things
    )


def likely_nearest(distance: Tensor, likelihood: Tensor, kind: Tensor) -> Tensor:
    """[h, w] argmax_i (1 - D_i / max D) * likelihood of i's class. UNSTATED [PSPS]: the official code.

    distance [n, h, w], likelihood [K, h, w], kind [n] row of it. Plane by plane, so that each stays in a CPU's cache.
    """
    share = likelihood / distance.max().clamp(min=1e-12)
    best = torch.full_like(distance[0], -torch.inf)
    owner = torch.zeros_like(best, dtype=torch.long)
    for i, row in enumerate(kind.tolist()):
        score = torch.addcmul(likelihood[row], distance[i], share[row], value=-1)
        owner.masked_fill_(score > best, i)
        best = torch.maximum(best, score)
    return owner


def resized(plane: Tensor, grid: tuple[int, int]) -> Tensor:
    """[c, h, w] on another grid, bilinear without anti-aliasing, as the official codes do."""
    return F.interpolate(plane[None].float(), size=grid, mode="bilinear", align_corners=False)[0]


@dataclass(frozen=True)
class LabelledImage:
    """A pseudo label at image size with the points it grew from: no target of a point is ever empty."""

    label: PseudoLabel
    points: Points
    owner: Tensor  # [m] target of each point: rows of `thing_label`, then stuff classes in order of first point
    thing_label: Tensor  # [n]

    @classmethod
    def of(cls, label: PseudoLabel, points: Points) -> LabelledImage:
        """Writes every point's own pixel into the label."""
        owner = _owners(points)
        things, stuff = label.things.clone(), label.stuff.clone()
        h, w = things.shape
        column, row = points.xy[:, 0].long().clamp(0, w - 1), points.xy[:, 1].long().clamp(0, h - 1)
        things[row, column] = torch.where(points.is_thing, owner, -1)
        stuff[row, column] = torch.where(points.is_thing, IGNORE, points.label)
        kept = owner[points.is_thing]
        thing_label = points.label.new_zeros(int(kept.max()) + 1 if len(kept) else 0)
        thing_label[kept] = points.label[points.is_thing]
        return cls(PseudoLabel(things, stuff), points, owner, thing_label)

    @classmethod
    def void(cls, size: tuple[int, int], points: Points) -> LabelledImage:
        """Nothing but the points themselves."""
        planes = (torch.full(size, fill, device=points.xy.device) for fill in (-1, IGNORE))
        return cls.of(PseudoLabel(*planes), points)

    def as_target(self, canvas: tuple[int, int], things: int) -> PanopticTarget:
        """What the student is asked for, on the padded canvas."""
        h, w = self.label.things.shape
        margin = (0, canvas[1] - w, 0, canvas[0] - h)
        owner = F.pad(self.label.things, margin, value=-1)
        stuff = F.pad(self.label.stuff, margin, value=IGNORE)
        masks = owner == torch.arange(len(self.thing_label), device=owner.device)[:, None, None]
        known = F.pad(torch.ones(h, w, dtype=torch.bool, device=owner.device), margin)
        return PanopticTarget(masks, self.thing_label, centred_boxes(masks),
                              torch.where(stuff == IGNORE, IGNORE, stuff - things), known)  # fmt: skip

    def as_panoptic(self) -> Panoptic:
        """Things first, then one segment a stuff class."""
        segments, n = self.label.things + 1, len(self.thing_label)
        classes = [c for c in self.label.stuff.unique().tolist() if c != IGNORE]
        for k, c in enumerate(classes):
            segments[(self.label.stuff == c) & (self.label.things < 0)] = n + 1 + k
        return Panoptic(
            segments, torch.cat([self.thing_label, self.thing_label.new_tensor(classes)])
        )

    def on_grid(
        self, canvas: tuple[int, int], grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(cell [m] of each point, its target [m], masks [t, h, w] of all targets) on a grid over the canvas."""
        cells = grid_cells(self.points.xy, canvas, grid)
        owners = zip(self.owner.tolist(), self.points.label.tolist())
        stuff_class = {k: c for k, c in owners if k >= len(self.thing_label)}
        planes = [self.label.things == k for k in range(len(self.thing_label))]
        planes += [self.label.stuff == stuff_class[k] for k in sorted(stuff_class)]
        h, w = self.label.things.shape
        if not planes:
            return cells, self.owner, torch.zeros(0, *grid, dtype=torch.bool, device=cells.device)
        masks = F.pad(torch.stack(planes).float(), (0, canvas[1] - w, 0, canvas[0] - h))
        masks = F.interpolate(masks[None], size=grid)[0] > 0.5
        masks.flatten(1)[self.owner, cells] = True
        return cells, self.owner, masks

    def pseudo_on_grid(self, canvas: tuple[int, int], grid: tuple[int, int]) -> PseudoLabel:
        """The label at the cells of a grid over the canvas: the pixel in the middle of each."""
        h, w = self.label.things.shape
        margin = (0, canvas[1] - w, 0, canvas[0] - h)
        both = torch.stack(
            [
                F.pad(self.label.things, margin, value=-1),
                F.pad(self.label.stuff, margin, value=IGNORE),
            ]
        )
        row, column = (
            (torch.arange(n, device=both.device) * side + side // 2) // n
            for n, side in zip(grid, canvas)
        )
        return PseudoLabel(*both[:, row[:, None], column])


def _owners(points: Points) -> Tensor:
    """[m] row of each point's target: things in order of appearance, then stuff classes likewise."""
    keys = [(0, t) if thing else (1, c) for t, c, thing in
            zip(points.target.tolist(), points.label.tolist(), points.is_thing.tolist())]  # fmt: skip
    rows = {key: k for k, key in enumerate(sorted(dict.fromkeys(keys), key=lambda key: key[0]))}
    return torch.tensor([rows[key] for key in keys], dtype=torch.long, device=points.xy.device)
