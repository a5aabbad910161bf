"""Imports point down only, and nobody hides behind a name that says nothing."""

import ast
from pathlib import Path

import pytest

FLOORS = (
    {"inputs", "structures", "ownership"},
    {"ops", "nets", "data", "metrics", "weights"},
    {"students", "papers"},
    {"training"},
    {"lab"},
    {"bookkit"},
    {"cli", "__main__"},
)
FLOOR = {unit: height for height, units in enumerate(FLOORS) for unit in units}
# what several papers stand on
SHARED = {"method", "panoptic_labels", "path_labels"}
# imports that still point up; each goes with its owner's next piece of the move
STILL: set[str] = set()
BANNED = {"utils", "misc", "common", "helpers"}


def imports(source: str) -> list[str]:
    """Every pointseg module a source text imports, as dotted names."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "pointseg"
        ):
            tail = node.module.split(".")[1:]
            names += [".".join(tail)] if tail else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            names += [
                a.name.removeprefix("pointseg.")
                for a in node.names
                if a.name.startswith("pointseg.")
            ]
    return names


def upward(unit: str, source: str) -> list[str]:
    """Imports of `source`, living in `unit` (such as "ops.shift"), that break the floors' order."""
    (top, paper), wrong = _first_two(unit), []
    for name in imports(source):
        other, neighbour = _first_two(name)
        higher = FLOOR[other] > FLOOR[top]
        sibling_paper = top == other == "papers" and neighbour not in {paper, "", *SHARED}
        if higher or sibling_paper:
            wrong.append(name)
    return wrong


def _first_two(name: str) -> tuple[str, str]:
    return tuple((name + "..").split(".")[:2])


def modules(root: Path):
    for path in sorted((root / "pointseg").rglob("*.py")):
        parts = path.relative_to(root / "pointseg").with_suffix("").parts
        yield path, ".".join(p for p in parts if p != "__init__") or "structures"


def test_imports_point_down(root):
    wrong = {unit: bad for p, unit in modules(root) if (bad := upward(unit, p.read_text()))}
    wrong = {unit: bad for unit, bad in wrong.items() if unit not in STILL}
    assert not wrong, wrong


def test_every_unit_has_a_floor(root):
    unknown = {unit.split(".")[0] for _, unit in modules(root)} - set(FLOOR)
    assert not unknown, unknown


@pytest.mark.parametrize("unit, source", [
    ("ops.shift", "from pointseg.training.loop import fit"),
    ("nets.vit", "import pointseg.papers.method"),
    ("papers.psps", "from pointseg.papers.point2mask import Point2Mask"),
    ("structures", "from pointseg import ops"),
])  # fmt: skip
def test_a_planted_upward_import_is_seen(unit, source):
    assert upward(unit, source)


def test_no_drawer_for_leftovers(root):
    assert not {p.stem for p, _ in modules(root)} & BANNED


def test_chapters_hold_no_classes_and_call_short_cells(root):
    for path in sorted((root / "book").glob("*.py")):
        tree = ast.parse(path.read_text())
        assert not [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)], path.name
        assert len([n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]) <= 2, path.name
