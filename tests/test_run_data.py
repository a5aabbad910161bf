"""The data of a recipe: the name of the embedded benchmark says which edition is drawn."""

import json

import pytest
from support import tiny_method as tiny

from pointseg.data.bestiary import make
from pointseg.data.doctor import check
from pointseg.lab import recipe as recipes
from pointseg.lab import run_data
from pointseg.structures import InputError


@pytest.fixture(autouse=True)
def _tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.register()


@pytest.mark.parametrize("name, edition", [("bestiary", 2), ("bestiary-easy", 1)])
def test_the_name_of_the_data_is_the_edition_that_is_drawn(name, edition):
    folder = run_data.bestiary(recipes.make("tiny", data=name, images=1, scored_images=1))
    recipe = json.loads((folder / "bestiary.json").read_text())["recipe"]
    assert (recipe["edition"], recipe["tune"]) == (edition, 1)


def test_editions_have_different_hashes():
    hashes = {
        run_data.data_hash(recipes.make("tiny", data=name)) for name in run_data.EDITION_NAMED
    }
    assert len(hashes) == 2


def test_a_name_that_is_no_edition_is_the_root_of_a_dataset():
    with pytest.raises(InputError, match="data: bestiary-hard is not a folder"):
        run_data.open_corpus(recipes.make("tiny", data="bestiary-hard"))


@pytest.mark.parametrize("change", ["order", "isthing", "more"])
def test_splits_whose_labels_mean_different_things_are_named_and_not_scored(tmp_path, change):
    make(tmp_path / "made", "coco", images=1, val=1, tune=1, size=64, progress=False)
    root = tmp_path / "made" / "coco"
    chosen = recipes.make("tiny", data=str(root), layout="panoptic")
    assert run_data.open_corpus(chosen).scored.split == "val" and not check(root).faults
    file = root / "annotations" / "panoptic_val2017.json"
    content = json.loads(file.read_text())
    categories = content["categories"]
    if change == "isthing":
        categories[0]["isthing"] = 0
    else:
        categories.insert(0, categories.pop() if change == "order" else {"id": 99, "name": "new"})
        categories[0]["isthing"] = 1
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"<panoptic val: .*> has the category \(") as one:
        run_data.open_corpus(chosen)
    assert "\n" not in str(one.value)
    assert any("has the category" in fault for fault in check(root).faults)
