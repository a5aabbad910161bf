"""The same command twice or three times at once, begun at one moment; prints what came of it.

A program of its own, for the reason of killed_commands.py.
"""

import json
import os
import sys
import time
from pathlib import Path

from support.killed_commands import COMMANDS, child, contents, finish, hidden, project, stand_in

TOGETHER = {"bench": 2, "predict": 2, "run": 3, "points": 2, "labels": 2, "train": 2,
            "reproduce": 2, "pretrain": 2}  # fmt: skip
PATIENCE = 20.0  # seconds that the first one waits for the others


def begun_together(words: list[str], place: Path, count: int) -> list[int]:
    """Exit codes of children that go on together from the first file that each changes."""
    come, came = os.pipe()
    go, gone = os.pipe()

    def tell(path: str, waited=[]) -> None:  # noqa: B006
        if not waited:
            waited.append(path)
            os.write(came, b".")
            os.read(go, 1)

    numbers, codes, end = [child(words, place, tell) for _ in range(count)], {}, time.monotonic()
    os.set_blocking(come, False)
    here, end = 0, end + PATIENCE
    while here + len(codes) < count and time.monotonic() < end:
        time.sleep(0.02)
        here += len(arrived(come))
        codes |= ended(numbers, codes, os.WNOHANG)
    os.write(gone, b"." * count)
    codes |= ended(numbers, codes, 0)
    for handle in (come, came, go, gone):
        os.close(handle)
    return [codes[number] for number in numbers]


def arrived(pipe: int) -> bytes:
    try:
        return os.read(pipe, 100)
    except BlockingIOError:
        return b""


def ended(numbers: list[int], known: dict[int, int], how: int) -> dict[int, int]:
    waited = [os.waitpid(n, how) for n in numbers if n not in known]
    return {n: os.waitstatus_to_exitcode(status) for n, status in waited if n}


def try_together(name: str, place: Path, count: int) -> dict:
    """One has done it; the others have too, or say in one line why not; nothing else is there."""
    whole, folder, words = project(place / "whole"), project(place / "together"), COMMANDS[name]
    assert finish(words, whole)[0] == 0, (whole / "said").read_text()
    codes = begun_together(words, folder, count)
    lines = [line for line in (folder / "said").read_text().splitlines() if "pointseg: " in line]
    faults = [] if 0 in codes and {*codes} <= {0, 2} else [f"{name}: ended with {codes}"]
    if len(lines) != codes.count(2) or "Traceback" in (folder / "said").read_text():
        faults.append(f"{name}: printed {lines} with {codes}")
    wanted, there = contents(whole), contents(folder)
    if differing := [n for n in wanted.keys() | there.keys() if wanted.get(n) != there.get(n)]:
        faults.append(f"{name}: differs in {differing[:5]}")
    if new := hidden(folder) - hidden(whole):
        faults.append(f"{name}: left {new}")
    return {"command": name, "codes": codes, "lines": lines, "faults": faults}


def main(place: Path, names: list[str]) -> None:
    stand_in(place)
    for name in names or TOGETHER:
        folder = place / name
        folder.mkdir()
        (folder / "given").symlink_to(place / "given")
        print(json.dumps(try_together(name, folder, TOGETHER[name])), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
