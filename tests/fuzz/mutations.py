"""Seeded mutations of files that commands read, and what came of each: done, or refused cleanly."""

from __future__ import annotations

import ast
import contextlib
import copy
import gzip
import io
import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

import pointseg
from pointseg.cli import main
from pointseg.data.point_file import hash_of
from pointseg.structures import InputError

ODD = (None, True, -1, 0, 1, 0.5, -0.0, 10**20, 10**400, 1e308, float("inf"), "", "x", "../x",
       "<img src=x>", "a\nb", "\ud800", "\u00b27", "$\\frac{$", "x" * 300, [], {}, [[]],
       [1, 2, 3, 4], {"a": 1})  # fmt: skip
LONGEST_S = 8.0
MOST_KB = 300_000  # of memory that one case may take beside what the process has
IMAGES = (".png", ".jpg")


def odd_value(value: object, rng: random.Random) -> object:
    """A value of JSON with one odd thing somewhere: replaced, removed, repeated or renamed."""
    value = copy.deepcopy(value)
    holders = [*spots(value)]
    if not holders:
        return rng.choice(ODD)
    holder, key = rng.choice(holders)
    kind = rng.randrange(4)
    if kind == 0 or (kind == 1 and isinstance(holder, list)):
        holder[key] = copy.deepcopy(rng.choice(ODD))
    elif kind == 1:
        holder[rng.choice(["x", "", str(key) * 2])] = holder.pop(key)
    elif kind == 2:
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = [holder[key]]
    return value


def spots(value: object) -> Iterator[tuple]:
    """(list or table, key) of every place in a value of JSON."""
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


def odd_lines(text: str, rng: random.Random) -> str:
    """Text with one line gone, doubled, moved, or with another word in it."""
    lines = text.splitlines(keepends=True) or [""]
    at, kind = rng.randrange(len(lines)), rng.randrange(4)
    if kind == 0:
        del lines[at]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[at])
    elif kind == 2:
        lines[at] = "".join(rng.sample(lines[at], len(lines[at])))
    else:
        words = re.split(r"(\W)", lines[at])
        words[rng.randrange(len(words))] = str(rng.choice(ODD)).replace("\ud800", "\u00b2")
        lines[at] = "".join(words)
    return "".join(lines)


def odd_image(path: Path, rng: random.Random) -> None:
    """The image with another pixel, mode, size or format under its name."""
    image = Image.open(path)
    image.load()
    kind = rng.randrange(4)
    if kind == 0:
        pixels = np.array(image)
        pixels[rng.randrange(pixels.shape[0]), rng.randrange(pixels.shape[1])] = rng.randrange(256)
        changed = Image.fromarray(pixels, image.mode)
        changed.putpalette(image.getpalette()) if image.mode == "P" else None
        image = changed
    elif kind == 1:
        image = image.convert("RGB").convert(
            rng.choice(["1", "L", "P", "RGB", "RGBA", "CMYK", "I"])
        )
    elif kind == 2:
        image = image.resize((max(1, image.width + rng.randrange(-11, 3)), rng.choice([1, 9, 10])))
    form = rng.choice(
        ["PNG", "PNG", "JPEG", "TIFF", "GIF", "EPS", "PDF", "ICO"][: 3 + 5 * (kind > 2)]
    )
    with contextlib.suppress(OSError, ValueError):  # not every mode goes into every format
        image.save(path, format=form)


def odd_weights(path: Path, rng: random.Random) -> None:
    """A file of torch with one odd thing in its tables or one odd tensor."""
    saved = torch.load(path, weights_only=True)
    table = saved["weights"] if "weights" in saved else saved
    name, kind = rng.choice(list(table)), rng.randrange(8)
    value = table[name]
    changes = [value * torch.nan, value.to(torch.int8), value.bool(), value.to(torch.complex64),
               value[None], value.flatten()[:1].expand(10**6, 10**6), "x", None]  # fmt: skip
    if kind < 5:
        table[name] = changes[rng.randrange(len(changes))]
    elif kind == 5:
        table[rng.choice([3, "x", (1,)])] = table.pop(name)
    else:
        key = rng.choice([k for k in saved if k != "weights"] or list(saved))
        text = saved[key]
        saved[key] = (json.dumps(odd_value(json.loads(text), rng)) if key == "recipe"
                      else odd_value([text], rng))  # fmt: skip
    torch.save(saved, path)


def odd_thing(path: Path, rng: random.Random) -> None:
    """In the place of the file something that is none, or nothing."""
    path.unlink()
    kind = rng.randrange(6)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to("/dev/zero")
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        path.write_bytes(b"")


def spoil(path: Path, rng: random.Random) -> None:
    """The file with one mutation, of its form three times of four."""
    if rng.randrange(20) == 0:
        odd_thing(path, rng)
    elif rng.randrange(4) == 0:
        path.write_bytes(odd_bytes(path.read_bytes(), rng))
    elif path.suffix == ".json":
        path.write_text(json.dumps(hashed(odd_value(json.loads(path.read_text()), rng))))
    elif path.suffix == ".yml" and rng.randrange(2):
        path.write_text(json.dumps(odd_value(yaml.safe_load(path.read_text()), rng)))
    elif path.suffix == ".gz":
        text = odd_lines(gzip.decompress(path.read_bytes()).decode(), rng)
        path.write_bytes(gzip.compress(text.encode()))
    elif path.suffix in IMAGES:
        odd_image(path, rng)
    elif path.suffix == ".pt":
        odd_weights(path, rng)
    elif path.suffix in (".yml", ".txt", ".py"):
        path.write_text(odd_lines(path.read_text(), rng), errors="replace")
    else:
        path.write_bytes(odd_bytes(path.read_bytes(), rng))


