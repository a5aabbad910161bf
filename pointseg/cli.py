"""The command line: `pointseg data|points|evaluate|pretrain|train|run|predict|reproduce|index|verdicts`.

Bad input ends in one line on stderr and exit code 2; commands import what they need when they run, so that
`pointseg --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from pathlib import Path

from pointseg.structures import POINT_KINDS, InputError


class Parser(argparse.ArgumentParser):
    """argparse with one line instead of a usage block."""

    def error(self, message: str):
        place = self.prog.removeprefix("pointseg").strip() or "command line"
        raise InputError(f"{place}: {message}")


def data_make(options) -> None:
    from pointseg.data.bestiary import make

    make(options.out, options.layout, options.images, options.size, options.seed, val=options.val,
         pretrain=options.pretrain, workers=options.workers)  # fmt: skip


def data_tile(options) -> None:
    from pointseg.data.tiles import write_tiles

    print(write_tiles(options.roots, options.out, options.side))


def data_check(options) -> int:
    from pointseg.data.doctor import check

    report = check(options.root, options.layout, points=options.points)
    for line in report.notes:
        print(f"note   {line}")
    for line in report.faults:
        print(f"fault  {line}")
    print(f"{len(report.faults)} faults in {options.root}")
    return 2 if report.faults else 0


def points(options) -> None:
    from pointseg.data.layouts import open_dataset
    from pointseg.data.points import sample_points, write_points

    dataset = open_dataset(options.root, options.split, options.layout)
    made = sample_points(dataset, options.kind, options.n, options.seed, jitter_px=options.jitter)
    write_points(options.out, made)
    print(
        f"{options.out}: {options.kind} points for {len(dataset)} images, content hash {made.content_hash[:12]}"
    )


def show_scores(scores: dict, as_json: bool) -> None:
    """A score that no object asks for is null in JSON, which knows no NaN."""
    if as_json:
        strict = {
            name: None if isinstance(v, float) and math.isnan(v) else v
            for name, v in scores.items()
        }
        print(json.dumps(strict, indent=1, allow_nan=False))
        return
    for name, value in scores.items():
        if isinstance(value, int | float):
            print(f"{name:24} {value:8.3f}")


def evaluate_instances(options) -> None:
    from pointseg.metrics.scores import evaluate_instances_files

    show_scores(evaluate_instances_files(options.gt, options.dt, options.protocol), options.json)


def evaluate_panoptic(options) -> None:
    from pointseg.metrics.scores import evaluate_panoptic_files

    show_scores(
        evaluate_panoptic_files(options.gt, options.gt_dir, options.dt, options.dt_dir),
        options.json,
    )


def parameters(pairs: list[str]) -> dict[str, str]:
    """`name=value` texts to a dict; values stay texts, the notebook's own types decide what they mean."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise InputError(f"-p {pair}: expected name=value")
        if name in found:
            raise InputError(f"-p {name}: given twice")
        found[name] = value
    return found


def run(options) -> None:
    from pointseg.lab.notebook import run_notebook

    folder = run_notebook(
        options.notebook, parameters(options.p), force=options.force, runs=options.runs
    )
    print(folder)


def train(options) -> None:
    from pointseg.lab.reproduce import trained

    given = {
        "method": options.method,
        "scale": options.scale,
        "seed": str(options.seed),
    } | parameters(options.p)
    print(trained(given, options.notebook, options.first_stage, options.force, options.runs))


def pretrain(options) -> None:
    from pointseg.training.pretraining.pretrain import pretrain as run_pretraining

    run_pretraining(
        kind=options.kind,
        out=options.out,
        views=options.views,
        batch=options.batch,
        seed=options.seed,
    )


def predict(options) -> None:
    from pointseg.lab.predict import predict_images

    predict_images(options.checkpoint, options.images, options.out)


def reproduce(options) -> None:
    from pointseg.lab.reproduce import reproduce as run_tier

    run_tier(options.tier, runs=options.runs)


def index(options) -> None:
    from pointseg.lab.run_record import write_index

    print(write_index(options.runs))


def verdicts(options) -> None:
    from pointseg.bookkit.report import verdict_lines

    print("\n".join(verdict_lines(options.claims, options.runs)))


def command(parent, name: str, action, text: str) -> argparse.ArgumentParser:
    parser = parent.add_parser(name, help=text, description=text)
    parser.set_defaults(action=action)
    return parser


