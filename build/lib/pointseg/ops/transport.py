"""Optimal transport from n suppliers to m consumers: the papers' Sinkhorn, and an exact solver.

A consumer's owner is argmin_i c_ij - u_i: only the n supplier potentials matter, never the plan.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

TINY_MASS = 1e-8  # UNSTATED [P2M-S Eq. 2]: the official code's guard of log 0


def sinkhorn(
    cost: Tensor, supply: Tensor, demand: Tensor, epsilon: float = 1e-3, rounds: int = 80
) -> Tensor:
    """Supplier potentials u [n] after `rounds` of matrix scaling in the log domain. [P2M-S Eq. 2]

    cost [n, m], supply [n] = x, demand [m] = y. rounds: [P2M-S Tab. A2]. Consumers are scaled
    first, so supplies are met exactly.
    UNSTATED [P2M-S Eq. 1]: epsilon 1e-3 and potentials that start at 1 are the official code's.
    In numpy: the problem is small, and 160 tiny sums cost ten times less there.
    """
    x, y = (np.log(mass.detach().cpu().numpy() + TINY_MASS) for mass in (supply, demand))
    c = -cost.detach().cpu().numpy() / epsilon
    u = np.full_like(x, 1 / epsilon)
    for _ in range(rounds):
        v = y - _log_sum_exp(c + u[:, None], 0)
        u = x - _log_sum_exp(c + v, 1)
    return torch.from_numpy(u * epsilon).to(cost)


def _log_sum_exp(terms: np.ndarray, axis: int) -> np.ndarray:
    """log of the sum of exponentials along an axis, in place and without overflow."""
    largest = terms.max(axis, keepdims=True)
    terms -= largest
    return np.log(np.exp(terms, out=terms).sum(axis)) + largest.squeeze(axis)


def consumer_potentials(cost: Tensor, u: Tensor, demand: Tensor, epsilon: float) -> Tensor:
    """Potentials v [m] that meet every demand for given supplier potentials u [n]. [P2M-S Eq. 2]"""
    return epsilon * ((demand + TINY_MASS).log() - ((u[:, None] - cost) / epsilon).logsumexp(0))


def transport_plan(cost: Tensor, u: Tensor, v: Tensor, epsilon: float) -> Tensor:
    """Gamma = diag(exp u/e) K diag(exp v/e), [n, m]. [P2M-S Eq. 3]"""
    return ((u[:, None] + v - cost) / epsilon).exp()


def shares(cost: Tensor, u: Tensor, epsilon: float) -> Tensor:
    """[n, m], the part of each consumer's demand that each supplier carries; columns sum to 1."""
    return ((u[:, None] - cost) / epsilon).softmax(0)


def converged_potentials(
    cost: Tensor, supply: Tensor, demand: Tensor, epsilon: float = 1e-3, tolerance: float = 1e-6
) -> Tensor:
    """Supplier potentials u [n] at which all marginals hold: Newton on the dual, epsilon shrinking.

    The dual g(u) = <x, u> - e sum_j y_j logsumexp_i (u_i - c_ij)/e is concave in n numbers.
    `tolerance` is the largest error of a supply as a part of all mass. DEVIATION [P2M-S Eq. 2]: 80
    rounds at 1e-3 stop long before the optimum.
    """
    c, x, y = cost.double(), supply.double(), demand.double()
    y = y / y.sum()
    x = x / x.sum()
    served = x > 0  # a supplier of nothing serves nobody: its potential is minus infinity
    u = c.new_full(x.shape, -torch.inf)
    inner = torch.zeros_like(x[served])
    for level in _falling(float(c.amax() - c.amin()), epsilon):
        inner = _ascend(c[served], inner, x[served], y, level, tolerance)
    u[served] = inner
    return u.to(cost.dtype)


def _falling(start: float, epsilon: float) -> list[float]:
    """start, start/4, ..., epsilon."""
    levels = [epsilon]
    while levels[-1] * 4 < start:
        levels.append(levels[-1] * 4)
    return levels[::-1]


def _ascend(
    cost: Tensor, u: Tensor, x: Tensor, y: Tensor, epsilon: float, tolerance: float
) -> Tensor:
    """[n] potentials by damped Newton steps until the supplies agree.

    The damping falls after a good step and rises after a bad one.
    """
    damping, best = 1e-3, _dual(cost, u, x, y, epsilon)
    for _ in range(100):
        part = shares(cost, u, epsilon)
        carried = part @ y
        missing = x - carried
        if missing.abs().max() < tolerance:
            break
        curvature = (torch.diag(carried) - (part * y) @ part.T) / epsilon
        scale = curvature.diagonal().clamp(min=1e-9 / epsilon)
        for _ in range(40):
            step = torch.linalg.solve(curvature + torch.diag(damping * scale), missing)
            value = _dual(cost, u + step, x, y, epsilon)
            if value >= best - 1e-15:
                break
            damping *= 4
        u, best, damping = u + step - (u + step).mean(), value, max(damping / 10, 1e-12)
    return u


def _dual(cost: Tensor, u: Tensor, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    return (x * u).sum() - epsilon * (y * ((u[:, None] - cost) / epsilon).logsumexp(0)).sum()
