"""The cells of all key-points as one list of tokens, and Eq. 3, 5, 6 and 7 of AttentionShift on it.

A token has one owner. Of [n, K, S] numbers an object only S matter, and a key-point moves by sums
over its own cell in place of a product with all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.papers.attentionshift.tokens import Tokens

ROUNDING = 8  # scores that differ by so many units in the last place are equal


@dataclass(frozen=True)
class Cells:
    """N tokens with their owners, in the order of the key-points."""

    entry: Tensor  # [N] where they stand in [n, K, S]
    token: Tensor  # [N] where in [n, S]
    point: Tensor  # [N] whose they are, 0 to n * K - 1
    size: Tensor  # [n * K] how many each has

    @classmethod
    def of(cls, score: Tensor, inside: Tensor) -> Cells:
        """By scores [n, K, S], the tokens `inside` [n, S]: the owners of `token_owners`.
        [AS Eq. 3]"""
        hits = (score >= nearly_largest(score)).bitwise_and_(inside[:, None])
        triples = hits.nonzero()
        if len(triples) > int(inside.sum()):  # seldom are two scores equal: the first wins
            triples = hits.bitwise_and_(hits.cumsum(1) == 1).nonzero()
        (of, point, token), (n, points, tokens) = triples.unbind(1), score.shape
        point = of * points + point
        return cls._sorted(point * tokens + token, of * tokens + token, point, n * points)

    @classmethod
    def _sorted(cls, entry: Tensor, token: Tensor, point: Tensor, count: int) -> Cells:
        return cls(entry, token, point, torch.bincount(point, minlength=count))

    def similarities(self, similarity: Tensor) -> Tensor:
        """[N] those of similarity [n, K, S] between a token and its owner."""
        return similarity.flatten().index_select(0, self.entry)

    def drawn_by(self, plus: Tensor, values: Tensor) -> tuple[Cells, Tensor]:
        """The tokens among Phi+ [n * S] alone, and their values of [N]."""
        kept = plus.index_select(0, self.token).nonzero()[:, 0]
        entry, token, point, values = (
            each.index_select(0, kept) for each in (self.entry, self.token, self.point, values)
        )
        return self._sorted(entry, token, point, len(self.size)), values

    def sums(self, values: Tensor) -> Tensor:
        """[n * K] sums of values [N] over each cell."""
        return torch.segment_reduce(values, "sum", lengths=self.size, unsafe=True)

    def bandwidths(self, similarity: Tensor, floor: float) -> Tensor:
        """[n * K] beta of the tokens' similarities [N] to their owners: `bandwidth`. [AS Eq. 6]"""
        return (1 - self.sums(similarity) / self.size.clamp(min=1)).clamp(min=floor)

    def weights(self, similarity: Tensor, beta: Tensor, alpha: float) -> Tensor:
        """[N] shares of each token in its cell: `density_weights`. [AS Eq. 5]"""
        exponent = similarity / self._spread(alpha * beta)
        top = torch.segment_reduce(exponent, "max", lengths=self.size, unsafe=True)
        power = exponent.sub_(self._spread(top)).exp_()
        return power.div_(self._spread(self.sums(power)))

    def _spread(self, values: Tensor) -> Tensor:
        """[N] the owner's number of values [n * K]."""
        return values.index_select(0, self.point)

    def means(self, weights: Tensor, tokens: Tokens, rows: Tensor, before: Tensor) -> Tensor:
        """[n, K, D] key-points moved by weights [N]: `weighted_means`; `rows` are those of
        `Tokens.addresses`. [AS Eq. 7]"""
        moved = tokens.bags(rows.index_select(0, self.token), weights, self.size).view_as(before)
        return torch.where((self.size > 0).view(*before.shape[:2], 1), moved, before)


def nearly_largest(score: Tensor) -> Tensor:
    """[n, 1, S] the largest score of each token less what rounding may take from it."""
    return score.amax(1, keepdim=True) * (1 - ROUNDING * torch.finfo(score.dtype).eps)
