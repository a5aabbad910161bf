"""Key-point shift of [AS Sec. 3.2], Eq. 2 to Eq. 7: objects side by side, one product a turn.

Shapes: n objects, K key-points, S tokens (padding allowed), D features. `similarity` is
d(phi, psi_k), `cells` delta(A^P_k). A token that is not `inside` the pseudo box, the box around A^I
of [AS Sec. 4], takes part in nothing.

DEVIATION [AS Eq. 2]: sums and owners run over the tokens of the pseudo box, as in the official
code, not over the whole map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from pointseg.ops.processes import uniform
from pointseg.ownership import NOBODY, owner
from pointseg.papers.attentionshift.cells import Cells, nearly_largest
from pointseg.papers.attentionshift.tokens import Tokens

Ownership = Literal["share", "cosine", "softmax"]
FIRST_BANDWIDTH = 0.1  # UNSTATED [AS Eq. 6]: start of the official code, for "softmax" alone


def spread_seeds(area: Tensor, count: int, fallback: Tensor) -> Tensor:
    """[n, count] token indices at a constant stride through each area [n, T]; `fallback` [n] where
    it is empty. [AS Sec. 3.2]

    UNSTATED [AS Sec. 3.2]: "uniformly sample" is read as the official code reads it, row-major and
    repeated if too few.
    """
    step = torch.arange(count, device=area.device)
    return _nth_token(area, step[None] * area.sum(1, keepdim=True) // count, fallback)


def random_seeds(area: Tensor, count: int, fallback: Tensor, draws: Tensor) -> Tensor:
    """[n, count] token indices drawn evenly, with replacement, from each area [n, T] by seeds [n].
    Baseline of [AS Sec. 5.4]"""
    rank = (uniform(draws, count) * area.sum(1, keepdim=True)).long()
    return _nth_token(area, rank, fallback)


def _nth_token(area: Tensor, rank: Tensor, fallback: Tensor) -> Tensor:
    """[n, K] index of the rank-th True of each row of area [n, T]."""
    order = area.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    token = order.gather(1, rank.clamp(max=area.shape[1] - 1))
    return torch.where(area.any(1, keepdim=True), token, fallback[:, None])


def part_maps(similarity: Tensor, inside: Tensor) -> Tensor:
    """[n, K, S] part attention maps A^P: similarity as a share of its sum. [AS Eq. 2]

    UNSTATED [AS Eq. 2]: a negative cosine would turn the share around; it counts as 0, as in the
    official maps.
    """
    positive = similarity.clamp(min=0).mul_(inside[:, None].to(similarity.dtype))
    return positive.div_(positive.sum(-1, keepdim=True).clamp(min=1e-12))


def token_owners(score: Tensor, inside: Tensor) -> Tensor:
    """[n, S] the key-point with the largest score of each token, NOBODY outside: where delta(A^P_k)
    is 1. [AS Eq. 3]

    UNSTATED [AS Eq. 3]: of scores equal but for rounding the first wins.
    """
    return owner(score.minimum(nearly_largest(score)).neg_(), dim=1).masked_fill(~inside, NOBODY)


def nearest_tokens(features: Tensor, tokens: Tokens, inside: Tensor) -> Tensor:
    """[n, K] index of the token most similar to each key-point [n, K, D]. [AS Eq. 4]

    DEVIATION [AS Eq. 4]: of the box, not of the whole map; the official code drops key-points whose
    nearest token lies outside.
    """
    return tokens.cosines(features).masked_fill(~inside[:, None], -torch.inf).argmax(-1)


def density_weights(similarity: Tensor, cells: Tensor, beta: Tensor, alpha: float) -> Tensor:
    """[n, K, S] weights w: sum 1 over each cell, 0 outside it, NaN if it is empty. [AS Eq. 5]

    alpha = inf weighs all alike.
    """
    exponent = similarity / (alpha * beta)[..., None]
    return exponent.masked_fill(~cells, -torch.inf).softmax(-1)


def bandwidth(similarity: Tensor, cells: Tensor, floor: float) -> Tensor:
    """[n, K] adaptive bandwidth beta_k: 1 less the mean similarity of a cell. [AS Eq. 6]

    UNSTATED [AS Eq. 6]: 1 where the cell is empty, never below the floor. The paper's sentence says
    larger where denser; its equation, and this, are smaller.
    """
    mean = (similarity * cells).sum(-1) / cells.sum(-1).clamp(min=1)
    return (1 - mean).clamp(min=floor)


def weighted_means(weights: Tensor, tokens: Tokens, before: Tensor) -> Tensor:
    """[n, K, D] key-points as weighted means of their cells. [AS Eq. 7]; evenly weighted [AS Eq. 3]

    DEVIATION [AS Eq. 7]: weights of the part of a cell on Phi+ are made to sum to one again: the
    direction of the printed sum, at the length of a token.
    UNSTATED [AS Eq. 7]: a key-point that owns no token of Phi+ (NaN weights) stays where it was.
    """
    moved = tokens.sums(weights)
    return torch.where(moved[..., :1].isnan(), before, moved)


@dataclass(frozen=True)
class Shifted:
    """Where the key-points went."""

    features: Tensor  # [n, K, D]
    owner: Tensor  # [n, S] the last arg-max of Eq. 2, NOBODY outside
    path: list[Tensor] = field(default_factory=list)  # N + 1 times [n, K, D], on request
    owners: list[Tensor] = field(default_factory=list)  # N + 1 times [n, S], beside the path

    @property
    def cells(self) -> Tensor:
        """[n, K, S] bool: delta(A^P_k) of the final key-points."""
        return cells_of(self.owner, self.features.shape[1])


@torch.no_grad()
def shift(
    seeds: Tensor,
    tokens: Tokens,
    inside: Tensor,
    foreground: Tensor,
    alpha: float = 1.0,  # [AS Tab. 4]
    iterations: int = 10,  # [AS Sec. 3.2]
    rule: Ownership = "share",  # [AS Eq. 2]; "softmax" is the official code's
    floor: float = 1e-10,  # UNSTATED [AS Eq. 6]: floor of the official code
    keep_path: bool = False,
) -> Shifted:
    """Key-points shifted from `seeds` [n, K, D]: tokens inside [n, S] have owners, the foreground
    Phi+ [n, S] draws. [AS Eq. 2], [AS Eq. 5-7], N times."""
    if rule == "softmax" and math.isinf(alpha):
        raise ValueError("softmax ownership needs a finite alpha: at inf all key-points tie")
    points, similarity, cells, path, owners = seeds, tokens.cosines(seeds), None, [], []
    plus, rows = (inside & foreground).flatten(), tokens.addresses()
    for turn in range(iterations + 1):
        beta = _bandwidth_before(similarity, cells, floor) if rule == "softmax" else None
        score = ownership_score(similarity, inside, rule, beta, alpha)
        if keep_path or turn == iterations:
            path, owners = [*path, points], [*owners, token_owners(score, inside)]
        if turn == iterations:
            break
        cells = Cells.of(score, inside)
        alike = cells.similarities(similarity)
        beta = cells.bandwidths(alike, floor) if beta is None else beta.flatten()
        drawing, alike = cells.drawn_by(plus, alike)
        points = drawing.means(drawing.weights(alike, beta, alpha), tokens, rows, points)
        similarity = tokens.cosines(points)
    return Shifted(points, owners[-1], *((path, owners) if keep_path else ()))


def ownership_score(
    similarity: Tensor, inside: Tensor, rule: Ownership, beta: Tensor | None, alpha: float
) -> Tensor:
    """[n, K, S] >= 0, by what a token chooses its key-point.

    "share": Eq. 2; "cosine": the bare similarity; "softmax": the official code's.
    """
    if rule == "share":
        return part_maps(similarity, inside)
    if rule == "cosine":
        return (1 + similarity).clamp(min=0)
    exponent = similarity * (1 / (alpha * beta))[..., None]
    return exponent.masked_fill(~inside[:, None], -torch.inf).softmax(-1).nan_to_num(0)


def _bandwidth_before(similarity: Tensor, cells: Cells | None, floor: float) -> Tensor:
    """[n, K] beta_k over the cells of the turn before, as the official code's scores need it."""
    if cells is None:
        return similarity.new_full(similarity.shape[:2], FIRST_BANDWIDTH)
    return cells.bandwidths(cells.similarities(similarity), floor).view(similarity.shape[:2])


def cells_of(owner: Tensor, count: int) -> Tensor:
    """[n, count, S] bool: the tokens each key-point owns, from their owners [n, S]."""
    return owner[:, None] == torch.arange(count, device=owner.device)[:, None]
