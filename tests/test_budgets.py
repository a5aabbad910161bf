"""Small files that ask for much: memory, time, or for ever. Each is refused in one line, or is
done within what SECURITY.md states."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from support import small_datasets as small
from torch.nn import functional as F

from pointseg.cli import main
from pointseg.data import images
from pointseg.data.bestiary import CATEGORIES
from pointseg.data.coco_json import read_index
from pointseg.data.doctor import check
from pointseg.data.files import read_lines
from pointseg.data.layouts import open_dataset
from pointseg.data.point_formats import read_point_pngs
from pointseg.data.points import sample_points
from pointseg.data.voc import read_sbd
from pointseg.lab import recipe
from pointseg.lab.labels import nearest
from pointseg.lab.models import load_model, save_model
from pointseg.metrics import rle
from pointseg.nets.weights import load_plain, read_backbone, read_weights
from pointseg.structures import InputError

SIDE = 9000


@contextmanager
def within(seconds):
    """Whatever waits for ever fails."""

    def late(number, frame):
        raise AssertionError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


READERS = {
    "a.json": lambda path: read_index(path, "instances", None),
    "a.txt": read_lines,
    "a.png": images.read_image,
    "b.png": images.read_index_mask,
    "a.mat": lambda path: read_sbd(path, (3, 3)),
    "a.pth": read_weights,
    "a.pt": load_model,
    "a.safetensors": read_backbone,
}


@pytest.mark.parametrize("name", READERS)
def test_pipes_and_devices_are_refused(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with within(10), pytest.raises(InputError, match="is not a file"):
        READERS[name](tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with within(10), pytest.raises(InputError, match="is not a file"):
        READERS[name](tmp_path / name)


def test_a_pipe_beside_a_data_set_does_not_stop_the_doctor(tmp_path):
    small.coco(tmp_path)
    os.mkfifo(tmp_path / "points.json")
    with within(20):
        assert check(tmp_path).faults == []


# --- masks


def huge(folder, count):
    """A COCO file of two kilobytes, whose one image has many masks of 81 million pixels."""
    file = small.coco(folder)
    content = json.loads(file.read_text())
    content["images"] = content["images"][:1]
    content["images"][0] |= {"height": SIDE, "width": SIDE}
    code = {"size": [SIDE, SIDE], "counts": [SIDE * SIDE]}
    annotation = {"image_id": content["images"][0]["id"], "segmentation": code}
    annotation["category_id"] = content["categories"][0]["id"]
    content["annotations"] = [{**annotation, "id": k} for k in range(1, count + 1)]
    file.write_text(json.dumps(content))
    return file


def test_many_masks_of_a_large_image_are_refused_before_they_are_made(tmp_path):
    assert huge(tmp_path, 70).stat().st_size < 17_000
    dataset = open_dataset(tmp_path, "train")
    with pytest.raises(InputError, match="70 masks of 9000x9000 pixels"):
        dataset.arrays(0)
    folder = tmp_path / "voc"
    root = small.voc(folder, ["a"])
    ids = np.arange(0, 200, dtype=np.uint8)[:, None].repeat(3, 1)
    for name in ("SegmentationObject", "SegmentationClass"):
        Image.fromarray(ids).save(root / name / "a.png")
    small.photo(root / "JPEGImages" / "a.jpg", 200, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "MOST_MASKED", 100_000)
        with pytest.raises(InputError, match="199 masks of 3x200 pixels"):
            open_dataset(folder, "train").arrays(0)


def test_a_polygon_that_goes_round_for_ever_is_refused():
    there_and_back = [0, 0, 8999, 8999] * 500
    with within(5), pytest.raises(ValueError, match="pixels all round"):
        rle.checked([there_and_back], SIDE, SIDE)
    assert rle.decoded([[0, 0, 4, 0, 4, 4, 0, 4]], 4, 4).all()


def test_a_point_png_full_of_colour_is_refused(tmp_path):
    Image.new("RGB", (200, 200), (1, 0, 0)).save(tmp_path / "a.png")
    content = {"categories": [{"id": 1, "name": "x"}],
               "images": [{"id": 1, "file_name": "a.jpg", "height": 200, "width": 200}],
               "annotations": [{"image_id": 1, "file_name": "a.png",
                                "segments_info": [{"id": 1, "category_id": 1}]}]}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="coloured pixels"):
        read_point_pngs(tmp_path / "a.json", tmp_path)


def test_more_points_than_anybody_clicks_are_refused(tmp_path):
    small.coco(tmp_path)
    with pytest.raises(InputError, match="n: expected an integer of 1 to 10000"):
        sample_points(open_dataset(tmp_path, "train"), "uniform", n=10**9)


# --- images in `predict`


@pytest.mark.parametrize("size", [(3, 7), (64, 64), (41, 129), (1, 1), (200, 5)])
def test_the_nearest_pixels_are_those_of_torch(size):
    maps = torch.arange(2 * 64 * 48).view(2, 64, 48)
    theirs = F.interpolate(maps[None].float(), size=size, mode="nearest-exact")[0]
    assert (nearest(maps, size) == theirs.long()).all()
    assert nearest(maps[:0], size).shape == (0, *size)


PREDICT = """
import resource, sys
from pointseg.cli import main
for side in ("100", "1500"):
    assert main(["predict", sys.argv[1], side, "--out", side + ".out"]) == 0
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    chosen = recipe.make("mask_rcnn")
    path = tmp_path_factory.mktemp("mask_rcnn") / "model.pt"
    save_model(path, chosen.build(CATEGORIES), chosen, CATEGORIES)
    return path


