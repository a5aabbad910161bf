"""Key-point shift of AttentionShift: instances side by side, two matrix products an iteration.

Shapes: n instances, K key-points, S tokens (padding allowed), D features.
A token that is not `inside` takes part in nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Ownership = Literal["share", "cosine", "softmax"]
TIE = 1e-6  # share by which a key-point must outbid the one before it
NEXT_TO_NOTHING = 1e-12  # bid of a key-point that a token does not resemble at all
FIRST_BANDWIDTH = (
    0.1  # UNSTATED [AS Eq. 6]: start value of the official code, needed by "softmax" ownership only
)


@dataclass(frozen=True)
class Tokens:
    """Tokens of n instances behind one mask, kept as unit directions and lengths: every product needs the former."""

    directions: Tensor  # [n, S, D]
    lengths: Tensor  # [n, S]
    inside: Tensor  # [n, S] bool
    foreground: Tensor  # [n, S] bool: Phi+, the tokens that key-points are means of

    @classmethod
    def of(cls, features: Tensor, inside: Tensor, foreground: Tensor | None = None) -> Tokens:
        """From features [n, S, D], the mask of those that count [n, S] and of Phi+, which is all of them when None."""
        plus = inside if foreground is None else inside & foreground
        lengths = features.norm(dim=-1)
        return cls(unit(features, lengths), lengths, inside, plus)

    @classmethod
    def gathered(cls, features: Tensor, image: Tensor, index: Tensor, inside: Tensor,
                 foreground: Tensor | None = None) -> Tokens:  # fmt: skip
        """The tokens `index` [n, S] of each instance's own image [n], out of features [b, T, D]."""
        plus = inside if foreground is None else inside & foreground
        lengths, rows = (
            features.norm(dim=-1),
            (image[:, None] * features.shape[1] + index).flatten(),
        )
        picked = (
            flat.index_select(0, rows)
            for flat in (unit(features, lengths).flatten(0, 1), lengths.flatten())
        )
        return cls(*(one.unflatten(0, index.shape) for one in picked), inside, plus)

    def features_at(self, index: Tensor) -> Tensor:
        """[n, K, D] the features of tokens [n, K]."""
        row = torch.arange(len(index), device=index.device)[:, None]
        return self.directions[row, index] * self.lengths[row, index, None]


@dataclass(frozen=True)
class Shifted:
    """Where the key-points went. `owner` holds the last Eq. 2 arg-max, -1 for tokens outside."""

    features: Tensor  # [n, K, D]
    owner: Tensor  # [n, S] int64
    similarity: Tensor  # [n, K, S] cosine of the final key-points with every token
    path: list[Tensor]  # N + 1 times [n, K, D] where asked for, else empty
    owners: list[Tensor]  # N + 1 times [n, S], beside the path

    @property
    def cells(self) -> Tensor:
        """[n, K, S] bool: delta(A^P_k) of the final key-points."""
        return cells_of(self.owner, self.features.shape[1])


def unit(features: Tensor, lengths: Tensor) -> Tensor:
    """[..., D] features of length one, given their lengths [...]; several times as fast as F.normalize on a CPU."""
    return features / lengths.clamp(min=1e-12)[..., None]


def cosine(prototypes: Tensor, directions: Tensor) -> Tensor:
    """[n, K, S] cosine d(phi, psi_k) of key-points [n, K, D] with unit tokens [n, S, D]."""
    return unit(prototypes, prototypes.norm(dim=-1)) @ directions.transpose(1, 2)


def part_maps(similarity: Tensor, inside: Tensor) -> Tensor:
    """[n, K, S] part attention maps A^P: similarity as a share of its sum over the tokens. [AS Eq. 2]

    UNSTATED [AS Eq. 2]: a negative cosine would turn the share around; it counts as 0, as in the official maps.
    """
    positive = similarity.relu().mul_(inside[:, None].to(similarity.dtype))
    return positive.mul_(1 / positive.sum(-1, keepdim=True).clamp(min=1e-12))


def owned_cells(score: Tensor, inside: Tensor) -> Tensor:
    """[n, K, S] delta(A^P_k): 1 where a key-point has the largest score >= 0 of a token inside, else 0. [AS Eq. 3]

    Each later key-point bids a millionth less, so that equal ones do not depend on rounding: the first wins.
    Numbers and no booleans, since a processor multiplies faster than it chooses.
    """
    place = torch.arange(score.shape[1], device=score.device, dtype=score.dtype)
    bids = (score + NEXT_TO_NOTHING).mul_((1 - TIE * place)[:, None])
    return bids.eq_(bids.amax(1, keepdim=True)).mul_(inside[:, None].to(score.dtype))


def owner_of(cells: Tensor) -> Tensor:
    """[n, S] the key-point that owns each token, -1 where none does, from cells [n, K, S]."""
    place = torch.arange(1, cells.shape[1] + 1, device=cells.device, dtype=torch.int32)
    return (cells * place[:, None]).amax(1).long() - 1


