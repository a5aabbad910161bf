"""Milliseconds of the spanning tree and its filter on a 75 x 100 map of 21 channels, one thread. One JSON line."""

from __future__ import annotations

import json
import time

import torch
import torch.nn.functional as F

from pointseg.ops.tree import spanning_forest, tree_filter


def milliseconds(call, repeats: int = 30) -> float:
    """Least process time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def measured(channels: int = 21, h: int = 75, w: int = 100) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    guide = F.interpolate(torch.randn(1, 3, h // 4, w // 4, generator=generator), size=(h, w), mode="bicubic")
    guide = guide + 0.1 * torch.randn(1, 3, h, w, generator=generator)
    values = torch.rand(1, channels, h, w, generator=generator)
    needs = values.clone().requires_grad_()
    tree = spanning_forest(guide)
    return {
        "tree ms": milliseconds(lambda: spanning_forest(guide)),
        "tree and first filter ms": milliseconds(lambda: tree_filter(values, spanning_forest(guide))),
        "further filter ms": milliseconds(lambda: tree_filter(values, tree)),
        "filter forward and backward ms": milliseconds(lambda: tree_filter(needs, tree).sum().backward()),
        "filter on a map of twice the pixels ms": milliseconds(lambda: tree_filter(*_wider(values, guide))),
    }


def _wider(values: torch.Tensor, guide: torch.Tensor):
    wide = torch.cat([guide, guide.flip(-1)], -1)
    return torch.cat([values, values], -1), spanning_forest(wide)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measured(), indent=1))
