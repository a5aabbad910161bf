"""The pointed-at objects of a batch side by side, so that no step loops over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.papers.attentionshift.keypoints import token_at
from pointseg.structures import Points


@dataclass(frozen=True)
class Objects:
    """n objects with p points in all; objects of one image stand in the order of their first points."""

    image: Tensor  # [n] row of the batch
    first: Tensor  # [n] the first point of each object
    counts: list[int]  # objects of each image
    points_each: list[int]  # points of each image
    xy: Tensor  # [p, 2] pixels
    owner: Tensor  # [p] object of each point
    point_image: Tensor  # [p] row of the batch
    point_label: Tensor  # [p]

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of(cls, points: list[Points]) -> Objects:
        """Points that share a target in one image belong to one object."""
        owners, firsts, counts = [], [], []
        for each in points:
            rank: dict[int, int] = {}
            base, seen = sum(counts), sum(len(o) for o in owners)
            owners.append([base + rank.setdefault(t, len(rank)) for t in each.target.tolist()])
            firsts += [seen + owners[-1].index(base + i) for i in range(len(rank))]
            counts.append(len(rank))
        device = points[0].xy.device
        point_image = torch.cat(
            [torch.full((len(each),), i, device=device) for i, each in enumerate(points)]
        )
        first = torch.tensor(firsts, dtype=torch.long, device=device)
        owner = torch.tensor([o for row in owners for o in row], dtype=torch.long, device=device)
        xy, label = (
            torch.cat([each.xy for each in points]),
            torch.cat([each.label for each in points]),
        )
        return cls(
            point_image[first],
            first,
            counts,
            [len(e) for e in points],
            xy,
            owner,
            point_image,
            label,
        )

    @property
    def label(self) -> Tensor:
        """[n] class of each object."""
        return self.point_label[self.first]

    @property
    def place(self) -> Tensor:
        """[n, 2] the first point of each object."""
        return self.xy[self.first]

    @property
    def slot(self) -> Tensor:
        """[p] rank of each point among those of its picture."""
        before = torch.searchsorted(self.point_image, self.point_image)
        return torch.arange(len(self.point_image), device=before.device) - before

    @property
    def slot_count(self) -> int:
        """The most points in one picture."""
        return max(self.points_each, default=0)

    @property
    def starts(self) -> Tensor:
        """[b] index of the first object of each picture."""
        counts = torch.tensor(self.counts, device=self.image.device)
        return counts.cumsum(0) - counts

    def per_object(self, values: Tensor) -> Tensor:
        """[n, ...] mean over each object's points of values [p, ...]."""
        total = values.new_zeros(len(self), *values.shape[1:]).index_add(0, self.owner, values)
        count = torch.bincount(self.owner, minlength=len(self)).clamp(min=1)
        return total / count.view(-1, *[1] * (values.ndim - 1))

    def split(self, values: Tensor) -> list[Tensor]:
        """Rows [n, ...] as one tensor an image."""
        return list(values.split(self.counts))


@dataclass(frozen=True)
class Scene:
    """Where n objects are: what the label path needs to know of the batch besides its features."""

    image: Tensor  # [n] row of the batch
    place: Tensor  # [n, 2] labelled point in pixels
    seed: Tensor  # [n] its token
    real: Tensor  # [n, T] bool: tokens of the object's own picture, not padding
    limit: Tensor  # [n, 2] width and height of that picture
    grid: tuple[int, int]

    @classmethod
    def of(
        cls, objects: Objects, sizes: list[tuple[int, int]], grid: tuple[int, int], stride: int
    ) -> Scene:
        place, device = objects.place, objects.xy.device
        real = real_tokens(sizes, grid, stride, device)[objects.image]
        limit = torch.tensor(sizes, device=device, dtype=place.dtype)[objects.image].flip(1)
        return cls(objects.image, place, token_at(place, grid, stride), real, limit, grid)

    def repeated(self, times: int) -> Scene:
        """Every object `times` times in a row."""
        fields = (self.image, self.place, self.seed, self.real, self.limit)
        return Scene(*(each.repeat_interleave(times, 0) for each in fields), self.grid)


def real_tokens(
    sizes: list[tuple[int, int]], grid: tuple[int, int], stride: int, device=None
) -> Tensor:
    """[b, h * w] bool: tokens that hold at least one pixel of their picture, not padding alone."""
    shape = torch.tensor(sizes, device=device)
    rows = torch.arange(grid[0], device=device) * stride < shape[:, :1]
    columns = torch.arange(grid[1], device=device) * stride < shape[:, 1:]
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)
