"""Foreign files with one thing wrong: every command does its work or refuses in one line.

POINTSEG_FUZZ=5000 POINTSEG_FUZZ_SEED=7 makes it longer, and other; what was read how often, and
what came of it, is printed (pytest -s).
"""

import json
import os

import pytest
from support import small_datasets as small

from fuzz.mutations import fuzz
from pointseg.data.layouts import open_dataset
from pointseg.data.point_file import write_points
from pointseg.data.points import sample_points

CASES = int(os.environ.get("POINTSEG_FUZZ", "300"))
SEED = int(os.environ.get("POINTSEG_FUZZ_SEED", "0"))
JSON, MASKS = "annotations/instances_train2017.json", "annotations/panoptic_train2017"


def coco(folder):
    small.coco(folder)
    entries = [
        {"image_id": 1, "category_id": c, "segmentation": small.compressed(mask), "score": 0.5,
         "bbox": [1, 1, 3, 3]}
        for c, mask in ((5, small.BOX), (9, small.CORNER))
    ]  # fmt: skip
    (folder / "dt.json").write_text(json.dumps(entries))
    write_points(folder / "points.json", sample_points(open_dataset(folder, "train"), "uniform"))


def scored(folder):
    return ["evaluate", "instances", "--gt", str(folder / JSON), "--dt", str(folder / "dt.json")]


def panoptic_scored(folder):
    truth = [str(folder / f"{MASKS}.json"), str(folder / MASKS)]
    return ["evaluate", "panoptic", "--gt", truth[0], "--gt-dir", truth[1],
            "--dt", truth[0], "--dt-dir", truth[1], "--json"]  # fmt: skip


def checked(folder):
    return ["data", "check", str(folder)]


def pointed(folder):
    return ["points", str(folder), "--out", str(folder / "new.json")]


def voc(folder):
    small.voc(folder)


def sbd(folder):
    root = small.voc(folder)
    small.voc(folder, names=("a",), split="val")
    small.sbd(folder, "c", small.BOX.astype(int), [8])
    small.photo(root / "JPEGImages" / "c.jpg")


VOC = "VOCdevkit/VOC2012/"
COMMANDS = {
    "AP": (coco, [JSON, "dt.json"], scored, 0.3),
    "PQ": (small.panoptic, [f"{MASKS}.json", f"{MASKS}/1.png"], panoptic_scored, 0.2),
    "doctor, COCO": (coco, [JSON, "points.json", "train2017/1.png"], checked, 0.2),
    "doctor, panoptic": (small.panoptic, [f"{MASKS}.json", f"{MASKS}/1.png"], checked, 0.1),
    "doctor, VOC": (voc, [f"{VOC}SegmentationObject/a.png", f"{VOC}JPEGImages/a.jpg",
                          f"{VOC}ImageSets/Segmentation/train.txt"], checked, 0.05),
    "points": (coco, [JSON, "train2017/1.png"], pointed, 0.1),
    "points, SBD": (sbd, ["SBD/dataset/inst/c.mat"],
                    lambda f: [*pointed(f), "--split", "train_aug"], 0.05),
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_one_thing_wrong_is_refused_in_one_line_or_does_not_matter(tmp_path, name):
    make, files, words, share = COMMANDS[name]
    make(tmp_path / "good")
    cases = round(CASES * share)
    counts, faults = fuzz(tmp_path / "good", files, words, cases, SEED, tmp_path / "place")
    print(f"{name}: {cases} cases on {', '.join(files)}: {dict(counts)}")
    assert not faults, "\n".join(faults[:20])
    assert counts["refused"] > 0 and counts["done"] > 0
