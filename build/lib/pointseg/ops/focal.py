"""Focal loss and the focal price of calling a query a class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def focal_cost(logits: Tensor, label: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """[q, m] focal loss of a yes to each of the labels [m] less that of a no, of logits [q, C]."""
    probability = logits.sigmoid()
    yes = -F.logsigmoid(logits) * alpha * (1 - probability) ** gamma
    no = -F.logsigmoid(-logits) * (1 - alpha) * probability**gamma
    return (yes - no)[:, label]


def focal_loss(logits: Tensor, label: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum of sigmoid focal losses of logits [r, C] with class label [r]; label C is no class."""
    target = F.one_hot(label, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    return sigmoid_focal_loss(logits, target, alpha, gamma, reduction="sum")


def presence_focal_loss(logits: Tensor, present: Tensor) -> Tensor:
    """Sum of focal losses of logits [..., C] against `present` [..., C], one yes or no each."""
    target = present.to(logits.dtype).expand_as(logits)
    return sigmoid_focal_loss(logits, target, 0.25, 2.0, reduction="sum")
