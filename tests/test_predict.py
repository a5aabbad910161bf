"""`pointseg predict` on images of one's own: results that score, images to look at, one line for
what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pointseg.cli import main
from pointseg.data.bestiary import CATEGORIES, make
from pointseg.lab import recipe
from pointseg.lab.models import save_model
from pointseg.lab.predict import image_ids


@pytest.fixture(scope="module", params=["mask_rcnn", "panoptic_full"])
def model(request, tmp_path_factory):
    torch.manual_seed(0)
    chosen = recipe.make(request.param)
    path = tmp_path_factory.mktemp(request.param) / "model.pt"
    save_model(path, chosen.build(CATEGORIES), chosen, CATEGORIES)
    return request.param, path


@pytest.fixture(scope="module")
def bestiary(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "bestiary"
    make(out, "coco", images=1, val=2, size=64, progress=False)
    return out / "coco"


def test_results_meet_their_ground_truth(model, bestiary, tmp_path, capsys):
    method, path = model
    assert (
        main(["predict", str(path), str(bestiary / "val2017"), "--out", str(tmp_path / "out")]) == 0
    )
    kind = "panoptic" if method == "panoptic_full" else "instances"
    truth = bestiary / "annotations" / f"{kind}_val2017.json"
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 2
    if kind == "instances":
        words = ["--gt", str(truth), "--dt", str(tmp_path / "out" / "instances.json"), "--json"]
        assert main(["evaluate", "instances", *words]) == 0
        assert "AP50" in capsys.readouterr().out
    else:
        [first, _] = json.loads((tmp_path / "out" / "panoptic.json").read_text())
        with Image.open(tmp_path / "out" / first["file_name"]) as png:
            rgb = np.asarray(png).astype(int)
        ids = set(np.unique(rgb @ [1, 256, 65536])) - {0}
        assert ids == {info["id"] for info in first["segments_info"]}


def test_one_image_that_cannot_be_read_leaves_nothing_of_the_others(model, bestiary, tmp_path):
    _, path = model
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for image in (bestiary / "val2017").iterdir():
        (folder / image.name).write_bytes(image.read_bytes())
    (folder / "zz.png").write_bytes(b"no image")
    assert main(["predict", str(path), str(folder), "--out", str(out)]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]
    (folder / "zz.png").unlink()
    assert main(["predict", str(path), str(folder), "--out", str(out)]) == 0
    assert len(list(out.glob("*.overlay.png"))) == 2


def test_numbers_in_names_become_ids_only_where_every_name_is_one(tmp_path):
    assert image_ids([tmp_path / "000000000139.jpg", tmp_path / "7.png"]) == [139, 7]
    assert image_ids([tmp_path / "139.jpg", tmp_path / "dog.png"]) == [1, 2]


@pytest.mark.parametrize(
    "what",
    [
        "no checkpoint",
        "text as checkpoint",
        "a folder as checkpoint",
        "no images",
        "a broken image",
    ],
)
def test_bad_input_is_one_line_and_exit_2(model, tmp_path, capsys, what):
    checkpoint, images = model[1], tmp_path / "images"
    images.mkdir()
    if what == "no checkpoint":
        checkpoint = tmp_path / "gone.pt"
    if what == "text as checkpoint":
        (checkpoint := tmp_path / "text.pt").write_text("no model")
    if what == "a folder as checkpoint":
        checkpoint = Path("/")  # not as deep as the folder of a run lies
    if what != "no images":
        (images / "a.png").write_bytes(b"\x89PNG broken")
    assert main(["predict", str(checkpoint), str(images), "--out", str(tmp_path / "out")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list((tmp_path / "out").glob("*.json"))
