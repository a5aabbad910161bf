"""Beyond the paper: other costs and prices in the same question, owner = argmin c - u.

A crossing changes the labels that the student learns from. The branch, its iteration and its losses
stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.ops.colour import colour_edges
from pointseg.ops.paths import entering_steps, semantic_step, shortest_paths, undirected_steps
from pointseg.ops.point_labels import likelihood_cost
from pointseg.ops.transport import converged_potentials
from pointseg.papers.epld.distance import distance_map
from pointseg.papers.epld.queries import Targets

# Rows of the design table: a setting, and what it changes in EPLD's answer.
CROSSINGS = {
    "price: transport": {"price": "dual prices of optimal transport on 1 - M"},
    "cost: path": {"cost": "cheapest path over changes of M and colour, weighted by M"},
}
EDGE_WEIGHT = 0.1  # of a colour edge entered; UNSTATED [PSPS]: the official code


def transport_price(cost: Tensor, probability: Tensor) -> Tensor:
    """[n] Point2Mask's price on a cost [n, m] of cells, targets at minus infinity own nothing.

    Each cell wants one unit; a target supplies its probable area, the sum of M [n, m] over cells.
    """
    supply, demand = probability.sum(-1), cost.new_ones(cost.shape[-1])
    return converged_potentials(cost, supply * (len(demand) / supply.sum()), demand)


def path_cost(probability: Tensor, points: Tensor, image: Tensor) -> Tensor:
    """[n, h, w] PSPS's cost on M [n, h, w] in place of its map of classes.

    Cheapest paths from a target's points [n, h, w] over changes of M and colour edges of the image
    [3, H, W], weighted by M: its queries carry the class embedding. A target without points on the
    grid is as far as the farthest cell.
    """
    n, grid = len(points), tuple(points.shape[-2:])
    row, cell = points.flatten(1).nonzero(as_tuple=True)
    edges = EDGE_WEIGHT * entering_steps(colour_edges(image, grid))
    lengths = shortest_paths(undirected_steps((semantic_step, probability, 1.0)) + edges, cell)
    nearest = lengths.new_full((n, *grid), torch.inf)
    nearest.scatter_reduce_(0, row[:, None, None].expand_as(lengths), lengths, "amin")
    farthest = lengths.max() if len(lengths) else 1.0
    distance = nearest.where(nearest.isfinite(), farthest)
    return likelihood_cost(distance, probability, torch.arange(n, device=points.device))


def path_costs(probability: Tensor, targets: Targets, images: Tensor) -> Tensor:
    """[b, N, h, w] of a batch; cells outside an image keep the learnt distance."""
    costs, (height, width) = distance_map(probability), probability.shape[-2:]
    stride = (images.shape[-2] // height, images.shape[-1] // width)
    for k, (inside, present) in enumerate(zip(targets.inside, targets.present)):
        h, w, n = int(inside.any(1).sum()), int(inside.any(0).sum()), int(present.sum())
        if n:
            image = images[k, :, : h * stride[0], : w * stride[1]]
            one = (plane[k, :n, :h, :w] for plane in (probability, targets.points))
            costs[k, :n, :h, :w] = path_cost(*one, image)
            costs[k, n:, :h, :w] = 1.0  # no path: farther than any target
    return costs


def transport_prices(costs: Tensor, probability: Tensor, targets: Targets) -> Tensor:
    """[b, N] of a batch, minus infinity where a target is absent."""
    prices = costs.new_full(costs.shape[:2], -torch.inf)
    for k, (inside, present) in enumerate(zip(targets.inside, targets.present)):
        if present.any():
            held = (plane[k, present][:, inside] for plane in (costs, probability))
            prices[k, present] = transport_price(*held)
    return prices
