"""The batch: every run of a tier, in order, each only if it has not been run yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pointseg.ledger import home, write_index
from pointseg.notebook import run_notebook
from pointseg.recipe import METHODS
from pointseg.structures import InputError

NOTEBOOK = Path("book/experiment.py")
PLAN = Path("book/plan.yml")


def reproduce(tier: str, runs: Path = Path("runs")) -> list[Path]:
    """Runs what the tier lacks. A run that crashes stops the batch with its name; the others are kept."""
    done = []
    wanted = planned(tier)
    for number, parameters in enumerate(wanted, start=1):
        words = " ".join(f"{k}={v}" for k, v in parameters.items())
        print(f"[{number}/{len(wanted)}] {words}", flush=True)
        done.append(run_notebook(home() / NOTEBOOK, parameters, runs=runs))
    write_index(runs)
    return done


def planned(tier: str) -> list[dict[str, Any]]:
    """Parameters of every run of a tier: each method once at scale smoke, or what plan.yml lists."""
    if tier == "smoke":
        return [{"method": name, "scale": "smoke"} for name in METHODS]
    plan = yaml.safe_load((home() / PLAN).read_text())
    if tier not in plan:
        raise InputError(f"{PLAN}: there is no tier '{tier}'; there are smoke, {', '.join(plan)}")
    return [one for entry in plan[tier] for one in expanded(entry)]


def expanded(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """One set of parameters a seed."""
    rest = {k: v for k, v in entry.items() if k != "seeds"}
    return [{**rest, "seed": seed} for seed in entry.get("seeds", [0])]