def cells_of(owner: Tensor, count: int) -> Tensor:
    """[n, count, S] bool: the tokens each key-point owns, from their owners [n, S]."""
    return owner[:, None] == torch.arange(count, device=owner.device)[:, None]


def bandwidth(similarity: Tensor, cells: Tensor, floor: float) -> Tensor:
    """[n, K] adaptive bandwidth beta_k: one minus the mean similarity of a cell, 1 where it is empty. [AS Eq. 6]"""
    mean = (similarity * cells).sum(-1) / cells.sum(-1).clamp(min=1)
    return (1 - mean).clamp(min=floor)


def density_weights(similarity: Tensor, cells: Tensor, beta: Tensor, alpha: float) -> Tensor:
    """[n, K, S] weights w: sum 1 over each cell, 0 outside it, NaN if it is empty. inf weighs alike. [AS Eq. 5]

    Of cells cut down to Phi+ they are the weights of Eq. 7 over their sum: a mean in the direction of the printed sum.
    One over a cell, less one, is 0 in it and infinite outside: quicker than a mask.
    """
    exponent = similarity * (1 / (alpha * beta))[..., None]
    return exponent.sub_(cells.reciprocal().sub_(1)).softmax(-1)


def weighted_means(weights: Tensor, tokens: Tokens, before: Tensor) -> Tensor:
    """[n, K, D] key-points as weighted means of their cells. [AS Eq. 7]; with even weights [AS Eq. 3]

    UNSTATED [AS Eq. 7]: a key-point that owns no token of Phi+ (NaN weights) stays where it was.
    """
    moved = (weights * tokens.lengths[:, None]) @ tokens.directions
    return torch.where(moved[..., :1].isnan(), before, moved)


def softmax_maps(similarity: Tensor, inside: Tensor, beta: Tensor, alpha: float) -> Tensor:
    """[n, K, S] softmax of similarity over the inside tokens, the score by which the official code assigns tokens."""
    exponent = similarity * (1 / (alpha * beta))[..., None]
    return exponent.masked_fill(~inside[:, None], -torch.inf).softmax(-1).nan_to_num(0)


def ownership_score(similarity: Tensor, inside: Tensor, owner: Ownership) -> Tensor:
    """[n, K, S] >= 0, by what a token chooses its key-point: the paper's Eq. 2 or the bare cosine."""
    return part_maps(similarity, inside) if owner == "share" else 1 + similarity


@torch.no_grad()
def shift(
    seeds: Tensor,
    tokens: Tokens,
    alpha: float = 1.0,  # [AS Tab. 4]
    iterations: int = 10,  # [AS Sec. 3.2]
    owner: Ownership = "share",  # [AS Eq. 2]; "softmax" is the official code's
    floor: float = 1e-10,  # UNSTATED [AS Eq. 6]: beta is 0 for a cell of one token; floor of the official code
    keep_path: bool = False,
) -> Shifted:
    """Key-points shifted from `seeds` [n, K, D]: tokens inside have owners, Phi+ draws. [AS Eq. 2], [AS Eq. 5-7]"""
    if owner == "softmax" and math.isinf(alpha):
        raise ValueError(
            "softmax ownership needs a finite alpha: with alpha = inf every key-point scores alike"
        )
    points, path, owners = seeds, [], []
    similarity = cosine(points, tokens.directions)
    cells, beta = ownership(similarity, tokens.inside, None, alpha, owner, floor)
    foreground = tokens.foreground[:, None].to(similarity.dtype)
    for _ in range(iterations):
        path, owners = (
            ([*path, points], [*owners, owner_of(cells)]) if keep_path else (path, owners)
        )
        pulling = cells * foreground
        points = weighted_means(density_weights(similarity, pulling, beta, alpha), tokens, points)
        similarity = cosine(points, tokens.directions)
        cells, beta = ownership(similarity, tokens.inside, cells, alpha, owner, floor)
    path, owners = ([*path, points], [*owners, owner_of(cells)]) if keep_path else (path, owners)
    return Shifted(points, owner_of(cells), similarity, path, owners)


def ownership(
    similarity: Tensor,
    inside: Tensor,
    held: Tensor | None,
    alpha: float,
    owner: Ownership,
    floor: float,
) -> tuple[Tensor, Tensor]:
    """Cells [n, K, S] and beta [n, K]; "softmax" ownership needs beta first, so it takes the cells held before."""
    if owner != "softmax":
        cells = owned_cells(ownership_score(similarity, inside, owner), inside)
        return cells, bandwidth(similarity, cells, floor)
    start = similarity.new_full(similarity.shape[:2], FIRST_BANDWIDTH)
    beta = start if held is None else bandwidth(similarity, held, floor)
    return owned_cells(softmax_maps(similarity, inside, beta, alpha), inside), beta


def compact(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens of each instance moved to the front: index [n, S] and which are real [n, S], from [n, T] bool."""
    count = inside.sum(1)
    longest = max(int(count.max()) if len(count) else 0, 1)
    index = inside.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    return index, torch.arange(longest, device=inside.device) < count[:, None]
