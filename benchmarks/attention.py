"""Roll-out for the asked rows beside the dense one: python benchmarks/attention.py [--tokens N] [--rows M] [--depth D]

Default: ViT-S/16 (384 wide, 6 heads) at 800 x 1344 pixels with class token and 100 queries, random weights, one
thread. Three things are timed: forming the head means of all blocks, which both ways need; the dense chain of
matrix products; the chain of rows. The result is compared, and what each way must hold in memory is counted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pointseg.nets.attention import CHUNK, attention_rows, rollout_rows
from pointseg.nets.vit import TokenViT, Trace


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and its CPU seconds."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def head_mean(vit: TokenViT, trace: Trace, block: int) -> Tensor:
    """[T, T]: the head mean of a block's attention plus identity, rows summing to one."""
    tokens = trace.inputs[0].shape[1]
    mean = torch.empty(tokens, tokens)
    for rows in torch.arange(tokens).split(CHUNK):
        mean[rows] = attention_rows(vit, trace, block, rows)[0].mean(0)
    return mean.add_(torch.eye(tokens)).div_(2)


def dense_chain(matrices: list[Tensor]) -> list[Tensor]:
    """Products of 1, 2, ... matrices, last block first."""
    products = [matrices[0]]
    for matrix in matrices[1:]:
        products.append(products[-1] @ matrix)
    return products


def row_chain(matrices: list[Tensor], rows: Tensor) -> list[Tensor]:
    products = [matrices[0][rows]]
    for matrix in matrices[1:]:
        products.append(products[-1] @ matrix)
    return products


def compare(tokens: int, rows: int, depth: int) -> dict[str, Any]:
    torch.manual_seed(0)
    vit = TokenViT("vit_small_patch16_224").eval()
    inputs = tuple(torch.randn(1, tokens, vit.dim) for _ in range(vit.depth))
    trace, asked = Trace(inputs, 1, (tokens - 1, 1)), torch.arange(tokens - rows, tokens)
    last = vit.depth - 1
    matrices, forming = timed(lambda: [head_mean(vit, trace, last - d) for d in range(depth)])
    by_rows, row_seconds = timed(lambda: row_chain(matrices, asked))
    whole, whole_seconds = timed(lambda: rollout_rows(vit, trace, asked, depth))
    dense, dense_seconds = timed(lambda: dense_chain(matrices))
    difference = max(float((one[asked] - other[0]).abs().max()) for one, other in zip(dense, whole))
    difference = max(difference, *(float((a[asked] - b).abs().max()) for a, b in zip(dense, by_rows)))
    return {
        "tokens": tokens,
        "rows": rows,
        "depth": depth,
        "largest_difference": difference,
        "cpu_s": {
            "forming the matrices (both ways)": forming,
            "dense chain": dense_seconds,
            "row chain": row_seconds,
            "rollout_rows, all of it": whole_seconds,
        },
        "dense_chain_over_row_chain": dense_seconds / row_seconds,
        "all_of_it_ratio": (forming + dense_seconds) / whole_seconds,
        "multiplications_ratio_of_chains": tokens / rows,
        "bytes": {"dense": 2 * depth * 4 * tokens**2, "rows": 4 * (CHUNK * tokens * 6 + 2 * depth * rows * tokens)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4301)
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--depth", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(compare(options.tokens, options.rows, options.depth), indent=1))


if __name__ == "__main__":
    main()
