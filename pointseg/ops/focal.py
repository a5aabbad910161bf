"""Focal loss and the focal price of calling a query a class."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss


def focal_cost(logits: Tensor, label: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """[q, m] focal loss of saying yes to each of the labels [m] minus that of saying no, for logits [q, C]."""
    probability = logits.sigmoid()
    yes = -F.logsigmoid(logits) * alpha * (1 - probability) ** gamma
    no = -F.logsigmoid(-logits) * (1 - alpha) * probability**gamma
    return (yes - no)[:, label]


def focal_loss(logits: Tensor, label: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sum of sigmoid focal losses of logits [r, C] with class label [r]; label C stands for no class at all."""
    wanted = F.one_hot(label, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    return sigmoid_focal_loss(logits, wanted, alpha, gamma, reduction="sum")
