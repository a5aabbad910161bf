"""The gauge: each measure on data whose answer is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pointseg.cli import main
from pointseg.data import gauge as gauges
from pointseg.data.bestiary import make
from pointseg.structures import Truth


class Drawn:
    """A dataset of squares: things of one colour on ground of another, or of the same."""

    has_truth, split = True, "val"

    def __init__(
        self, images: int = 4, alike: bool = False, parts: bool = True, full: bool = False
    ):
        self.images, self.alike, self.with_parts, self.full = images, alike, parts, full

    def __len__(self) -> int:
        return self.images

    def masks(self) -> np.ndarray:
        masks = np.zeros((3, 32, 32), bool)
        masks[0, 0:16, 0:16] = masks[1, 0:16, 17:25] = masks[2, 24:32, 0:8] = True
        if self.full:
            masks[2] |= ~masks.any(0)
        return masks

    def arrays(self, i: int) -> Truth:
        masks = self.masks()
        parts = np.zeros((32, 32), np.uint8)
        parts[0:8, 0:25], parts[8:16, 0:25], parts[24:32, 0:8] = 1, 2, 3
        flags = np.zeros(3, bool)
        return Truth(masks, np.array([0, 0, 1]), np.arange(1, 4), ~flags, flags,
                     np.zeros((32, 32), bool), parts if self.with_parts else None)  # fmt: skip

    def image(self, i: int) -> np.ndarray:
        thing = self.masks().any(0)
        return np.where(thing[..., None] & (not self.alike), 200, 50).astype(np.uint8).repeat(3, 2)


def test_tokens_touching_parts_and_sizes_of_squares_are_counted():
    measures = gauges.measure(Drawn(), 8, 4)
    assert measures["objects"] == 12 and measures["tokens"]["50"] == 2.0  # 4, 2 and 1 cells
    assert measures["touching"] == pytest.approx(2 / 3, abs=1e-3)
    assert measures["parts"] == pytest.approx((2 + 2 + 1) / 3, abs=1e-3)
    assert measures["sizes"] == {"small": 1.0, "medium": 0.0, "large": 0.0}
    assert measures["gates"]["touching"] == "met" and measures["gates"]["enough_tokens"] == "missed"


def test_half_a_cell_counts_and_less_does_not():
    mask = np.zeros((9, 16), bool)
    mask[0:4, 0:8] = mask[0:4, 8:15] = True
    assert gauges.covered_tokens(mask, 8) == 1


def test_colour_tells_things_apart_where_it_differs_and_nothing_where_it_does_not():
    assert gauges.measure(Drawn(), 8, 4)["colour_auc"] == 1.0
    assert gauges.measure(Drawn(alike=True), 8, 4)["colour_auc"] == 0.5


def test_auc_agrees_with_counting_pairs():
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 5, 60), rng.random(60) < 0.4
    pairs = scores[positive][:, None] - scores[~positive][None]
    expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert gauges.auc(scores, positive) == pytest.approx(expected, abs=1e-4)


def test_what_a_dataset_does_not_have_is_a_dash():
    without = gauges.measure(Drawn(parts=False, full=True), 8, 4)
    assert without["parts"] is None and without["colour_auc"] is None
    assert without["gates"]["colour_auc"] == "-"
    assert " - " in "\n".join(line + " " for line in gauges.table({"squares": without}))


def test_colours_of_few_images_are_not_judged():
    assert gauges.measure(Drawn(), 8, 4)["gates"]["colour_auc"] == "not judged on 2 images"
    many = gauges.measure(Drawn(images=150), 8, 150)
    assert many["gates"]["colour_auc"] == "missed"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("gauge") / "made"
    make(out, "all", images=1, val=3, tune=2, pretrain=2, size=64, progress=False)
    return out


def test_datasets_stand_side_by_side_at_equal_counts(folder, capsys):
    assert main(["data", "gauge", str(folder), f"{folder}:tune", "--json"]) == 0
    measures = json.loads(capsys.readouterr().out)
    assert [each["images"] for each in measures.values()] == [2, 2]
    assert [each["split"] for each in measures.values()] == ["val", "tune"]
    assert main(["data", "gauge", str(folder), str(folder / "VOCdevkit")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "made" in lines[0] and "VOCdevkit" in lines[0] and len({len(x) for x in lines}) == 1


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["{}", "--split", "train"], "one image in split 'train'"),
        (["{}", "--split", "pretrain"], "no ground truth"),
        (["{}", "--split", "test"], "no split 'test'"),
        (["{}/missing"], "is not a folder"),
        (["{}", "--stride", "0"], "stride 0"),
    ],
)
def test_bad_input_is_one_line(folder, words, complaint, capsys):
    assert main(["data", "gauge", *(word.format(folder) for word in words)]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_an_image_that_is_missing_is_one_line(folder, tmp_path, capsys):
    make(tmp_path / "made", "coco", images=1, val=2, tune=0, size=64, progress=False)
    path = sorted((tmp_path / "made/coco/val2017").glob("*.jpg"))[0]
    Image.new("RGB", (8, 8)).save(path)
    assert main(["data", "gauge", str(tmp_path / "made")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
