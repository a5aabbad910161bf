"""Label maps made from the truth.

What they tell of paths and transport when no network can be blamed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.nets.label_heads import ImageMaps
from pointseg.ops.semantic_losses import PseudoLabel
from pointseg.ops.transport import converged_potentials, shares, sinkhorn
from pointseg.ownership import owner
from pointseg.structures import Points, Truth


def blurred(planes: Tensor, radius: int) -> Tensor:
    """Planes [c, h, w] under three box filters of the given radius, the frame repeated."""
    side = 2 * radius + 1
    for _ in range(3):
        planes = F.avg_pool2d(F.pad(planes[None], (radius,) * 4, mode="replicate"), side, 1)[0]
    return planes


def maps_of_truth(
    truth: Truth, classes: int, grid: tuple[int, int], radius: int = 1, strength: float = 0.9
) -> ImageMaps:
    """What a good label branch would say.

    Blurred classes, blurred borders between targets, no instance features.
    """
    owner = torch.full(truth.void.shape, -1)
    label = torch.full(truth.void.shape, classes)
    for k, mask in enumerate(truth.masks):
        owner[mask], label[mask] = k, int(truth.label[k])
    one_hot = F.one_hot(label, classes + 1)[..., :classes].permute(2, 0, 1).float()
    prob = blurred(F.interpolate(one_hot[None], size=grid, mode="area")[0], radius)
    border = torch.zeros_like(owner, dtype=torch.float32)
    border[:, 1:] += owner[:, 1:] != owner[:, :-1]
    border[1:] += owner[1:] != owner[:-1]
    boundary = F.adaptive_max_pool2d(border.clamp(max=1)[None], grid)
    features = torch.zeros(2, *grid)
    features[0] = 1
    return ImageMaps((prob + 1e-3).log(), features, 0.9 * boundary)


def one_point_each(truth: Truth, generator: torch.Generator) -> Points:
    """A pixel drawn evenly from every target, at its centre."""
    xy = []
    for mask in truth.masks:
        cells = mask.flatten().nonzero()[:, 0]
        cell = int(cells[torch.randint(len(cells), (1,), generator=generator)])
        xy.append((cell % mask.shape[1] + 0.5, cell // mask.shape[1] + 0.5))
    return Points(torch.tensor(xy), truth.label, truth.target, truth.is_thing)


def has_touching_likes(truth: Truth, least: int = 8) -> bool:
    """Whether two things of one class share a border of `least` pixels or more."""
    things = truth.pick(truth.is_thing)
    grown = F.max_pool2d(things.masks.float()[:, None], 3, 1, 1)[:, 0] > 0
    meeting = torch.einsum("ahw,bhw->ab", grown.float(), things.masks.float())
    alike = (things.label[:, None] == things.label).triu(1)
    return bool((meeting * alike >= least).any())


def accuracy(label: PseudoLabel, truth: Truth) -> float:
    """Percent of the pixels of true things that their own target's row owns.

    Targets in the truth's order.
    """
    things = truth.pick(truth.is_thing)
    right = sum(int(((label.things == k) & mask).sum()) for k, mask in enumerate(things.masks))
    return 100 * right / max(1, int(things.masks.any(0).sum()))


def rounds_study(
    cost: Tensor, units: Tensor, rounds: tuple[int, ...], epsilon: float = 1e-3
) -> dict[int, tuple[float, float]]:
    """Rounds of Sinkhorn -> (mass at the wrong supplier, labels unlike the optimum's), in percent;
    cost [n, m], units [n] summing to m. [P2M-S Tab. A2]"""
    demand = cost.new_ones(cost.shape[1])
    optimum = owner(cost, converged_potentials(cost, units, demand, epsilon))
    results = {}
    for t in rounds:
        u = sinkhorn(cost, units, demand, epsilon, t)
        missing = (shares(cost, u, epsilon).sum(1) - units).abs().sum() / 2
        differing = (owner(cost, u) != optimum).float().mean()
        results[t] = (100 * float(missing / cost.shape[1]), 100 * float(differing))
    return results
