"""One query for each point: bipartite matching of token queries with supervision points."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pointseg.ops.focal import focal_cost


def point_cost(
    logits: Tensor, places: Tensor, label: Tensor, points: Tensor, class_weight: float, place_weight: float
) -> Tensor:
    """[q, m] price of giving point m to query q: focal class cost and L1 of normalised places. [AS Sec. 3.1]"""
    return class_weight * focal_cost(logits, label) + place_weight * torch.cdist(places, points, p=1)


def cheapest_pairs(costs: Tensor) -> Tensor:
    """[m] the query of each point, no query twice, at the least total of costs [q, m]; -1 for points left over."""
    query = torch.full((costs.shape[1],), -1, dtype=torch.long)
    row, column = linear_sum_assignment(costs.detach().double().nan_to_num(1e6, 1e6, -1e6).cpu().numpy())
    query[torch.from_numpy(column)] = torch.from_numpy(row)
    return query.to(costs.device)
