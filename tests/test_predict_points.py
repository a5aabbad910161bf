"""`pointseg predict` of what is clicked or boxed: every form of file, one line for a fault."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pointseg.cli import main
from pointseg.data.bestiary import make
from pointseg.data.layouts import open_dataset
from pointseg.data.marked_images import read_marks
from pointseg.data.point_file import MANUAL, write_points
from pointseg.data.point_formats import write_coco_points, write_point_pngs
from pointseg.data.points import sample_points
from pointseg.lab import recipe
from pointseg.lab.models import save_model
from pointseg.ops.extreme_points import hulls

FORMS = ("points file", "COCO points", "COCO boxes", "point PNGs")


@pytest.fixture(scope="module")
def bed(tmp_path_factory):
    """Two images, and their clicks or boxes in every form."""
    out = tmp_path_factory.mktemp("made")
    make(out / "bestiary", "coco", images=1, val=2, size=64, progress=False)
    root = out / "bestiary" / "coco"
    dataset = open_dataset(root, "val", "coco")
    points = sample_points(dataset, "extreme")
    names = {key: dataset.path(row).name for row, key in enumerate(dataset.ids)}
    files = {form: out / f"{form.replace(' ', '_')}.json" for form in FORMS}
    write_points(files["points file"], points)
    write_coco_points(points, files["COCO points"], names)
    truth = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    kept = [{name: each[name] for name in ("id", "image_id", "category_id", "bbox", "iscrowd")}
            for each in truth["annotations"]]  # fmt: skip
    files["COCO boxes"].write_text(json.dumps({**truth, "annotations": kept}))
    apart = replace(points, images={key: apart_of(image) for key, image in points.images.items()})
    write_point_pngs(apart, files["point PNGs"], files["point PNGs"].with_suffix(""), names)
    return root / "val2017", files, points


def apart_of(image):
    """The first object of an image alone, as target 1: what fits a PNG."""
    points = image.points.pick(image.points.target == image.points.target[0])
    return replace(image, points=replace(points, target=np.ones_like(points.target)))


@pytest.fixture(scope="module")
def model(bed, tmp_path_factory):
    def saved(name):
        path = tmp_path_factory.mktemp(name) / "model.pt"
        torch.manual_seed(0)
        chosen = recipe.make(name)
        save_model(path, chosen.build(bed[2].categories), chosen, bed[2].categories)
        return path

    return {name: saved(name) for name in ("exits", "mal", "mask_rcnn", "similarity_warmup")}


def predict(model, images, out, *more):
    return main(["predict", str(model), str(images), "--out", str(out), *map(str, more)])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["exits", "mal"])
def test_a_mask_for_every_object_in_the_file(name, form, bed, model, tmp_path):
    images, files, points = bed
    assert predict(model[name], images, tmp_path, "--points", files[form]) == 0
    made = json.loads((tmp_path / "instances.json").read_text())
    objects = 2 if form == "point PNGs" else len(points) // 4
    assert len(made) == objects and len(list(tmp_path.glob("*.overlay.png"))) == 2
    wanted = {(key, points.categories[label].id) for key, image in points.images.items()
              for label in image.points.label.tolist()}  # fmt: skip
    assert {(each["image_id"], each["category_id"]) for each in made} <= wanted


def test_boxes_and_clicks_of_one_object_have_one_hull(bed):
    _, files, points = bed
    clicks, boxes = (read_marks(files[form]).points for form in ("COCO points", "COCO boxes"))
    for key in points.images:
        both = [torch.as_tensor(f.images[key].points.xy).view(-1, 4, 2) for f in (clicks, boxes)]
        assert torch.equal(hulls(torch.as_tensor(both[0])), hulls(torch.as_tensor(both[1])))


def test_images_are_found_by_name_number_or_stem(bed):
    marks = read_marks(bed[1]["COCO points"])
    for path in bed[0].iterdir():
        assert marks.of(path, (64, 64)) is not None
        assert marks.of(Path(path.stem), (64, 64)) is marks.of(path, (64, 64))
    assert marks.of(Path("another.png"), (64, 64)) is None


def edited(path, out, change):
    record = json.loads(path.read_text())
    change(record)
    out.write_text(json.dumps(record))
    return out


def renamed(record):
    for k, each in enumerate(record["images"]):
        each.update(id=k + 50, file_name=f"x{k}.png")
    for each in record["annotations"]:
        each.update(image_id=50)


def bared(record):
    for each in record["annotations"]:
        del each["extreme_points"], each["point"]


WRONG = {
    "no points": (None, "segments what is clicked or boxed; give --points FILE"),
    "three clicks": (lambda r: r["annotations"][0]["extreme_points"].pop(), "its four extremes"),
    "a click outside": (lambda r: r["annotations"][0]["extreme_points"].append([999, 2]),
                        "is not in the image"),
    "another class": (lambda r: r["annotations"][0].update(category_id=77), "unknown category 77"),
    "another size": (lambda r: r["images"][0].update(width=65), "has it as 65x64"),
    "other images": (renamed, "has points for none of the images"),
    "no marks": (bared, "neither points nor boxes"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_one_line(what, bed, model, tmp_path, capsys):
    change, line = WRONG[what]
    more = ()
    if change:
        more = ("--points", edited(bed[1]["COCO points"], tmp_path / "wrong.json", change))
    assert predict(model["exits"], bed[0], tmp_path / "out", *more) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("pointseg: ") and line in message
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize("box, line", [
    ([1, 2, 3], "expected [x, y, width, height]"), ([1, 2, 0, 5], "expected [x, y, width, height]"),
    ([70, 2, 5, 5], "lies outside the image"), (None, "expected [x, y, width, height]"),
])  # fmt: skip
def test_a_wrong_box_is_one_line(box, line, bed, model, tmp_path, capsys):
    wrong = edited(bed[1]["COCO boxes"], tmp_path / "wrong.json",
                   lambda r: r["annotations"][0].update(bbox=box))  # fmt: skip
    assert predict(model["mal"], bed[0], tmp_path / "out", "--points", wrong) == 2
    assert line in capsys.readouterr().err


def test_a_box_that_leaves_the_image_is_cut_and_one_of_a_pixel_works(bed, model, tmp_path):
    images, files, _ = bed

    def change(record):
        record["annotations"][0]["bbox"] = [50.5, -3, 40, 20]
        record["annotations"][1]["bbox"] = [9, 9, 1, 1]

    few = edited(files["COCO boxes"], tmp_path / "few.json", change)
    marks = read_marks(few)
    both = torch.cat(
        [torch.as_tensor(i.points.xy).view(-1, 4, 2) for i in marks.points.images.values()]
    )
    boxes = hulls(torch.as_tensor(both)).tolist()
    assert [50, 0, 64, 17] in boxes and [9, 9, 10, 10] in boxes
    assert predict(model["mal"], images, tmp_path / "out", "--points", few) == 0


def test_methods_without_points_say_so(bed, model, tmp_path, capsys):
    images, files, _ = bed
    for name, line in (("mask_rcnn", "takes no points"), ("similarity_warmup", "segments nothing")):
        out = tmp_path / name
        assert predict(model[name], images, out, "--points", files["points file"]) == 2
        assert line in capsys.readouterr().err


def test_clicks_by_hand_need_no_hash_and_no_seed(bed, model, tmp_path):
    """What an annotator's tool writes."""
    images, _, points = bed
    path = tmp_path / "clicks.json"
    write_points(path, replace(points, kind=MANUAL, seed=None, source_hash=None))
    assert predict(model["exits"], images, tmp_path / "out", "--points", path) == 0
