"""Seeded mutations of files that commands read, and what came of each: done, or refused cleanly."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pointseg.cli import main

ODD = (None, True, -1, 0, 1, 0.5, -0.0, 10**20, 10**400, 1e308, "", "x", "../x", "<img src=x>",
       "a\nb", "\ud800", "\u00b27", "$\\frac{$", [], {}, [[]], [1, 2, 3, 4], {"a": 1})  # fmt: skip
HANG_S = 10.0


def odd_json(value: object, rng: random.Random) -> object:
    """A JSON value with one odd thing somewhere: replaced, removed, repeated or renamed."""
    value = copy.deepcopy(value)
    holder, key = rng.choice([*spots(value)])
    kind = rng.randrange(4)
    if kind == 0 or (kind == 1 and isinstance(holder, list)):
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif kind == 1:
        holder[rng.choice(["x", "", key * 2])] = holder.pop(key)
    elif kind == 2:
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = [holder[key]]
    return value


def spots(value: object):
    """(list or table, key) of every place in a JSON value."""
    keys = (
        range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    )
    for key in keys:
        yield value, key
        yield from spots(value[key])


def odd_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes cut, flipped, doubled, or none."""
    at, kind = rng.randrange(len(content) + 1), rng.randrange(5)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at:]
    if kind == 2 and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    return content[:at] + rng.randbytes(4) + content[at + 4 :] if kind == 3 else content * 2


def spoil(file: Path, rng: random.Random) -> None:
    """The file with one mutation; JSON is changed as JSON three times of four."""
    if file.suffix == ".json" and rng.randrange(4):
        text = json.dumps(odd_json(json.loads(file.read_text()), rng))
        file.write_text(text)
    else:
        file.write_bytes(odd_bytes(file.read_bytes(), rng))


def outcome(words: list[str]) -> tuple[str, str]:
    """(class, what was said) of one command: "done", "refused", or what must not be."""
    out, err, began = io.StringIO(), io.StringIO(), time.perf_counter()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    except BaseException as problem:
        return "traceback", f"{type(problem).__name__}: {problem}"
    lines = (err.getvalue() or out.getvalue()).splitlines()
    if time.perf_counter() - began > HANG_S:
        return "hang", ""
    if code not in (0, 2):
        return f"exit {code}", "\n".join(lines)
    if code == 2 and words[:2] != ["data", "check"] and len(lines) != 1:
        return "many lines", "\n".join(lines)
    return ("refused" if code else "done"), lines[0] if lines else ""


def fuzz(
    good: Path, files: list[str], words: Callable[[Path], list[str]], cases: int, seed: int,
    place: Path,
) -> tuple[Counter, list[str]]:  # fmt: skip
    """Outcomes of a command on copies of a good folder with one file spoilt, and what must not
    be."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    for case in range(cases):
        rng = random.Random(f"{seed} {case}")
        copied, name = place / "case", files[case % len(files)]
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(good, copied)
        spoil(copied / name, rng)
        before = set(place.rglob("*"))
        kind, text = outcome(words(copied))
        counts[kind] += 1
        rest = set(place.rglob("*")) - before
        parts = [str(path) for path in rest if path.name.endswith(".part") or path.name[0] == "."]
        if kind not in ("done", "refused") or parts:
            faults.append(f"seed {seed} case {case} {name}: {kind} {text[:150]} {parts}")
    return counts, faults
