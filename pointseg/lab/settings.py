"""Values from outside against the records that they change: names, types, ranges."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pointseg.data.files import is_whole, shown
from pointseg.structures import InputError

LARGEST = 2**63 - 1
POSITIVE, SHARE = (1, LARGEST), (0, 1)
RANGES = {  # what a number may be, wherever a record has a field of that name
    "seed": (0, LARGEST), "n": POSITIVE, "jitter_px": (0, 1e6), "image_size": (8, 100_000),
    "images": POSITIVE, "scored_images": POSITIVE, "checkpoint_every": POSITIVE,
    "workers": (0, 1024), "steps": (0, LARGEST), "batch": POSITIVE, "epochs": (1e-9, 1e9),
    "lr": (0, 1e9), "weight_decay": (0, 1e9), "clip": (1e-30, 1e30), "warmup": SHARE,
    "cooldown": SHARE, "views": POSITIVE, "alone": (0, LARGEST), "probe_images": POSITIVE,
    "layer": (1, 12), "smallest_crop": (1e-3, 1), "size": (1, 4096), "view": (1, 4096),
    "ema": SHARE, "milestones": SHARE, "betas": SHARE,
}  # fmt: skip
PLAIN = {int: "an integer", float: "a number", str: "a text", bool: "true or false",
         type(None): "null", dict: "a table", list: "a list"}  # fmt: skip


def read_value(text: str) -> Any:
    """A value by the rules of JSON: 010, 1:30, yes and NaN are none; ValueError says why."""
    value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the number is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a name stands twice")
    return table


def table(what: str, value: Any) -> dict[str, Any]:
    """A table of its own; nothing given is an empty one."""
    if value is not None and not isinstance(value, Mapping):
        raise InputError(f"{what}: expected a table, got {shown(value)}")
    return dict(value or {})


def changed(what: str, record: Any, changes: Mapping[str, Any]) -> Any:
    """A record with changed fields; an unknown field, or a value of another type or out of range,
    is refused."""
    check_values(what, type(record), changes)
    return replace(record, **{name: hashable(each) for name, each in changes.items()})


def check_values(what: str, record: type, values: Any, inner: type | None = None) -> None:
    """`inner` is the type of a record inside the record whose fields may be named as well."""
    hints = {**(types_of(inner) if inner else {}), **types_of(record)}
    for name, value in table(what, values).items():
        refuse_unknown(what, name, hints)
        if is_dataclass(hints[name]) and isinstance(value, Mapping):
            check_values(f"{what}: {name}", hints[name], value)
        elif not fits(hashable(value), hints[name]) or not _in_range(name, value):
            wanted = described(hints[name]) + _range_of(name)
            raise InputError(f"{what}: {name}: expected {wanted}, got {shown(value)}")


def refuse_unknown(what: str, name: Any, known: Sequence[str] | Mapping[str, Any]) -> None:
    if name not in known:
        there = ", ".join(sorted(known))
        raise InputError(f"{what}: there is no '{shown(name)[1:-1]}'; there are {there}")


@cache
def types_of(record: type) -> dict[str, Any]:
    """Field -> type of a record."""
    hints = get_type_hints(record)
    return {field.name: hints[field.name] for field in fields(record)}


def hashable(value: Any) -> Any:
    """JSON knows no tuples and no infinity, frozen values no lists."""
    if isinstance(value, list):
        return tuple(hashable(each) for each in value)
    if isinstance(value, Mapping):
        return {name: hashable(each) for name, each in value.items()}
    return float(value) if value in ("inf", "-inf") else value


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as records state it; a whole number is a number, a bool is
    neither, and NaN is nothing."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inside)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inside)
    if origin is tuple:
        return _fits_tuple(value, inside)
    if is_dataclass(hint):
        return isinstance(value, hint) or (isinstance(value, Mapping) and _fits_record(value, hint))
    if hint is float:
        return is_whole(value) or (type(value) is float and not math.isnan(value))
    if hint is int:
        return is_whole(value)
    if hint in (str, bool, types.NoneType):
        return type(value) is hint
    return True  # of a type that no record here is changed to from outside


def _fits_tuple(value: Any, inside: tuple) -> bool:
    if not isinstance(value, tuple):
        return False
    each = inside[:1] * len(value) if inside[-1:] == (...,) else inside
    return len(each) == len(value) and all(map(fits, value, each))


def _fits_record(value: Mapping, hint: type) -> bool:
    hints = types_of(hint)
    return all(name in hints and fits(hashable(v), hints[name]) for name, v in value.items())


def _in_range(name: str, value: Any) -> bool:
    low, high = RANGES.get(name, (-math.inf, math.inf))
    numbers = value if isinstance(value, list | tuple) else (value,)
    return all(low <= each <= high for each in numbers if type(each) in (int, float))


def _range_of(name: str) -> str:
    if name not in RANGES:
        return ""
    low, high = RANGES[name]
    return f" in {low:g}..{high:g}" if high < 1e9 else f" of at least {low:g}"


def described(hint: Any) -> str:
    """A type in plain words."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(map(str, inside))
    if origin in (Union, types.UnionType):
        return " or ".join(map(described, inside))
    if origin is tuple:
        return f"a list of {described(inside[0]).removeprefix('an ').removeprefix('a ')}s"
    return "a table" if is_dataclass(hint) else PLAIN.get(hint, str(hint))
