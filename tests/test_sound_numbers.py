"""Numbers in binary files that nobody could mean: fractions for objects, weights that are no
weights, points that no reader takes, two images of one name."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from support import small_datasets as small

from pointseg.data.bestiary import CATEGORIES
from pointseg.data.doctor import check
from pointseg.data.images import written_names
from pointseg.data.layouts import open_dataset
from pointseg.data.point_file import read_points, write_points
from pointseg.data.points import sample_points
from pointseg.data.voc import read_sbd
from pointseg.lab import recipe
from pointseg.lab.models import load_model, save_model
from pointseg.lab.predict import image_ids
from pointseg.nets.vit import TokenViT
from pointseg.nets.weights import load_backbone, read_weights
from pointseg.structures import InputError


@pytest.mark.parametrize("field", ["Segmentation", "Categories"])
@pytest.mark.parametrize("value", [1.1, np.nan, 2 + 1j])
def test_fractions_of_objects_are_refused(tmp_path, field, value):
    inst = {"Segmentation": small.BOX.astype(float), "Categories": np.array([[8.0]])}
    savemat(tmp_path / "a.mat", {"GTinst": inst})
    objects, _ = read_sbd(tmp_path / "a.mat", small.BOX.shape)  # whole numbers kept as floats
    assert (objects == small.BOX).all()
    inst[field] = inst[field] * value
    savemat(tmp_path / "a.mat", {"GTinst": inst})
    with pytest.raises(InputError, match=r"a\.mat: .*holds numbers that are no whole numbers"):
        read_sbd(tmp_path / "a.mat", small.BOX.shape)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path, chosen = tmp_path_factory.mktemp("model") / "model.pt", recipe.make("token_querying")
    save_model(path, chosen.build(CATEGORIES), chosen, CATEGORIES)
    return path


SPOILT = {
    "not a number": lambda v: v * torch.nan,
    "endless": lambda v: v + torch.inf,
    "int8": lambda v: v.to(torch.int8),
    "bool": lambda v: v.bool(),
    "complex": lambda v: v.to(torch.complex64),
    "another shape": lambda v: v[None],
    "a text": lambda v: "weights",
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_model_of_no_weights_is_refused(model, tmp_path, kind):
    saved = torch.load(model, weights_only=True)
    name = next(name for name, v in saved["weights"].items() if v.is_floating_point())
    saved["weights"][name] = SPOILT[kind](saved["weights"][name])
    torch.save(saved, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: ") as caught:
        load_model(tmp_path / "model.pt")
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [
    {"weights": {}}, {"categories": [["a", "b", 1]]}, {"categories": 3}, {"recipe": "{}"},
    {"weights": 3}, {"categories": []},
])  # fmt: skip
def test_a_model_of_another_form_is_refused(model, tmp_path, change):
    torch.save({**torch.load(model, weights_only=True), **change}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"model\.pt: ") as caught:
        load_model(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in SPOILT if kind != "a text"])
def test_a_backbone_of_no_weights_is_refused(tmp_path, kind):
    vit = TokenViT("vit_tiny_patch16_224")
    content = {name.removeprefix("body."): v for name, v in vit.body.state_dict().items()}
    content["norm.weight"] = SPOILT[kind](content["norm.weight"])
    torch.save({**content, 3: torch.ones(1)}, tmp_path / "mae.pth")  # a key that is no text
    with pytest.raises(InputError, match=r"mae\.pth: body\.norm\.weight"):
        load_backbone(vit, tmp_path / "mae.pth")
    assert 3 not in read_weights(tmp_path / "mae.pth")


# --- points


@pytest.mark.parametrize("words", [{"seed": 2**63}, {"kind": "jitter", "jitter_px": 1e31}])
def test_no_points_are_written_that_no_reader_takes(tmp_path, words):
    small.coco(tmp_path)
    dataset = open_dataset(tmp_path, "train")
    with pytest.raises(InputError):
        write_points(tmp_path / "p.json", sample_points(dataset, **{"kind": "uniform", **words}))
    assert not (tmp_path / "p.json").exists()
    write_points(tmp_path / "p.json", sample_points(dataset, "uniform", seed=2**63 - 1))
    assert read_points(tmp_path / "p.json").seed == 2**63 - 1


def test_the_doctor_names_points_of_other_categories(tmp_path):
    file = small.coco(tmp_path)
    points = sample_points(open_dataset(tmp_path, "train"), "uniform")
    write_points(tmp_path / "points.json", points)
    assert check(tmp_path).faults == []
    content = json.loads((tmp_path / "points.json").read_text())
    content["categories"][0]["isthing"] = False
    content |= {"kind": "manual", "seed": None, "content_hash": None}
    (tmp_path / "points.json").write_text(json.dumps(content))
    assert any("other categories (id, name, isthing)" in f for f in check(tmp_path).faults), file


# --- predict: one image, one name, one number


@pytest.mark.parametrize("names", [["a.jpg", "a.png"], ["A.jpg", "a.png"], ["1.jpg", "001.jpg"],
                                   ["²7.jpg", "8.jpg"], ["9" * 30 + ".jpg"]])  # fmt: skip
def test_no_two_images_share_a_name_or_a_number(tmp_path, names):
    paths = [tmp_path / name for name in names]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path, "png")
    assert len({name.casefold() for name in written_names(names)}) == len(paths)
    assert image_ids(paths) == list(range(1, len(paths) + 1))
    assert written_names(["dog.jpg"]) == ["dog"]
    assert len({*written_names(["a.jpg", "a.png", "a.jpg.gif"])}) == 3
