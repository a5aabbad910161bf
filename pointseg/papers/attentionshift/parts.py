"""What AttentionShift's label path finds out about its objects, kept for losses, masks and figures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.papers.attentionshift.keypoints import Filtered
from pointseg.papers.attentionshift.shift import Shifted


@dataclass(frozen=True)
class Parts:
    """All that the label path finds out about n objects. T tokens a picture, S of them in a box, K key-points."""

    attention: Tensor  # [n, T] A^S in 0..1
    instance_map: Tensor  # [n, T] A^I in 0..1
    foreground: Tensor  # [n, T] bool: high-confidence area of A^I
    background: Tensor  # [n, T] bool: tokens of the box that are none of the object's
    boxes: Tensor  # [n, 4] pseudo boxes in pixels
    index: Tensor  # [n, S] tokens inside the box
    inside: Tensor  # [n, S] bool: which of them are no padding
    shifted: Shifted | None
    filtered: Filtered | None
    token: Tensor  # [n, K] token of each key-point
    valid: Tensor  # [n, K] bool

    def in_box(self) -> Tensor:
        """[n, T] bool"""
        return on_grid(self.inside, self.index, self.foreground)

    def masks(self) -> Tensor:
        """[n, T] bool: cells of the key-points that survived; where there is none the high-confidence area."""
        area = self.foreground & self.in_box()
        if self.shifted is None or self.filtered is None:
            return area
        survivors = self.filtered.members.any(1)
        cells = (self.shifted.cells & survivors[..., None]).any(1)
        owned = on_grid(self.inside & cells, self.index, self.foreground)
        return torch.where(owned.any(1, keepdim=True), owned, area)


def on_grid(values: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """[n, T] bool: values [n, S] put back to their tokens."""
    return torch.zeros_like(like).scatter(1, index, values)
