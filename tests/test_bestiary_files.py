"""Bestiary on disk: the official layouts hold what was drawn."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import scipy.io
from PIL import Image
from pycocotools.coco import COCO

import pointseg.data.bestiary.write as write
from pointseg.data.bestiary import CATEGORIES, THINGS, draw, make
from pointseg.structures import IGNORE, InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("bestiary") / "made"
    make(out, "all", images=12, size=96, seed=5, val=4, tune=2, pretrain=2, progress=False)
    return out


def drawn(split: str, count: int):
    return [draw(5, split, index, 96) for index in range(count)]


def test_coco_instances_read_back_the_same_masks(folder, capsys):
    for split, count, first in (("train", 12, 1), ("val", 4, 400_001), ("tune", 2, 600_001)):
        coco = COCO(str(folder / f"coco/annotations/instances_{split}2017.json"))
        assert sorted(coco.getImgIds()) == list(range(first, first + count))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [c.name for c in THINGS]
        ids = [a["id"] for a in coco.dataset["annotations"]]
        assert len(ids) == len(set(ids))
        for number, scene in enumerate(drawn(split, count), first):
            truth = scene.truth.pick(scene.truth.is_thing)
            loaded = coco.loadAnns(coco.getAnnIds(number))
            assert [coco.annToMask(a).sum() for a in loaded] == [a["area"] for a in loaded]
            assert np.array_equal(
                np.stack([coco.annToMask(a) for a in loaded]), truth.masks.numpy()
            )
            assert [a["category_id"] for a in loaded] == [
                CATEGORIES[x].id for x in truth.label.tolist()
            ]
            assert [a["iscrowd"] for a in loaded] == truth.is_crowd.int().tolist()
    capsys.readouterr()


def test_coco_panoptic_reads_back_the_same_segments(folder):
    for split, count in (("train", 12), ("val", 4), ("tune", 2)):
        content = json.loads((folder / f"coco/annotations/panoptic_{split}2017.json").read_text())
        for entry, scene in zip(content["annotations"], drawn(split, count), strict=True):
            png = np.asarray(
                Image.open(folder / f"coco/annotations/panoptic_{split}2017" / entry["file_name"])
            )
            ids = png.astype(np.int64) @ [1, 256, 65536]
            truth = scene.truth
            assert np.array_equal(ids == 0, truth.void.numpy())
            assert len({s["id"] for s in entry["segments_info"]}) == len(truth)
            for segment, mask, label in zip(
                entry["segments_info"], truth.masks.numpy(), truth.label.tolist()
            ):
                assert np.array_equal(ids == segment["id"], mask) and segment["area"] == mask.sum()
                assert segment["category_id"] == CATEGORIES[label].id
                left, top, w, h = segment["bbox"]
                assert mask[top : top + h, left : left + w].sum() == mask.sum()


def test_voc_reads_back_things_with_void_borders(folder):
    voc = folder / "VOCdevkit/VOC2012"
    for split, count in (("train", 12), ("val", 4), ("tune", 2)):
        names = (voc / f"ImageSets/Segmentation/{split}.txt").read_text().split()
        for name, scene in zip(names, drawn(split, count), strict=True):
            objects = Image.open(voc / "SegmentationObject" / f"{name}.png")
            classes = Image.open(voc / "SegmentationClass" / f"{name}.png")
            assert objects.mode == classes.mode == "P"
            assert objects.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
            assert objects.getpalette()[-3:] == [224, 224, 192]
            objects, classes = np.asarray(objects), np.asarray(classes)
            truth = scene.truth_with(border=True)
            things = truth.pick(truth.is_thing & ~truth.is_crowd)
            assert np.array_equal(objects == IGNORE, classes == IGNORE)
            assert sorted(set(np.unique(objects)) - {0, IGNORE}) == list(range(1, len(things) + 1))
            for k, (mask, label) in enumerate(zip(things.masks.numpy(), things.label.tolist()), 1):
                assert np.array_equal(objects == k, mask) and (classes[mask] == label + 1).all()
            crowds = truth.masks[truth.is_crowd].any(0) | truth.void
            assert np.array_equal(objects == IGNORE, crowds.numpy())


def test_voc_boxes_count_pixels_from_one(folder):
    voc = folder / "VOCdevkit/VOC2012"
    for path in sorted((voc / "Annotations").glob("*.xml")):
        objects = np.asarray(Image.open(voc / "SegmentationObject" / f"{path.stem}.png"))
        root = ElementTree.parse(path).getroot()
        assert root.findtext("filename") == f"{path.stem}.jpg"
        for k, entry in enumerate(root.findall("object"), 1):
            x0, y0, x1, y1 = (
                int(entry.findtext(f"bndbox/{s}")) for s in ("xmin", "ymin", "xmax", "ymax")
            )
            inside = np.zeros(objects.shape, bool)
            inside[y0 - 1 : y1, x0 - 1 : x1] = True
            mask = objects == k
            assert not (mask & ~inside).any() and mask[y0 - 1].any() and mask[:, x1 - 1].any()


def test_sbd_reads_back_masks_without_void(folder):
    for index, scene in enumerate(drawn("train", 12)):
        name = f"2012_{index + 1:06d}.mat"
        inst = scipy.io.loadmat(folder / "SBD/dataset/inst" / name)["GTinst"][0, 0]
        cls = scipy.io.loadmat(folder / "SBD/dataset/cls" / name)["GTcls"][0, 0]
        truth = scene.truth_with(border=False)
        things = truth.pick(truth.is_thing & ~truth.is_crowd)
        assert inst["Categories"].ravel().tolist() == [x + 1 for x in things.label.tolist()]
        assert inst["Boundaries"].shape == (len(things), 1) and cls["Boundaries"].shape == (
            len(THINGS),
            1,
        )
        for k, (mask, label) in enumerate(zip(things.masks.numpy(), things.label.tolist())):
            assert np.array_equal(inst["Segmentation"] == k + 1, mask)
            assert (cls["Segmentation"][mask] == label + 1).all()
            border = inst["Boundaries"][k, 0].toarray() > 0
            assert border.any() and not (border & ~mask).any()
        assert cls["CategoriesPresent"].ravel().tolist() == sorted(
            {x + 1 for x in things.label.tolist()}
        )


def test_side_files_and_pictures(folder):
    for index, scene in enumerate(drawn("train", 12), 1):
        parts = np.asarray(Image.open(folder / f"parts/train/{index:012d}.png"))
        assert np.array_equal(parts, scene.truth.parts.numpy())
        for path in (
            f"coco/train2017/{index:012d}.jpg",
            f"VOCdevkit/VOC2012/JPEGImages/2012_{index:06d}.jpg",
        ):
            picture = np.asarray(Image.open(folder / path)).astype(float)
            assert np.abs(picture - scene.image).mean() < 4
    assert len(list((folder / "coco/pretrain2017").iterdir())) == 2
    assert (folder / "VOCdevkit/VOC2012/labels.txt").read_text().split() == [c.name for c in THINGS]


def test_number_of_pictures_and_of_workers_change_no_picture(folder, tmp_path):
    make(
        tmp_path / "few",
        "coco",
        images=3,
        size=96,
        seed=5,
        val=1,
        tune=0,
        workers=2,
        progress=False,
    )
    for path in sorted((tmp_path / "few").rglob("*.[jp][pn]g")):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "few")).read_bytes()


def test_the_same_request_again_touches_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    make(folder, "all", images=12, size=96, seed=5, val=4, tune=2, pretrain=2, progress=False)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_another_recipe_or_foreign_content_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="another recipe"):
        make(folder, "all", images=13, size=96, seed=5, progress=False)
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no Bestiary"):
        make(tmp_path, "coco", images=2, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]
    with pytest.raises(InputError, match="not a folder"):
        make(tmp_path / "diary.txt", "coco", images=2, progress=False)


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")]
)
def test_an_interrupted_write_leaves_nothing(failure, tmp_path, monkeypatch):
    written = []

    def fail_on_third(scene):
        written.append(scene)
        if len(written) == 3:
            raise failure
        return ""

    monkeypatch.setattr(write, "hash_of", fail_on_third)
    expected = InputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught:
        make(tmp_path / "out", "coco", images=4, size=64, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert not isinstance(failure, OSError) or "no space left" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"layout": "yolo"},
        {"images": 0},
        {"size": 8},
        {"seed": -1},
        {"pretrain": -3},
        {"val": 0},
        {"tune": -1},
        {"edition": 3},
    ],
)
def test_bad_recipes_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(InputError):
        make(tmp_path / "out", **{"layout": "coco", "images": 2, "progress": False, **wrong})
    assert list(tmp_path.iterdir()) == []
