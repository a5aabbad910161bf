"""What query tokens and patch tokens predict: where and what is each object, and which classes are
in the image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointHead(nn.Module):
    """Loc. MLP and Cls. MLP on the query tokens: class logits and coordinates. [AS Sec. 3.1]

    UNSTATED [AS Sec. 3.1]: three layers of the token width, ReLU between, coordinates through a
    sigmoid (official code).
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.location, self.category = _three_layers(width, 2), _three_layers(width, classes)

    def forward(self, queries: Tensor, anchors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Queries [b, q, D] to logits [b, q, C] and coordinates [b, q, 2], shares of the padded
        image. With `anchors` [q, 2] a query predicts an offset from its own."""
        offset = self.location(queries).float()
        start = 0.0 if anchors is None else torch.logit(anchors, eps=1e-3)
        return self.category(queries).float(), (offset + start).sigmoid()


def _three_layers(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, out),
    )


class TokenClassifier(nn.Module):
    """Class logits of every patch token; the class-aware warm-up learns from them."""

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [b, T, D] to logits [b, T, C]."""
        return self.linear(self.norm(tokens)).float()
