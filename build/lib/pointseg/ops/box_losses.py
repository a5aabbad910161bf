"""Losses of a mask that knows its box: multiple instances a row and a column, and Dice."""

from __future__ import annotations

from torch import Tensor

DICE_FLOOR = 0.002  # UNSTATED [MAL]: the release


def dice_loss(prob: Tensor, target: Tensor) -> Tensor:
    """[n] 1 - 2 <p, t> / (<p, p> + <t, t>) of maps or profiles [n, ...]."""
    p, t = prob.flatten(1).float(), target.flatten(1).float()
    mass = p.square().sum(1) + t.square().sum(1) + DICE_FLOOR
    return 1 - 2 * (p * t).sum(1) / mass


def mil_loss(prob: Tensor, box: Tensor) -> Tensor:
    """[n] multiple instances: rows and columns of maps [n, h, w] hold the object as their box does.

    The highest probability of a row is compared with the box map's; so rows beyond the box are
    negatives, and a row across it needs one pixel only. [MAL]
    """
    box = box.to(prob.dtype)
    return dice_loss(prob.amax(1), box.amax(1)) + dice_loss(prob.amax(2), box.amax(2))
