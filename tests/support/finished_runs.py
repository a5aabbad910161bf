"""Runs that ended well without having run: what pages are tested on."""

import json
from dataclasses import replace

from pointseg.lab.plan import folder_of, rows
from pointseg.lab.run_record import Run


def finish(place, row, metrics, seed=0, status="ok", **changes):
    """A run of a row of the plan below place/runs; `changes` make its recipe another one's."""
    recipe = replace(rows()[row].recipe, seed=seed, **changes)
    run = Run(place / "runs" / folder_of(recipe))
    run.folder.mkdir(parents=True)
    run.write("recipe.json", json.loads(recipe.to_json()))
    run.write("result.json", {"status": status, "metrics": metrics})
    return run
