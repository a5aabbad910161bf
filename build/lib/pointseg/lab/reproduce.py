"""The batch: every run of a tier, in order, each only if it has not been run yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pointseg.lab.explain import Given, explained
from pointseg.lab.methods import METHODS
from pointseg.lab.notebook import checked, read_notebook, recipe_of, run_notebook
from pointseg.lab.plan import PLAN, folder_of, rows
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_index import write_index
from pointseg.lab.run_record import SMOKE, home
from pointseg.structures import InputError

NOTEBOOK = Path("book/experiment.py")


def reproduce(tier: str, runs: Path = Path("runs")) -> list[Path]:
    """Runs what the tier lacks. A run that crashes stops the batch with its name; the others are
    kept."""
    done, wanted = [], planned(tier)
    for number, parameters in enumerate(wanted, start=1):
        words = " ".join(f"{name}={value}" for name, value in parameters.items())
        print(f"[{number}/{len(wanted)}] {words}", flush=True)
        done.append(run_notebook(home() / NOTEBOOK, parameters, runs=runs))
    if tier != SMOKE:
        write_index(runs)
    return done


def trained(notebook: Path, given: Mapping[str, Any], force: bool, runs: Path) -> Path:
    """One run, which says first what it will do."""
    recipe = recipe_of(checked(read_notebook(notebook), given))
    print("\n".join([*summary(recipe), f"record: {runs / folder_of(recipe)}"]), flush=True)
    return run_notebook(notebook, given, force=force, runs=runs)


def summary(recipe: Recipe) -> list[str]:
    """What a recipe does, in a few lines."""
    images = recipe.images or "all"
    points, lines = (
        recipe.points,
        [
            f"data: {recipe.data}, layout {recipe.layout}, {images} images of split "
            f"{recipe.train}, {recipe.image_size} px"
        ],
    )
    for k, stage in enumerate(recipe.stages):
        source = stage.learns_from
        what = f"the labels of stage {source}" if isinstance(source, int) else source
        what += f" ({points.n} {points.kind} a target)" if source == "points" else ""
        start = "" if stage.starts_from is None else f", starts from {stage.starts_from}"
        steps, epochs = stage.training.steps, stage.training.epochs
        long = f"{steps} steps" if steps is not None else f"{epochs:g} epochs"
        size = f"{long} of {stage.training.batch} images"
        lines.append(f"stage {k}: {stage.method} learns from {what}{start}, {size}")
    return [
        *lines,
        f"scored on: split {recipe.scored_split}, {recipe.scored_images or 'all'} images",
    ]


def recipe_lines(notebook: Path, given: Mapping[str, Any], explain: bool) -> list[str]:
    """The recipe that a training would use; with `explain`, where each value comes from."""
    values = checked(read_notebook(notebook), given)
    recipe = recipe_of(values)
    if not explain:
        return [recipe.to_json()]
    points = {"kind": values["points"], "n": values["n"], "seed": values["points_seed"]}
    changes = {name: value for name, value in values.items() if name in given}
    return explained(recipe, Given(values["method"], {**changes, "points": points}))


def planned(tier: str) -> list[dict[str, Any]]:
    """Parameters of every run of a tier: each method once at scale smoke, or the plan's rows."""
    if tier == SMOKE:
        return [{"method": name} for name in METHODS]
    tiers = sorted({row.tier for row in rows().values()})
    if tier not in tiers:
        raise InputError(f"{PLAN}: there is no tier '{tier}'; there are smoke, {', '.join(tiers)}")
    chosen = [row for row in rows().values() if row.tier == tier]
    return [{"method": row.name, "seed": seed} for row in chosen for seed in row.seeds]
