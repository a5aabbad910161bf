"""One query for each point: bipartite matching of token queries with supervision points, and the loss it gives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pointseg.ops.focal import focal_cost, focal_loss


def point_cost(
    logits: Tensor,
    places: Tensor,
    label: Tensor,
    points: Tensor,
    class_weight: float,
    place_weight: float,
) -> Tensor:
    """[q, m] price of giving point m to query q: focal class cost and L1 of normalised places. [AS Sec. 3.1]"""
    return class_weight * focal_cost(logits, label) + place_weight * torch.cdist(
        places, points, p=1
    )


def cheapest_pairs(costs: Tensor) -> Tensor:
    """[m] the query of each point, no query twice, at the least total of costs [q, m]; -1 for points left over."""
    query = torch.full((costs.shape[1],), -1, dtype=torch.long)
    row, column = linear_sum_assignment(
        costs.detach().double().nan_to_num(1e6, 1e6, -1e6).cpu().numpy()
    )
    query[torch.from_numpy(column)] = torch.from_numpy(row)
    return query.to(costs.device)


@dataclass(frozen=True)
class PointTargets:
    """Supervision points of a batch, each of which one query of its picture shall answer."""

    label: Tensor  # [p]
    place: Tensor  # [p, 2] x and y as shares of the padded picture
    image: Tensor  # [p] row of the batch

    @torch.no_grad()
    def matched(self, logits: Tensor, places: Tensor, place_weight: float) -> Tensor:
        """[p] the query of each point, -1 for none; logits [b, q, C], places [b, q, 2]. [AS Sec. 3.1]"""
        query = torch.full_like(self.label, -1)
        for row in range(len(logits)):
            own = self.image == row
            cost = point_cost(
                logits[row], places[row], self.label[own], self.place[own], 1.0, place_weight
            )
            query[own] = cheapest_pairs(cost)
        return query

    def losses(
        self, logits: Tensor, places: Tensor, query: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Focal loss of all queries and L1 of the matched, over `count`: l_cls and l_L1 of [AS Sec. 4]."""
        found = query >= 0
        at = self.image[found], query[found]
        wanted = torch.full(
            logits.shape[:2], logits.shape[2], dtype=torch.long, device=logits.device
        )
        wanted[at] = self.label[found]
        distance = (places[at] - self.place[found]).abs().sum()
        return focal_loss(logits.flatten(0, 1), wanted.flatten()) / count, distance / count

    def extended(self, label: Tensor, place: Tensor, image: Tensor) -> PointTargets:
        return PointTargets(
            torch.cat([self.label, label]),
            torch.cat([self.place, place]),
            torch.cat([self.image, image]),
        )
