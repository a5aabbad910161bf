"""A random walk over a crop's tokens: from attention to a doubly stochastic matrix.

[EXITS Sec. C]
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.structures import InputError


def similarity(attention: Tensor, prefix: int = 1) -> Tensor:
    """[b, N, N] S of one layer's attention [b, heads, P + N, P + N] after its softmax.

    [EXITS Sec. C]
    UNSTATED [EXITS Sec. C]: the mean over heads; the class token takes part in the softmax and
    its row and column are dropped afterwards.
    """
    return attention.float().mean(1)[:, prefix:, prefix:]


def doubly_stochastic(similarity: Tensor, rounds: int = 10) -> Tensor:
    """[b, N, N] T: rows, then columns of S [b, N, N] divided by their sums, over and over.

    Sinkhorn's way.
    UNSTATED [EXITS]: rounds. Three, as in CLIP-ES, leave column sums 12 % away from one, ten 0.1 %.
    """
    matrix = similarity.clamp(min=torch.finfo(similarity.dtype).tiny)
    for _ in range(rounds):
        matrix = matrix / matrix.sum(2, keepdim=True)
        matrix = matrix / matrix.sum(1, keepdim=True)
    return matrix


def doubly_stochastic_fast(similarity: Tensor, rounds: int = 10) -> Tensor:
    """The same by two vectors of factors: a product with S instead of two divisions a round."""
    matrix = similarity.clamp(min=torch.finfo(similarity.dtype).tiny)
    column = torch.ones_like(matrix[:, :1])
    for _ in range(rounds):
        row = 1 / (matrix @ column.transpose(1, 2))
        column = 1 / (row.transpose(1, 2) @ matrix)
    return row * matrix * column if rounds else matrix


def residual(matrix: Tensor) -> tuple[float, float]:
    """Largest distance of a row's and of a column's sum from one."""
    rows, columns = (matrix.sum(axis).sub(1).abs().max() for axis in (2, 1))
    return float(rows), float(columns)


def propagated(transition: Tensor, seeds: Tensor, hops: int = 3) -> Tensor:
    """[b, N, k] T^alpha applied to seeds [b, N, k], without ever forming T^alpha. [EXITS Sec. C]"""
    for _ in range(hops):
        seeds = transition @ seeds
    return seeds


def converged(transition: Tensor, seeds: Tensor, beta: float = 0.25) -> Tensor:
    """[b, N, k] (1 - beta) (I - beta T)^-1 applied to seeds [b, N, k]. [EXITS Eq. a2]

    At beta = 1, which the text allows, the matrix is singular; and this is not the limit of
    T^alpha, which is flat.
    """
    if not 0 <= beta < 1:
        raise InputError(f"beta: expected a number from 0 to below 1, got {beta}")
    identity = torch.eye(transition.shape[1], dtype=transition.dtype, device=transition.device)
    return torch.linalg.solve(identity - beta * transition, (1 - beta) * seeds)
