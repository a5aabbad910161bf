"""The learnt distance, the labels it gives, and what teaches it. [EPLD Sec. 3.3]

log_prob [..., b, N, h, w]: log M; leading dimensions are decoder layers, and losses keep them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.ops.colour import alike, pairs
from pointseg.ops.processes import world_mean
from pointseg.ownership import owner
from pointseg.papers.epld.queries import Targets

ABSENT = -1e4  # logit of a row without target: its probability is exactly 0, gradients stay finite


@dataclass(frozen=True)
class Affinity:
    """A_ij of all pairs of cells an offset apart."""

    offset: tuple[int, int]
    alike: Tensor  # [b, h', w'] bool


def affinities(lab: Tensor, inside: Tensor, offsets: list, tau: float) -> list[Affinity]:
    """Of LAB colours [b, 3, h, w] on the grid, for cells inside [b, h, w].

    UNSTATED [EPLD Eq. 9]: neighbours, similarity and tau are PSPS's 5 x 5 window and
    exp(-|LAB_i - LAB_j| / 2) >= 0.3, after resizing.
    """
    both = lambda offset: torch.logical_and(*pairs(inside, offset))  # noqa: E731
    return [Affinity(offset, alike(lab, offset, tau) & both(offset)) for offset in offsets]


def log_probability(logits: Tensor, present: Tensor) -> Tensor:
    """log M [..., b, N, h, w]: softmax over the targets present [b, N] of each image.

    UNSTATED [EPLD Sec. 3.3]: "N-channel probability" trained by cross-entropy is a softmax over n.
    """
    absent = ~present[..., None, None]
    return logits.float().masked_fill(absent, ABSENT).log_softmax(-3)


def distance_map(probability: Tensor) -> Tensor:
    """X = 1 - M [..., N, h, w]. [EPLD Eq. 6]"""
    return 1 - probability


def pseudo_label(distance: Tensor, price: Tensor | None = None) -> Tensor:
    """[..., h, w] row of the nearest target, the lowest where two are. [EPLD Eq. 7]

    The paper's price is zero; others, [..., N], stand in crossings.py.
    """
    return owner(distance, price, dim=-3)


def partial_loss(log_prob: Tensor, targets: Targets) -> Tensor:
    """[...] mean cross-entropy over the labelled cells of the whole batch. [EPLD Eq. 8]"""
    labelled = targets.labelled
    log_likelihood = (log_prob * (targets.points & labelled[:, None])).sum((-4, -3, -2, -1))
    return -log_likelihood / world_mean(labelled.sum().float()).clamp(min=1)


def colour_prior_loss(log_prob: Tensor, affinity: list[Affinity]) -> Tensor:
    """[...] mean -log M[i]^T M[j] over neighbours alike in LAB, mean of images. [EPLD Eq. 9]

    UNSTATED [EPLD Eq. 9]: pairs that leave the image do not exist; (i, j) counts once, not twice,
    in the sum and in Z alike.
    """
    total, Z = 0, sum(a.alike.sum((-2, -1)) for a in affinity).clamp(min=1)
    for a in affinity:
        first, second = pairs(log_prob, a.offset)
        total = total + (a.alike * torch.logsumexp(first + second, -3)).sum((-2, -1))
    return -(total / Z).mean(-1)


def colour_prior_loss_fast(log_prob: Tensor, affinity: list[Affinity]) -> Tensor:
    """The same from products of probabilities; a pair that disagrees beyond e^-69 teaches nothing.

    [EPLD Eq. 9]
    """
    Z = sum(a.alike.sum((-2, -1)) for a in affinity).clamp(min=1)
    return -(_Agreement.apply(log_prob.exp(), affinity) / Z).mean(-1)


class _Agreement(torch.autograd.Function):
    """Sum of log M[i]^T M[j] over alike pairs; its gradient is written in place, pair by pair."""

    @staticmethod
    def forward(ctx, M: Tensor, affinity: list[Affinity]) -> Tensor:
        total, weights = 0, []
        for a in affinity:
            first, second = pairs(M, a.offset)
            agreement = (first * second).sum(-3).clamp(min=1e-30)
            total = total + (a.alike * agreement.log()).sum((-2, -1))
            weights.append(a.alike / agreement)
        ctx.affinity = affinity
        ctx.save_for_backward(M, *weights)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor):
        M, *weights = ctx.saved_tensors
        out = torch.zeros_like(M)
        for a, weight in zip(ctx.affinity, weights):
            weight = (weight * grad[..., None, None]).unsqueeze(-3)
            (first, second), (to_first, to_second) = pairs(M, a.offset), pairs(out, a.offset)
            to_first.addcmul_(weight, second)
            to_second.addcmul_(weight, first)
        return out, None


def self_training_loss(log_prob: Tensor, label: Tensor, targets: Targets) -> Tensor:
    """[...] cross-entropy to the last layer's label [b, h, w], mean of images. [EPLD Eq. 10]"""
    index = label[:, None].expand(*log_prob.shape[:-3], 1, *label.shape[-2:])
    log_likelihood = log_prob.gather(-3, index).squeeze(-3) * targets.inside
    HW = targets.inside.sum((-2, -1)).clamp(min=1)
    return -(log_likelihood.sum((-2, -1)) / HW).mean(-1)
