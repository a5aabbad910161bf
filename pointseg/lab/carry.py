"""`pointseg carry BASE`: methods that give the same numbers, bit by bit, after moves and renames.

The battery (lab/battery.py) runs in a checkout of BASE and in the working tree, on one machine.
What comes out bit-equal is written down in runs/carried.csv; a run with the old code then counts as
current.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pointseg.data.files import read_lines
from pointseg.lab.methods import EXTRA, METHODS, method_class
from pointseg.lab.run_record import RUNS, home, write_text
from pointseg.structures import InputError

COLUMNS = ("method", "old", "new", "battery", "base", "commit")
BATTERY = Path("pointseg/lab/battery.py")
DIAGNOSTICS = Path("pointseg/bookkit/battery.py")  # of a chapter; compared where both trees have it
IN_TURN = "import runpy\nfor name in {}: runpy.run_module(name, run_name='__main__')"


def carry(base: str, methods: Sequence[str] = (), runs: Path = RUNS) -> list[str]:
    """Runs the battery on both sides, records what is equal, returns a line a method."""
    here = home().absolute()
    with checked_out(base, here) as there:
        before, after = outcome(there, methods), outcome(here, methods)
        others = weights_of(there) != weights_of(here)
    kept, lines = [], []
    for method, new in after.items():
        old = before.get(method)
        if old is None and method.startswith("page: "):
            continue
        equal = old is not None and old["battery"] == new["battery"] and still_says(old, new)
        equal = equal and not (others and begins_with_ours(method))
        lines.append(f"{'equal' if equal else 'DIFFERS':8} {method}")
        if equal and old["code"] != new["code"]:
            commits = {"base": commit(here, base), "commit": working_tree(here)}
            codes = {"old": old["code"], "new": new["code"], "battery": new["battery"]}
            kept.append({"method": method, **codes, **commits})
    if kept:
        write_carried([*read_carried(runs), *kept], runs)
    return lines


def still_says(old: dict[str, str], new: dict[str, str]) -> bool:
    """Whether everything that came out before comes out now; the bench may score more."""
    return set(old["outputs"].split()) <= set(new["outputs"].split())


def weights_of(tree: Path) -> dict[str, str]:
    """Hashes of the weights that lie in the library of a tree."""
    files = (tree / "pointseg" / "weights").glob("*.safetensors")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def begins_with_ours(method: str) -> bool:
    """Whether a method begins with the shipped weights at some scale. The battery's scale has none,
    so that it cannot see them replaced."""
    name = method.removeprefix("bench ")
    return name in METHODS | EXTRA and "'shipped'" in repr(method_class(name).CONFIGS)


@contextmanager
def checked_out(base: str, repository: Path) -> Iterator[Path]:
    """A temporary working tree of a commit."""
    with tempfile.TemporaryDirectory(prefix="carry-") as place:
        there = Path(place) / "base"
        git(repository, "worktree", "add", "--detach", "--quiet", str(there), base)
        try:
            yield there
        finally:
            git(repository, "worktree", "remove", "--force", str(there))


def outcome(tree: Path, methods: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """What the battery of a tree says: method -> hashes of battery, code and outputs.

    Where no method is named, what a chapter shows is among them.
    """
    if not (tree / BATTERY).exists():
        raise InputError(f"carry: that commit has no {BATTERY}, so nothing of it can be compared")
    pages = [] if methods or not (tree / DIAGNOSTICS).exists() else [DIAGNOSTICS]
    return outputs_of(tree, [BATTERY, *pages], methods)


def outputs_of(
    tree: Path, batteries: Sequence[Path], words: Sequence[str] = ()
) -> dict[str, dict[str, str]]:
    """The JSON that modules of a tree print, all run by one process: half of the time goes into
    importing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), *_beside()])}
    modules = [".".join(battery.with_suffix("").parts) for battery in batteries]
    command = [sys.executable, "-c", IN_TURN.format(modules), *words]
    tables = [json.loads(line) for line in _printed(command, environment) if line[:1] == "{"]
    return {name: hashes for table in tables for name, hashes in table.items()}


def _printed(command: list[str], environment: dict[str, str]) -> list[str]:
    """Lines that a command prints in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="battery-") as place:
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise InputError(f"carry: the battery failed: {(done.stderr.splitlines() or ['?'])[-1]}")
    return done.stdout.splitlines()


def _beside() -> list[str]:
    """Where else modules are looked for, but for other copies of this library."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [path for path in paths if path and not (Path(path) / "pointseg").exists()]


def is_carried(method: str, old: str | None, new: str | None, runs: Path | None = None) -> bool:
    """Whether code `old` of a method is `new`, or was proven step by step to give the same."""
    return old in carried_to(method, new, runs)


def carried_to(method: str, new: str | None, runs: Path | None = None) -> list[str | None]:
    """The codes of a method that give the numbers of `new`: itself, then those that were proven."""
    reached = [new]
    steps = [row for row in read_carried(runs or home() / RUNS) if row["method"] == method]
    for now in reached:  # grows
        before = [row["old"] for row in steps if row["new"] == now]
        reached += [each for each in dict.fromkeys(before) if each not in reached]
    return reached


def read_carried(runs: Path = RUNS) -> list[dict[str, str]]:
    path = Path(runs) / "carried.csv"
    lines = read_lines(path) if path.exists() else [",".join(COLUMNS)]
    head, *rows = csv.reader(lines)
    if tuple(head) != COLUMNS or any(len(row) != len(head) for row in rows):
        raise InputError(f"{path}: expected the columns {', '.join(COLUMNS)} in every line")
    return [dict(zip(head, row)) for row in rows]


def write_carried(rows: list[dict[str, str]], runs: Path = RUNS) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for k, row in enumerate(rows) if row not in rows[:k])
    return write_text(Path(runs) / "carried.csv", text.getvalue())


def commit(repository: Path, name: str) -> str:
    return git(repository, "rev-parse", "--short=8", name).strip()


def working_tree(repository: Path) -> str:
    """The commit that is checked out, with a mark where the files differ from it."""
    changed = git(repository, "status", "--porcelain", "--", "pointseg")
    return commit(repository, "HEAD") + ("+" if changed else "")


def git(repository: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(repository), *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"carry: git {words[0]}: {(done.stderr.splitlines() or ['failed'])[-1]}")
    return done.stdout
