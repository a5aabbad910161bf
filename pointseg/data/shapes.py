"""What a JSON or YAML file holds against a declared shape.

A shape is a type: int, float, str, bool, None, Any, Literal, list[shape], dict[str, shape], a
TypedDict, or several of these joined by |. Names that a TypedDict does not state, and what is Any,
may hold anything that JSON can say, in numbers that fit; what is `object` is looked at by nobody.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import (
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from pointseg.data.files import is_text, is_whole, shown
from pointseg.data.measures import is_number
from pointseg.structures import InputError

PLAIN = {
    int: (is_whole, "an integer"),
    float: (is_number, "a number"),
    str: (is_text, "a text"),
    bool: (lambda value: isinstance(value, bool), "true or false"),
    types.NoneType: (lambda value: value is None, "null"),
}
CONTAINERS = {dict: "a table", list: "a list"}


def refuse_misshapen(where: Any, value: Any, shape: Any) -> None:
    """Refuses a value that is not of a shape, with the place in it."""
    try:
        fault = next(faults(value, shape), None)
    except RecursionError:
        fault = "is nested too deeply"
    if fault:
        raise InputError(f"{where}: {fault}")


def faults(value: Any, shape: Any) -> Iterator[str]:
    """In words, where a value is not of a shape."""
    origin, inside = _form(shape)
    if origin in (Union, types.UnionType):
        yield from _faults_of_one(value, inside)
    elif shape is Any:
        yield from _anything(value)
    elif shape is object:
        return
    elif shape in PLAIN or origin is Literal:
        fits, wanted = PLAIN.get(shape, (inside.__contains__, "one of " + ", ".join(inside)))
        if not (fits(value) if shape in PLAIN else isinstance(value, str) and fits(value)):
            yield f"expected {wanted}, got {shown(value)}"
    elif is_typeddict(shape):
        yield from _faults_of_table(value, shape)
    else:
        yield from _faults_inside(value, origin, inside)


@cache
def _form(shape: Any) -> tuple[Any, tuple]:
    return get_origin(shape), get_args(shape)


def _faults_of_one(value: Any, shapes: tuple) -> Iterator[str]:
    """Those of the one shape that comes nearest: a container's faults lie inside it."""
    every = [list(faults(value, each)) for each in shapes]
    if all(every):
        container = dict if isinstance(value, dict) else list
        near = [f for f, each in zip(every, shapes) if _container(each) is container]
        yield from near[0] if near and isinstance(value, container) else every[0]


def _container(shape: Any) -> Any:
    return dict if is_typeddict(shape) else get_origin(shape)


def _faults_of_table(value: Any, shape: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"expected a table, got {shown(value)}"
        return
    yield from (f"'{name}' is missing" for name in _required(shape) - value.keys())
    hints = _hints(shape)
    for name, each in value.items():
        yield from _faults_named(name, each, hints.get(name, Any))


def _faults_named(name: Any, value: Any, shape: Any) -> Iterator[str]:
    """Of an entry of a table."""
    if not is_text(name):
        yield f"{shown(name)} is no name"
    yield from (f"{_worded(name)}: {fault}" for fault in faults(value, shape))


@cache
def _hints(shape: Any) -> dict[str, Any]:
    return get_type_hints(shape)


@cache
def _required(shape: Any) -> frozenset[str]:
    """Names that have to be there; of annotations that are text TypedDict itself cannot tell."""
    origins = {n: get_origin(h) for n, h in get_type_hints(shape, include_extras=True).items()}
    return frozenset(
        name for name, origin in origins.items()
        if origin is Required or (shape.__total__ and origin is not NotRequired)
    )  # fmt: skip


def _faults_inside(value: Any, container: Any, inside: tuple) -> Iterator[str]:
    """Of dict[str, shape] and list[shape]."""
    if not isinstance(value, container):
        yield f"expected {CONTAINERS[container]}, got {shown(value)}"
    elif container is list:
        for k, each in enumerate(value):
            yield from (f"entry {k}: {fault}" for fault in faults(each, inside[0]))
    else:
        for name, each in value.items():
            yield from _faults_named(name, each, inside[1])


def _anything(value: Any) -> Iterator[str]:
    """What JSON can say, in numbers that fit."""
    if isinstance(value, dict):
        yield from _faults_inside(value, dict, (str, Any))
    elif isinstance(value, list):
        yield from _faults_inside(value, list, (Any,))
    elif isinstance(value, str) and not is_text(value):
        yield f"half a character in {shown(value)}"
    elif isinstance(value, int | float) and not isinstance(value, bool) and not is_number(value):
        yield f"the number {shown(value)} fits nowhere"


def _worded(name: Any) -> str:
    return shown(name)[1:-1] if isinstance(name, str) else shown(name)
