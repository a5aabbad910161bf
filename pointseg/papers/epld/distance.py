"""The learnt distance, the labels it gives, and what teaches it. [EPLD Sec. 3.3]

log_prob [..., b, N, h, w]: log M; leading dimensions are decoder layers, and losses keep them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.ops.colour import alike, pairs
from pointseg.ops.processes import world_mean
from pointseg.ownership import owner
from pointseg.papers.epld.queries import Targets

ABSENT = -1e4  # logit of a row without target: its probability is exactly 0, gradients stay finite


def log_probability(logits: Tensor, present: Tensor) -> Tensor:
    """log M [..., b, N, h, w]: softmax over the targets present [b, N] of each image.

    UNSTATED [EPLD Sec. 3.3]: "N-channel probability" trained by cross-entropy is a softmax over n.
    """
    absent = ~present[..., None, None]
    return logits.float().masked_fill(absent, ABSENT).log_softmax(-3)


def distance_map(probability: Tensor) -> Tensor:
    """X = 1 - M [..., N, h, w]. [EPLD Eq. 6]"""
    return 1 - probability


def pseudo_label(distance: Tensor) -> Tensor:
    """[..., h, w] row of the nearest target, the lowest where two are. [EPLD Eq. 7]"""
    return owner(distance, dim=-3)


def partial_loss(log_prob: Tensor, targets: Targets) -> Tensor:
    """[...] mean cross-entropy over the labelled cells of the whole batch. [EPLD Eq. 8]"""
    labelled = targets.labelled
    own = (log_prob * (targets.points & labelled[:, None])).sum((-4, -3, -2, -1))
    return -own / world_mean(labelled.sum().float()).clamp(min=1)


def colour_prior_loss(
    log_prob: Tensor, lab: Tensor, targets: Targets, offsets: list, tau: float
) -> Tensor:
    """[...] mean -log M[i]^T M[j] over neighbours alike in LAB, mean of images. [EPLD Eq. 9]

    lab [b, 3, h, w] on the grid. UNSTATED [EPLD Eq. 9]: neighbours, similarity and tau are PSPS's
    5 x 5 window, exp(-|LAB_i - LAB_j| / 2) >= 0.3, after resizing; pairs that leave the image do
    not exist, and (i, j) is counted once, not twice, in the sum and in Z alike.
    """
    total, Z = 0, 0
    for offset in offsets:
        inside = torch.logical_and(*pairs(targets.inside, offset))
        A = alike(lab, offset, tau) & inside
        first, second = pairs(log_prob, offset)
        agreement = torch.logsumexp(first + second, -3)
        total, Z = total + (A * agreement).sum((-2, -1)), Z + A.sum((-2, -1))
    return -(total / Z.clamp(min=1)).mean(-1)


def self_training_loss(log_prob: Tensor, label: Tensor, targets: Targets) -> Tensor:
    """[...] mean cross-entropy to the last layer's label [b, h, w], mean of images. [EPLD Eq. 10]"""
    index = label[:, None].expand(*log_prob.shape[:-3], 1, *label.shape[-2:])
    own = log_prob.gather(-3, index).squeeze(-3) * targets.inside
    HW = targets.inside.sum((-2, -1)).clamp(min=1)
    return -(own.sum((-2, -1)) / HW).mean(-1)
