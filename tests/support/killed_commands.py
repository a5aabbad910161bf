"""Commands in children that are stopped at files they touch; prints what came of it.

A program of its own: it forks, which a process that has started threads must not do. Notebooks run
their cells in the child itself, and so do the jobs of a batch; killed_kernels.py stops those that
have a kernel and an engine.
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
import yaml
from support import same_process
from support import tiny_method as tiny
from support.phases import SCORES, phase_of

from pointseg.bookkit import run_figures  # noqa: F401  as below
from pointseg.cli import main as pointseg
from pointseg.data.bestiary import CATEGORIES, make
from pointseg.lab import (  # what the children import: once, here
    bench,  # noqa: F401
    experiment,  # noqa: F401
    export_labels,  # noqa: F401
    notebook,
    predict,  # noqa: F401
    pretrain,
    recipe,
    reproduce,  # noqa: F401
)
from pointseg.lab.batch import engine
from pointseg.lab.models import save_model
from pointseg.nets.vit import ViTConfig
from pointseg.training.loop import Trainer
from pointseg.training.pretraining.pretraining import Pretraining

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EVENTS = {"open": 0, "os.rename": 1, "os.mkdir": 0, "os.remove": 0, "os.rmdir": 0}
VOLATILE = {"started", "finished", "wall_s", "pid", "host", "born", "seconds", "images_per_s",
            "data_wait_share", "mem_gb", "git", "dirty"}  # fmt: skip
PASSING = (
    "lock",
    "said",
    "speed.jsonl",
    "env.json",
    "chapter.py",
    "experiment.py",
    "index.csv",
    "status.html",
    "metrics.json",  # what result.json holds; a SIGKILL between the two leaves it
)
SMALL = {"images": 4, "scored_images": 2, "image_size": 64}
BED = {"scale": "smoke", "seeds": [0], "rows": ["toy-*"], **SMALL}
ONCE = {"method": "tiny", "training": {"epochs": 1.0}}
AGAIN = {"scale": "smoke", "seeds": [0], **SMALL, "stages": [ONCE]}
PLAN = {
    "rows": {"attentionshift": {"toy-a": {"stages": [{"method": "tiny"}]},
                                "toy-b": {"stages": [{"method": "tiny"}], "seeds": [0]},
                                "again": AGAIN}},
    "bench": {"attentionshift": {"toy": BED}},
}  # fmt: skip
CHAPTER = """# %% [markdown]
# # A chapter

# %% tags=["parameters"]
out: str = ""

# %%
import json
from pathlib import Path
for k in range(3):
    Path(out, f"{k}.txt").write_text(str(k))
