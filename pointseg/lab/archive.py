"""One file to publish: book, code, runs and environment, with an RO-Crate that has their hashes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pointseg.lab.run_record import RUNS, SMOKE, Run, home, kept_runs
from pointseg.structures import InputError

PACKED = ("book", "pointseg", "tests", "README.md", "CITATION.cff", "LICENSE", "CHANGELOG.md",
          "SECURITY.md", "pyproject.toml", "constraints.txt", "environment.yml", "_config.yml",
          "Makefile")  # fmt: skip
LEFT_OUT = ("__pycache__", ".ipynb_checkpoints")
METADATA = "ro-crate-metadata.json"
THEN = (1980, 1, 1, 0, 0, 0)  # the date of every file inside: equal contents give equal bytes


def archive(out: Path, runs: Path = RUNS) -> list[str]:
    """Writes the archive; what it holds, in two lines. A run that is not finished is refused."""
    unfinished = [run.id for run in kept_runs(runs) if run.status != "ok"]
    if unfinished:
        raise InputError(f"archive: not finished: {', '.join(unfinished)}")
    files = packed(home(), runs)
    contents = {name: path.read_bytes() for name, path in files.items()}
    date = max((r.result.get("finished", "") for r in kept_runs(runs)), default="")[:10]
    crate = metadata(contents, [*kept_runs(runs)], date)
    contents[METADATA] = (json.dumps(crate, indent=1) + "\n").encode()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, THEN)
            entry.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(entry, contents[name])
    whole = hashlib.sha256(out.read_bytes()).hexdigest()
    return [f"{out}: {len(contents)} files, {len(kept_runs(runs))} runs", f"sha256 {whole}"]


def packed(root: Path, runs: Path) -> dict[str, Path]:
    """Name in the archive -> file."""
    files = {path.relative_to(root).as_posix(): path for name in PACKED
             for path in _files_of(root / name)}  # fmt: skip
    records = (path for path in _files_of(runs) if SMOKE not in path.relative_to(runs).parts)
    return files | {f"runs/{path.relative_to(runs).as_posix()}": path for path in records}


def _files_of(place: Path) -> Iterable[Path]:
    if place.is_file():
        return [place]
    return [path for path in sorted(place.rglob("*"))
            if path.is_file() and not set(LEFT_OUT) & set(path.parts)]  # fmt: skip


def metadata(contents: dict[str, bytes], runs: list[Run], date: str) -> dict[str, Any]:
    """The crate: each file with its hash, each run as an action that made its folder's files."""
    parts = [_file(name, content) for name, content in sorted(contents.items())]
    actions = [_action(run, contents) for run in runs]
    descriptor = {"@id": METADATA, "@type": "CreativeWork", "about": {"@id": "./"},
                  "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}}  # fmt: skip
    whole = {"@id": "./", "@type": "Dataset", "name": "pointseg: which pixels does a point own?",
             "description": "A research book with the code and the runs that its numbers are from",
             "datePublished": date, "license": {"@id": "LICENSE"}, "hasPart": _links(parts),
             "mentions": _links(actions)}  # fmt: skip
    context = "https://w3id.org/ro/crate/1.1/context"
    return {"@context": context, "@graph": [descriptor, whole, *parts, *actions]}


def _file(name: str, content: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(content).hexdigest()
    return {"@id": name, "@type": "File", "contentSize": str(len(content)), "sha256": digest}


def _action(run: Run, contents: dict[str, bytes]) -> dict[str, Any]:
    result, folder = run.result, f"runs/{run.id}/"
    made = [{"@id": name} for name in sorted(contents) if name.startswith(folder)]
    return {"@id": f"#{run.id}", "@type": "CreateAction", "name": run.id, "result": made,
            "startTime": result.get("started", ""), "endTime": result.get("finished", ""),
            "object": {"@id": f"{folder}recipe.json"}}  # fmt: skip


def _links(entities: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"@id": each["@id"]} for each in entities]
