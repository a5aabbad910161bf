"""One fixed piece of work for every method, as hashes: what `pointseg carry` compares.

python -m pointseg.lab.battery [METHOD ...]      prints one line of JSON

For each method its experiment at scale smoke: Bestiary is drawn, points are sampled, the chain is
trained for a few steps, labels and predictions are made and scored. Hashed are all numbers that
come out, not their names: a rename passes, changed arithmetic does not.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pointseg.lab.chain import code_of
from pointseg.lab.experiment import experiment
from pointseg.lab.fingerprint import sha8
from pointseg.lab.methods import METHODS
from pointseg.lab.progress import read_log
from pointseg.lab.recipe import Recipe, make
from pointseg.lab.run_record import Run
from pointseg.nets.weights import read_weights

SCALE = "smoke"


def battery(methods: list[str], place: Path) -> dict[str, dict[str, str]]:
    """Method -> hashes of the work, of the code and of what came out."""
    return {name: _hashes(name, place) for name in methods or METHODS}


def _hashes(method: str, place: Path) -> dict[str, str]:
    recipe = make(method, scale=SCALE)
    work = sha8(sorted(leaves(json.loads(recipe.to_json()))))
    return {"battery": work, "code": code_of(method), "outputs": outputs(recipe, place)}


def outputs(recipe: Recipe, place: Path) -> str:
    """Hash of losses, scores, predictions, labels, points and weights, blind to their names."""
    run = Run(place / "runs" / SCALE / recipe.stage.method / "s0")
    metrics = experiment(recipe, run)
    folders = [run.stages / stage["head"] for stage in metrics.pop("stages")]
    weights = read_weights(folders[-1] / "model.pt").values()
    losses = [read_log(folder / "log.jsonl") for folder in folders]
    numbers = [metrics, losses, run.read("answers.json"), run.read("data.json")["points"]]
    return sha8(sorted(leaves(numbers)), sorted(digest(tensor) for tensor in weights))


def leaves(value: Any) -> Iterator[str]:
    """The numbers and texts of a nested value, without the names that lead to them."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield repr(value)


def digest(tensor: torch.Tensor) -> str:
    flat = tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(f"{list(tensor.shape)}".encode() + flat).hexdigest()


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True, warn_only=True)
    print(json.dumps(battery(sys.argv[1:], Path.cwd())))
