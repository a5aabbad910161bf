"""Foreign files with one thing wrong: every command gives the right result or refuses in one line,
and nothing else.

POINTSEG_FUZZ=5000 POINTSEG_FUZZ_SEED=7 makes it longer, and other. What came of it, and how much of
each reader was reached, is printed (pytest -s).
"""

import contextlib
import gzip
import io
import json
import math
import os
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support import small_datasets as small

from fuzz.mutations import ODD, coverage, fuzz, noting
from pointseg.data.bestiary import make
from pointseg.data.doctor import check
from pointseg.data.doctor_points import point_faults
from pointseg.data.layouts import open_dataset, splits_of
from pointseg.data.point_file import write_points
from pointseg.data.points import sample_points
from pointseg.lab import recipe
from pointseg.lab.models import save_model
from pointseg.lab.recipe import Recipe
from pointseg.metrics import rle
from pointseg.structures import Category, InputError

CASES = int(os.environ.get("POINTSEG_FUZZ", "1500"))
SEED = int(os.environ.get("POINTSEG_FUZZ_SEED", "0"))
JSON, MASKS = "annotations/instances_train2017.json", "annotations/panoptic_train2017"
VOC = "VOCdevkit/VOC2012/"


# --- data sets and scores


def coco(folder):
    small.coco(folder)
    entries = [
        {"image_id": 1, "category_id": c, "segmentation": small.compressed(mask), "score": 0.5,
         "bbox": [1, 1, 3, 3]}
        for c, mask in ((5, small.BOX), (9, small.CORNER))
    ]  # fmt: skip
    (folder / "dt.json").write_text(json.dumps(entries))
    write_points(folder / "points.json", sample_points(open_dataset(folder, "train"), "uniform"))


def scored(folder, rng):
    words = ["evaluate", "instances", "--json", "--gt", str(folder / JSON)]
    return [*words, "--dt", str(folder / "dt.json")]


def ap_is_pycocotools(folder, printed):
    """AP of masks as pycocotools gives it on the very files; where it cannot, nobody knows."""
    ours = json.loads(printed)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(folder / JSON)
            for entry in truth.anns.values():  # it asks for what the format leaves open
                entry.setdefault("iscrowd", 0)
                entry.setdefault("area", float(rle.area(truth.annToRLE(entry))))
            marks = COCOeval(truth, truth.loadRes(str(folder / "dt.json")), "segm")
            marks.evaluate()
            marks.accumulate()
            marks.summarize()
    except (Exception, SystemExit):
        return None
    theirs = [None if v < 0 else 100 * v for v in marks.stats[:2]]
    mine = [ours.get("AP"), ours.get("AP50")]
    same = all(a == b or (a is not None and b is not None and abs(a - b) < 1e-6)
               for a, b in zip(mine, theirs))  # fmt: skip
    return None if same or "AP" not in ours else f"AP {mine}, pycocotools {theirs}"


def scored_voc(folder, rng):
    return [*scored(folder, rng), "--protocol", "voc"]


def within_a_hundred(folder, printed):
    numbers = [v for v in json.loads(printed).values() if v is not None]
    return None if all(0 <= v <= 100 for v in numbers) else f"scores {numbers}"


def panoptic_scored(folder, rng):
    truth = [str(folder / f"{MASKS}.json"), str(folder / MASKS)]
    return ["evaluate", "panoptic", "--gt", truth[0], "--gt-dir", truth[1],
            "--dt", truth[0], "--dt-dir", truth[1], "--json"]  # fmt: skip


def pq_of_itself_is_full(folder, printed):
    """Truth as its own result: full marks, or none where there is nothing but crowds."""
    annotations = json.loads((folder / f"{MASKS}.json").read_text())["annotations"]
    crowd = any(s.get("iscrowd") for a in annotations for s in a["segments_info"])
    quality = json.loads(printed)["PQ"]
    fits = quality is None or math.isclose(quality, 100) or (crowd and 0 <= quality <= 100)
    return None if fits else f"PQ {quality} of itself"


def checked(folder, rng):
    return ["data", "check", str(folder)]


def what_the_doctor_passes_is_read(folder, printed):
    try:
        for layout, splits in splits_of(folder).items():
            for split in splits:
                dataset = open_dataset(folder, split, layout)
                for i in range(len(dataset)):
                    dataset.image(i), dataset.arrays(i)
    except InputError as problem:
        return f"the doctor passed it: {problem}"


