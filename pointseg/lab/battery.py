"""One fixed piece of work for every method, as hashes: what `pointseg carry` compares.

python -m pointseg.lab.battery [METHOD ...]      prints one line of JSON

For each method its experiment at scale smoke: Bestiary is drawn, points are sampled, the chain is
trained for a few steps, labels and predictions are made and scored; then the bench scores the
labels of the trained chain. Hashed are all numbers that come out, not their names: a rename passes,
changed arithmetic does not.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pointseg.lab.bench import objects_of, score_rows
from pointseg.lab.chain import code_of
from pointseg.lab.experiment import experiment
from pointseg.lab.fingerprint import sha8
from pointseg.lab.methods import METHODS, scored_on
from pointseg.lab.progress import read_log
from pointseg.lab.recipe import Recipe, make
from pointseg.lab.run_record import Run
from pointseg.nets.weights import read_weights

SCALE = "smoke"
LABEL_ALONE = ("exits_walk",)  # nothing of it is trained: the bench alone scores it


def battery(methods: list[str], place: Path) -> dict[str, dict[str, str]]:
    """Method -> hashes of the work, of the code and of what came out; "bench METHOD" likewise."""
    tables = [_hashes(name, place) for name in methods or [*METHODS, *LABEL_ALONE]]
    return {name: hashes for table in tables for name, hashes in table.items()}


def _hashes(method: str, place: Path) -> dict[str, dict[str, str]]:
    recipe, runs = make(method, scale=SCALE), place / "runs" / SCALE
    work = sha8(sorted(leaves(json.loads(recipe.to_json()))))
    table = {}
    if method not in LABEL_ALONE:
        made = outputs(recipe, Run(runs / method / "s0"))
        table[method] = {"battery": work, "code": code_of(method), "outputs": made}
    if "labels" in scored_on(method):  # else it is the head of a chain that the bench trains
        made = bench_outputs(recipe, Run(runs / f"bench-{method}" / "s0"))
    code = code_of(method, "bench")
    return table | {f"bench {method}": {"battery": work, "code": code, "outputs": made}}


def outputs(recipe: Recipe, run: Run) -> str:
    """Hash of losses, scores, predictions, labels, points and weights, blind to their names."""
    metrics = experiment(recipe, run)
    folders = [run.stages / stage["head"] for stage in metrics.pop("stages")]
    weights = read_weights(folders[-1] / "model.pt").values()
    losses = [read_log(folder / "log.jsonl") for folder in folders]
    numbers = [metrics, losses, run.read("answers.json"), run.read("data.json")["points"]]
    return sha8(sorted(leaves(numbers)), sorted(digest(tensor) for tensor in weights))


def bench_outputs(recipe: Recipe, run: Run) -> str:
    """Hashes of what the bench says of a chain's labels: a word for every score and every column
    of the objects, so that another column leaves the words of the others as they are."""
    score_rows("battery", {"row": recipe}, {"row": run}, {"row": recipe})
    columns = [column.tolist() for column in objects_of(run).values()]
    shown = [*run.metrics["bench"].values(), *columns, run.read("data.json")["points"]]
    return " ".join(sorted({sha8(list(leaves(each))) for each in shown}))


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
