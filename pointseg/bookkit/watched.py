"""What a process reads and writes below a folder, heard from Python's own audit events."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

ELSEWHERE = (".venv", "_build", ".git", "work")  # no sources of a page
CACHE = "__pycache__"  # nor what Python compiles, and renames where it is whole
OPENED: dict[Path, str] = {}  # file -> how it was opened
LISTED: set[Path] = set()


def start() -> None:
    """From here on opened files and listed folders are noted."""
    sys.addaudithook(_note)


def report(root: str) -> str:
    """JSON of the names, below a folder, of files read and written and of folders listed."""
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    modules = {resolved(name) for name in loaded if name and Path(name).is_absolute()}
    written = {path for path, mode in OPENED.items() if mode == "w"}
    # safetensors opens files without an audit event
    read = OPENED.keys() | modules | set((Path(root) / "pointseg" / "weights").glob("*"))
    listed = LISTED - {path.parent for path in written}
    kinds = {"files": read - written, "written": written, "folders": filter(Path.is_dir, listed)}
    return json.dumps({kind: names(paths, root) for kind, paths in kinds.items()})


def names(paths: Iterable[Path], root: str) -> list[str]:
    """Paths relative to the folder, sorted, of what lies in it and is a source."""
    inside = (path.relative_to(root) for path in paths if path.is_relative_to(root))
    return sorted(str(path) for path in inside if path.parts and path.parts[0] not in ELSEWHERE)


def resolved(name: str | bytes | os.PathLike) -> Path:
    return Path(os.fsdecode(name)).resolve()


def _note(event: str, what: tuple) -> None:
    if event == "open" and not isinstance(what[0], int):
        path, writes = resolved(what[0]), what[2] & (os.O_WRONLY | os.O_RDWR)
        if path.parent.name != CACHE and not path.name.startswith("__editable__"):
            OPENED[path] = "w" if writes else OPENED.get(path, "r")
    elif event == "os.rename" and resolved(what[1]).parent.name != CACHE:
        OPENED.pop(resolved(what[0]), None)
        OPENED[resolved(what[1])] = "w"
    elif event in ("os.scandir", "os.listdir") and not isinstance(what[0], int):
        folder = resolved(what[0] or ".")
        if folder.name != CACHE and "importlib" not in sys._getframe(1).f_code.co_filename:
            LISTED.add(folder)