def test_a_large_image_is_segmented_within_forty_bytes_a_pixel(model, tmp_path):
    for side in (100, 1500):
        (tmp_path / str(side)).mkdir()
        Image.new("RGB", (side, side), (90, 20, 30)).save(tmp_path / str(side) / "a.png")
    words = [sys.executable, "-c", PREDICT, str(model)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    small_, large = (int(line) for line in done.stdout.splitlines() if line.isdigit())
    print(f"{large - small_} kB more ")
    assert 1024 * (large - small_) < 40 * 1500 * 1500


def test_an_image_of_one_pixel_is_segmented(model, tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (1, 1), (90, 20, 30)).save(tmp_path / "a" / "a.png")
    assert main(["predict", str(model), str(tmp_path / "a"), "--out", str(tmp_path / "out")]) == 0


# --- weights


def test_a_tensor_of_more_values_than_bytes_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"pos_embed": torch.zeros(1).expand(10**6, 10**6)}, path)
    with within(10), pytest.raises(InputError, match="more values than the file holds"):
        read_weights(path)
    torch.save({"x": [torch.eye(3).to_sparse()]}, path)
    with pytest.raises(InputError, match="not readable as weights"):
        load_plain(path)


@pytest.mark.parametrize("content", [b"\x80\x02e", b"hello", b"\x85" * 9, b"", b"\x80\x02h\x00."])
def test_bytes_of_another_kind_are_refused_for_a_plain_cause(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    plain = r"weights \((damaged, cut short or of another kind|pickled code or no tensors.*)\)$"
    with pytest.raises(InputError, match=plain):
        load_plain(tmp_path / "a.pt")


def test_packed_weights_are_refused(tmp_path):
    torch.save({"x": torch.zeros(10**6)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as plain:
        parts = {info.filename: plain.read(info) for info in plain.infolist()}
    with zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    with pytest.raises(InputError, match="parts are packed"):
        read_weights(tmp_path / "b.pth")


def test_the_network_of_a_model_is_not_built_before_its_weights_fit(model, tmp_path):
    saved = torch.load(model, weights_only=True)
    names = [[k, f"class {k}", True] for k in range(2000)]
    torch.save({**saved, "categories": names}, tmp_path / "model.pt")
    with within(60), pytest.raises(InputError, match="this network's is"):
        load_model(tmp_path / "model.pt")
    torch.save({**saved, "categories": [[1, "a", True], [2, "a", True]]}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="two categories of one id or name"):
        load_model(tmp_path / "model.pt")
