"""Losses of token classes from points alone: which classes a picture holds, and which one is under a point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def picture_label_loss(logits: Tensor, real: Tensor, image: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy of the classes in each picture with the log-mean-exp of token logits [b, T, C] over real [b, T].

    Points say which classes are there: image [p], label [p].
    """
    pooled = (
        logits.masked_fill(~real[..., None], -torch.inf).logsumexp(1)
        - real.sum(1, keepdim=True).log()
    )
    present = torch.zeros_like(pooled)
    present[image, label] = 1
    return F.binary_cross_entropy_with_logits(pooled, present)


def point_label_loss(logits: Tensor, token: Tensor, image: Tensor, label: Tensor) -> Tensor:
    """Mean cross-entropy of the tokens under the points: token [p], image [p], label [p]; 0 without points."""
    return F.cross_entropy(logits[image, token], label, reduction="sum") / max(len(label), 1)
