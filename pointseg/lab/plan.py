"""book/plan.yml: the rows that we measure, by name, the beds of the label bench that score them,
and the folder that each run belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Required, TypedDict

from pointseg.data.files import read_yaml, shown
from pointseg.data.shapes import refuse_misshapen
from pointseg.lab.methods import METHODS, OPTIONAL, method_class
from pointseg.lab.recipe import SCALES, Recipe, make
from pointseg.lab.run_record import SMOKE, home, run_folder
from pointseg.lab.settings import refuse_unknown, table, types_of
from pointseg.structures import InputError

PLAN = Path("book/plan.yml")
# What a recipe takes from its scale where a row or a bed is moved there: sizes and splits
SIZES = ("image_size", "images", "scored_images", "train", "tune", "val")


@dataclass(frozen=True)
class Row:
    """One row of a table, or beside it: a recipe that is run with several seeds."""

    name: str
    paper: str  # its folder in runs/
    tier: str
    seeds: tuple[int, ...]
    bench_only: bool  # its labels are scored on beds; no student learns from them but by its name
    given: dict[str, Any]  # what `make` receives

    @cached_property
    def recipe(self) -> Recipe:
        """With seed 0."""
        return make(**self.given)


@dataclass(frozen=True)
class Bed:
    """Where the labels of rows are scored: data, what their chains begin with, and settings that
    all of them have here."""

    name: str
    paper: str
    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    first: tuple[dict[str, Any], ...]  # the stages before the one that labels
    firsts: dict[str, tuple[dict[str, Any], ...]]  # the same of rows that begin otherwise
    method: str | None  # that labels in its stead, from the same settings
    steps: int  # of that one, whose student never learns
    config: dict[str, Any]  # of that one, where it has the setting and a row does not state it
    content: str | None  # hash of its tune split; None: made here, or whatever lies there
    given: dict[str, Any]  # what else `make` receives

    def recipe(self, row: Row, seed: int, **changes: Any) -> Recipe:
        """The chain that labels the tune images; the seed draws the points too."""
        last = (row.given.get("stages") or [{"method": row.given.get("method")}])[-1]
        if isinstance(last.get("learns_from"), int):
            raise InputError(f"bench: {row.name} learns from labels, it makes none of its own")
        given, steps = {"scored_on": "tune", **self.given, **changes}, self.steps
        first = self.firsts.get(row.name, self.first)
        if given.get("scale") == SMOKE:  # as short as the scale says
            first = [{**stage, "training": {}} for stage in first]
            steps = min(steps, SCALES[SMOKE].steps)
            given = {k: v for k, v in given.items() if k not in SIZES or k in changes}
        method = self.method or last["method"]
        configs = [*getattr(method_class(method), "CONFIGS", {}).values()]
        known = fields(configs[0]) if configs else ()
        config = {f.name: self.config[f.name] for f in known if f.name in self.config}
        last = last | {
            "method": method,
            "starts_from": len(first) - 1 if first else None,
            "config": _filled(last.get("config", {}), config),
            "training": last.get("training", {}) | {"steps": steps},
            "student": False,
        }
        points = {**given.pop("points", {}), "seed": seed}
        return make(stages=[*first, last], seed=seed, points=points, **given)

    def folder(self, row: str, recipe: Recipe) -> Path:
        """bench-<bed>/<row>/s<seed> below runs/; elsewhere where the recipe is not the bed's."""
        seed = f"s{recipe.seed}"
        if recipe.scale == SMOKE:
            return run_folder(SMOKE, f"bench-{row}-{recipe.sha8}", seed)
        if recipe != self.recipe(rows()[row], recipe.seed, scored_on=recipe.scored_on):
            return run_folder("tried", f"bench-{row}-{recipe.sha8}", seed)
        bed = f"bench-{self.name}" + "-val" * (recipe.scored_on == "val")
        return run_folder(bed, row, seed)


def _filled(given: Mapping[str, Any], bed: Mapping[str, Any]) -> dict[str, Any]:
    """A bed's settings where a row does not state them, in their tables too."""
    both = {
        name: bed[name] | value
        for name, value in given.items()
        if isinstance(value, Mapping) and isinstance(bed.get(name), Mapping)
    }
    return {**bed, **given, **both}


def rows(path: Path | None = None) -> dict[str, Row]:
    """The rows of a plan by name; none where there is no plan."""
    return _plan(path).get("rows", {})


def beds(path: Path | None = None) -> dict[str, Bed]:
    """The beds of the label bench by name."""
    return _plan(path).get("beds", {})


