"""book/plan.yml: the rows that we measure, by name, and the folder that each run belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from pointseg.lab.methods import METHODS
from pointseg.lab.recipe import Recipe, make
from pointseg.lab.run_record import SMOKE, home
from pointseg.structures import InputError

PLAN = Path("book/plan.yml")


@dataclass(frozen=True)
class Row:
    """One row of a table, or beside it: a recipe that is run with several seeds."""

    name: str
    paper: str  # its folder in runs/
    tier: str
    seeds: tuple[int, ...]
    given: dict[str, Any]  # what `make` receives

    @cached_property
    def recipe(self) -> Recipe:
        """With seed 0."""
        return make(**self.given)


def rows(path: Path | None = None) -> dict[str, Row]:
    """The rows of a plan by name; none where there is no plan."""
    path = path or home() / PLAN
    try:
        return _read(path, path.stat().st_mtime_ns) if path.exists() else {}
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable ({getattr(error, 'strerror', error)})") from None


@cache
def _read(path: Path, stamp: int) -> dict[str, Row]:
    content = yaml.safe_load(path.read_text())
    return {
        name: _row(name, paper, entry)
        for paper, entries in content["rows"].items()
        for name, entry in entries.items()
    }


def _row(name: str, paper: str, entry: Mapping[str, Any]) -> Row:
    given = {key: value for key, value in entry.items() if key not in ("tier", "seeds")}
    return Row(name, paper, entry.get("tier", "small"), tuple(entry.get("seeds", [0])), given)


def row_of(recipe: Recipe) -> Row | None:
    """The row whose whole recipe, but for the seed, is this one."""
    wanted = replace(recipe, seed=0)
    matching = (row for row in rows().values() if _may_match(row, recipe) and row.recipe == wanted)
    return next(matching, None)


def _may_match(row: Row, recipe: Recipe) -> bool:
    """A quick look before the row is resolved."""
    methods = [stage["method"] for stage in row.given.get("stages", [])]
    return methods in ([], [stage.method for stage in recipe.stages])


def folder_of(recipe: Recipe) -> Path:
    """<paper>/<row>/s<seed> below runs/; a recipe that is no row's has its hash in its name."""
    row = None if recipe.scale == SMOKE else row_of(recipe)
    if row:
        return Path(row.paper) / row.name / f"s{recipe.seed}"
    paper = SMOKE if recipe.scale == SMOKE else "tried"
    return Path(paper) / f"{recipe.stage.method}-{recipe.sha8}" / f"s{recipe.seed}"


def recipe_for(name: str, **changes: Any) -> Recipe:
    """A row's recipe or a method's usual chain, with changes; None changes nothing."""
    changes = {key: value for key, value in changes.items() if value not in (None, {})}
    changes = {**changes.pop("settings", {}), **changes}
    if name in METHODS:
        return make(name, **changes)
    if name not in rows():
        known = f"the methods are {', '.join(METHODS)}, the rows stand in {PLAN}"
        raise InputError(f"method: there is no '{name}'; {known}")
    given = rows()[name].given
    both = {**given, **changes}
    if "points" in changes:
        both["points"] = {**given.get("points", {}), **changes["points"]}
    return make(**both)
