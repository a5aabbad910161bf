"""Mask-wise merging: overlapping masks of things and stuff become one panoptic map. [PSF Alg. 1]"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.structures import Panoptic


@dataclass(frozen=True)
class MergeRule:
    mask: float = 0.5  # UNSTATED [PSF Alg. 1]: the official code, as all below
    confidence: float = 0.25
    thing_overlap: float = 0.4  # a thing more than this covered already is dropped
    stuff_overlap: float = 0.2
    power: float = 2.0  # confidence = class score * (mean mask value)^power [PSF Sec. 3.6]
    candidates: int = 100  # pairs of query and class


def confidences(values: Tensor, scores: Tensor, rule: MergeRule) -> tuple[Tensor, Tensor]:
    """(bool masks [k, h, w], confidence [k]) of mask values and class scores [k]. [PSF Sec. 3.6]"""
    masks = values > rule.mask
    area = masks.flatten(1).sum(1)
    mean = (values * masks).flatten(1).sum(1) / (area + 1)
    return masks, scores * mean**rule.power


def merged(
    values: Tensor, scores: Tensor, label: Tensor, is_thing: Tensor, rule: MergeRule
) -> Panoptic:
    """Best first, each mask takes what is still free of it, unless too little is."""
    masks, confidence = confidences(values, scores, rule)
    segments = torch.zeros(values.shape[-2:], dtype=torch.long, device=values.device)
    taken, kept, order = segments.bool(), [], confidence.argsort(descending=True)
    for k in order[confidence[order] >= rule.confidence].tolist():
        free = masks[k] & ~taken
        area, left = int(masks[k].sum()), int(free.sum())
        limit = rule.thing_overlap if is_thing[k] else rule.stuff_overlap
        if left == 0 or (area - left) / area > limit:
            continue
        kept.append(k)
        segments[free] = len(kept)
        taken |= free
    rows = torch.tensor(kept, dtype=torch.long, device=values.device)
    return Panoptic(segments, label[rows], confidence[rows])
