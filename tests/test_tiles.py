"""Tiles cover every picture, keep every pixel's owner, and are a dataset like any other."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from pointseg.data.bestiary import make
from pointseg.data.doctor import check
from pointseg.data.layouts import open_dataset
from pointseg.data.tiles import LEAST_PIXELS, corners, write_tiles
from pointseg.structures import InputError


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for seed in (0, 1):
        make(folder / str(seed), "coco", 3, 64, seed, val=2)
    return [folder / str(seed) / "coco" for seed in (0, 1)]


@pytest.mark.parametrize("size", [(64, 64), (65, 70), (31, 90), (96, 32)])
def test_tiles_cover_the_picture_and_stay_inside(size):
    covered = np.zeros(size, int)
    for top, left in corners(size, 32):
        assert top + 32 <= max(size[0], 32) and left + 32 <= max(size[1], 32)
        covered[top : top + 32, left : left + 32] += 1
    assert covered.min() == 1


def test_two_datasets_become_one_whose_pixels_are_theirs(roots, tmp_path):
    out = write_tiles(roots, tmp_path / "tiles", 32)
    assert check(out).faults == []
    tiles = open_dataset(out, "train", "coco")
    wholes = [open_dataset(root, "train", "coco") for root in roots]
    assert (
        len(tiles) == sum(4 * len(w) for w in wholes)
        and len(open_dataset(out, "val", "coco")) == 16
    )
    at = 0
    for whole in wholes:
        for index in range(len(whole)):
            truth = whole.truth(index)
            for top, left in corners((64, 64), 32):
                cut = truth.masks[:, top : top + 32, left : left + 32]
                kept = cut.flatten(1).sum(1) >= LEAST_PIXELS
                assert torch.equal(tiles.truth(at).masks, cut[kept]) and torch.equal(
                    tiles.truth(at).label, truth.label[kept]
                )
                assert np.array_equal(
                    tiles.image(at), whole.image(index)[top : top + 32, left : left + 32]
                )
                at += 1


def test_nothing_is_overwritten_and_nothing_half_written(roots, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        write_tiles(roots, tmp_path / "there", 32)
    with pytest.raises(InputError, match="no split"):
        write_tiles([tmp_path / "there"], tmp_path / "new", 32)
    other = tmp_path / "other"
    shutil.copytree(roots[0], other)
    file = other / "annotations" / "instances_val2017.json"
    file.write_text(file.read_text().replace("basilisk", "rabbit"))
    for given in ([roots[0], other], [other]):  # another dataset, or another split of one
        with pytest.raises(InputError, match=f"^{other}: .* has the category .*rabbit"):
            write_tiles(given, tmp_path / "new", 32)
    shutil.rmtree(other)
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there", "x.png"]