Path(out, "metrics.json").write_text(json.dumps({"value": 3}))
"""
GIVEN = ["-p", f"settings={json.dumps(SMALL)}", "-p", 'training={"epochs": 2.0}']
COMMANDS = {
    "data make": ["data", "make", "out", "--images", "2", "--size", "64"],
    "data tile": ["data", "tile", "../given/coco", "--out", "out", "--side", "32"],
    "points": ["points", "../given/coco", "--out", "out"],
    "predict": ["predict", "../given/model.pt", "../given/coco/val2017", "--out", "out"],
    "labels": ["labels", "tiny", "--run", "../given/model.pt", "--data", "../given/coco",
               "--points", "../given/points.json", "--out", "out"],
    "run": ["run", "chapter.py"],
    "train": ["train", "tiny", *GIVEN, "--notebook", "experiment.py"],
    "bench": ["bench", "toy"],
    "reproduce": ["reproduce", "again"],
    "pretrain": ["pretrain", "mae", "--out", "runs/a/b/c", "--views", "8", "--alone", "4",
                 "--batch", "2", "--images", "4", "--size", "64", "--view", "32"],
}  # fmt: skip
SOURCE = Path(__file__).resolve().parents[2] / "book" / "experiment.py"
WHOLE_OR_NOTHING = ("data make", "data tile", "points", "predict", "labels")


@dataclass(frozen=True)
class Few(Pretraining):
    """A pretraining of four steps that is looked at twice before its end."""

    probes: tuple[int, ...] = (0, 4)
    probe_images: int = 2
    checkpoint_every: int = 1
    vit: ViTConfig = field(default_factory=lambda: ViTConfig(dim=24, depth=1))


def in_turn(place: Path, machine: engine.Machine, watch: engine.Watch) -> None:
    """Stands in for the engine of a batch: one job after another, in this very process."""
    from pointseg.lab.batch.job import noted

    content = json.loads((place / "jobs.json").read_text())
    for job in content["jobs"]:
        if noted(job, Path(content["runs"]), place) == 130:
            raise KeyboardInterrupt


def prepare(given: Path) -> None:
    """What the commands read: data, points and a model; made in a child, as it starts threads."""
    make(given / "made", "coco", images=2, val=2, size=64, progress=False)
    (given / "made" / "coco").rename(given / "coco")
    chosen = recipe.make("tiny")
    save_model(given / "model.pt", chosen.build(CATEGORIES), chosen, CATEGORIES)
    assert pointseg(["points", str(given / "coco"), "--out", str(given / "points.json")]) == 0


def project(folder: Path) -> Path:
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "_toc.yml").touch()
    (folder / "book" / "plan.yml").write_text(yaml.safe_dump(PLAN))
    (folder / "book" / "claims.yml").write_text("tolerance: 5\npapers: {}\n")
    (folder / "chapter.py").write_text(CHAPTER)
    for copy in (folder / "experiment.py", folder / "book" / "experiment.py"):
        copy.write_text(SOURCE.read_text())
    return folder


def heard(place: Path, tell) -> None:
    """From here on `tell(path)` is called whenever this process changes a file below a folder."""
    inside = str(place.resolve())

    def hook(event: str, what: tuple) -> None:
        if event == SCORES:
            tell(SCORES)
        if event in EVENTS and isinstance(what[EVENTS[event]], str | os.PathLike):
            writes = event != "open" or (what[2] or 0) & (os.O_WRONLY | os.O_RDWR)
            path = os.path.abspath(os.fspath(what[EVENTS[event]]))  # noqa: PTH100
            if writes and path.startswith(inside):
                tell(path)

    sys.addaudithook(hook)


def child(words: list[str], place: Path, tell) -> int:
    """A child that does a command; its number."""
    if number := os.fork():
        return number
    code = 1
    try:
        os.chdir(place)
        with open("said", "a") as printed:  # noqa: PTH123
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
        heard(place, tell)
        code = pointseg(words)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(words: list[str], place: Path) -> tuple[int, list[str]]:
    """The exit code of a command that nobody stops, and the phase of every file it touched."""
    reads, writes = os.pipe()
    number = child(words, place, lambda path: os.write(writes, f"{phase_of(path)}\n".encode()))
    os.close(writes)
    with os.fdopen(reads) as stream:
        phases = stream.read().splitlines()
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), phases


def stopped(words, place: Path, at: int, with_signal: int, delay: float) -> tuple[int, bool]:
    """Exit code of a command that gets a signal at the file it touches as the `at`-th, or a moment
    later; and whether it came so far."""
    reads, writes = os.pipe()
    touched = []

    def tell(path: str) -> None:
        touched.append(path)
        if len(touched) == at:
            os.write(writes, b".")
            if not delay:
                os.kill(os.getpid(), with_signal)

    number = child(words, place, tell)
    os.close(writes)
    came = bool(os.read(reads, 1))
    os.close(reads)
    if came and delay:
        time.sleep(delay)
        os.kill(number, with_signal)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]), came


def plain(value):
    """JSON without what a clock or a machine decides."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in VOLATILE}
    return [plain(each) for each in value] if isinstance(value, list) else value


def contents(place: Path) -> dict[str, object]:
    """Everything that a command has made, by its place."""
    made = {}
    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        name = str(path.relative_to(place))
        # a checkpoint's bytes follow from where its tensors came from, not from their values alone
        if path.name in PASSING or name.startswith("work/batch") or "/checkpoints/" in name:
            continue
        is_record = path.suffix == ".json" and "runs" in path.parts
        made[name] = plain(json.loads(path.read_text())) if is_record else path.read_bytes()
    return made


def hidden(place: Path) -> set[str]:
    return {p.name for p in place.rglob(".*")}


