"""The command line. A command is one function, which imports what it needs when it runs, and one
row of COMMANDS.

Bad input ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pointseg.inputs import POINT_KINDS, InputError, one_line


def data_make(options) -> None:
    from pointseg.data.bestiary import make

    make(**arguments_of(options))


def data_tile(options) -> None:
    from pointseg.data.tiles import write_tiles

    print(write_tiles(options.roots, options.out, options.side))


def data_check(options) -> int:
    from pointseg.data.doctor import check

    report = check(options.root, options.layout, points=options.points)
    for kind, lines in (("note", report.notes), ("fault", report.faults)):
        for line in lines:
            print(f"{kind:6} {one_line(line)}")
    print(f"{len(report.faults)} faults in {one_line(str(options.root))}")
    return 2 if report.faults else 0


def data_gauge(options) -> None:
    from pointseg.data.gauge import gauge, table

    measures = gauge(options.roots, options.split, options.stride, options.images)
    print(json.dumps(measures, indent=1) if options.json else "\n".join(table(measures)))


def points(options) -> None:
    from pointseg.data.layouts import open_dataset
    from pointseg.data.points import sample_points, write_points

    dataset = open_dataset(options.root, options.split, options.layout)
    made = sample_points(dataset, options.kind, options.n, options.seed, jitter_px=options.jitter)
    write_points(options.out, made)
    what = f"{options.kind} points for {len(dataset)} images"
    print(f"{options.out}: {what}, content hash {made.content_hash[:12]}")


def evaluate_instances(options) -> None:
    from pointseg.metrics.scores import evaluate_instances_files

    show_scores(evaluate_instances_files(options.gt, options.dt, options.protocol), options.json)


def evaluate_panoptic(options) -> None:
    from pointseg.metrics.scores import evaluate_panoptic_files

    files = (options.gt, options.gt_dir, options.dt, options.dt_dir)
    show_scores(evaluate_panoptic_files(*files), options.json)


def show_scores(scores: dict[str, Any], as_json: bool) -> None:
    """Prints scores; one that no object asks for is null in JSON, which has no NaN."""
    numbers = {name: v for name, v in scores.items() if isinstance(v, int | float)}
    if as_json:
        strict = {name: None if math.isnan(v) else v for name, v in numbers.items()}
        print(json.dumps(scores | strict, indent=1, allow_nan=False))
        return
    for name, value in numbers.items():
        print(f"{name:24} {value:8.3f}")


def run(options) -> None:
    from pointseg.lab.notebook import run_notebook

    given = parameters(options.p)
    print(run_notebook(options.notebook, given, force=options.force, runs=options.runs))


def train(options) -> None:
    from pointseg.lab.announced import announced

    plan = options.notebook.parent / "plan.yml"
    print(announced(options.name, named(options), plan), flush=True)  # torch takes seconds to load
    from pointseg.lab.reproduce import trained

    trained(options.notebook, named(options), options.force, options.runs)


def recipe(options) -> None:
    from pointseg.lab.reproduce import recipe_lines

    print("\n".join(recipe_lines(options.notebook, named(options), options.explain)))


def named(options) -> dict[str, str]:
    """Parameters of the experiment's notebook: a row or a method, dials, and what -p gives."""
    dials = {"method": options.name, "scale": options.scale, "seed": options.seed}
    stated = {name: value for name, value in dials.items() if value is not None}
    return stated | parameters(options.p)


def carry(options) -> int:
    from pointseg.lab.carry import carry

    lines = carry(options.base, options.methods, options.runs)
    print("\n".join(lines))
    return 1 if any(line.startswith("DIFFERS") for line in lines) else 0


