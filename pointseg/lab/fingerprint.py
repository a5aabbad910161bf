"""Hashes of code: what a number was made by, blind to comments, docstrings and formatting."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
# Modules that draw, print, name or keep records: they move no number.
SILENT = frozenset(
    f"pointseg.{name}"
    for name in (
        "cli",
        "bookkit.equations",
        "bookkit.explorer",
        "bookkit.figures",
        "bookkit.report",
        "bookkit.run_figures",
        "lab.carry",
        "lab.explain",
        "lab.fingerprint",
        "lab.notebook",
        "lab.plan",
        "lab.predict",
        "lab.progress",
        "lab.run_index",
        "lab.run_record",
    )
)


def sha8(*parts: Any) -> str:
    """Eight hex digits over JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def code_hash(source: str) -> str:
    """sha256 of what a source computes."""
    digest = hashlib.sha256()
    for word in _words(parsed(source)):
        digest.update(word.encode() + b"\0")
    return digest.hexdigest()


def library_hash(roots: Iterable[str]) -> str:
    """sha256 over the modules that the named ones import, themselves included.

    Where networks are among them, the weights in the package count too.
    """
    names = closure(roots)
    lines = [f"{name} {_module_hash(name)}" for name in sorted(names)]
    weights = _weights() if any(name.startswith("pointseg.nets.") for name in names) else []
    return hashlib.sha256("\n".join([*lines, *weights]).encode()).hexdigest()


def closure(roots: Iterable[str]) -> set[str]:
    """Names of our modules reachable by imports from the given ones, lazy imports included.

    A method that is chosen by its name (lab/methods.py) is not among them: who asks names it.
    """
    reached: set[str] = set()
    waiting = [name for name in roots if name in sources()]
    while waiting:
        name = waiting.pop()
        if name not in reached | SILENT:
            reached.add(name)
            waiting += _imports(name)
    return reached


def imported(source: str) -> set[str]:
    """Our modules that a source imports."""
    names: set[str] = set()
    for node in ast.walk(parsed(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & set(sources())


parsed = cache(ast.parse)  # once for what a module computes and once for what it imports


@cache
def sources() -> dict[str, Path]:
    """Module name -> file, of the whole package."""
    files = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


@cache
def _imports(name: str) -> frozenset[str]:
    return frozenset(imported(sources()[name].read_text()))


@cache
def _module_hash(name: str) -> str:
    return code_hash(sources()[name].read_text())


@cache
def _weights() -> list[str]:
    files = sorted((PACKAGE / "weights").glob("*.safetensors"))
    return [f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}" for file in files]


def _words(node: Any) -> Iterable[str]:
    """A syntax tree as words; absent fields are left out, since Python versions differ in them."""
    if isinstance(node, ast.AST):
        yield type(node).__name__
        for name, value in ast.iter_fields(node):
            value = _without_docstring(node) if name == "body" else value
            if value not in (None, []) and name not in ("kind", "ctx"):
                yield name
                yield from _words(value)
    elif isinstance(node, list):
        for item in node:
            yield from _words(item)
    else:
        yield repr(node)


def _without_docstring(node: ast.AST) -> Any:
    documented = isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    if documented and ast.get_docstring(node, clean=False) is not None:
        return node.body[1:]
    return node.body
