"""Every process of Python that has this folder in its path stops for a moment at one phase, whoever
comes there first: it says so by the file `came` and goes on when there is a file `go`."""

import os
import sys
import time
from pathlib import Path

from support.phases import phase_of

WANTED, PLACE, SIGNS = (os.environ[f"POINTSEG_{name}"] for name in ("PHASE", "PLACE", "SIGNS"))
IS_KERNEL = any("ipykernel" in word for word in sys.orig_argv)
WRITES = os.O_WRONLY | os.O_RDWR
asking = False


def phase(event: str, what: tuple) -> str | None:
    """At which phase an event shows this process to be."""
    given = what[1 if event == "os.rename" else 0]
    if event not in ("open", "os.rename", "os.mkdir") or not isinstance(given, str | os.PathLike):
        return None
    path = os.path.abspath(os.fspath(given))  # noqa: PTH100
    if not path.startswith(PLACE) or path.endswith("/lock"):
        return None
    if IS_KERNEL and path.endswith("/model.pt"):
        Path(SIGNS, "trained").touch()
    if event == "open" and not (what[2] or 0) & WRITES:
        scores = "/data/" in path and IS_KERNEL and Path(SIGNS, "trained").exists()
        return "scoring" if scores else None
    at = phase_of(path)
    if at == "record write":  # who opens a record has started no kernel yet
        begun = Path(SIGNS, "kernel").exists()
        at = "kernel's output" if IS_KERNEL else "record write" if begun else "record opened"
    return at


def arrive(at: str | None) -> None:
    came, phases = Path(SIGNS, "came"), Path(SIGNS, "phases")
    if at and f"{at}\n" not in (phases.read_text() if phases.exists() else ""):
        with phases.open("a") as file:
            print(at, file=file)
    if at == WANTED and not came.exists():
        came.write_text(str(os.getpid()))
        for _ in range(3000):
            if Path(SIGNS, "go").exists():
                return
            time.sleep(0.01)


def heard(event: str, what: tuple) -> None:
    global asking
    if asking or event not in ("open", "os.rename", "os.mkdir"):
        return
    asking = True
    try:
        arrive(phase(event, what))
    finally:
        asking = False


if IS_KERNEL:
    Path(SIGNS, "kernel").touch()
    arrive("kernel start")
sys.addaudithook(heard)