def parameters(pairs: list[str]) -> dict[str, str]:
    """`name=value` texts as a dict; values stay texts, the notebook's own types decide what they
    mean."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"-p {pair}: expected name=value")
        if name in values:
            raise InputError(f"-p {name}: given twice")
        values[name] = value
    return values


def pretrain(options) -> None:
    from pointseg.lab.pretrain import pretrain

    pretrain(**arguments_of(options))


def predict(options) -> None:
    from pointseg.lab.predict import predict_images

    predict_images(**arguments_of(options))


def labels(options) -> None:
    from pointseg.lab.export_labels import export_labels

    print(export_labels(**arguments_of(options)))


def reproduce(options) -> int:
    from pointseg.bookkit.status_page import Page
    from pointseg.lab.batch.engine import Machine
    from pointseg.lab.reproduce import Lines, Wanted, dry_run, reproduce

    seeds, gpus = numbers_of(options.seeds), numbers_of(options.gpus, "--gpus") or []
    wanted = Wanted(options.names, options.scale, seeds, options.runs, options.force,
                    options.processes)  # fmt: skip
    if options.dry_run:
        on_gpus = gpus or options.slurm or options.scale == "paper"
        print("\n".join(dry_run(wanted, "cuda" if on_gpus else "cpu")))
        return 0
    machine = Machine.of(options.jobs, gpus, options.per_gpu, options.slurm)
    shown = (Lines(), Page(options.runs / "status.html"))
    failures = reproduce(wanted, machine, lambda standing: [show(standing) for show in shown])
    print("\n".join(failures), end="\n" if failures else "")
    return 1 if failures else 0


def archive(options) -> None:
    from pointseg.lab.archive import archive

    print("\n".join(archive(options.out, options.runs)))


def gpu_check(options) -> None:
    from pointseg.lab.batch.speed import check_gpu, measured

    measure = measured if options.cpu else check_gpu
    lines = measure(options.scale, options.steps, options.runs, batch=options.batch,
                    methods=words_of(options.methods))  # fmt: skip
    for line in lines:
        print(line, flush=True)


def status(options) -> None:
    from pointseg.lab.batch.states import counted, place_of, standings

    standing = standings(place_of(options.runs))
    print("\n".join([*map(str, standing), counted(standing)]))


def bench(options) -> None:
    from pointseg.lab.bench import bench

    given = {"scale": options.scale, "data": options.data, "scored_images": options.images}
    changes = {name: value for name, value in given.items() if value is not None}
    changes |= {"scored_on": "val"} if options.val else {}
    lines = bench(options.paper, words_of(options.rows), numbers_of(options.seeds),
                  options.runs, options.force, **changes)  # fmt: skip
    for line in lines:
        print(line, flush=True)


def again(options) -> None:
    from pointseg.lab.again import again

    for line in again(options.run, options.runs, options.data):
        print(line, flush=True)


def words_of(text: str | None) -> list[str]:
    return [word for word in (text or "").split(",") if word]


def numbers_of(text: str | None, option: str = "--seeds") -> list[int] | None:
    """0-4 or 0,2,7 as numbers."""
    if text is None:
        return None
    try:
        spans = [[int(end) for end in span.split("-")] for span in text.split(",")]
    except ValueError:
        raise InputError(f"{option}: expected numbers such as 0-4 or 0,2, got {text!r}") from None
    return [seed for span in spans for seed in range(span[0], span[-1] + 1)]


def index(options) -> None:
    from pointseg.lab.run_index import write_index

    for file in write_index(options.runs):
        print(file)


def verdicts(options) -> None:
    from pointseg.bookkit.report import verdict_lines

    print("\n".join(verdict_lines(options.claims, options.runs)))


class Argument:
    """What `add_argument` takes."""

    def __init__(self, *names: str, **settings: Any):
        self.names, self.settings = names, settings


class Command(NamedTuple):
    action: Callable[[argparse.Namespace], int | None]
    text: str
    arguments: tuple[Argument, ...]


def path(name: str, default: str | None = None) -> Argument:
    """A path; an option without a default is required."""
    needed = {"required": default is None} if name.startswith("-") else {}
    return Argument(name, type=Path, default=default and Path(default), **needed)


def number(name: str, default: int | None, text: str | None = None) -> Argument:
    return Argument(name, type=whole, default=default, help=text)


def whole(text: str) -> int:
    """An integer as JSON writes it: neither 010 nor 1_000."""
    if not re.fullmatch(r"-?(0|[1-9][0-9]{0,18})", text):
        raise argparse.ArgumentTypeError(f"expected an integer, got {text[:60]!r}")
    return int(text)


SLURM = Path(__file__).parent / "lab" / "batch" / "slurm"
LAYOUT = Argument("--layout", default="auto")
OUT = path("--out")
RUNS = path("--runs", "runs")
SCORED = (path("--gt"), path("--dt"), Argument("--json", action="store_true"))
RUNNING = (
    Argument("-p", metavar="NAME=VALUE", action="append", default=[]),
    Argument("--force", action="store_true", help="run again even where the run exists"),
    RUNS,
)
HEADLINE = "as-full"  # the whole method of the paper that the book begins with
NAMED = (
    Argument(
        "name",
        nargs="?",
        default=HEADLINE,
        help=f"a method, or a row of book/plan.yml ({HEADLINE})",
    ),
    Argument("--scale", help="smoke, small, photos or paper (default: the row's, or smoke)"),
    number("--seed", None),
    path("--notebook", "book/experiment.py"),
)

GROUPS = {"data": "make or check data", "evaluate": "score result files"}
COMMANDS: dict[str, Command] = {
    "data make": Command(data_make, "write Bestiary in the official layouts", (
        path("out"),
        Argument("--layout", choices=("voc", "coco", "all"), default="all"),
        number("--images", 64, "images to train on"),
        number("--val", None, "images to evaluate on (a quarter of --images unless given)"),
        number("--tune", None, "images to choose on (likewise)"),
        number("--pretrain", 0, "images for pretraining, without labels"),
        number("--edition", 2, "1: the easy tier"),
        number("--size", None, "side in pixels (192, or 128 of edition 1)"),
        number("--seed", 0),
        number("--workers", 0),
    )),
    "data tile": Command(data_tile, "cut datasets in COCO's layout into tiles, one new dataset", (
        Argument("roots", type=Path, nargs="+"), OUT, number("--side", 128),
    )),
    "data check": Command(data_check, "list every fault of a dataset; exit 2 when there is one", (
        path("root"), LAYOUT, Argument("--points", type=Path),
    )),
    "data gauge": Command(data_gauge, "measure how hard datasets are, side by side", (
        Argument("roots", metavar="DIR", nargs="+", help="a dataset, or dataset:split"),
        Argument("--split", default="val"),
        number("--stride", 8),
        number("--images", 150, "read at most so many of each dataset, as many of all"),
        Argument("--json", action="store_true"),
    )),
    "points": Command(points, "sample points from a dataset's masks", (
        path("root"),
        Argument("--split", default="train"),
        LAYOUT,
        Argument("--kind", choices=POINT_KINDS, default="uniform"),
        number("--n", 1),
        number("--seed", 0),
        Argument("--jitter", type=float, default=4.0, help="spread of `jitter` in pixels"),
        OUT,
    )),
    "evaluate instances": Command(evaluate_instances, "mask AP of COCO-format results", (
        Argument("--protocol", choices=("coco", "voc"), default="coco"), *SCORED,
    )),
    "evaluate panoptic": Command(evaluate_panoptic, "panoptic quality, by panopticapi's rules", (
        *SCORED, path("--gt-dir"), path("--dt-dir"),
    )),
    "run": Command(run, "run a notebook with checked parameters into runs/", (
        path("notebook"), *RUNNING,
    )),
    "train": Command(train, "train and score a method or a row of book/plan.yml", (
        *NAMED, *RUNNING,
    )),
    "recipe": Command(recipe, "print the recipe that `train` would use", (
        *NAMED, RUNNING[0],
        Argument("--explain", action="store_true", help="each value, and where it comes from"),
    )),
    "carry": Command(carry, "record which methods give the numbers of another commit, to the bit", (
        Argument("base", help="a commit"), Argument("methods", nargs="*"), RUNS,
    )),
    "pretrain": Command(pretrain, "pretrain a backbone on images alone", (
        Argument("kind", choices=("mae",)),
        OUT, number("--views", 1_200_000), number("--batch", 64), number("--seed", 0),
        Argument("--source", default="bestiary-easy", help="bestiary, or a folder of images"),
        number("--size", 128),
        number("--images", 30_000, "at most so many"),
        number("--view", None, "side of a view in pixels (the image's own)"),
        Argument("--start", help="weights that the encoder begins with"),
        number("--alone", 96_000, "views before the teacher is followed"),
        Argument("--precision", default="auto", choices=("auto", "float32", "bf16")),
    )),
    "predict": Command(predict, "segment one image or a folder with a trained checkpoint", (
        path("checkpoint"), path("images"), OUT,
        Argument("--points", type=Path, help="points or boxes to segment, in any form of file"),
    )),
    "labels": Command(labels, "a trained method's labels of images with points, as COCO", (
        Argument("method"),
        Argument("--run", type=Path, required=True, help="its run folder, or the file model.pt"),
        path("--data"), path("--points"), OUT,
        Argument("--split", default="train"), LAYOUT,
    )),
    "reproduce": Command(reproduce, "run in one batch what is missing of tables, claims or rows", (
        Argument("names", metavar="NAME", nargs="+",
                 help="all, smoke, a tier, a paper, a table such as AS/3, a claim, a row or a bed"),
        Argument("--scale", help="smoke or paper: there instead; small or photos: only those"),
        Argument("--seeds", help="such as 0-4 (the plan's)"),
        number("--jobs", None, "at once (as many as there are cores, or slots on GPUs)"),
        Argument("--gpus", help="such as 0-7: the GPUs of this machine to use"),
        number("--per-gpu", 1, "jobs that share a GPU"),
        number("--processes", 1, "of torchrun for each run, a GPU each"),
        Argument("--slurm", type=Path, metavar="PROFILE", nargs="?", const=SLURM,
                 help="through Slurm, by the shipped profile or by one's own"),
        Argument("--force", action="store_true", help="again even where the records exist"),
        Argument("--dry-run", action="store_true", help="what would run, and what it would cost"),
        RUNS,
    )),
    "archive": Command(archive, "pack book, code, runs and environment, with their hashes", (
        OUT, RUNS,
    )),
    "gpu-check": Command(gpu_check, "every method a few steps on the GPU: speed, memory, losses", (
        Argument("--scale", default="paper", help="whose sizes and batches (paper)"),
        number("--steps", 50),
        number("--batch", None, "images a step (each method's own)"),
        Argument("--methods", help="names with commas between them (all)"),
        Argument("--cpu", action="store_true", help="measure the processor instead"),
        RUNS,
    )),
    "status": Command(status, "how each job of the last batch stands", (RUNS,)),
    "bench": Command(bench, "score labels of rows on tune images, object by object", (
        Argument("paper", help="a paper's folder, what its beds' names begin with, or one bed"),
        Argument("--rows", help="names with commas between them (all of the bed)"),
        Argument("--seeds", help="such as 0-4 (the bed's); a seed draws the points too"),
        Argument("--data", help="another dataset"),
        Argument("--scale", help="another scale"),
        number("--images", None, "at most so many"),
        Argument("--val", action="store_true", help="on val, for rows that are finished on tune"),
        Argument("--force", action="store_true", help="again even where the scores exist"),
        RUNS,
    )),
    "again": Command(again, "a kept run once more, here: how far its scores move", (
        Argument("run", help="below runs/, such as bench-as-photos/as-full/s0"),
        Argument("--data", help="where its data lie on this machine"),
        RUNS,
    )),
    "index": Command(index, "write runs/index.csv and runs/README.md anew", (RUNS,)),
    "verdicts": Command(verdicts, "hold the papers' claims against runs/", (
        path("--claims", "book/claims.yml"), RUNS,
    )),
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """argparse with one line instead of a usage block."""

    def error(self, message: str):
        place = self.prog.removeprefix("pointseg").strip() or "command line"
        raise InputError(f"{place}: {message}")


def build_parser(given: list[str] | None = None) -> Parser:
    """Every command with the arguments that it takes; with `given` words those of its command
    alone, which is quicker."""
    parser = Parser(prog="pointseg", description="Which pixels does a point own?")
    groups = {"": parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)}
    for name, text in GROUPS.items():
        group = groups[""].add_parser(name, help=text)
        groups[name] = group.add_subparsers(required=True, metavar="COMMAND")
    for words, (action, text, arguments) in COMMANDS.items():
        group, _, name = words.rpartition(" ")
        command = groups[group].add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        wanted = given is None or words.split() == given[: len(words.split())]
        for argument in arguments if wanted else ():
            command.add_argument(*argument.names, **argument.settings)
    return parser


def arguments_of(options: argparse.Namespace) -> dict[str, Any]:
    """What was given, by name, for a function that takes the same names."""
    return {name: value for name, value in vars(options).items() if name != "action"}


def main(words: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 130 interrupted."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # what is half made is taken away
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = sys.argv[1:] if words is None else words
    try:
        options = build_parser(words).parse_args(words)
        return options.action(options) or 0
    except InputError as problem:
        return complain(str(problem), 2)
    except OSError as problem:
        where = problem.filename or "file system"
        return complain(f"{where}: {problem.strerror or problem}", 2)
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def complain(message: str, code: int) -> int:
    print(f"pointseg: {one_line(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
