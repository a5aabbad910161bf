"""Pictures and clicks of one's own, without any mask: they train, are labelled and predicted."""

import json
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from pointseg.bookkit.explorer.widget import KeyPointExplorer
from pointseg.cli import main
from pointseg.data.bestiary import make
from pointseg.data.doctor import check
from pointseg.data.point_file import hash_of, read_points
from pointseg.lab import recipe as recipes
from pointseg.lab.experiment import experiment
from pointseg.lab.methods import METHODS, method_class
from pointseg.lab.models import save_model
from pointseg.lab.predict import predict_images
from pointseg.lab.reproduce import summary
from pointseg.lab.run_record import Run
from pointseg.nets.vit import TokenViT
from pointseg.structures import Category, InputError

CATEGORIES = [
    {"id": 7, "name": "sky", "isthing": False},
    {"id": 3, "name": "bird", "isthing": True},
]
SIZES = {"a.jpg": (60, 80), "a.png": (64, 64), "turned.jpg": (50, 90)}  # (h, w), upright


def folder_in(folder, kind="manual"):
    """Three pictures, one of them turned by its EXIF tag, and a points.json; stuff comes first."""
    folder.mkdir(parents=True, exist_ok=True)
    images = []
    for name, (h, w) in SIZES.items():
        pixels = np.random.default_rng(h).integers(0, 255, (h, w, 3), dtype=np.uint8)
        image, exif = Image.fromarray(pixels), Image.Exif()
        if name == "turned.jpg":
            image, exif[0x0112] = image.transpose(Image.Transpose.ROTATE_90), 6
        image.save(folder / name, **({"exif": exif} if name == "turned.jpg" else {}))
        extremes = [[30, 10], [12, 20], [30, 40], [45, 20]]
        targets = [
            {"id": 1, "category_id": 3, "points": extremes},
            {"id": 2, "category_id": 7, "points": [[50, 3], [40, 2], [50, 8], [52, 4]]},
        ]
        images.append({"id": name, "height": h, "width": w, "targets": targets})
    if kind == "manual":
        for image in images:
            for target in image["targets"]:
                del target["points"][1:]
    head = {"format": "pointseg points", "version": 1, "kind": "manual",
            "n": 1 if kind == "manual" else 4, "seed": None, "jitter": None, "source_hash": None,
            "content_hash": None, "categories": CATEGORIES, "images": images}  # fmt: skip
    (folder / "points.json").write_text(json.dumps(head))
    return folder


