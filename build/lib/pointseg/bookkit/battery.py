"""A chapter's diagnostics as hashes: what `pointseg carry` compares beside the methods.

python -m pointseg.bookkit.battery      prints one line of JSON

Who owns the pixels of the first page's image by each of its answers, and what a few rounds of
Sinkhorn miss of the optimum on the costs of that image.
"""

from __future__ import annotations

import json

import torch

from pointseg.bookkit.diagnostics.labels import rounds_study
from pointseg.bookkit.six_points import Case, answers, case_of, distance_cost
from pointseg.lab.battery import digest, leaves
from pointseg.lab.fingerprint import sha8


def diagnostics() -> dict[str, dict[str, str]]:
    """Diagnostics -> hash of what came out, in the form of the methods' battery; no run is kept."""
    case = case_of(0)
    outputs = {
        "page: answers": sorted(digest(owners) for owners in answers(case).values()),
        "page: rounds": sorted(leaves(rounds(case))),
    }
    return {name: {"battery": "", "code": "", "outputs": sha8(o)} for name, o in outputs.items()}


def rounds(case: Case) -> list[list[float]]:
    cost = distance_cost(case)[:, ::8, ::8].flatten(1)
    units = cost.new_full((len(cost),), cost.shape[1] / len(cost))
    missing = rounds_study(cost / cost.max(), units, (5, 20, 80), epsilon=1e-2)
    return [list(pair) for pair in missing.values()]


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)
    print(json.dumps(diagnostics()))
