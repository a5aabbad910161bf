"""Commands whose notebooks have a kernel, and whose batch has an engine, stopped at every phase
that they come to; prints what came of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import yaml
from support.at_work import leftovers
from support.killed_commands import SIGNALS, SMALL, contents, project

ROW = {"stages": [{"method": "mal"}], "scale": "smoke", "seeds": [0], **SMALL}
COMMANDS = {
    "run": ["run", "chapter.py"],
    "train": ["train", "row"],
    "reproduce": ["reproduce", "row", "--jobs", "1"],
}
LONGEST = 900.0  # seconds of a command on a busy machine
WAITING = Path(__file__).with_name("at_phase")


def begun(words: list[str], place: Path, phase: str = "none") -> subprocess.Popen:
    """A command whose processes wait for a moment where they come to a phase."""
    signs = place.with_name(f"{place.name}-signs")
    shutil.rmtree(signs, ignore_errors=True)
    signs.mkdir()
    paths = os.pathsep.join([str(WAITING), os.environ["PYTHONPATH"]])
    named = {"PHASE": phase, "PLACE": str(place), "SIGNS": str(signs)}
    environment = {**os.environ, "PYTHONPATH": paths}
    environment |= {f"POINTSEG_{name}": value for name, value in named.items()}
    command = [sys.executable, "-m", "pointseg", *words]
    with (place / "said").open("a") as printed:
        return subprocess.Popen(command, cwd=place, stdout=printed, stderr=printed, env=environment)


def prepared(place: Path) -> Path:
    project(place)
    (place / "book" / "plan.yml").write_text(yaml.safe_dump({"rows": {"exits": {"row": ROW}}}))
    return place


def made(place: Path) -> dict[str, object]:
    """What a command has made, without the notebook, in which the time stands."""
    return {n: v for n, v in contents(place).items() if not n.endswith("notebook.ipynb")}


def stopped(words: list[str], place: Path, phase: str, number: int) -> tuple[int, str]:
    """Exit code of a command that gets a signal at a phase, and what came of it."""
    process, signs = begun(words, place, phase), place.with_name(f"{place.name}-signs")
    while process.poll() is None and not (signs / "came").exists():
        time.sleep(0.02)
    if process.poll() is not None:
        return process.returncode, "never came"
    process.send_signal(number)
    time.sleep(0.05)
    (signs / "go").touch()
    code = process.wait(LONGEST)
    for _ in range(3000):
        if not leftovers(place):
            return code, phase
        time.sleep(0.1)
    return code, f"{phase}, and processes {leftovers(place)} stayed"


def differing(words: list[str], place: Path, whole: dict[str, object]) -> list[str]:
    """What is wrong with a stopped command's folder after the command was let finish."""
    code, left = begun(words, place).wait(LONGEST), made(place)
    names = [name for name in {**left, **whole} if whole.get(name) != left.get(name)]
    return [f"{words[0]}, {place.name}: then {code}, differs in {names[:5]}"] * bool(code or names)


def try_command(name: str, place: Path, rounds: int) -> dict:
    """Stops a command at every phase that it has, each time where it was left; lets it finish, and
    compares."""
    words, counts, faults = COMMANDS[name], Counter(), []
    assert begun(words, prepared(place / "whole")).wait(LONGEST) == 0, place
    whole = made(place / "whole")
    phases = (place / "whole-signs" / "phases").read_text().split("\n")[:-1]
    for first in range(rounds):
        folder = prepared(place / f"killed{first}")
        for k, phase in enumerate(phases):
            number = SIGNALS[(first + k) % 3]
            code, at = stopped(words, folder, phase, number)
            if at == "never came":  # the stop before came so late that this was done
                faults += differing(words, folder, whole)
                folder = prepared(place / f"killed{first}-{k}")
                code, at = stopped(words, folder, phase, number)
            named = signal.Signals(number).name
            print(name, phase, named, code, at, file=sys.stderr, flush=True)
            counts[f"{at}, {named}"] += at != "never came"
            if code not in (0, 2, 130, -number) or "stayed" in at:
                faults.append(f"{name}: {named} at {at} ended it with {code}")
        faults += differing(words, folder, whole)
    return {"phases": phases, "stops": +counts, "faults": faults}


def main(place: Path, rounds: int, names: list[str]) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in names or COMMANDS:
        (place / name).mkdir()
        report = try_command(name, place / name, rounds)
        print(json.dumps({"command": name, **report}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