def faults_of(name, place, whole, code: int, with_signal: int, before: set[str]) -> list[str]:
    """What a stop must not leave behind."""
    faults, politely = [], with_signal != signal.SIGKILL
    for path in [*place.glob("runs/*/*/*/*.json"), *place.glob("work/batch/**/*.json")]:
        if not path.name.startswith("."):
            json.loads(path.read_text())
    if name in WHOLE_OR_NOTHING:
        left = {n: v for n, v in contents(place).items() if n.split("/")[0] == "out"}
        if left and left != {n: v for n, v in whole.items() if n.split("/")[0] == "out"}:
            faults.append(f"{name}: half of its output was left")
    if politely and (new := hidden(place) - before):
        faults.append(f"{name}: {signal.Signals(with_signal).name} left {new}")
    if politely and code not in (0, 130, 2):
        faults.append(f"{name}: {signal.Signals(with_signal).name} ended it with {code}")
    return faults


def chosen_stops(touched: list[str], count: int, rng: random.Random) -> list[int]:
    """Numbers of touched files: phase after phase in turn, so that each has its share."""
    by_phase: dict[str, list[int]] = {}
    for number, phase in enumerate(touched, start=1):
        by_phase.setdefault(phase, []).append(number)
    phases, first = list(by_phase), rng.randrange(len(by_phase))
    turns = [phases[(first + k) % len(phases)] for k in range(count)]
    return [rng.choice(by_phase[phase]) for phase in turns]


def try_command(name: str, place: Path, kills: int, rng: random.Random) -> dict:
    """Stops a command again and again, lets it finish after every second stop, and compares."""
    words, counts, faults = COMMANDS[name], Counter(), []
    code, phases = finish(words, project(place / "whole"))
    whole = contents(place / "whole")
    assert code == 0, (place / "whole" / "said").read_text()
    first = rng.randrange(3)
    for k, at in enumerate(chosen_stops(phases, kills, rng)):
        folder = place / f"killed{k // 2}"
        if k % 2 == 0:
            project(folder)
        with_signal, delay = SIGNALS[(first + k) % 3], rng.choice([0.0, rng.uniform(0, 0.02)])
        before = hidden(folder)
        code, came = stopped(words, folder, at, with_signal, delay)
        if came and code:
            counts[f"{phases[at - 1]}, {signal.Signals(with_signal).name}"] += 1
        faults += faults_of(name, folder, whole, code, with_signal, before)
        if k % 2 or k == kills - 1:
            code, _ = finish(words, folder)
            left = contents(folder)
            differing = [n for n in whole.keys() | left.keys() if whole.get(n) != left.get(n)]
            differing = [n for n in differing if not is_dead(n)]
            refused = code == 2 and name in WHOLE_OR_NOTHING  # it was there already, as a whole
            if (code and not refused) or differing:
                faults.append(f"{name}, {folder.name}: then {code}, differs in {differing[:5]}")
    return {"files": len(phases), "stops": counts, "faults": faults}


def is_dead(name: str) -> bool:
    """Whether a file lies in what a SIGKILL left under a hidden name of its own; nobody reads
    those."""
    return any(part.startswith(".") for part in Path(name).parts)


def stand_in(place: Path) -> None:
    """Everything that children need: imports, a tiny method, stand-ins, and what they read."""
    torch.set_num_threads(1)
    tiny.register()
    Trainer(tiny.Tiny(), tiny.settings(), "cpu")  # an optimiser's imports take a second,
    notebook.read_notebook(SOURCE)  # those of a notebook's reader several
    notebook.execute, engine.drive, pretrain.Pretraining = same_process.execute, in_turn, Few
    for what in ("predict", "pseudo_labels"):
        plain = getattr(tiny.Tiny, what)
        setattr(tiny.Tiny, what, lambda *given, of=plain: sys.audit(SCORES) or of(*given))
    if not (number := os.fork()):
        prepare(place / "given")
        os._exit(0)
    assert os.waitpid(number, 0)[1] == 0


def main(place: Path, kills: int, names: list[str]) -> None:
    stand_in(place)
    rng = random.Random(0)
    for name in names or COMMANDS:
        folder = place / name.replace(" ", "-")
        folder.mkdir()
        (folder / "given").symlink_to(place / "given")
        print(json.dumps({"command": name, **try_command(name, folder, kills, rng)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
