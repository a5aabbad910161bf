"""Pseudo points of a crop: seeds, their walk, and two levels.

A reconstruction: the main paper is not at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pointseg.ownership import owner

Score = Literal["difference", "ratio", "relative"]


@dataclass(frozen=True)
class Seeds:
    """Tokens of n crops whose side is known from the clicks alone."""

    foreground: Tensor  # [n, N] bool E: holds an extreme point pushed inward
    background: Tensor  # [n, N] bool O: lies wholly outside the box
    inside: Tensor  # [n, N] bool: centre in the box


@dataclass(frozen=True)
class Levels:
    """Scores from which on a token in the box is foreground, and below which it is background."""

    foreground: float
    background: float  # positive: a token needs a score below its negative


@dataclass(frozen=True)
class Retrieved:
    """Pseudo points: hat E and hat O, tokens in the box beyond the seeds."""

    foreground: Tensor  # [n, N] bool
    background: Tensor  # [n, N] bool

    @property
    def nothing(self) -> Tensor:
        """[n] bool: |hat E u hat O| = 0, where multiple instances have to do. [EXITS Sec. B]"""
        return ~(self.foreground | self.background).any(1)


def pushed_inward(points: Tensor, box: Tensor, delta: float) -> Tensor:
    """[n, 4, 2] extreme points moved `delta` pixels of the crop toward the box's centre.

    They do not pass it. [EXITS Sec. B]
    UNSTATED [EXITS Sec. B]: the centre of the object is read as that of its box.
    """
    way = (box[:, None, :2] + box[:, None, 2:]) / 2 - points
    length = way.norm(dim=-1, keepdim=True)
    return points + way * (delta / length.clamp(min=1e-9)).clamp(max=1)


def seeds_of(points: Tensor, box: Tensor, grid: int, side: int) -> Seeds:
    """Seeds of crops of `side` pixels and grid x grid tokens: pushed points [n, 4, 2], box [n, 4].

    UNSTATED [EXITS Sec. H]: tokens cut by the border of the box are no seeds.
    """
    cell = side / grid
    column, row = (points / cell).long().clamp(0, grid - 1).unbind(-1)
    foreground = torch.zeros(len(points), grid * grid, dtype=torch.bool, device=points.device)
    foreground.scatter_(1, row * grid + column, True)
    edge = torch.arange(grid, device=points.device) * cell
    low, high = box[:, None, :2], box[:, None, 2:]
    beyond = (edge[:, None] + cell <= low) | (edge[:, None] >= high)  # [n, grid, (x, y)]
    within = (edge[:, None] + cell / 2 >= low) & (edge[:, None] + cell / 2 < high)
    outside = (beyond[:, :, None, 1] | beyond[:, None, :, 0]).flatten(1)
    inside = (within[:, :, None, 1] & within[:, None, :, 0]).flatten(1)
    return Seeds(foreground, outside & ~foreground, inside)


def seed_columns(seeds: Seeds) -> Tensor:
    """[n, N, 2] mean over E and mean over O, times N: 1 is what a walk from everywhere gives."""
    return means(torch.stack([seeds.foreground, seeds.background], -1))


def means(sides: Tensor) -> Tensor:
    """[n, N, k] N over the number of tokens at the tokens of each side [n, N, k], else 0."""
    sides = sides.float()
    return sides.shape[1] * sides / sides.sum(1, keepdim=True).clamp(min=1)


def scores(walks: Tensor, rule: Score = "difference") -> Tensor:
    """[n, N] how much more a token belongs to E than to O, of walks [n, N, 2] from both.

    [EXITS Sec. H]

    UNSTATED [EXITS Sec. H]: "the propagation difference" is read as N (mean over E - mean over O):
    sums instead of means would never let four seeds win against hundreds. Named alternatives:
    the share f / (f + b), brought to -1..1, and the difference over its largest value in the crop.
    """
    f, b = walks.unbind(-1)
    if rule == "ratio":
        return (f - b) / (f + b).clamp(min=1e-12)
    difference = f - b
    if rule == "relative":
        return difference / difference.abs().amax(1, keepdim=True).clamp(min=1e-12)
    return difference


def retrieved(score: Tensor, seeds: Seeds, levels: Levels) -> Retrieved:
    """hat E and hat O of scores [n, N]: object and ground bid for a token, and both may be refused.

    UNSTATED [EXITS Sec. H]: seeds do not count as retrieved. A crop without a seed outside its box
    has nothing to compare with, so nothing is retrieved.
    """
    cost = torch.stack([levels.foreground - score, levels.background + score])
    owners = owner(cost, tau=0.0)
    candidates = candidates_of(seeds)
    return Retrieved(candidates & (owners == 0), candidates & (owners == 1))


def candidates_of(seeds: Seeds) -> Tensor:
    """[n, N] bool: tokens in the box that are no seeds, of crops that show some ground."""
    return (seeds.inside & ~seeds.foreground & ~seeds.background) & seeds.background.any(
        1, keepdim=True
    )


def with_neighbours(seeds: Seeds, token: Tensor, crop: Tensor) -> Seeds:
    """Seeds to which extreme points of other objects, at `token` [k] of `crop` [k], add background.

    Not in the paper, which names it as future work [EXITS Sec. H]. A token that is the object's own
    seed stays foreground.
    """
    background = seeds.background.clone()
    background[crop, token] = True
    return Seeds(seeds.foreground, background & ~seeds.foreground, seeds.inside)
