"""Bestiary: the drawings, their truth, and the layouts they are written in."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from pycocotools.coco import COCO
from scipy import ndimage

import pointseg.data.bestiary.write as write
from pointseg.data.bestiary import CATEGORIES, PARTS, SPECIES, STUFF, THINGS, draw, make
from pointseg.data.bestiary.arith import cosine, sine
from pointseg.data.bestiary.draw import outlines
from pointseg.structures import IGNORE, InputError

# The one constant of our own output: it guards that pictures are the same on every platform, for ever.
REFERENCE = "a45e4d0c163829ceddf4567879c2e9d732a3b6fa14bdbb6ffe1397adeb94240c"


def reference_hash(order=range(16)) -> str:
    digests = {index: write.hash_of(draw(0, "train", index, 128)) for index in order}
    return hashlib.sha256("".join(digests[index] for index in sorted(digests)).encode()).hexdigest()


@pytest.fixture(scope="module")
def scenes():
    return [draw(3, "train", index, 64) for index in range(240)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("bestiary") / "made"
    make(out, "all", images=12, size=96, seed=5, val=4, pretrain=2, progress=False)
    return out


# ---- drawings ----------------------------------------------------------------------------------------------


def test_reference_pictures_have_the_pinned_hash():
    assert reference_hash() == REFERENCE


def test_another_process_and_order_draw_the_same_pictures():
    script = "from test_bestiary import reference_hash; print(reference_hash(range(15, -1, -1)))"
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == REFERENCE


def test_a_picture_depends_on_its_seed_split_and_index_only():
    first = draw(1, "val", 7, 64)
    draw(9, "train", 0, 64)
    again = draw(1, "val", 7, 64)
    assert np.array_equal(first.image, again.image)
    others = [
        draw(2, "val", 7, 64),
        draw(1, "train", 7, 64),
        draw(1, "val", 8, 64),
        draw(1, "pretrain", 7, 64),
    ]
    assert all(not np.array_equal(first.image, other.image) for other in others)


def test_splits_share_no_picture():
    seen = {
        draw(0, split, k, 64).image.tobytes()
        for split in ("train", "val", "pretrain")
        for k in range(15)
    }
    assert len(seen) == 45


def test_a_scene_is_the_same_scene_at_every_size():
    small, large = draw(0, "train", 4, 64), draw(0, "train", 4, 256)
    assert large.image.shape == (256, 256, 3)
    coarse = large.image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(coarse - small.image).mean() < 12
    assert set(large.truth.label.tolist()) >= {
        x for x in small.truth.label.tolist() if CATEGORIES[x].is_thing
    }


def test_own_sine_agrees_with_the_library_to_five_digits():
    turns = np.linspace(-2, 2, 999)
    assert np.allclose([sine(t) for t in turns], np.sin(2 * np.pi * turns), atol=1e-5)
    assert np.allclose([cosine(t) for t in turns], np.cos(2 * np.pi * turns), atol=1e-5)


@pytest.mark.parametrize(
    "request_",
    [
        (0, "test", 0, 128),
        (0, "train", 0, 32),
        (0, "train", 0, 1024),
        (-1, "val", 0, 128),
        (1 << 63, "val", 0, 128),
        (0, "val", -1, 128),
    ],
)
def test_bad_requests_are_refused_in_one_line(request_):
    with pytest.raises(InputError) as caught:
        draw(*request_)
    assert "\n" not in str(caught.value)


# ---- truth -------------------------------------------------------------------------------------------------


def test_segments_and_void_cover_the_picture_once(scenes):
    for scene in scenes:
        cover = scene.truth.masks.sum(0) + scene.truth.void.long()
        assert bool((cover == 1).all())
        assert (
            int(scene.truth_with(border=False).void.sum()) < 12
        )  # only slivers, if no lines are drawn


def test_rows_are_things_then_stuff_with_pixels_and_ids(scenes):
    for scene in scenes:
        truth = scene.truth
        assert truth.is_thing.tolist() == [
            CATEGORIES[label].is_thing for label in truth.label.tolist()
        ]
        assert truth.is_thing.tolist() == sorted(truth.is_thing.tolist(), reverse=True)
        assert truth.target.tolist() == list(range(1, len(truth) + 1))
        assert bool(truth.masks.flatten(1).any(1).all()) and bool(
            (truth.is_thing | ~truth.is_crowd).all()
        )
        stuff = truth.label[~truth.is_thing].tolist()
        assert len(stuff) == len(set(stuff))


def test_parts_fill_instances_and_nothing_else(scenes):
    for scene in scenes:
        things = scene.truth.masks[scene.truth.is_thing].any(0)
        assert bool(((scene.truth.parts > 0) == things).all())
        assert int(scene.truth.parts.max()) <= len(PARTS)


def test_border_lines_are_the_outer_pixels_of_things(scenes):
    owner = np.zeros((5, 6), np.int64)
    owner[1:4, 1:3], owner[1:4, 3:5] = 1, 2
    lines = outlines(owner, 1)
    expected = np.zeros((5, 6), bool)
    expected[0, 1:5] = expected[4, 1:5] = expected[1:4, 0] = expected[1:4, 5] = True
    expected[1:4, 2] = True  # between two things the later one's neighbour gives way
    assert np.array_equal(lines, expected)
    scene = scenes[0]
    plain, lined = scene.truth_with(border=False), scene.truth_with(border=True)
    assert not bool(plain.void.any()) and bool(lined.void.any())


# ---- what the benchmark promises ---------------------------------------------------------------------------


def thing_masks(scene):
    truth = scene.truth
    keep = truth.is_thing & ~truth.is_crowd
    return truth.masks[keep].numpy(), truth.label[keep].tolist()


def is_split(mask: np.ndarray) -> bool:
    labelled, pieces = ndimage.label(mask)
    sizes = sorted(np.bincount(labelled.ravel())[1:])
    return pieces > 1 and sizes[-2] > 0.1 * mask.sum()


def touches_its_kind(masks, labels) -> bool:
    grown = [ndimage.binary_dilation(mask, iterations=2) for mask in masks]
    return any(
        labels[a] == labels[b] and (grown[a] & masks[b]).any()
        for a, b in combinations(range(len(masks)), 2)
    )


def is_cut(mask: np.ndarray) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def test_hard_cases_occur_in_their_shares(scenes):
    seen = Counter()
    for scene in scenes:
        masks, labels = thing_masks(scene)
        seen["split"] += any(is_split(mask) for mask in masks)
        seen["touching"] += touches_its_kind(masks, labels)
        seen["cut"] += any(is_cut(mask) for mask in masks)
        seen["crowd"] += bool(scene.truth.is_crowd.any())
        seen["void"] += bool(scene.truth.void.any())
    share = {name: count / len(scenes) for name, count in seen.items()}
    limits = {
        "split": (0.08, 0.35),
        "touching": (0.1, 0.35),
        "cut": (0.25, 0.65),
        "crowd": (0.03, 0.15),
        "void": (0.2, 0.4),
    }
    outside = {
        name: share[name] for name, (low, high) in limits.items() if not low < share[name] < high
    }
    assert not outside


def test_sizes_spread_over_coco_small_medium_and_large(scenes):
    at_640 = np.concatenate([thing_masks(scene)[0].sum((1, 2)) for scene in scenes]) * 100.0
    assert (
        (at_640 < 32**2).any()
        and ((at_640 >= 32**2) & (at_640 < 96**2)).any()
        and (at_640 >= 96**2).any()
    )
    roots = np.sqrt(at_640) / 5
    assert 28 < np.median(roots) < 40 and np.percentile(roots, 98) > 60


def test_all_classes_occur_and_pictures_hold_few_creatures(scenes):
    counts = Counter(label for scene in scenes for label in scene.truth.label.tolist())
    assert len(THINGS) >= 10 and len(STUFF) >= 4
    assert set(counts) == set(range(len(CATEGORIES)))
    numbers = [len(thing_masks(scene)[0]) for scene in scenes]
    assert 1 <= min(numbers) and max(numbers) <= 5


@pytest.mark.parametrize("part", ["head", "torso"])
def test_no_look_of_a_part_gives_its_class_away(part):
    owners = Counter(getattr(species, part) for species in SPECIES)
    assert min(owners.values()) >= 2


def test_no_two_classes_share_all_they_have():
    for a, b in combinations(SPECIES, 2):
        assert (a.head, a.torso) != (b.head, b.torso)


def test_parts_of_one_creature_look_unlike_each_other(scenes):
    """Mean colours of two visible parts of one creature differ clearly, in most of all cases."""
    distances = []
    for scene in scenes:
        parts = scene.truth.parts.numpy()
        for mask in thing_masks(scene)[0]:
            visible = [k + 1 for k in range(len(PARTS)) if (mask & (parts == k + 1)).sum() >= 12]
            colours = [scene.image[mask & (parts == k)].mean(0) for k in visible]
            distances += [np.linalg.norm(a - b) for a, b in combinations(colours, 2)]
    assert np.percentile(distances, 10) > 20 and np.median(distances) > 60


# ---- on disk -----------------------------------------------------------------------------------------------


def drawn(split: str, count: int):
    return [draw(5, split, index, 96) for index in range(count)]


def test_coco_instances_read_back_the_same_masks(folder, capsys):
    for split, count, first in (("train", 12, 1), ("val", 4, 400_001)):
        coco = COCO(str(folder / f"coco/annotations/instances_{split}2017.json"))
        assert sorted(coco.getImgIds()) == list(range(first, first + count))
        assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == [c.name for c in THINGS]
        ids = [a["id"] for a in coco.dataset["annotations"]]
        assert len(ids) == len(set(ids))
        for number, scene in enumerate(drawn(split, count), first):
            truth = scene.truth.pick(scene.truth.is_thing)
            found = coco.loadAnns(coco.getAnnIds(number))
            assert [coco.annToMask(a).sum() for a in found] == [a["area"] for a in found]
            assert np.array_equal(np.stack([coco.annToMask(a) for a in found]), truth.masks.numpy())
            assert [a["category_id"] for a in found] == [
                CATEGORIES[x].id for x in truth.label.tolist()
            ]
            assert [a["iscrowd"] for a in found] == truth.is_crowd.int().tolist()
    capsys.readouterr()


def test_coco_panoptic_reads_back_the_same_segments(folder):
    for split, count in (("train", 12), ("val", 4)):
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
    for split, count in (("train", 12), ("val", 4)):
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
    make(tmp_path / "few", "coco", images=3, size=96, seed=5, val=1, workers=2, progress=False)
    for path in sorted((tmp_path / "few").rglob("*.[jp][pn]g")):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "few")).read_bytes()


def test_the_same_request_again_touches_nothing(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    make(folder, "all", images=12, size=96, seed=5, val=4, pretrain=2, progress=False)
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
    seen = []

    def fail_on_third(scene):
        seen.append(scene)
        if len(seen) == 3:
            raise failure
        return ""

    monkeypatch.setattr(write, "hash_of", fail_on_third)
    expected = InputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught:
        make(tmp_path / "out", "coco", images=4, size=64, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert not isinstance(failure, OSError) or "No space left" in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"layout": "yolo"}, {"images": 0}, {"size": 8}, {"seed": -1}, {"pretrain": -3}, {"val": 0}],
)
def test_bad_recipes_are_refused_before_anything_is_written(wrong, tmp_path):
    with pytest.raises(InputError):
        make(tmp_path / "out", **{"layout": "coco", "images": 2, "progress": False, **wrong})
    assert list(tmp_path.iterdir()) == []