def pointed(folder, rng, split="train"):
    words = ["points", str(folder), "--out", str(folder / "new.json"), "--split", split]
    return [*words, "--kind", rng.choice(["uniform", "centre", "border", "extreme", "jitter"])]


def pointed_sbd(folder, rng):
    return pointed(folder, rng, "train_aug")


def points_lie_on_their_masks(folder, printed, split="train"):
    faults = [f for f, is_fault in point_faults(folder / "new.json", [open_dataset(folder, split)])
              if is_fault]  # fmt: skip
    return faults[0] if faults else None


def points_of_sbd_lie_on_their_masks(folder, printed):
    return points_lie_on_their_masks(folder, printed, "train_aug")


def voc(folder):
    small.voc(folder)


def sbd(folder):
    root = small.voc(folder)
    small.voc(folder, names=("a",), split="val")
    small.sbd(folder, "c", small.BOX.astype(int), [8])
    small.photo(root / "JPEGImages" / "c.jpg")


def gauged(folder, rng):
    return ["data", "gauge", str(folder), "--split", "train", "--images", "2", "--json"]


def tiny_bestiary(folder):
    make(folder, "coco", images=1, val=1, size=64, progress=False)


def tiled(folder, rng):
    return ["data", "tile", str(folder / "coco"), "--out", str(folder / "tiles"), "--side", "32"]


def tiles_are_a_data_set(folder, printed):
    faults = check(folder / "tiles").faults
    return faults[0] if faults else None


def json_without_surprises(folder, printed):
    json.loads(printed, parse_constant=lambda name: pytest.fail(name))


# --- plan, claims, runs, settings


PLAN = {
    "rows": {"p": {"row0": {"stages": [{"method": "psps"}], "points": {"n": 1}, "seeds": [0, 1]},
                   "row1": {"scale": "small", "stages": [{"method": "psps", "config": {}}]}}},
    "bench": {"p": {"bed": {"rows": ["row*"], "scale": "small", "seeds": [0], "steps": 1}}},
}  # fmt: skip
CLAIMS = {
    "papers": {"P": {"tables": [{"id": "1", "columns": ["m", "AP"], "units": {"AP": "percent"},
                                 "rows": [{"m": "a", "AP": 1.0}, {"m": "b", "AP": 2.0}]}]}},
    "tolerance": 1.0,
    "measured": [{"paper": "P", "table": "1", "row": k, "ours": f"row{k}", "scores": {"AP": "x/AP"}}
                 for k in (0, 1)],
    "orders": [{"id": "o", "paper": "P", "table": "1", "column": "AP", "rows": [0, 1],
                "says": "up", "beds": ["bed"], "gates": "G"}],
    "gates": {"G": [{"name": "g", "row": "row0", "score": ["iou", "x"], "at_least": 1}]},
}  # fmt: skip
RUN = "runs/bench-bed/row0/s0/"


def project(folder):
    """A book with a plan and claims, and four runs of a bed."""
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "_toc.yml").write_text("root: index\n")
    (folder / "book" / "plan.yml").write_text(yaml.safe_dump(PLAN))
    (folder / "book" / "claims.yml").write_text(yaml.safe_dump(CLAIMS))
    notebook = (Path(__file__).parents[2] / "book" / "experiment.py").read_text()
    (folder / "book" / "experiment.py").write_text(notebook)
    for row, gain in (("row0", 0.0), ("row1", 0.2)):
        for seed in (0, 1):
            run = folder / "runs" / "bench-bed" / row / f"s{seed}"
            run.mkdir(parents=True)
            lines = [f"{k // 2},{k},0,apart,30,9,{0.1 * k + gain + 0.01 * seed}" for k in range(4)]
            table = "\n".join(["image,target,label,contact,area,tokens,iou", *lines]) + "\n"
            (run / "objects.csv.gz").write_bytes(gzip.compress(table.encode()))
            metrics = {
                "bench": {"iou": 40.0},
                "seconds": 1.0,
                "stages": [{"method": "psps", "head": "0123", "seconds": 1.0}],
            }
            result = {"status": "ok", "metrics": metrics, "wall_s": 1.0, "started": "2026-11-30",
                      "finished": "2026-11-30", "kind": "bench"}  # fmt: skip
            (run / "result.json").write_text(json.dumps(result))
            text = recipe.make("psps").to_json()
            (run / "recipe.json").write_text(json.dumps(json.loads(text) | {"seed": seed}))
            (run / "env.json").write_text(json.dumps({"git": "0123", "device": "one"}))