def hashed(value: object) -> object:
    """A points file with the hash of what it holds, so that the rest of it is read."""
    if isinstance(value, dict) and "content_hash" in value:
        with contextlib.suppress(ValueError):  # numbers that JSON does not know
            value["content_hash"] = hash_of(value)
    return value


class Late(BaseException):
    """A case that does not end."""


@dataclass
class Tally:
    """What came of the cases of one command, and which refusals of which reader they reached."""

    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    reached: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


@contextlib.contextmanager
def noting(reached: dict[str, set[int]]) -> Iterator[None]:
    """Inside, the lines of the library where an InputError is made are noted."""
    home, make = str(Path(pointseg.__file__).parent), InputError.__init__
    import sys

    def noted(self, *words):
        frame = sys._getframe(1)
        if frame.f_code.co_filename.startswith(home):
            reached[frame.f_code.co_filename].add(frame.f_lineno)
        make(self, *words)

    InputError.__init__ = noted
    try:
        yield
    finally:
        InputError.__init__ = make


def coverage(reached: dict[str, set[int]]) -> list[str]:
    """A line for each reader: of the lines where it refuses, those that were reached."""
    lines = []
    for name in sorted(reached):
        made = [
            node
            for node in ast.walk(ast.parse(Path(name).read_text()))
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError"
        ]
        hit = [n for n in made if reached[name] & set(range(n.lineno, n.end_lineno + 1))]
        short = Path(name).relative_to(Path(pointseg.__file__).parent)
        lines.append(f"{short}: {len(hit)} of {len(made)} refusals")
    return lines


def outcome(words: list[str]) -> tuple[str, str, str]:
    """(class, what was complained of, what was printed) of one command: "done", "refused", or what
    must not be."""
    out, err, began, before = io.StringIO(), io.StringIO(), time.process_time(), peak_kb(anew=True)
    signal.setitimer(signal.ITIMER_REAL, 30 * LONGEST_S)  # of a busy machine's clock
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    except Late:
        return "hang", "", ""
    except BaseException as problem:
        return "traceback", f"{type(problem).__name__}: {problem}", ""
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    lines = [line for line in err.getvalue().splitlines() if "it/s" not in line]
    if time.process_time() - began > LONGEST_S:
        return "slow", "", ""
    if peak_kb() - before > MOST_KB:
        return "memory", f"{(peak_kb() - before) // 1000} MB", ""
    if code not in (0, 2):
        return f"exit {code}", "\n".join(lines), ""
    doctor = words[:2] == ["data", "check"]
    if code == 2 and not doctor and (len(lines) != 1 or len(lines[0]) > 1500):
        return "many lines", "\n".join(lines), ""
    shown = "".join(lines) + (out.getvalue() if doctor else "")
    if code == 2 and any(c in "\x00\x1b\r" or "\ud800" <= c <= "\udfff" for c in shown):
        return "unescaped", repr(shown), ""
    return ("refused" if code else "done"), lines[0] if lines else "", out.getvalue()


def peak_kb(anew: bool = False) -> int:
    """Most memory of this process since it was last asked anew; 0 where nobody can tell."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def fuzz(
    make: Callable[[Path], None], files: list[str], words: Callable[[Path, random.Random], list],
    right: Callable[[Path, str], str | None], cases: int, seed: int, place: Path,
) -> Tally:  # fmt: skip
    """What comes of a command on a good folder in which one file of a case is spoilt.

    `right` says what is wrong with the result of a command that was done.
    """
    tally, folder = Tally(), place / "case"
    make(folder)
    good = {name: (folder / name).read_bytes() for name in files}
    there = set(folder.rglob("*"))
    before = signal.signal(signal.SIGALRM, late)
    try:
        for case in range(cases):
            rng = random.Random(f"{seed} {case}")
            name = files[case % len(files)]
            spoil(folder / name, rng)
            kind, text, printed = outcome(words(folder, rng))
            wrong = right(folder, printed) if kind == "done" else None
            kind = "wrong" if wrong else kind
            left = [p for p in folder.rglob("*") if p not in there]
            parts = [p.name for p in left if p.name.endswith(".part") or p.name.startswith(".")]
            parts += [p.name for p in left if kind == "refused"]
            parts += [p.name for p in place.iterdir() if p != folder]
            kind = "left over" if parts and kind in ("refused", "done") else kind
            tally.counts[kind] += 1
            if kind not in ("done", "refused"):
                what = f"{wrong or text[:150]} {parts or ''}"
                tally.faults.append(f"seed {seed} case {case} {name}: {kind} {what}")
            put_back(folder / name, good[name], left)
    finally:
        signal.signal(signal.SIGALRM, before)
    return tally


def late(number: int, frame: object) -> None:
    raise Late


def put_back(path: Path, content: bytes, left: list[Path]) -> None:
    for new in left:
        shutil.rmtree(new, ignore_errors=True) if new.is_dir() else new.unlink(missing_ok=True)
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    elif not path.is_file() or path.is_symlink():
        path.unlink(missing_ok=True)
    path.write_bytes(content)
