"""Milliseconds of step prices and shortest paths from 8 points, one thread. One JSON line."""

from __future__ import annotations

import json
import time

import torch
import torch.nn.functional as F

from pointseg.ops import paths


def milliseconds(call, repeats: int = 10) -> float:
    """Least process time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def problem(h: int, w: int):
    generator = torch.Generator().manual_seed(0)
    prob = F.interpolate(3 * torch.randn(1, 21, h // 4, w // 4, generator=generator), size=(h, w))[0].softmax(0)
    boundary = torch.rand(1, h, w, generator=generator)
    features = F.normalize(torch.randn(128, h, w, generator=generator), dim=0)
    return prob, boundary, features, torch.randperm(h * w, generator=generator)[:8]


def prices_of(prob, boundary, features):
    return paths.undirected_steps((paths.semantic_step, prob, 1.0), (paths.boundary_step, boundary, 0.1),
                                  (paths.manifold_step, features, 0.1))  # fmt: skip


def measured() -> dict[str, float]:
    out = {}
    for h, w in ((37, 50), (128, 128)):
        prob, boundary, features, cells = problem(h, w)
        prices = prices_of(prob, boundary, features)
        exact, swept = paths._paths_by_dijkstra(prices, cells), paths._paths_by_sweeps(prices, cells)
        out |= {
            f"{h}x{w} prices ms": milliseconds(lambda a=(prob, boundary, features): prices_of(*a)),
            f"{h}x{w} dijkstra ms": milliseconds(lambda p=prices, c=cells: paths._paths_by_dijkstra(p, c)),
            f"{h}x{w} sweeps ms": milliseconds(lambda p=prices, c=cells: paths._paths_by_sweeps(p, c), repeats=2),
            f"{h}x{w} largest difference": float((exact - swept).abs().max()),
        }
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measured(), indent=1))
