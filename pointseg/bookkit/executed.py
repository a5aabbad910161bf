"""Executed chapters, kept until something that their execution read has changed.

A kept chapter carries the hash of its own text, of every file below the repository that its
execution read (library modules, runs, claims), and of the listings of the folders it looked into.
All of them must be what they were: new source can never stand beside old output.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from pointseg.bookkit.kernels import ForkedKernels

WATCH = "from pointseg.bookkit import watched; watched.start()"
SECONDS = 600  # that a cell may take


def read(text: str, book: Path | str = "book") -> nbformat.NotebookNode:
    """A chapter's executed notebook, from what is kept where that is fresh.

    A failing cell raises.
    """
    if notebook := fresh(text, book):
        return notebook
    notebook = execute(jupytext.reads(text, fmt="py:percent"), Path(book))
    notebook.metadata["execution"] |= {"text": sha(text.encode()), "packages": packages()}
    place = kept(text, book)
    place.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, place)
    return notebook


def kept(text: str, book: Path | str) -> Path:
    """Where a chapter's executed notebook lies, named by its first heading."""
    heading = re.search(r"^# # (.+)$", text, flags=re.M)
    name = re.sub(r"\W+", "-", heading[1].lower()).strip("-") if heading else sha(text.encode())
    return Path(book).resolve().parent / "_build" / "executed" / f"{name}.ipynb"


def fresh(text: str, book: Path | str) -> nbformat.NotebookNode | None:
    """The kept notebook of a chapter, or None where it was made by something else than today's."""
    place = kept(text, book)
    if not place.exists():
        return None
    notebook = nbformat.read(place, 4)
    made, root = notebook.metadata["execution"], Path(book).resolve().parent
    same = made["text"] == sha(text.encode()) and made["packages"] == packages()
    return notebook if same and not changed(made, root) else None


def changed(made: dict, root: Path) -> list[str]:
    """Files and folders that differ by now from what an execution met.

    Those below root that it read, and files it wrote.
    """
    read = [name for name, was in made["files"].items() if was != file_hash(root / name)]
    listed = [name for name, was in made["folders"].items() if was != listing_hash(root / name)]
    return read + listed + [name for name in made["written"] if not (root / name).exists()]


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs, and what it read in its metadata."""
    cells, root = notebook.cells, folder.resolve().parent
    first, last = WATCH, f"print(watched.report({str(root)!r}))"
    notebook.cells = [new_code_cell(first), *cells, new_code_cell(last)]
    began = time.time()
    client_of(notebook, folder).execute()
    touched = json.loads(notebook.cells[-1].outputs[0].text)
    notebook.cells = cells
    notebook.metadata["execution"] = hashed(touched, root, began)
    return notebook


def client_of(notebook: nbformat.NotebookNode, folder: Path) -> NotebookClient:
    place = {"metadata": {"path": str(folder)}}
    return NotebookClient(
        notebook, timeout=SECONDS, resources=place, kernel_manager_class=ForkedKernels
    )


def hashed(touched: dict[str, list[str]], root: Path, began: float) -> dict[str, Any]:
    """What an execution touched, with the hashes of what it read."""
    return {
        "files": {name: hash_before(root / name, began) for name in touched["files"]},
        "folders": {name: listing_hash(root / name) for name in touched["folders"]},
        "written": touched["written"],
    }


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_hash(path: Path) -> str | None:
    return sha(path.read_bytes()) if path.is_file() else None


def hash_before(path: Path, began: float) -> str | None:
    """The hash of a file as an execution met it.

    Nothing can equal that of one that changed since.
    """
    late = path.is_file() and path.stat().st_mtime > began
    return f"changed after {began}" if late else file_hash(path)


def listing_hash(path: Path) -> str | None:
    """Hash of the names in a folder; what Python itself leaves there does not count."""
    if not path.is_dir():
        return None
    names = sorted(p.name for p in path.iterdir() if not p.name.startswith(("__pycache__", ".")))
    return sha("\n".join(names).encode())


@cache
def packages() -> str:
    """Hash of Python's version and of every installed package's."""
    names = sorted(f"{one.name} {one.version}" for one in distributions())
    return sha("\n".join([sys.version, *names]).encode())
