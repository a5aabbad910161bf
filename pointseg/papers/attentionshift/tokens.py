"""Patch tokens: where they lie, and the two products that all maps and key-points are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SHARE_FROM = 0.7  # share of an image's tokens in the boxes from which sharing beats copying (CPU)


@dataclass(frozen=True)
class Tokens:
    """Rows of S tokens as unit directions and lengths; neighbouring objects may share a row."""

    directions: Tensor  # [m, S, D]
    lengths: Tensor  # [m, S]
    sharing: list[int]  # m numbers: objects that look at each row, n of them in all

    @classmethod
    def of(cls, features: Tensor, sharing: list[int] | None = None) -> Tokens:
        """From features [m, S, D]; without `sharing` each row is one object's own."""
        lengths = features.norm(dim=-1)  # several times as fast as F.normalize on a CPU
        directions = features / lengths.clamp(min=1e-12)[..., None]
        return cls(directions, lengths, sharing or [1] * len(features))

    def row(self) -> Tensor:
        """[n] the row that each object looks at."""
        rows = torch.arange(len(self.lengths), device=self.lengths.device)
        return rows.repeat_interleave(
            torch.tensor(self.sharing, dtype=torch.long, device=rows.device)
        )

    def picked(self, index: Tensor) -> Tokens:
        """The tokens `index` [n, S'] of each object, copied into a row of its own."""
        flat = (self.row()[:, None] * self.lengths.shape[1] + index).flatten()
        directions = self.directions.flatten(0, 1).index_select(0, flat)
        lengths = self.lengths.flatten().index_select(0, flat)
        return Tokens(
            directions.unflatten(0, index.shape), lengths.view(index.shape), [1] * len(index)
        )

    def features_at(self, index: Tensor) -> Tensor:
        """[n, K, D] features of the tokens [n, K]."""
        row = self.row()[:, None]
        return self.directions[row, index] * self.lengths[row, index, None]

    def cosines(self, prototypes: Tensor) -> Tensor:
        """[n, K, S] cosine d(phi, psi) of every token with prototypes [n, K, D]."""
        unit = prototypes / prototypes.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        return self._products(unit, self.directions.transpose(1, 2))

    def sums(self, weights: Tensor) -> Tensor:
        """[n, K, D] sums of the token features with weights [n, K, S]."""
        lengths = self.lengths if self._alone() else self.lengths[self.row()]
        return self._products(weights * lengths[:, None], self.directions)

    def addresses(self) -> Tensor:
        """[n * S] where each object's tokens lie in the m * S tokens of all rows."""
        count = self.lengths.shape[1]
        columns = torch.arange(count, device=self.lengths.device)
        return (self.row()[:, None] * count + columns).flatten()

    def bags(self, address: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        """[c, D] sums of token features with weights [N], by bags of `sizes` [c] one after the
        other, of the tokens at `address` [N]."""
        lengths = self.lengths.flatten().index_select(0, address)
        weights = (weights * lengths).to(self.directions.dtype)
        starts, directions = sizes.cumsum(0) - sizes, self.directions.flatten(0, 1)
        return F.embedding_bag(address, directions, starts, mode="sum", per_sample_weights=weights)

    def _alone(self) -> bool:
        """Whether each row is one object's own."""
        return all(count == 1 for count in self.sharing)

    def _products(self, left: Tensor, right: Tensor) -> Tensor:
        """[n, K, B] of [n, K, A] and [m, A, B]: one product a row, for all that share it."""
        if self._alone():
            return left @ right
        pairs = zip(left.split(self.sharing), right)
        parts = [objects.flatten(0, 1) @ row for objects, row in pairs]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]  # one image is not copied
        return joined.view(*left.shape[:2], right.shape[2])


@dataclass(frozen=True)
class Region:
    """The tokens of the image that lie in the box of each of n objects."""

    index: Tensor  # [n, S]
    inside: Tensor  # [n, S] bool: which of them are in the box; the rest is padding

    @classmethod
    def of(cls, in_box: Tensor) -> Region:
        """From [n, T] bool. Small boxes are moved to the front, larger ones keep the whole
        image."""
        count, tokens = in_box.sum(1), in_box.shape[1]
        longest = max(int(count.max()) if len(count) else 0, 1)
        if longest > SHARE_FROM * tokens:
            return cls(torch.arange(tokens, device=in_box.device).expand_as(in_box), in_box)
        index = in_box.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]
        return cls(index, torch.arange(longest, device=in_box.device) < count[:, None])

    def of_tokens(self, tokens: Tokens) -> Tokens:
        """The region's tokens; those of whole images are not copied."""
        whole = self.index.shape[1] == tokens.lengths.shape[1]
        return tokens if whole else tokens.picked(self.index)

    def on_grid(self, values: Tensor, tokens: int) -> Tensor:
        """[n, T] bool: values [n, S] put back to their tokens."""
        empty = values.new_zeros(len(values), tokens)
        return empty.scatter(1, self.index, values & self.inside)


def valid_tokens(
    sizes: list[tuple[int, int]], grid: tuple[int, int], stride: int, device=None
) -> Tensor:
    """[b, h * w] bool: tokens that hold at least one pixel of their image, not padding alone."""
    shape = torch.tensor(sizes, device=device)
    rows = torch.arange(grid[0], device=device) * stride < shape[:, :1]
    columns = torch.arange(grid[1], device=device) * stride < shape[:, 1:]
    return (rows[:, :, None] & columns[:, None, :]).flatten(1)


def token_centres(index: Tensor, grid: tuple[int, int], stride: float) -> Tensor:
    """[..., 2] pixel (x, y) of the centres of tokens counted row by row on a grid (h, w)."""
    return token_corners(index, grid).add(0.5).mul(stride)


def token_corners(index: Tensor, grid: tuple[int, int]) -> Tensor:
    """[..., 2] column and row of tokens, as float."""
    return torch.stack([index % grid[1], index // grid[1]], -1).float()


def token_at(xy: Tensor, grid: tuple[int, int], stride: float) -> Tensor:
    """[...] index of the token under pixel points [..., 2]; outside, of the nearest token."""
    column = (xy[..., 0] / stride).long().clamp(0, grid[1] - 1)
    row = (xy[..., 1] / stride).long().clamp(0, grid[0] - 1)
    return row * grid[1] + column
