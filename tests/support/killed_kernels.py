"""Commands whose notebooks have a kernel, and whose batch has an engine, stopped at any moment;
prints what came of it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml
from support.at_work import leftovers
from support.killed_commands import SIGNALS, SMALL, contents, phase_of, project

ROW = {"stages": [{"method": "mal"}], "scale": "smoke", "seeds": [0], **SMALL}
COMMANDS = {
    "run": ["run", "chapter.py"],
    "train": ["train", "row"],
    "reproduce": ["reproduce", "row", "--jobs", "1"],
}
LONGEST = 900.0  # seconds of a command on a busy machine


def begun(words: list[str], place: Path) -> subprocess.Popen:
    with (place / "said").open("a") as printed:
        command = [sys.executable, "-m", "pointseg", *words]
        return subprocess.Popen(command, cwd=place, stdout=printed, stderr=printed)


def prepared(place: Path) -> Path:
    project(place)
    (place / "book" / "plan.yml").write_text(yaml.safe_dump({"rows": {"exits": {"row": ROW}}}))
    return place


def made(place: Path) -> dict[str, object]:
    """What a command has made, without the notebook, in which the time stands."""
    return {n: v for n, v in contents(place).items() if not n.endswith("notebook.ipynb")}


def phase(place: Path) -> str:
    """What a command was at, by the file that it touched last."""
    parts = [place / name for name in ("runs", "work", "data")]
    files = [p for part in parts for p in part.rglob("*") if p.is_file() and p.name != "lock"]
    if not files:
        return "start"
    at = phase_of(str(max(files, key=lambda path: path.stat().st_mtime_ns)))
    return "kernel start" if at == "record write" and not (place / "work/stages").exists() else at


def stopped(words: list[str], place: Path, delay: float, number: int) -> tuple[int, str]:
    """Exit code of a command that gets a signal after a while, and what it was at."""
    process = begun(words, place)
    try:
        return process.wait(delay), "too late"
    except subprocess.TimeoutExpired:
        at = phase(place)
    process.send_signal(number)
    code = process.wait(LONGEST)
    for _ in range(3000):
        if not leftovers(place):
            return code, at
        time.sleep(0.1)
    return code, f"{at}, and processes {leftovers(place)} stayed"


def try_command(name: str, place: Path, kills: int, rng: random.Random) -> dict:
    """Stops a command again and again, then lets it finish, and compares."""
    words, counts, faults = COMMANDS[name], Counter(), []
    began = time.monotonic()
    assert begun(words, prepared(place / "whole")).wait(LONGEST) == 0, place
    longest, whole, folder = time.monotonic() - began, made(place / "whole"), place / "killed"
    prepared(folder)
    for k in range(kills):
        number = SIGNALS[k % 3]
        code, at = stopped(words, folder, rng.uniform(0.05, 0.95) * longest, number)
        counts[f"{at}, {signal.Signals(number).name}"] += at != "too late"
        if code not in (0, 2, 130, -number) or "stayed" in at:
            faults.append(f"{name}: {signal.Signals(number).name} at {at} ended it with {code}")
    code = begun(words, folder).wait(LONGEST)
    differing = [n for n, v in {**made(folder), **whole}.items()
                 if (whole.get(n), made(folder).get(n)) != (v, v)]  # fmt: skip
    if code or differing:
        faults.append(f"{name}: then {code}, differs in {differing[:5]}")
    return {"stops": counts, "faults": faults}


def main(place: Path, kills: int, names: list[str]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(0)
    for name in names or COMMANDS:
        (place / name).mkdir()
        print(
            json.dumps({"command": name, **try_command(name, place / name, kills, rng)}), flush=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
