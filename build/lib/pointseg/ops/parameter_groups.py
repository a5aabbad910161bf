"""Groups of parameters for the optimiser: what weight decay shrinks, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def decay_groups(
    parameters: Iterable[nn.Parameter], lr: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices shrink; norms, biases and other vectors do not."""
    trained = [p for p in parameters if p.requires_grad]
    wide, narrow = [p for p in trained if p.ndim > 1], [p for p in trained if p.ndim <= 1]
    groups = ((wide, weight_decay), (narrow, 0.0))
    return [{"params": p, "lr": lr, "weight_decay": decay} for p, decay in groups if p]