def _plan(path: Path | None) -> dict[str, Any]:
    path = path or home() / PLAN
    return _read(path, path.stat().st_mtime_ns) if path.exists() else {}


class StageEntry(TypedDict, total=False):
    method: Required[str]
    config: dict[str, object]
    training: dict[str, object]


class BedEntry(TypedDict, total=False):
    rows: Required[list[str]]
    seeds: list[int]
    first: list[StageEntry]
    firsts: dict[str, list[StageEntry]]
    method: str
    steps: int
    config: dict[str, object]
    content: str
    points: dict[str, object]


class RowEntry(TypedDict, total=False):
    tier: str
    seeds: list[int]
    bench_only: bool
    stages: list[StageEntry]
    points: dict[str, object]


class PlanFile(TypedDict, total=False):
    """Settings of rows and beds are looked at where their recipes are made."""

    rows: Required[dict[str, dict[str, RowEntry]]]
    bench: dict[str, dict[str, BedEntry]]
    stages: object
    beds: object


@cache
def _read(path: Path, stamp: int) -> dict[str, Any]:
    content = read_yaml(path)
    refuse_misshapen(path, content, PlanFile)
    planned = {
        name: _row(name, paper, entry)
        for paper, entries in content["rows"].items()
        for name, entry in entries.items()
    }
    benches = {
        name: _bed(name, paper, dict(entry), planned)
        for paper, entries in content.get("bench", {}).items()
        for name, entry in entries.items()
    }
    return {"rows": planned, "beds": benches}


def _bed(name: str, paper: str, entry: dict[str, Any], planned: Mapping[str, Row]) -> Bed:
    scored = _called(entry.pop("rows"), planned, f"{PLAN}: bench: {paper}: {name}")
    taken = {
        "seeds": tuple(entry.pop("seeds", [0])),
        "first": tuple(entry.pop("first", ())),
        "firsts": {row: tuple(stages) for row, stages in entry.pop("firsts", {}).items()},
        "method": entry.pop("method", None),
        "steps": entry.pop("steps", 0),
        "config": entry.pop("config", {}),
        "content": entry.pop("content", None),
    }
    return Bed(name, paper, scored, **taken, given=entry)


def _called(patterns: list[str], planned: Mapping[str, Row], where: str) -> tuple[str, ...]:
    """The names of rows that match one of the patterns, in the plan's order."""
    names = tuple(row for row in planned if any(fnmatch(row, pattern) for pattern in patterns))
    if not names:
        raise InputError(f"{where}: no row is called {shown(patterns)}")
    return names


def _row(name: str, paper: str, entry: Mapping[str, Any]) -> Row:
    given = dict(entry)
    tier, seeds = given.pop("tier", "small"), tuple(given.pop("seeds", [0]))
    return Row(name, paper, tier, seeds, given.pop("bench_only", False), given)


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
        return run_folder(row.paper, row.name, f"s{recipe.seed}")
    paper = SMOKE if recipe.scale == SMOKE else "tried"
    return run_folder(paper, f"{recipe.stage.method}-{recipe.sha8}", f"s{recipe.seed}")


def recipe_for(name: str, **changes: Any) -> Recipe:
    """A row's recipe or a method's usual chain, with changes; None changes nothing."""
    recipe = _recipe(name, changes)
    for stage in recipe.stages:  # of a chain the last one would be refused after days
        scales = getattr(method_class(stage.method), "CONFIGS", {recipe.scale: None})
        if recipe.scale not in scales:
            there = " and ".join(scales)
            raise InputError(f"scale: {stage.method} has none called {recipe.scale}, only {there}")
    return recipe


def _recipe(name: str, changes: Mapping[str, Any]) -> Recipe:
    changes = {key: value for key, value in changes.items() if value not in (None, {})}
    settings = table("settings", changes.pop("settings", None))
    for each in settings:
        refuse_unknown("settings", each, types_of(Recipe).keys() - {"stages"})
    if "points" in settings:
        changes["points"] = table("points", settings["points"]) | changes.get("points", {})
    changes = {**settings, **changes}
    methods = METHODS | OPTIONAL
    if name in methods:
        return make(name, **changes)
    if name not in rows():
        known = f"the methods are {', '.join(methods)}, the rows stand in {PLAN}"
        raise InputError(f"method: there is no '{name}'; {known}")
    given = rows()[name].given
    both = {**given, **changes}
    if "points" in changes:
        both["points"] = {**given.get("points", {}), **changes["points"]}
    return make(**both)
