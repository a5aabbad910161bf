"""Which pixels does a point own? The question that every paper of this book answers.

    owner(x) = argmin_n  c_n(x) - u_n      refused where the winner's  c_n(x) - u_n  is above tau

A paper names a cost c, a price u and a refusal tau. The smallest price counts as 0, among equals
the lowest n wins, and what lies at tau is kept. An infinite cost is out of reach: where all costs
are infinite nobody owns. So objects of several images are padded with infinite costs, or stand one
after another and are told apart by their counts.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOBODY = -1  # the owner of a pixel that no point owns


def owner(
    cost: Tensor, price: Tensor | None = None, tau: float | None = None, dim: int = 0
) -> Tensor:
    """Row n along `dim` that owns each pixel, NOBODY where all are refused; int64, without `dim`.

    cost [..., n, ...] with n at `dim`, price [..., n] for the axes up to `dim`.
    """
    if not cost.shape[dim]:
        return torch.full_like(cost.sum(dim), NOBODY, dtype=torch.long)
    net = cost if price is None else cost - _beside(normalised(price), cost)
    best = net.min(dim)
    return best.indices.masked_fill(refused(best.values, tau), NOBODY)


def refused(net: Tensor, tau: float | None = None) -> Tensor:
    """[...] bool: the winner's cost less its price is above tau, or out of reach."""
    return net.isposinf() if tau is None else ~(net <= tau)


def normalised(price: Tensor) -> Tensor:
    """Prices [..., n] whose smallest finite one is 0; a row at minus infinity owns nothing."""
    finite = price.masked_fill(~price.isfinite(), torch.inf)
    smallest = finite.amin(-1, keepdim=True)
    return price - smallest.where(smallest.isfinite(), 0)


def owners(
    cost: Tensor, counts: list[int], price: Tensor | None = None, tau: float | None = None
) -> Tensor:
    """[b, ...] the owner among each image's own objects, which stand one after another.

    cost [n, ...] and price [n] of all images' objects, counts their number in each image.
    """
    prices = [None] * len(counts) if price is None else price.split(counts)
    return torch.stack([owner(c, u, tau) for c, u in zip(cost.split(counts), prices)])


def _beside(price: Tensor, cost: Tensor) -> Tensor:
    """Prices [..., n] with axes behind them, to be subtracted from costs [..., n, ...]."""
    return price.reshape(*price.shape, *[1] * (cost.ndim - price.ndim))
