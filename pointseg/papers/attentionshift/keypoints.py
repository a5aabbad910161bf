"""Key-points of AttentionShift: where they start, which of them survive, and where they lie in the picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Filtered:
    """Key-points after Alg. 1, largest part first; rows that are not `valid` are padding."""

    features: Tensor  # [n, K, D]
    valid: Tensor  # [n, K] bool
    members: Tensor  # [n, K, K] bool: row r was merged from these key-points


def spread_seeds(area: Tensor, count: int, fallback: Tensor) -> Tensor:
    """[n, count] token indices at a constant stride through each area [n, T]; `fallback` [n] where it is empty.

    UNSTATED [AS Sec. 3.2]: "uniformly sample" is read as the official code reads it, row-major and repeated if too few.
    """
    step = torch.arange(count, device=area.device)
    return _nth_token(area, step[None] * area.sum(1, keepdim=True) // count, fallback)


def random_seeds(
    area: Tensor, count: int, fallback: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """[n, count] token indices drawn evenly, with replacement, from each area [n, T]. Baseline of [AS Sec. 5.4]"""
    share = torch.rand(len(area), count, device=area.device, generator=generator)
    return _nth_token(area, (share * area.sum(1, keepdim=True)).long(), fallback)


def _nth_token(area: Tensor, rank: Tensor, fallback: Tensor) -> Tensor:
    """[n, K] index of the rank-th True of each row of area [n, T]."""
    order = area.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    found = order.gather(1, rank.clamp(max=area.shape[1] - 1))
    return torch.where(area.any(1, keepdim=True), found, fallback[:, None])


def part_precision(parts: Tensor, foreground: Tensor) -> Tensor:
    """[n, K] share of each part [n, K, S] that lies on the instance's foreground [n, S]. [AS Alg. 1 l. 3]

    UNSTATED [AS Alg. 1 l. 3]: 0 / 0 of a key-point that owns no token is 0, so it is filtered.
    """
    area = parts.sum(-1)
    return (parts & foreground[:, None]).sum(-1) / area.clamp(min=1)


def merge_order_members(
    features: Tensor, area: Tensor, kept: Tensor, merge_threshold: float
) -> Tensor:
    """[n, K, K] bool, row r: key-points merged in round r, largest area first, each once. [AS Alg. 1 l. 8-20]"""
    unit = F.normalize(features, dim=-1)
    alike = unit @ unit.transpose(1, 2) > merge_threshold
    left, rounds = kept, []
    lanes = torch.arange(kept.shape[1], device=kept.device)
    for _ in range(kept.shape[1]):
        largest = area.masked_fill(~left, -1).argmax(1)
        itself = lanes == largest[:, None]
        near = alike[torch.arange(len(alike), device=alike.device), largest]
        members = left & (near | itself)
        rounds.append(members)
        left = left & ~members
    return torch.stack(rounds, 1) if rounds else kept.new_zeros(*kept.shape, 0)


def filter_keypoints(
    features: Tensor,
    parts: Tensor,
    foreground: Tensor,
    filter_threshold: float = 0.85,  # T_f [AS Tab. 5]
    merge_threshold: float = 0.85,  # T_m [AS Tab. 5]
) -> Filtered:
    """Drop key-points [n, K, D] whose parts [n, K, S] leave the foreground [n, S], merge those alike. [AS Alg. 1]"""
    kept = part_precision(parts, foreground) >= filter_threshold
    members = merge_order_members(features, parts.sum(-1), kept, merge_threshold)
    share = members.to(features.dtype)
    mean = share @ features / share.sum(-1, keepdim=True).clamp(min=1)
    return Filtered(mean, members.any(-1), members)


def nearest_tokens(features: Tensor, directions: Tensor, allowed: Tensor) -> Tensor:
    """[n, K] index of the token most similar to each key-point, among the allowed ones [n, S]. [AS Eq. 4]"""
    similarity = F.normalize(features, dim=-1) @ directions.transpose(1, 2)
    return similarity.masked_fill(~allowed[:, None], -torch.inf).argmax(-1)


def token_centres(index: Tensor, grid: tuple[int, int], stride: float) -> Tensor:
    """[..., 2] pixel (x, y) of the centres of tokens counted row by row on a grid (h, w)."""
    return torch.stack([index % grid[1], index // grid[1]], -1).float().add(0.5).mul(stride)


def token_at(xy: Tensor, grid: tuple[int, int], stride: float) -> Tensor:
    """[...] index of the token under pixel points [..., 2]; points outside the grid belong to its nearest token."""
    column = (xy[..., 0] / stride).long().clamp(0, grid[1] - 1)
    row = (xy[..., 1] / stride).long().clamp(0, grid[0] - 1)
    return row * grid[1] + column