def commands(root):
    """The commands of the page, word for word."""
    text = (root / "book" / "own_pictures.md").read_text()
    blocks = re.findall(r"^```\n(.*?)^```$", text, re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


def test_the_page_can_be_followed_word_for_word(root, tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    generator = recipes.make("exits")
    classes = (Category(3, "bird"), Category(7, "sky", False))
    save_model(tmp_path / "generator.pt", generator.build(classes), generator, classes)
    make(tmp_path / "masked", "coco", images=1, val=1, size=64, progress=False)
    folder_in(tmp_path / "own")
    folders = {"MASKED": tmp_path / "masked/coco", "DIR": tmp_path / "own", "OUT": tmp_path / "out",
              "LABELS": tmp_path / "labels", "GENERATOR": tmp_path / "generator.pt",
              "BOXED": tmp_path / "boxed", "FILE": tmp_path / "boxes.json"}  # fmt: skip
    boxes = {
        "images": [{"id": 1, "file_name": "a.png", "height": 64, "width": 64}],
        "categories": CATEGORIES[1:],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [9, 9, 30, 30]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    (tmp_path / "book").symlink_to(root / "book")
    monkeypatch.chdir(tmp_path)
    for words in commands(root):
        for name, place in folders.items():
            words = [re.sub(rf"\b{name}\b", str(place), word) for word in words]
        assert words[0] == "pointseg" and main(words[1:]) == 0, (words, capsys.readouterr())
        recorded = re.search(r"record: (\S+)", capsys.readouterr().out)
        if recorded:
            folders["RUN"] = tmp_path / recorded[1]
    assert set(json.loads((folders["RUN"] / "result.json").read_text())["metrics"]) == {"stages"}
    listing = json.loads((tmp_path / "out" / "images.json").read_text())["images"]
    assert {i["file_name"]: (i["height"], i["width"]) for i in listing} == SIZES
    assert check(tmp_path / "labels").faults == []
    labelled = json.loads((tmp_path / "labels/annotations/instances_train2017.json").read_text())
    assert {i["file_name"]: (i["height"], i["width"]) for i in labelled["images"]} == SIZES


WEAK = [name for name in METHODS if method_class(name).SUPERVISION != "masks"]


@pytest.mark.parametrize("name", WEAK)
def test_every_weak_method_learns_labels_and_predicts_from_a_folder_of_points(tmp_path, name):
    kind = getattr(method_class(name), "POINTS", {}).get("kind", "manual")
    folder = folder_in(tmp_path / "own", kind)
    if kind != "manual":
        content = json.loads((folder / "points.json").read_text()) | {"kind": kind, "seed": 0}
        (folder / "points.json").write_text(
            json.dumps(content | {"content_hash": hash_of(content)})
        )
    chosen = recipes.make(name, data=str(folder), training={"steps": 1, "batch": 2})
    run = Run(tmp_path / "runs" / "tried" / name / "s0")
    metrics = experiment(chosen, run)
    assert set(metrics) == {"stages"}
    run.write("result.json", {"status": "ok", "metrics": metrics})
    shown = json.loads((tmp_path / "runs/tried" / name / "s0/answers.json").read_text())
    assert any(shown.values()) or not shown
    is_labelled_and_predicted(name, folder, run.folder, tmp_path)


def is_labelled_and_predicted(name, folder, run, place):
    """By the commands of the page; what makes no labels or segments nothing says so."""
    points = ["--points", str(folder / "points.json")]
    data, run = ["--data", str(folder)], str(run)
    makes, alone = (what in method_class(name).SCORES for what in ("labels", "val"))
    words = ["labels", name, "--run", run, *data, *points, "--out", str(place / "labels")]
    assert main(words) == (0 if makes else 2)
    if makes:
        assert check(place / "labels").faults == []
        listed = json.loads((place / "labels/annotations/instances_train2017.json").read_text())
        assert {i["file_name"]: (i["height"], i["width"]) for i in listed["images"]} == SIZES
    words = ["predict", run, str(folder), *([] if alone else points), "--out", str(place / "out")]
    assert main(words) == (0 if makes or alone else 2)
    if makes or alone:
        listed = json.loads((place / "out/images.json").read_text())["images"]
        assert {i["file_name"]: (i["height"], i["width"]) for i in listed} == SIZES


def test_what_train_says_first_is_true_of_such_a_folder(tmp_path):
    lines = summary(recipes.make("psps", data=str(folder_in(tmp_path / "own"))))
    assert lines[0].endswith("own, layout folder, 3 of 3 images with points, 64 px")
    assert "psps learns from points (1 manual a target, of points.json)" in lines[2]
    assert lines[-1] == "scored on: nothing, as there are no masks"
    few = recipes.make("exits", data=str(tmp_path / "own"))
    with pytest.raises(InputError, match="has manual points, similarity_warmup needs extreme"):
        summary(few)  # before a kernel starts


def test_methods_that_need_masks_say_so_before_anything_starts(tmp_path):
    folder = folder_in(tmp_path / "own")
    with pytest.raises(InputError, match="has no masks, from which panoptic_full learns"):
        experiment(recipes.make("panoptic_full", data=str(folder)), Run(tmp_path / "r/a/b/s0"))
    (folder / "points.json").unlink()
    with pytest.raises(InputError, match=r"has images and neither masks nor a points\.json"):
        experiment(recipes.make("psps", data=str(folder)), Run(tmp_path / "r/a/b/s0"))


def test_points_kept_in_the_explorer_are_those_of_the_files(tmp_path):
    pixels = np.zeros((400, 1024, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    live = KeyPointExplorer([tmp_path / "wide.png"], TokenViT("small", dim=32, depth=1, heads=2))
    live.kept = [{"picture": 0, "point": [100.5, 50.25], "name": "bird"}]  # of 512 x 200
    live.save_points(tmp_path / "points.json")
    assert check(tmp_path).faults == []
    points = read_points(tmp_path / "points.json")
    assert points.images["wide.png"].width == 1024
    assert points.for_image("wide.png").xy.tolist() == [[201, 100.5]]


def test_pictures_are_predicted_upright(tmp_path):
    torch.manual_seed(0)
    chosen, classes = recipes.make("mask_rcnn"), (Category(3, "bird"),)
    save_model(tmp_path / "model.pt", chosen.build(classes), chosen, classes)
    predict_images(tmp_path / "model.pt", folder_in(tmp_path / "own"), tmp_path / "out")
    with Image.open(tmp_path / "out" / "turned.overlay.png") as overlay:
        assert overlay.size == SIZES["turned.jpg"][::-1]
