"""Boxes and masks of [AS Sec. 4]: pseudo boxes around A^I, and masks that learn from points
alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.components import centre_symmetric, largest_components, tight_boxes
from pointseg.ops.processes import normaliser, uniform
from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.instance_map import InstanceMaps
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.tokens import token_corners
from pointseg.structures import Instances


def pseudo_boxes(maps: Tensor, objects: Objects, threshold: float, rule: str) -> Tensor:
    """[n, m, 4] boxes around the largest component of each of m binarised maps [n, m, T] of an
    object; around the labelled token where nothing is high. [AS Sec. 4]"""
    area = (maps >= threshold) & objects.valid[:, None]
    labelled = F.one_hot(objects.seed, area.shape[2]).bool()[:, None]
    area = torch.where(area.any(2, keepdim=True), area, labelled).flatten(0, 1)
    boxes, _ = tight_boxes(largest_components(area.unflatten(1, objects.grid)), objects.stride)
    limit = objects.limit.repeat_interleave(maps.shape[1], 0)
    if rule == "centre":
        boxes = centre_symmetric(boxes, objects.xy.repeat_interleave(maps.shape[1], 0), limit)
    return torch.minimum(boxes, limit.repeat(1, 2)).view(*maps.shape[:2], 4)


def background_tokens(maps: InstanceMaps, in_box: Tensor, config: Config) -> Tensor:
    """[n, T] bool: tokens of the box that are taken for background. [AS Sec. 4]

    "sampling pixels in regions where A^I is small"; the official code takes them where its map of
    the background is high.
    """
    if config.background_rule == "low":
        return (maps.foreground < config.background_level) & in_box
    inside = maps.background * in_box
    return in_box & (inside >= config.background_share * inside.amax(1, keepdim=True))


def drawn_tokens(area: Tensor, count: int, draws: Tensor) -> tuple[Tensor, Tensor]:
    """[n, count] tokens drawn evenly, without repeats, from areas [n, T] by seeds [n], and which of
    them exist."""
    chance = uniform(draws, area.shape[1]).masked_fill(~area, -1)
    top = chance.topk(min(count, area.shape[1]), dim=1)
    return top.indices, top.values >= 0


@dataclass(frozen=True)
class MaskPoints:
    """Known pixels of n objects, the targets of a mask head. [AS Sec. 4]"""

    xy: Tensor  # [n, P, 2] pixels
    foreground: Tensor  # [n, P] bool: object, else background
    known: Tensor  # [n, P] bool: the rest is padding

    @classmethod
    def of(cls, xy: Tensor, known: Tensor, foreground: bool) -> MaskPoints:
        return cls(xy, torch.full_like(known, foreground), known)

    @classmethod
    def in_tokens(cls, token: Tensor, known: Tensor, objects: Objects, share: Tensor) -> MaskPoints:
        """Background pixels inside tokens [n, P], at a share [n, P, 2] of their sides."""
        corner = token_corners(token, objects.grid)
        return cls.of((corner + share) * objects.stride, known, False)

    def __add__(self, other: MaskPoints) -> MaskPoints:
        pairs = zip(vars(self).values(), vars(other).values())
        return MaskPoints(*(torch.cat(pair, 1) for pair in pairs))

    def loss(self, logits: Tensor, boxes: Tensor, row: Tensor) -> Tensor:
        """Mean binary cross-entropy of the mask logits [p, s, s] of objects [p] in boxes [p, 4]
        over the known points inside their box. [AS Sec. 4]

        DEVIATION [AS Sec. 4]: the official code divides by all points, ignored ones too.
        """
        read, inside = values_at(logits, boxes, self.xy[row])
        valid = inside & self.known[row]
        wanted = self.foreground[row].to(read.dtype)
        loss = F.binary_cross_entropy_with_logits(read, wanted, reduction="none")
        return (loss * valid).sum() / normaliser(valid.sum(), logits.device)


def values_at(logits: Tensor, boxes: Tensor, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Mask logits [p, s, s] of boxes [p, 4] read at pixels [p, P, 2], and which lie in their
    box."""
    low, span = boxes[:, None, :2], (boxes[:, None, 2:] - boxes[:, None, :2]).clamp(min=1e-3)
    at = (xy - low) / span * 2 - 1
    inside = (at.abs() <= 1).all(-1)
    read = F.grid_sample(logits[:, None], at[:, :, None].to(logits.dtype),
                         align_corners=False, padding_mode="border")  # fmt: skip
    return read[:, 0, :, 0], inside


def detected_at_points(detections: Instances, xy: Tensor, label: Tensor) -> Tensor:
    """[n] row of the best-scored detection of a point's class whose mask holds it, -1 for none.

    `xy` [n, 2] in pixels, `label` [n].
    """
    if not len(detections.scores):
        return torch.full_like(label, -1)
    h, w = detections.masks.shape[-2:]
    column, row = xy[:, 0].long().clamp(0, w - 1), xy[:, 1].long().clamp(0, h - 1)
    holds = detections.masks[:, row, column].T & (detections.label == label[:, None])
    best = detections.scores.masked_fill(~holds, -1.0).argmax(1)
    return torch.where(holds.any(1), best, -1)


def replaced_rows(labels: Instances, detections: Instances, row: Tensor) -> Instances:
    """`labels` with every object that has a detection (`row` [n] >= 0) replaced by it."""
    if not len(detections.scores):
        return labels
    at, use = row.clamp(min=0), row >= 0
    masks = torch.where(use[:, None, None], detections.masks[at], labels.masks)
    boxes = torch.where(use[:, None], detections.boxes[at], labels.boxes)
    scores = torch.where(use, detections.scores[at], labels.scores)
    return Instances(masks, scores, labels.label, boxes)
