"""Losses that turn points into a semantic map, a boundary map and instance features. [P2M-S Eq. 4-7]

All planes are [b, C, h, w] on one grid; `padding` [b, h, w] marks cells without picture, which take no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.colour import alike, pairs, window
from pointseg.ops.focal import focal_loss
from pointseg.ops.tree import Forest, tree_filter
from pointseg.structures import IGNORE, Points

NEIGHBOURS_8 = window(1, 1)  # [P2M-S Eq. 5]


def dilated_points(
    points: list[Points], shape: tuple[int, int, int], side: float, canvas: tuple[int, int]
) -> Tensor:
    """[b, h, w] int64 class of the grid cells whose centre lies in a `side` pixel square around a point; else IGNORE.

    Where two classes claim a cell the nearer point wins, and every point keeps the cell it stands in.
    """
    b, h, w = shape
    (height, width), claimed = canvas, []
    y = (torch.arange(h) + 0.5) * height / h
    x = (torch.arange(w) + 0.5) * width / w
    for one in points:
        claimed.append(_nearest_class(one, x.to(one.xy.device), y.to(one.xy.device), side))
    return torch.stack(claimed) if claimed else torch.full((b, h, w), IGNORE)


def _nearest_class(points: Points, x: Tensor, y: Tensor, side: float) -> Tensor:
    """[h, w] label of the nearest point (largest coordinate distance) within side / 2, or within its own cell."""
    if not len(points):
        return torch.full((len(y), len(x)), IGNORE, device=x.device)
    away_x = (points.xy[:, 0, None] - x).abs()[:, None]
    away_y = (points.xy[:, 1, None] - y).abs()[:, :, None]
    far = torch.maximum(away_x, away_y)  # [m, h, w]
    own = (away_x <= x[0]) & (away_y <= y[0])
    far = torch.where((far <= side / 2) | own, far, torch.inf)
    nearest = far.min(0)
    return torch.where(nearest.values.isfinite(), points.label[nearest.indices], IGNORE)


def partial_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean -log p over the labelled cells of the batch; 0 where none is labelled."""
    labelled = (target != IGNORE).sum().clamp(min=1)
    return F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="sum") / labelled


def presence_loss(presence: Tensor, points: list[Points]) -> Tensor:
    """Focal loss of "this class has a point here" over logits [l, b, C], a present class weighing one."""
    here = torch.zeros_like(presence[0])
    for row, one in zip(here, points):
        row[one.label] = 1
    logits, asked = presence.float().reshape(-1, 1), here.expand_as(presence).reshape(-1)
    return focal_loss(logits, 1 - asked.long()) / here.sum().clamp(min=1)


def local_colour_loss(log_prob: Tensor, lab: Tensor, offsets=NEIGHBOURS_8, padding: Tensor | None = None,
                      tau: float = 0.3, theta: float = 2.0) -> Tensor:  # fmt: skip
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
    return total / count.clamp(min=1)


def long_range_loss(prob: Tensor, tree: Forest, padding: Tensor | None = None) -> Tensor:
    """Mean over cells of sum_c |P_i - (filtered P)_i| along the picture's spanning tree. [P2M-S Eq. 7]

    DEVIATION [P2M-S Eq. 7]: without the printed minus sign, which would push P away from its own filtering.
    """
    gap = (prob - tree_filter(prob, tree)).abs().sum(1)
    inside = torch.ones_like(gap, dtype=torch.bool) if padding is None else ~padding
    return (gap * inside).sum() / inside.sum().clamp(min=1)


@dataclass(frozen=True)
class PseudoLabel:
    """What the label branch says of one image, on any grid."""

    things: Tensor  # [h, w] int64: row of the thing target that owns a pixel, -1 for none
    stuff: Tensor  # [h, w] int64: class of stuff pixels, IGNORE where unsure or a thing


def boundary_loss(
    boundary: Tensor, labels: list[PseudoLabel], padding: Tensor | None = None
) -> Tensor:
    """Neighbours inside one segment should see no boundary, neighbours of two segments one. boundary [b, 1, h, w].

    UNSTATED [P2M Sec. 3.4]: form and 1e-5 of the official code - affinity 1 - max(b_i, b_j), half the loss for alike
    pairs (things and stuff averaged), half for differing ones. DEVIATION [P2M Sec. 3.4]: the code compares border
    pixels with zero padding and so draws a frame; here pairs that leave the picture do not exist.
    """
    terms = [_boundary_terms(boundary[i, 0], label, None if padding is None else padding[i])
             for i, label in enumerate(labels)]  # fmt: skip
    same_thing, same_stuff, differs = (_mean_of([t[k] for t in terms]) for k in range(3))
    return 0.5 * (0.5 * (same_thing + same_stuff) + differs)


def _boundary_terms(boundary: Tensor, label: PseudoLabel, padding: Tensor | None):
    """(sum, count) of the three kinds of pairs of one image."""
    sums = boundary.new_zeros(3, 2)
    for offset in NEIGHBOURS_8:
        affinity = 1 - torch.maximum(*pairs(boundary, offset))
        (thing_i, thing_j), (stuff_i, stuff_j) = (
            pairs(label.things, offset),
            pairs(label.stuff, offset),
        )
        inside = True if padding is None else ~torch.logical_or(*pairs(padding, offset))
        sure = (
            ((thing_i >= 0) | (stuff_i != IGNORE)) & ((thing_j >= 0) | (stuff_j != IGNORE)) & inside
        )
        one_thing = sure & (thing_i == thing_j) & (thing_i >= 0)
        one_stuff = sure & (stuff_i == stuff_j) & (thing_i < 0) & (thing_j < 0)
        for row, (pair, value) in enumerate(((one_thing, affinity), (one_stuff, affinity),
                                             (sure & ~one_thing & ~one_stuff, 1 - affinity))):  # fmt: skip
            sums[row] = sums[row] + torch.stack(
                [-(value.clamp(min=1e-5).log() * pair).sum(), pair.sum()]
            )
    return sums


def _mean_of(parts: list[Tensor]) -> Tensor:
    total = torch.stack(parts).sum(0)
    return total[0] / total[1].clamp(min=1)


def manifold_loss(features: Tensor, cells: list[Tensor], targets: list[Tensor], masks: list[Tensor],
                  temperature: float = 0.07) -> Tensor:  # fmt: skip
    """Each point's feature should be nearest to the mean feature of its own pseudo mask.

    features [b, D, h, w] of unit length; per image cells [m] flat, targets [m] row of masks [n, h, w].
    UNSTATED [PSPS]: InfoNCE at 0.07 with means that are not normalised again, as in the official code.
    """
    losses = []
    for plane, cell, target, mask in zip(features.flatten(2), cells, targets, masks):
        if len(mask) < 2:
            continue  # one target has nothing to be told from
        weight = mask.flatten(1).to(plane.dtype)
        means = weight @ plane.T / weight.sum(1, keepdim=True).clamp(min=1)
        losses.append(F.cross_entropy(plane[:, cell].T @ means.T / temperature, target))
    return torch.stack(losses).mean() if losses else features.sum() * 0
