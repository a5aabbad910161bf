"""Mean field over a window: the binary mask that neighbouring pixels of like colour agree on."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

LOW, HIGH = 0.1, 0.9  # probabilities after each round; UNSTATED [MAL]: the release
SMALL = 1e-6  # in the denominator; it counts where both products are tiny


def colour_kernel(images: Tensor, offset: tuple[int, int], zeta: float) -> Tensor:
    """[b, h', w'] exp(-|I_i - I_j|^2 / (2 zeta^2)) of pixels that have a neighbour at `offset`."""
    here, there = overlap(images, offset)
    return torch.exp((here - there).square().sum(1) / (-2 * zeta**2))


def overlap(maps: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two views of maps [..., h, w]: pixels with a neighbour at `offset`, and that neighbour."""
    h, w = maps.shape[-2:]
    (down, right), views = offset, []
    for sign in (1, -1):
        rows = slice(max(0, -sign * down), h - max(0, sign * down))
        columns = slice(max(0, -sign * right), w - max(0, sign * right))
        views.append(maps[..., rows, columns])
    return views[0], views[1]


def mean_field(
    prob: Tensor,
    images: Tensor,
    inside: Tensor,
    zeta: float = 0.1,
    rounds: int = 100,
    radius: int = 1,
) -> Tensor:
    """[b, h, w] bool mask of foreground probabilities [b, h, w] inside a box map [b, h, w]. [MAL]

    x_i(l) <- prod_j x_j(l)^k_ij over the window with its middle, foreground times the box, divided
    by the sum of both labels. No unary term comes in again: `prob` only starts the rounds. A pixel
    beyond the border has no say. UNSTATED [MAL]: the start is brought to the range of the rounds.
    """
    side = range(-radius, radius + 1)
    pairs = [(o, colour_kernel(images, o, zeta)) for o in product(side, side) if o > (0, 0)]
    inside, x = inside.to(prob.dtype), prob.clamp(LOW, HIGH)
    for _ in range(rounds):
        foreground, background = x.log(), (1 - x).log()
        fg, bg = (window_sum(plane, pairs).exp_() for plane in (foreground, background))
        fg = fg * inside
        x = (fg / (fg + bg + SMALL)).clamp_(LOW, HIGH)
    return x > 0.5


def window_sum(plane: Tensor, pairs: list[tuple[tuple[int, int], Tensor]]) -> Tensor:
    """[b, h, w] sum of k_ij plane_j over a window: the middle, and each pair both ways."""
    total = plane.clone()
    for offset, kernel in pairs:
        (here, there), (total_here, total_there) = overlap(plane, offset), overlap(total, offset)
        total_here.addcmul_(kernel, there)
        total_there.addcmul_(kernel, here)
    return total
