"""Masks learnt from a handful of points: which pixels to believe, and the loss there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1


@dataclass(frozen=True)
class MaskPoints:
    """Believed pixels of n objects, ragged rows padded with the label -1."""

    xy: Tensor  # [n, P, 2] pixels
    label: Tensor  # [n, P] 1 object, 0 background, -1 nothing known

    def rows(self, index: Tensor) -> MaskPoints:
        return MaskPoints(self.xy[index], self.label[index])


def joined(parts: list[MaskPoints]) -> MaskPoints:
    return MaskPoints(torch.cat([p.xy for p in parts], 1), torch.cat([p.label for p in parts], 1))


def known_points(xy: Tensor, valid: Tensor) -> MaskPoints:
    """Points [n, P, 2] of the object itself, where valid [n, P]. [AS Sec. 4]"""
    return MaskPoints(xy, torch.where(valid, 1, IGNORED))


def tokens_drawn(area: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """[n, count] tokens drawn evenly, without repeats, from areas [n, T], and which of them exist [n, count]."""
    chance = torch.rand(area.shape, device=area.device).masked_fill(~area, -1)
    top = chance.topk(min(count, area.shape[1]), dim=1)
    return top.indices, top.values >= 0


def scattered(index: Tensor, grid: tuple[int, int], stride: float) -> Tensor:
    """[..., 2] a random pixel place inside each token [...]."""
    corner = torch.stack([index % grid[1], index // grid[1]], -1).float()
    return (corner + torch.rand_like(corner)) * stride


def values_at(logits: Tensor, boxes: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Mask logits [p, s, s] of boxes [p, 4] read at picture points [p, P, 2], and which lie in their box [p, P]."""
    low, span = boxes[:, None, :2], (boxes[:, None, 2:] - boxes[:, None, :2]).clamp(min=1e-3)
    place = (xy - low) / span * 2 - 1
    inside = (place.abs() <= 1).all(-1)
    read = F.grid_sample(
        logits[:, None],
        place[:, :, None].to(logits.dtype),
        align_corners=False,
        padding_mode="border",
    )
    return read[:, 0, :, 0], inside


def mask_point_loss(logits: Tensor, boxes: Tensor, points: MaskPoints) -> Tensor:
    """Mean binary cross-entropy of mask logits [p, s, s] over the points known and inside their box. [AS Sec. 4]

    DEVIATION [AS Sec. 4]: the official code divides by all points, ignored ones too; here the mean is over valid ones.
    """
    read, inside = values_at(logits, boxes, points.xy)
    valid = inside & (points.label != IGNORED)
    price = F.binary_cross_entropy_with_logits(
        read, (points.label == 1).to(read.dtype), reduction="none"
    )
    return (price * valid).sum() / valid.sum().clamp(min=1)


def full_mask_loss(logits: Tensor, boxes: Tensor, masks: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of mask logits [p, s, s] with true masks [m, h, w][target [p]] cut out by boxes."""
    if not len(logits):
        return logits.sum()
    side = (torch.arange(logits.shape[-1], device=logits.device) + 0.5) / logits.shape[-1]
    span = boxes[:, 2:] - boxes[:, :2]
    columns = (boxes[:, :1] + side * span[:, :1]).long().clamp(0, masks.shape[2] - 1)
    rows = (boxes[:, 1:2] + side * span[:, 1:]).long().clamp(0, masks.shape[1] - 1)
    wanted = masks[target[:, None, None], rows[:, :, None], columns[:, None, :]]
    return F.binary_cross_entropy_with_logits(logits, wanted.to(logits.dtype))
