"""Whether two folders hold the same trained stages: weights to the bit, logs to the byte.

python -m support.same_stages ONE OTHER      (exit code 1 and a line for each that differs)
"""

import sys
from pathlib import Path

import torch


def stages_in(folder: Path) -> dict[str, Path]:
    return {path.parent.name: path.parent for path in sorted(folder.rglob("model.pt"))}


def differing(one: dict[str, Path], other: dict[str, Path]) -> list[str]:
    """Names of stages that only one has, or that differ."""
    alone = set(one) ^ set(other)
    return sorted(alone | {name for name in set(one) - alone if not same(one[name], other[name])})


def same(one: Path, other: Path) -> bool:
    a, b = (torch.load(folder / "model.pt", weights_only=True) for folder in (one, other))
    logs = [(folder / "log.jsonl").read_bytes() for folder in (one, other)]
    return logs[0] == logs[1] and equal(a, b)


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
    return a == b


if __name__ == "__main__":
    one, other = (stages_in(Path(word)) for word in sys.argv[1:])
    wrong = differing(one, other)
    print(*(f"differs: {name}" for name in wrong), f"{len(one)} stages compared", sep="\n")
    sys.exit(bool(wrong) or not one)
