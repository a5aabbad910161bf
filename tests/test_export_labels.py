"""`pointseg labels`: a trained method's labels from points, a data set that passes the doctor."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pointseg.cli import main
from pointseg.data.bestiary import make
from pointseg.data.doctor import check
from pointseg.data.layouts import open_dataset, splits_of
from pointseg.data.point_file import read_points, write_points
from pointseg.data.points import sample_points
from pointseg.lab import recipe as recipes
from pointseg.lab.export_labels import write_labelled
from pointseg.lab.methods import method_class
from pointseg.lab.models import save_model
from pointseg.structures import InputError

METHODS = {
    "epld": "panoptic",
    "psps": "panoptic",
    "point2mask": "panoptic",
    "attentionshift": "coco",
    "exits": "coco",
    "mal": "coco",
}


@pytest.fixture(scope="module")
def bestiary(tmp_path_factory):
    """(folder, points files by layout) of four images in COCO's layout."""
    folder = tmp_path_factory.mktemp("data") / "bestiary"
    make(folder, "coco", images=4, size=64, val=2, tune=2, progress=False)
    files = {}
    for layout in ("coco", "panoptic"):
        points = sample_points(open_dataset(folder / "coco", "train", layout), "uniform", 1, 0)
        files[layout] = folder / f"{layout}.json"
        write_points(files[layout], points)
    train = open_dataset(folder / "coco", "train", "coco")
    return folder / "coco", files | {"extreme": extremes(train, folder)}


def extremes(train, folder):
    """A file of the extreme points of a data set."""
    write_points(folder / "extreme.json", sample_points(train, "extreme"))
    return folder / "extreme.json"


def saved(name, layout, bestiary, tmp_path):
    """The file of an untrained method, as a run leaves a trained one."""
    data, files = bestiary
    torch.manual_seed(0)
    recipe = recipes.make(name, scale="smoke", data=str(data), layout=layout)
    categories = read_points(files[layout]).categories
    path = tmp_path / "model.pt"
    save_model(path, method_class(name).build(categories, "smoke"), recipe, categories)
    return path


def export(name, model, bestiary, layout, out, points=None):
    data, files = bestiary
    points = points or ("extreme" if name in ("exits", "mal") else layout)
    return main(["labels", name, "--run", str(model), "--data", str(data), "--layout", layout,
                 "--points", str(files[points]), "--out", str(out)])  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_the_labels_are_a_data_set_without_a_fault(name, bestiary, tmp_path):
    layout, out = METHODS[name], tmp_path / "out"
    assert export(name, saved(name, layout, bestiary, tmp_path), bestiary, layout, out) == 0
    layouts = {"coco", "panoptic"} if layout == "panoptic" else {"coco"}
    assert set(splits_of(out)) == layouts
    for each in layouts:
        assert check(out, each).faults == []
    made, true = open_dataset(out, "train", layout), open_dataset(bestiary[0], "train", layout)
    assert made.categories == true.categories and len(made) == 4
    points = read_points(bestiary[1][layout])
    for row, key in enumerate(made.ids):
        classes = set(points.for_image(key).label.tolist())
        assert set(made.truth(row).label.tolist()) <= classes
        assert (made.image(row) == true.image(true.ids.index(key))).all()


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """The same of three images in VOC's layouts."""
    folder, files = tmp_path_factory.mktemp("voc") / "bestiary", {}
    make(folder, "voc", images=3, size=64, val=2, tune=2, progress=False)
    for layout in ("voc", "voc-panoptic"):
        points = sample_points(open_dataset(folder, "train", layout), "uniform", 1, 0)
        files[layout] = folder / f"{layout}.json"
        write_points(files[layout], points)
    return folder, files | {"extreme": extremes(open_dataset(folder, "train", "voc"), folder)}


@pytest.mark.parametrize("name", METHODS)
def test_labels_of_images_in_voc_s_layouts_are_a_data_set_in_coco_s(name, voc, tmp_path):
    layout, made_as = {"panoptic": ("voc-panoptic", "panoptic")}.get(METHODS[name], ("voc", "coco"))
    out = tmp_path / "out"
    assert export(name, saved(name, layout, voc, tmp_path), voc, layout, out) == 0
    assert all(check(out, each).faults == [] for each in splits_of(out))
    made, true = open_dataset(out, "train", made_as), open_dataset(voc[0], "train", layout)
    assert made.categories == true.categories and len(made) == 3
    points = read_points(voc[1][layout])
    for row in range(3):
        assert made.path(row).name == true.path(row).name
        classes = set(points.for_image(true.ids[row]).label.tolist())
        assert set(made.truth(row).label.tolist()) <= classes


def test_a_panoptic_method_s_things_are_the_same_in_both_files(bestiary, tmp_path):
    model, out = saved("epld", "panoptic", bestiary, tmp_path), tmp_path / "out"
    assert export("epld", model, bestiary, "panoptic", out) == 0
    both = [open_dataset(out, "train", layout) for layout in ("panoptic", "coco")]
    for row in range(4):
        panoptic, instances = (dataset.truth(row) for dataset in both)
        assert torch.equal(panoptic.masks[panoptic.is_thing], instances.masks)
        assert torch.equal(panoptic.label[panoptic.is_thing], instances.label)
        assert not panoptic.void.any(), "every pixel has an owner"
    ids = json.loads((out / "annotations" / "instances_train2017.json").read_text())["annotations"]
    assert [entry["id"] for entry in ids] == list(range(1, len(ids) + 1))


def test_points_that_are_no_extremes_name_the_command_that_makes_them(bestiary, tmp_path, capsys):
    for name in ("exits", "mal"):
        model = saved(name, "coco", bestiary, tmp_path)
        assert export(name, model, bestiary, "coco", tmp_path / name, points="coco") == 2
        [line] = capsys.readouterr().err.splitlines()
        assert "expected its four extremes" in line and "--kind extreme" in line


def test_what_does_not_fit_is_one_clear_line(bestiary, tmp_path, capsys):
    model = saved("epld", "panoptic", bestiary, tmp_path)
    full = tmp_path / "full"
    (full / "folder").mkdir(parents=True)
    for name, layout, out, line in (
        ("psps", "panoptic", tmp_path / "a", "holds a trained epld, not psps"),
        ("epld", "panoptic", full, "is not empty"),
        ("epld", "coco", tmp_path / "b", "has other categories than"),
    ):
        assert export(name, model, bestiary, layout, out) == 2
        assert line in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_two_images_of_one_name_in_other_folders_are_refused(tmp_path):
    paths = [Path("x/a.jpg"), Path("x/b.jpg"), Path("y/a.jpg")]
    labelled = SimpleNamespace(rows=[0, 1, 2], dataset=SimpleNamespace(path=paths.__getitem__))
    with pytest.raises(InputError, match=r"2 images would be a\.jpg, of other folders"):
        write_labelled(labelled, tmp_path / "out", "train")
