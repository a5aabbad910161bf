"""The things pointed at in a batch: what every step of the paper runs over, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.papers.attentionshift.tokens import token_at, valid_tokens
from pointseg.structures import Points


@dataclass(frozen=True)
class PointTargets:
    """The p supervision points of a batch; each of them one query token shall predict."""

    xy: Tensor  # [p, 2] pixels
    label: Tensor  # [p]
    image: Tensor  # [p] row of the batch, ascending

    def rank(self) -> Tensor:
        """[p] rank of each point among those of its image."""
        return ranks(self.image)


def ranks(image: Tensor) -> Tensor:
    """[n] rank of each entry among those of its image [n], ascending."""
    before = torch.searchsorted(image, image)
    return torch.arange(len(image), device=image.device) - before


@dataclass(frozen=True)
class Objects:
    """The n things pointed at in a batch side by side; in each image in the order of their
    points."""

    image: Tensor  # [n] row of the batch, ascending
    label: Tensor  # [n]
    xy: Tensor  # [n, 2] pixels of the first point
    seed: Tensor  # [n] its token
    valid: Tensor  # [n, T] bool: tokens of the object's image, not padding
    limit: Tensor  # [n, 2] width and height of that image
    counts: list[int]  # objects of each image
    points: PointTargets  # all p points of the objects
    owner: Tensor  # [p] object of each point
    grid: tuple[int, int]
    stride: int
    sizes: list[tuple[int, int]]  # (h, w) of each image

    @classmethod
    def of(
        cls, points: list[Points], sizes: list[tuple[int, int]], grid: tuple[int, int], stride: int
    ) -> Objects:
        """Of the things among the points of each image; points that share a target are one
        object."""
        things = [each.things() for each in points]
        order, device = [_order(each.target.tolist()) for each in things], things[0].xy.device
        image = torch.tensor([i for i, row in enumerate(order) for _ in row], device=device)
        targets = PointTargets(*(torch.cat([getattr(each, name) for each in things])
                                 for name in ("xy", "label")), image.long())  # fmt: skip
        counts = [max(row, default=-1) + 1 for row in order]
        base = torch.tensor([0, *counts[:-1]], device=device).cumsum(0)
        rank = torch.tensor([r for row in order for r in row], dtype=torch.long, device=device)
        owner = base[targets.image] + rank
        first = torch.searchsorted(owner.cummax(0).values, torch.arange(sum(counts), device=device))
        row, xy = targets.image[first], targets.xy[first]
        valid = valid_tokens(sizes, grid, stride, device)[row]
        limit = torch.tensor(sizes, device=device, dtype=xy.dtype)[row].flip(1)
        return cls(row, targets.label[first], xy, token_at(xy, grid, stride), valid, limit,
                   counts, targets, owner, grid, stride, sizes)  # fmt: skip

    def __len__(self) -> int:
        return len(self.image)

    def rank(self) -> Tensor:
        """[n] rank of each object among those of its image."""
        return ranks(self.image)

    def per_object(self, values: Tensor) -> Tensor:
        """[n, ...] mean over each object's points of values [p, ...]."""
        total = values.new_zeros(len(self), *values.shape[1:]).index_add(0, self.owner, values)
        count = torch.bincount(self.owner, minlength=len(self)).clamp(min=1)
        return total / count.view(-1, *[1] * (values.ndim - 1))

    def on_pixels(self, cells: Tensor) -> Tensor:
        """[n, H, W] bool: sets of tokens [n, T] enlarged to the pixels of the padded image."""
        coarse = cells.unflatten(1, self.grid)[:, None].float()
        return F.interpolate(coarse, scale_factor=self.stride, mode="bilinear")[:, 0] > 0.5

    def split(self, values: Tensor) -> list[Tensor]:
        """Rows [n, ...] as one tensor an image."""
        return list(values.split(self.counts))


def _order(targets: list[int]) -> list[int]:
    """The rank of each target among the different ones, in the order of their first appearance."""
    rank = {target: rank for rank, target in enumerate(dict.fromkeys(targets))}
    return [rank[target] for target in targets]