def inside(words):
    """A command that is given in the folder of the project."""

    def given(folder, rng):
        os.chdir(folder)
        return words(rng)

    return given


def verdict_is_of_two_rows(folder, printed):
    words = ("holds", "contradicted", "undecided", "outside", "not run")
    claims = yaml.safe_load((folder / "book" / "claims.yml").read_text())
    lines = printed.splitlines()[: len(claims.get("orders", []))]
    return None if all(line.startswith(words) for line in lines) else f"no verdict: {lines[:1]}"


def every_run_is_in_the_index(folder, printed):
    lines = (folder / "runs" / "index.csv").read_text().splitlines()
    runs = len(list((folder / "runs").glob("*/*/*/result.json")))
    return None if len(lines) == 1 + runs else f"{len(lines) - 1} lines of {runs} runs"


def batch(folder):
    """A project whose last batch had a job that failed, and one that needs it."""
    project(folder)
    place = folder / "work" / "batch"
    for name in ("states", "logs", "done"):
        (place / name).mkdir(parents=True)
    jobs = [{"name": "one", "needs": []}, {"name": "two", "needs": ["one"]}]
    (place / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    state = {"state": "failed", "gpus": None, "began": 1.0, "ended": 2.0, "error": "x"}
    (place / "states" / "one.json").write_text(json.dumps(state))
    (place / "logs" / "one.log").write_text("first\nlast\n")


def something_is_printed(folder, printed):
    return None if printed.strip() else "nothing was printed"


def dry_run(rng):
    return ["reproduce", rng.choice(["all", "row0", "bed", "smoke", "small"]), "--dry-run"]


SETTINGS = ("config", "training", "settings", "stages", "seed", "n", "scale", "points", "layout")
INNER = ("lr", "steps", "batch", "images", "image_size", "workers", "seed", "betas", "milestones",
         "depth", "alpha", "precision", "method", "points", "compile", "epochs")  # fmt: skip


def odd_settings(rng):
    odd = rng.choice([v for v in ODD if v != "\ud800"])
    value = {rng.choice(INNER): odd} if rng.randrange(3) else odd
    value = [value] if rng.randrange(4) == 0 else value
    name = rng.choice(["psps", "attentionshift", "mask_rcnn", "row0", "exits"])
    return ["recipe", name, "-p", f"{rng.choice(SETTINGS)}={json.dumps(value)}"]


def a_recipe_is_printed(folder, printed):
    same = json.loads(Recipe.from_json(printed).to_json()) == json.loads(printed)
    return None if same else "the recipe reads back as another one"


# --- models


def model_and_images(folder):
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    chosen = recipe.make("mask_rcnn")
    categories = (Category(5, "cat", True), Category(9, "dog", True))
    save_model(folder / "model.pt", chosen.build(categories), chosen, categories)
    for name in ("a", "b"):
        small.photo(folder / "images" / f"{name}.png")


def predicted(folder, rng):
    out = str(folder / "out")
    return ["predict", str(folder / "model.pt"), str(folder / "images"), "--out", out]


def every_image_has_its_masks(folder, printed):
    listed = json.loads((folder / "out" / "images.json").read_text())
    size = {image["id"]: (image["height"], image["width"]) for image in listed["images"]}
    for entry in json.loads((folder / "out" / "instances.json").read_text()):
        rle.decoded(entry["segmentation"], *size[entry["image_id"]])
    named = {image["file_name"] for image in listed["images"]}
    there = {path.name for path in (folder / "images").iterdir() if path.suffix == ".png"}
    return None if named == there else f"{named} of {there}"


def model_and_points(folder):
    small.panoptic(folder)
    dataset = open_dataset(folder, "train")
    write_points(folder / "points.json", sample_points(dataset, "uniform"))
    chosen = recipe.make("psps")
    save_model(folder / "model.pt", chosen.build(dataset.categories), chosen, dataset.categories)


def labelled(folder, rng):
    return ["labels", "psps", "--run", str(folder / "model.pt"), "--data", str(folder),
            "--points", str(folder / "points.json"), "--out", str(folder / "out")]  # fmt: skip


def labels_are_a_data_set(folder, printed):
    dataset = open_dataset(folder / "out", "train")
    assert [dataset.arrays(i) for i in range(len(dataset))]


def nothing(folder):
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("a")


def odd_pretraining(rng):
    name = rng.choice(["--batch", "--views", "--images", "--size", "--view", "--seed"])
    odd = rng.choice(["-1", "1e3", "x", "", "1.5", "010", "\u00b27", "9" * 30, "-9"])
    return ["pretrain", "mae", "--out", "out", name, odd]


def refused(folder, printed):
    return "it was done"


COMMANDS = {
    "AP": (coco, [JSON, "dt.json"], scored, ap_is_pycocotools, 0.18),
    "AP of VOC": (coco, [JSON, "dt.json"], scored_voc, within_a_hundred, 0.06),
    "PQ": (small.panoptic, [f"{MASKS}.json", f"{MASKS}/1.png"], panoptic_scored,
           pq_of_itself_is_full, 0.14),
    "doctor, COCO": (coco, [JSON, "points.json", "train2017/1.png"], checked,
                     what_the_doctor_passes_is_read, 0.1),
    "doctor, panoptic": (small.panoptic, [f"{MASKS}.json", f"{MASKS}/1.png"], checked,
                         what_the_doctor_passes_is_read, 0.07),
    "doctor, VOC": (voc, [f"{VOC}SegmentationObject/a.png", f"{VOC}JPEGImages/a.jpg",
                          f"{VOC}ImageSets/Segmentation/train.txt"], checked,
                    what_the_doctor_passes_is_read, 0.06),
    "points": (coco, [JSON, "train2017/1.png"], pointed, points_lie_on_their_masks, 0.07),
    "points, VOC": (voc, [f"{VOC}SegmentationClass/a.png",
                          f"{VOC}ImageSets/Segmentation/train.txt"], pointed,
                    points_lie_on_their_masks, 0.04),
    "points, SBD": (sbd, ["SBD/dataset/inst/c.mat"], pointed_sbd, points_of_sbd_lie_on_their_masks,
                    0.05),
    "gauge": (voc, [f"{VOC}SegmentationObject/a.png", f"{VOC}JPEGImages/b.jpg"], gauged,
              json_without_surprises, 0.04),
    "tiles": (tiny_bestiary, [f"coco/{JSON}", "coco/train2017/000000000001.jpg"], tiled,
              tiles_are_a_data_set, 0.03),
    "status": (batch, ["work/batch/jobs.json", "work/batch/states/one.json",
                       "work/batch/logs/one.log"],
               inside(lambda rng: ["status"]), something_is_printed, 0.03),
    "dry run": (project, ["book/plan.yml", "book/claims.yml", "book/experiment.py",
                          RUN + "result.json"], inside(dry_run), something_is_printed, 0.03),
    "recipe": (project, ["book/plan.yml", "book/experiment.py"],
               inside(lambda rng: ["recipe", rng.choice(["row0", "row1"])]), a_recipe_is_printed,
               0.05),
    "settings": (project, ["book/_toc.yml"], inside(odd_settings), a_recipe_is_printed, 0.05),
    "verdicts": (project, ["book/claims.yml", RUN + "objects.csv.gz", RUN + "result.json",
                           RUN + "recipe.json", "book/plan.yml"],
                 inside(lambda rng: ["verdicts"]), verdict_is_of_two_rows, 0.06),
    "index": (project, [RUN + "result.json", RUN + "recipe.json", RUN + "env.json",
                        "book/claims.yml", "book/plan.yml"],
              inside(lambda rng: ["index"]), every_run_is_in_the_index, 0.05),
    "predict": (model_and_images, ["model.pt", "model.pt", "images/a.png"], predicted,
                every_image_has_its_masks, 0.02),
    "labels": (model_and_points, ["points.json", "model.pt", f"{MASKS}.json"], labelled,
               labels_are_a_data_set, 0.012),
    "pretrain": (nothing, ["a.txt"], inside(odd_pretraining), refused, 0.02),
}  # fmt: skip
reached = defaultdict(set)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered")
def test_one_thing_wrong_is_refused_in_one_line_or_does_not_matter(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make, files, words, right, share = COMMANDS[name]
    cases = max(1, round(CASES * share))
    with noting(reached):
        tally = fuzz(make, files, words, right, cases, SEED, tmp_path)
    print(f"{name}: {cases} cases on {', '.join(files)}: {dict(tally.counts)}")
    assert not tally.faults, "\n".join(tally.faults[:20])
    assert tally.counts["refused"] > 0


def test_most_of_what_the_readers_refuse_is_reached(capsys):
    lines = coverage(reached)
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    hit, all_ = (sum(int(line.split()[k]) for line in lines) for k in (1, 3))
    assert CASES < 1500 or len(reached) < 12 or hit > all_ / 3
