"""Losses that make points a semantic map, a boundary map and instance features. [P2M-S Eq. 4-7]

All planes are [b, C, h, w] on one grid; `padding` [b, h, w] marks cells outside the images, which
take no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.colour import alike, pairs, window
from pointseg.ops.focal import presence_focal_loss
from pointseg.ops.processes import normaliser
from pointseg.ops.tree import Forest, tree_filter
from pointseg.structures import IGNORE, Points

NEIGHBOURS_8 = window(1, 1)  # [P2M-S Eq. 5]


def dilated_points(
    points: list[Points], shape: tuple[int, int, int], side: float, canvas: tuple[int, int]
) -> Tensor:
    """[b, h, w] int64 class of cells whose centre lies in a square of `side` pixels about a point.

    IGNORE elsewhere. Where two classes claim a cell the nearer point wins, and every point keeps
    the cell that it stands in.
    """
    b, h, w = shape
    (height, width), claimed = canvas, []
    y = (torch.arange(h) + 0.5) * height / h
    x = (torch.arange(w) + 0.5) * width / w
    for one in points:
        claimed.append(_nearest_class(one, x.to(one.xy.device), y.to(one.xy.device), side))
    return torch.stack(claimed) if claimed else torch.full((b, h, w), IGNORE)


def _nearest_class(points: Points, x: Tensor, y: Tensor, side: float) -> Tensor:
    """[h, w] label of the nearest point within side / 2 in both axes, or in the same cell."""
    if not len(points):
        return torch.full((len(y), len(x)), IGNORE, device=x.device)
    away_x = (points.xy[:, 0, None] - x).abs()[:, None]
    away_y = (points.xy[:, 1, None] - y).abs()[:, :, None]
    far = torch.maximum(away_x, away_y)  # [m, h, w]
    same_cell = (away_x <= x[0]) & (away_y <= y[0])
    far = torch.where((far <= side / 2) | same_cell, far, torch.inf)
    nearest = far.min(0)
    return torch.where(nearest.values.isfinite(), points.label[nearest.indices], IGNORE)


def partial_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean -log p over the labelled cells of the batch; 0 where none is labelled."""
    summed = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum")
    return summed / normaliser((target != IGNORE).sum())


def presence_loss(presence: Tensor, points: list[Points]) -> Tensor:
    """Focal loss of "this class has a point here" over logits [l, b, C], for each class present."""
    present = torch.zeros_like(presence[0])
    for row, one in zip(present, points):
        row[one.label] = 1
    return presence_focal_loss(presence.float(), present) / normaliser(present.sum())


def local_colour_loss(
    log_prob: Tensor,
    lab: Tensor,
    offsets=NEIGHBOURS_8,
    padding: Tensor | None = None,
    tau: float = 0.3,
    theta: float = 2.0,
) -> Tensor:
    """Mean -log sum_c P_i(c) P_j(c) over neighbouring pairs that look alike. [P2M-S Eq. 5]

    Pairs that leave the picture do not exist, so no border cell is compared with zeros.
    """
    total, count = 0, 0
    for offset in offsets:
        keep = alike(lab, offset, tau, theta)
        if padding is not None:
            keep = keep & ~torch.logical_or(*pairs(padding, offset))
        first, second = pairs(log_prob, offset)
        agree = torch.logsumexp(first + second, dim=1)
        total, count = total - (agree * keep).sum(), count + keep.sum()
    return total / normaliser(count)


def long_range_loss(prob: Tensor, tree: Forest, padding: Tensor | None = None) -> Tensor:
    """Mean over cells of sum_c |P_i - (filtered P)_i| along the spanning tree. [P2M-S Eq. 7]

    DEVIATION [P2M-S Eq. 7]: without the printed minus sign, which would push P away from its own
    filtering.
    """
    gap = (prob - tree_filter(prob, tree)).abs().sum(1)
    inside = torch.ones_like(gap, dtype=torch.bool) if padding is None else ~padding
    return (gap * inside).sum() / normaliser(inside.sum())


@dataclass(frozen=True)
class PseudoLabel:
    """Which target owns each pixel of an image, or of several on one grid."""

    things: Tensor  # [..., h, w] int64: row of the thing target that owns a pixel, -1 for none
    stuff: Tensor  # [..., h, w] int64: class of stuff pixels, IGNORE where unsure or a thing


def boundary_loss(boundary: Tensor, label: PseudoLabel, padding: Tensor | None = None) -> Tensor:
    """No boundary between neighbours inside a segment, one between two; boundary [b, 1, h, w].

    UNSTATED [P2M Sec. 3.4]: form and 1e-5 of the official code - affinity 1 - max(b_i, b_j), half
    the loss for pairs of one segment (things and stuff averaged), half for differing ones.
    DEVIATION [P2M Sec. 3.4]: the code compares border pixels with zero padding and so draws a
    frame; here pairs that leave the image do not exist.
    """
    known = (label.things >= 0) | (label.stuff != IGNORE)
    if padding is not None:
        known = known & ~padding
    terms = [_boundary_terms(boundary[:, 0], label, known, offset) for offset in NEIGHBOURS_8]
    same_thing, same_stuff, differs = (
        total / normaliser(count) for total, count in map(_summed, zip(*terms))
    )
    return 0.5 * (0.5 * (same_thing + same_stuff) + differs)


def _boundary_terms(
    boundary: Tensor, label: PseudoLabel, known: Tensor, offset: tuple[int, int]
) -> list[tuple[Tensor, Tensor]]:
    """(sum, count) over pairs inside a thing, inside stuff, and of two segments."""
    affinity = 1 - torch.maximum(*pairs(boundary, offset))
    thing_i, thing_j = pairs(label.things, offset)
    stuff_i, stuff_j = pairs(label.stuff, offset)
    both = torch.logical_and(*pairs(known, offset))
    one_thing = both & (thing_i == thing_j) & (thing_i >= 0)
    one_stuff = both & (stuff_i == stuff_j) & (thing_i < 0) & (thing_j < 0)
    kinds = ((one_thing, affinity), (one_stuff, affinity),
             (both & ~one_thing & ~one_stuff, 1 - affinity))  # fmt: skip
    return [(-(value.clamp(min=1e-5).log() * kind).sum(), kind.sum()) for kind, value in kinds]


def _summed(terms: tuple[tuple[Tensor, Tensor], ...]) -> tuple[Tensor, Tensor]:
    totals, counts = zip(*terms)
    return sum(totals), sum(counts)


@dataclass(frozen=True)
class PointMasks:
    """Points of an image and the masks of all their targets, on a grid."""

    cells: Tensor  # [m] flat cell of each point
    owner: Tensor  # [m] row of `masks` that each point belongs to
    masks: Tensor  # [n, h, w] bool


def manifold_loss(features: Tensor, images: list[PointMasks], temperature: float = 0.07) -> Tensor:
    """Each point's feature should be nearest to the mean feature of its own pseudo mask.

    features [b, D, h, w] of unit length. UNSTATED [PSPS]: InfoNCE at 0.07 with means that are not
    normalised again, as in the official code.
    """
    losses = [features.sum() * 0]
    several = [
        (plane, one) for plane, one in zip(features.flatten(2), images) if len(one.masks) > 1
    ]
    for plane, one in several:  # one target alone has nothing to be told from
        weight = one.masks.flatten(1).to(plane.dtype)
        means = weight @ plane.T / weight.sum(1, keepdim=True).clamp(min=1)
        similarity = plane[:, one.cells].T @ means.T / temperature
        losses.append(F.cross_entropy(similarity, one.owner))
    return sum(losses) / normaliser(torch.tensor(float(len(several)), device=features.device))
