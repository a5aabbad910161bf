"""Key-point filtering of [AS Sec. 3.2], Alg. 1: which key-points survive, and which are one."""

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


def filter_keypoints(
    features: Tensor,
    parts: Tensor,
    foreground: Tensor,
    filter_threshold: float = 0.85,  # T_f [AS Tab. 5]
    merge_threshold: float = 0.85,  # T_m [AS Tab. 5]
) -> Filtered:
    """Key-points [n, K, D] less those whose parts [n, K, S] leave the foreground [n, S], and those
    alike merged. [AS Alg. 1]

    DEVIATION [AS Alg. 1 l. 19]: Mean weighs each key-point by its length. Ours is as long as its
    tokens; Eq. 7 as printed shortens it to the share of its weights on Phi+.
    """
    kept = (part_precision(parts, foreground) >= filter_threshold) & parts.any(-1)
    members = merged_members(features, parts.sum(-1), kept, merge_threshold)
    share = members.to(features.dtype)
    mean = share @ features / share.sum(-1, keepdim=True).clamp(min=1)
    return Filtered(mean, members.any(-1), members)


def part_precision(parts: Tensor, foreground: Tensor) -> Tensor:
    """[n, K] share of each part [n, K, S] on the object's foreground [n, S]. [AS Alg. 1 l. 3]

    UNSTATED [AS Alg. 1 l. 3]: 0 / 0 of a key-point that owns no token is 0; it is always removed.
    """
    area = parts.sum(-1)
    return (parts & foreground[:, None]).sum(-1) / area.clamp(min=1)


def merged_members(features: Tensor, area: Tensor, kept: Tensor, merge_threshold: float) -> Tensor:
    """[n, K, K] bool, row r: key-points merged in round r, largest area first. [AS Alg. 1 l. 8-20]

    UNSTATED [AS Alg. 1 l. 16]: a key-point once merged leaves Psi; the print would merge it again.
    """
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
