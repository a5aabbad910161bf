"""`pointseg recipe NAME --explain`: every value of a recipe, and where it comes from."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pointseg.data.files import read_lines
from pointseg.lab.methods import method_class
from pointseg.lab.plan import PLAN, rows
from pointseg.lab.recipe import Recipe, Scale, Stage
from pointseg.lab.run_record import home
from pointseg.structures import Training, replaced

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Given:
    """What a recipe was asked for: changes by hand, and the row that they change."""

    name: str
    changes: Mapping[str, Any]

    @property
    def row(self) -> Mapping[str, Any]:
        return rows()[self.name].given if self.name in rows() else {}

    def source(self, *path: str | int) -> str | None:
        """Who gave the value at a path such as ("stages", 1, "config", "alpha")."""
        if _at(self.changes, path) or _at(self.changes.get("settings", {}), path):
            return "given"
        return f"row {self.name}, {self.line}" if _at(self.row, path) else None

    @property
    def line(self) -> str:
        text = read_lines(home() / PLAN, every=True)
        numbers = (i for i, line in enumerate(text, 1) if line.startswith(f"{self.name}:"))
        return f"{PLAN}:{next(numbers, 1)}"


def explained(recipe: Recipe, given: Given) -> list[str]:
    """One line a value: name = value <- where it comes from."""
    lines = [*_common(recipe, given)]
    for k, stage in enumerate(recipe.stages):
        last = k + 1 == len(recipe.stages)
        lines += _of_stage(k, stage, recipe.scale, given, last)
    width = max(len(f"{name} = {value}") for name, value, _ in lines if len(str(value)) < 40)
    return [f"{f'{name} = {value}':{width}}  <- {source}" for name, value, source in lines]


def _common(recipe: Recipe, given: Given) -> Iterator[tuple[str, Any, str]]:
    dial = {field.name for field in fields(Scale)} & {field.name for field in fields(Recipe)}
    for field in fields(Recipe):
        value, name = getattr(recipe, field.name), field.name
        if name == "stages":
            continue
        source = given.source(name) or _place(Recipe, name)
        if name in dial and not given.source(name):
            source = f"scale {recipe.scale}, {_keyword(sys.modules[Scale.__module__], 'SCALES')}"
        for part in fields(value) if is_dataclass(value) else ():
            origin = given.source(name, part.name)
            if not origin and getattr(value, part.name) != part.default:
                origin = "the methods' own kind of points"
            origin = origin or _place(type(value), part.name)
            yield f"{name}.{part.name}", getattr(value, part.name), origin
        if not is_dataclass(value):
            yield name, value, source


def _of_stage(
    k: int, stage: Stage, scale: str, given: Given, last: bool
) -> Iterator[tuple[str, Any, str]]:
    label, cls = f"{k} {stage.method}", method_class(stage.method)
    for name in ("learns_from", "starts_from", "student"):
        source = given.source("stages", k, name) or "the method's usual chain"
        yield f"{label}.{name}", getattr(stage, name), source
    for name, value, source in _training(k, stage, scale, given, last):
        yield f"{label}.training.{name}", value, source or _stated((cls,), name, value, Training())
    yield from _config(k, stage, scale, given, last)


def _training(k: int, stage: Stage, scale: str, given: Given, last: bool) -> Iterator[tuple]:
    """Name and value of each setting of a training, and who but the method says it."""
    stated = getattr(method_class(stage.method), "TRAINING", {}).get(scale, Training())
    for field in fields(Training):
        value = getattr(stage.training, field.name)
        source = _given_to(k, ("training", field.name), given, last)
        if not source and value != getattr(stated, field.name):
            source = f"scale {scale}, {_keyword(sys.modules[Scale.__module__], 'SCALES')}"
        yield field.name, value, source


def _config(k: int, stage: Stage, scale: str, given: Given, last: bool) -> Iterator[tuple]:
    cls, changes = method_class(stage.method), dict(stage.config)
    config = getattr(cls, "CONFIGS", {}).get(scale)
    for path, record, value in _settings(replaced(config, changes)) if config else ():
        source = _given_to(k, ("config", *path), given, last)
        source = source or _given_to(k, ("config", path[-1]), given, last)  # a student's, by itself
        homes = (cls, type(config), type(record))
        source = source or _stated(homes, path[-1], value, type(record)())
        yield f"{k} {stage.method}.config.{'.'.join(path)}", value, source


def _settings(record: Any, path: tuple[str, ...] = ()) -> Iterator[tuple]:
    """(names that lead to it, the record that holds it, value) of each setting, records in records
    included."""
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _settings(value, (*path, field.name))
        else:
            yield (*path, field.name), record, value


def _given_to(k: int, path: tuple[str, ...], given: Given, last: bool) -> str | None:
    by_hand = given.source(*path) if last else None
    return by_hand or given.source("stages", k, *path)


def _stated(homes: Sequence[type], name: str, value: Any, default: Any) -> str:
    """The place of a method's own value, or that of the default, with what is cited there.

    A method states values in its own module, or where one of the classes of its Config stands.
    """
    if value == getattr(default, name):
        return _place(type(default), name)
    origins = [_keyword(sys.modules[home.__module__], name) for home in homes]
    return f"method, {next((each for each in origins if ':' in each), origins[0])}"


def _at(value: Any, path: tuple[str | int, ...]) -> bool:
    """Whether a nested value has something at a path."""
    for step in path:
        inside = value is not None and (
            step < len(value) if isinstance(step, int) else step in value
        )
        if not inside:
            return False
        value = value[step]
    return value is not None


def _place(cls: type, name: str) -> str:
    """File and line of a dataclass's field, and the comment beside it."""
    file = Path(inspect.getsourcefile(cls))
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.target.id == name:
                    return f"default, {_short(file)}:{field.lineno}{_comment(file, field)}"
    return f"default, {_short(file)}"


def _keyword(module: Any, name: str) -> str:
    """File and line where a module states a value of that name."""
    file = Path(module.__file__)
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.keyword) and node.arg == name:
            return f"{_short(file)}:{node.value.lineno}"
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == name:
            return f"{_short(file)}:{node.lineno}"
    return _short(file)


def _comment(file: Path, node: ast.AnnAssign) -> str:
    lines = file.read_text().splitlines()[node.lineno - 1 : node.end_lineno]
    words = [line.partition("#")[2].strip() for line in lines if "#" in line]
    return f" ({' '.join(words)})" if words else ""


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _short(file: Path) -> str:
    return str(file.relative_to(PACKAGE)) if file.is_relative_to(PACKAGE) else file.name