def add_data(commands) -> None:
    group = commands.add_parser("data", help="make or check data").add_subparsers(
        required=True, metavar="COMMAND"
    )
    make = command(group, "make", data_make, "write Bestiary in the official layouts")
    make.add_argument("out", type=Path)
    make.add_argument("--layout", choices=("voc", "coco", "all"), default="all")
    make.add_argument("--images", type=int, default=64, help="pictures to train on")
    make.add_argument(
        "--val", type=int, help="pictures to evaluate on (a quarter of --images unless given)"
    )
    make.add_argument(
        "--pretrain", type=int, default=0, help="pictures for pretraining, without labels"
    )
    make.add_argument("--size", type=int, default=128)
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--workers", type=int, default=0)
    tile = command(
        group,
        "tile",
        data_tile,
        "cut datasets in COCO's layout into square tiles, as one new dataset",
    )
    tile.add_argument("roots", type=Path, nargs="+")
    tile.add_argument("--out", type=Path, required=True)
    tile.add_argument("--side", type=int, default=128)
    check = command(
        group, "check", data_check, "list every fault of a dataset; exit 2 when there is one"
    )
    check.add_argument("root", type=Path)
    check.add_argument("--layout", default="auto")
    check.add_argument("--points", type=Path)


def add_points(commands) -> None:
    parser = command(commands, "points", points, "sample points from a dataset's masks")
    parser.add_argument("root", type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--layout", default="auto")
    parser.add_argument("--kind", choices=POINT_KINDS, default="uniform")
    parser.add_argument("--n", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jitter", type=float, default=4.0, help="spread of `jitter` in pixels")
    parser.add_argument("--out", type=Path, required=True)


def add_evaluate(commands) -> None:
    group = commands.add_parser("evaluate", help="score result files").add_subparsers(
        required=True, metavar="WHAT"
    )
    instances = command(group, "instances", evaluate_instances, "mask AP of COCO-format results")
    instances.add_argument("--protocol", choices=("coco", "voc"), default="coco")
    panoptic = command(
        group, "panoptic", evaluate_panoptic, "panoptic quality, by panopticapi's rules"
    )
    for parser in (instances, panoptic):
        parser.add_argument("--gt", type=Path, required=True)
        parser.add_argument("--dt", type=Path, required=True)
        parser.add_argument("--json", action="store_true")
    panoptic.add_argument("--gt-dir", type=Path, required=True)
    panoptic.add_argument("--dt-dir", type=Path, required=True)


def add_running(commands) -> None:
    notebook = command(commands, "run", run, "run a notebook with checked parameters into runs/")
    notebook.add_argument("notebook", type=Path)
    training = command(
        commands,
        "train",
        train,
        "train and score one method: book/experiment.py with its parameters",
    )
    training.add_argument("method")
    training.add_argument("--scale", default="smoke")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--notebook", type=Path, default=Path("book/experiment.py"))
    training.add_argument("--first-stage", type=int, metavar="STEPS", help="train this long from points alone before; "
                          "0: not at all (default: 1000 at scale small, else 0)")  # fmt: skip
    for parser in (notebook, training):
        parser.add_argument("-p", metavar="NAME=VALUE", action="append", default=[])
        parser.add_argument(
            "--force", action="store_true", help="run again even where the run exists"
        )
    mae = command(commands, "pretrain", pretrain, "pretrain a backbone on pictures alone")
    mae.add_argument("kind", choices=("mae",))
    mae.add_argument("--out", type=Path, required=True)
    mae.add_argument("--views", type=int, default=1_200_000)
    mae.add_argument("--batch", type=int, default=64)
    mae.add_argument("--seed", type=int, default=0)
    images = command(
        commands, "predict", predict, "segment one picture or a folder with a trained checkpoint"
    )
    images.add_argument("checkpoint", type=Path)
    images.add_argument("images", type=Path)
    images.add_argument("--out", type=Path, required=True)
    tier = command(
        commands, "reproduce", reproduce, "run every experiment of a tier that has not run yet"
    )
    tier.add_argument("tier", choices=("smoke", "small", "nuclei"))
    listing = command(commands, "index", index, "write runs/index.csv anew")
    claims = command(commands, "verdicts", verdicts, "hold the papers' claims against runs/")
    claims.add_argument("--claims", type=Path, default=Path("book/claims.yml"))
    for parser in (notebook, training, tier, listing, claims):
        parser.add_argument("--runs", type=Path, default=Path("runs"))


def build_parser() -> Parser:
    parser = Parser(prog="pointseg", description="Which pixels does a point own?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for add in (add_data, add_points, add_evaluate, add_running):
        add(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 done, 2 bad input, 130 interrupted."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        options = build_parser().parse_args(arguments)
        return options.action(options) or 0
    except InputError as problem:
        print(f"pointseg: {problem}", file=sys.stderr)
        return 2
    except OSError as problem:
        print(
            f"pointseg: {problem.filename or 'file system'}: {problem.strerror or problem}",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("pointseg: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
