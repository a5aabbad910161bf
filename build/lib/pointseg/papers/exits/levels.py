"""Levels of the scores, from clicks alone: points that are hidden from the walk judge it.

UNSTATED [EXITS Sec. D]: the values of both levels. The text says how many crops retrieve nothing;
that both sides are equally precise is our second equation. Neither needs a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.papers.exits.retrieval import Levels, Score, Seeds, means, scores

EMPTY = 0.07  # share of crops in which nothing is retrieved [EXITS Sec. B]
BESIDE = 2  # tokens from the box within which ground is judged


@dataclass(frozen=True)
class Evidence:
    """What n crops say of the levels."""

    highest: Tensor  # [n] score among the tokens that may be retrieved
    lowest: Tensor  # [n]
    positive: Tensor  # [p] scores at extreme points that were hidden from the walk
    negative: Tensor  # [q] scores of hidden tokens outside the box, beside it

    @classmethod
    def of(cls, parts: Sequence[Evidence]) -> Evidence:
        """All of them together."""
        names = ("highest", "lowest", "positive", "negative")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def hidden_scores(
    walk: Callable[[Tensor], Tensor], seeds: Seeds, rule: Score
) -> tuple[Tensor, Tensor]:
    """Scores [p] of extreme points, each by a walk from the others, and [q] of tokens near the box
    that are hidden from it: every second one, as on a chessboard.

    `walk` takes columns [n, N, k] to what the walk makes of them.
    """
    side = round(seeds.inside.shape[1] ** 0.5)
    index = torch.arange(side, device=seeds.inside.device)
    black = ((index[:, None] + index) % 2 == 1).flatten()
    order = seeds.foreground.cumsum(1) * seeds.foreground  # 1.. at the seeds
    hidden = [order == k for k in range(1, int(order.amax()) + 1)] if order.numel() else []
    kept = [seeds.foreground & ~one for one in hidden]
    sides = torch.stack([seeds.background & ~black, seeds.foreground, *kept], -1)
    ground, whole, *rest = walk(means(sides)).unbind(-1)
    inside = seeds.inside.float().view(-1, 1, side, side)
    near = F.max_pool2d(inside, 2 * BESIDE + 1, 1, BESIDE)
    judged = seeds.background & black & (near.flatten(1) > 0) & ~seeds.inside
    shown = sides[..., 0].any(1, keepdim=True)
    judge = lambda f: scores(torch.stack([f, ground], -1), rule)  # noqa: E731
    positive = [judge(f)[one & k.any(1, keepdim=True) & shown]
                for f, one, k in zip(rest, hidden, kept)]  # fmt: skip
    return torch.cat([whole.new_zeros(0), *positive]), judge(whole)[judged & shown]


def calibrated(evidence: Evidence, empty: float = EMPTY) -> Levels:
    """Levels at which a share `empty` of the crops retrieves nothing, both sides equally precise.

    They are the highest ones that leave no larger share empty.
    """
    best = Levels(0.0, 0.0)
    for share in torch.linspace(0, 1, 201).tolist():
        level = float(torch.quantile(evidence.highest.clamp(min=0), share))
        both = Levels(level, equally_precise(level, evidence.positive, evidence.negative))
        nothing = (evidence.highest < both.foreground) & (evidence.lowest > -both.background)
        if nothing.float().mean() > empty:
            break
        best = both
    return best


def equally_precise(level: float, positive: Tensor, negative: Tensor) -> float:
    """The level of the background whose precision on the hidden points equals that of `level`.

    Precision of a side is its share of right tokens over both shares beyond the level.
    """
    right, wrong = (positive > level).float().mean(), (negative > level).float().mean()
    wanted = right / (right + wrong).clamp(min=1e-9)
    levels = (-negative).clamp(min=0).unique()
    true, false = (share_below(values, -levels) for values in (negative, positive))
    gap = (true / (true + false).clamp(min=1e-9) - wanted).abs()
    return float(levels[gap.argmin()])


def share_below(values: Tensor, levels: Tensor) -> Tensor:
    """[k] share of values [n] that are smaller than each level [k]."""
    return torch.searchsorted(values.sort().values, levels) / len(values)
