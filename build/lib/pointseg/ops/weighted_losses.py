"""How losses add up: each by its row in the one table of its method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from pointseg.structures import Loss


class Shared(Protocol):
    def thing_share(self) -> Tensor:
        """Things as a part of all targets."""


def weighted(
    losses: Mapping[str, Tensor],
    table: Mapping[str, Loss],
    ramp: float = 1.0,
    targets: Shared | None = None,
) -> dict[str, Tensor]:
    """Losses as they count in the total; `targets` only where the table shares."""
    share = {None: 1.0}
    if any(table[name].share for name in losses):
        things = targets.thing_share()
        share |= {"things": things, "stuff": 1 - things}
    return {name: loss * row.weight * share[row.share] * (ramp if row.ramped else 1.0)
            for name, loss in losses.items() for row in [table[name]]}  # fmt: skip


def ramp(step: int, warmup_steps: int) -> float:
    """Share of a ramped loss that counts at a step: 0 at the first, all of it after warm-up."""
    return min(1.0, step / max(1, warmup_steps))
