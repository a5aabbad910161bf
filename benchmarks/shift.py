"""Cost of the key-point shift beside the matrix products it cannot avoid: python benchmarks/shift.py

Default: 10 instances, K 20, N 10, D 384, 64 x 64 tokens, one thread; boxes of half the grid side and of the whole.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pointseg.ops.components import tokens_in_boxes
from pointseg.ops.shift import Tokens, compact, shift


def seconds(work, repeats: int) -> float:
    """Median CPU time of `work`, after one call to warm up."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return statistics.median(spent)


def bare_products(seeds: torch.Tensor, tokens: torch.Tensor, iterations: int) -> None:
    """Similarities and weighted sums of every iteration, and nothing else."""
    across, weights = tokens.transpose(1, 2), None
    for _ in range(iterations):
        weights = seeds @ across
        seeds = weights @ tokens
    _ = seeds @ across


def boxes_of(side: int, share: float, count: int) -> torch.Tensor:
    """[count, 4] boxes of `share` of the grid side, spread over it."""
    width = side * share
    low = torch.rand(count, 2) * (side - width)
    return torch.cat([low, low + width], 1)


def measure(args: argparse.Namespace, share: float) -> dict[str, float]:
    torch.manual_seed(0)
    image = torch.randn(1, args.side**2, args.dim) + 1
    inside = tokens_in_boxes(boxes_of(args.side, share, args.instances), (args.side, args.side), 1.0)
    owner = torch.zeros(args.instances, dtype=torch.long)
    first = torch.arange(args.keypoints).expand(args.instances, -1)

    def whole() -> None:
        index, real = compact(inside)
        tokens = Tokens.gathered(image, owner, index, real)
        shift(tokens.features_at(first), tokens, iterations=args.iterations)

    index, real = compact(inside)
    held, tokens = Tokens.gathered(image, owner, index, real), image[owner[:, None], index]
    seeds = held.features_at(first)
    return {
        "tokens per instance": tokens.shape[1],
        "shift with gathering": seconds(whole, args.repeats),
        "shift alone": seconds(lambda: shift(seeds, held, iterations=args.iterations), args.repeats),
        "bare products": seconds(lambda: bare_products(seeds, tokens, args.iterations), args.repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = {"instances": 10, "keypoints": 20, "iterations": 10, "dim": 384, "side": 64, "threads": 1, "repeats": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for share in (0.5, 1.0):
        row = measure(args, share)
        ratio = row["shift alone"] / row["bare products"]
        print(f"box side {share:.0%}: " + ", ".join(f"{k} {v:.3g}" for k, v in row.items()) + f", ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
