"""The dataset doctor: every planted fault is named with its file, sound data has none, nothing on
disk changes."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from support import small_datasets as small

from pointseg.data.bestiary import make
from pointseg.data.doctor import check
from pointseg.data.layouts import open_dataset
from pointseg.data.masks import perimeter
from pointseg.data.measures import shoelace
from pointseg.data.points import sample_points, write_points


def state_of(root: Path) -> dict:
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*")
        if path.is_file()
    }


def faults_of(root, *words, **options):
    """The faults of a root; there is one with all of `words`, and looking changed nothing."""
    before = state_of(root)
    report = check(root, **options)
    assert state_of(root) == before
    assert any(all(word in fault for word in words) for fault in report.faults), report.faults
    assert not any("\n" in line for line in report.faults + report.notes)
    return report.faults


def edit_json(file, edit):
    data = json.loads(file.read_text())
    edit(data)
    file.write_text(json.dumps(data))


@pytest.fixture(scope="module")
def bestiary(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "bestiary"
    make(out, "all", images=3, size=64, seed=5, val=2, pretrain=2, progress=False)
    return out


def test_sound_data_has_no_fault(bestiary):
    before = state_of(bestiary)
    report = check(bestiary)
    assert report.faults == [] and state_of(bestiary) == before
    assert report.counts["panoptic train: images"] == report.counts["coco train: images"] == 3
    assert report.counts["voc trainval: images"] == 5
    assert report.counts["voc pretrain: images"] == report.counts["folder pretrain: images"] == 2
    dataset = open_dataset(bestiary, "train", "coco")
    truths = [dataset.truth(i) for i in range(len(dataset))]
    assert report.counts["coco train: objects"] == sum(map(len, truths))
    assert report.counts["coco train: crowd regions"] == sum(int(t.is_crowd.sum()) for t in truths)


def test_void_and_empty_images_are_counted(tmp_path):
    small.coco(tmp_path)
    small.voc(tmp_path)
    report = check(tmp_path)
    assert report.faults == []
    assert report.counts["coco train: crowd regions"] == 1
    assert report.counts["coco train: images without any segment"] == 1
    assert report.counts["voc train: void pixels"] == 2 * small.W
    audit = "2 images, 3 objects, 0 stuff segments, 1 crowd regions, 1 images without any segment"
    assert any(
        note.startswith(f"coco train: {audit}") and note.endswith(", 0.00 % void")
        for note in report.notes
    )
    assert any(
        note.startswith("voc train: 2 images, 4 objects") and "10.00 % void" in note
        for note in report.notes
    )


def test_all_faults_are_listed_not_the_first(tmp_path):
    file = small.coco(tmp_path)

    def spoil(data):
        data["annotations"][0]["category_id"] = 77
        data["annotations"][1]["segmentation"]["counts"] = "~"
        data["annotations"][2]["area"] = 13  # a crowd: COCO's own areas differ there
        data["images"].append(dict(data["images"][0]))
        data["images"].append({"id": 3, "file_name": "../3.png", "height": 5, "width": 5})
        data["images"].append({"id": 4, "file_name": "4.png", "height": 5, "width": 5})

    edit_json(file, spoil)
    (tmp_path / "train2017" / "2.png").write_bytes(b"")
    faults = faults_of(tmp_path, file.name, "unknown category 77")
    for words in [
        (file.name, "annotation 12", "corrupt run lengths"),
        (file.name, "images[2]", "duplicate id 1"),
        (file.name, "images[3]", "leaves the folder"),
        ("4.png", "no such file"),
        ("2.png", "empty"),
    ]:
        assert any(all(word in fault for word in words) for fault in faults), words
    assert len(faults) == 6


def test_wrong_areas_are_named(tmp_path):
    file = small.coco(tmp_path)
    edit_json(file, lambda d: d["annotations"][1].update(area=11))
    faults = faults_of(tmp_path, file.name, "segment 12 (image 1)", "area 11", "12 pixels")
    assert len(faults) == 1
    edit_json(file, lambda d: d["annotations"][1].update(area=12))
    edit_json(
        file, lambda d: d["annotations"][0].update(area=24 + 20 + 2)
    )  # beyond the border's pixels
    assert len(faults_of(tmp_path, "segment 11", "area 46")) == 1
    edit_json(file, lambda d: d["annotations"][0].update(area="24"))
    faults_of(tmp_path, "segment 11", "area '24'")


def test_areas_by_hand():
    assert shoelace([3, 2, 9, 2, 9, 6, 3, 6]) == 24 == small.BOX.sum()
    assert shoelace([0, 0, 4, 0, 0, 3]) == 6
    assert perimeter(small.BOX) == 2 * (4 + 6)
    assert perimeter(np.ones((3, 5), bool)) == 16


def test_panoptic_ids_and_areas_are_compared_both_ways(tmp_path):
    file = small.panoptic(tmp_path, ids=np.where(small.BOX, 70000, np.where(small.CORNER, 999, 0)))
    edit_json(file, lambda d: d["annotations"][0]["segments_info"][0].update(area=25))
    faults = faults_of(
        tmp_path, "1.png", "segment 300 is in panoptic_train2017.json and not in the PNG"
    )
    assert any("segment 999 is in the PNG and not in" in fault for fault in faults)
    assert any(
        "segment 70000 (image 1): area 25, its mask has 24 pixels" in fault for fault in faults
    )
    assert len(faults) == 3


def test_missing_and_unreadable_masks_are_named(tmp_path):
    small.panoptic(tmp_path / "pan")
    png = tmp_path / "pan" / "annotations" / "panoptic_train2017" / "1.png"
    png.write_bytes(png.read_bytes()[:50])
    faults_of(tmp_path / "pan", "panoptic_train2017/1.png", "image")
    folder = small.voc(tmp_path / "voc")
    small.index_png(folder / "SegmentationObject" / "a.png", np.zeros((2, 2)))
    (folder / "SegmentationClass" / "b.png").unlink()
    (folder / "JPEGImages" / "b.jpg").write_bytes(
        (folder / "JPEGImages" / "b.jpg").read_bytes()[:100]
    )
    faults = faults_of(tmp_path / "voc", "SegmentationObject/a.png", "mask is 2x2, its image 12x10")
    assert any("JPEGImages/b.jpg" in fault for fault in faults)


def test_missing_folders_and_lists_are_named(tmp_path):
    folder = small.voc(tmp_path, ["a"])
    (folder / "SegmentationObject" / "a.png").unlink()
    (folder / "SegmentationObject").rmdir()
    (folder / "ImageSets" / "Segmentation" / "val.txt").write_text("")
    faults = faults_of(tmp_path, "SegmentationObject: the folder is missing")
    assert any("split 'val' has no images" in fault for fault in faults)
    (tmp_path / "nothing").mkdir()
    faults_of(tmp_path / "nothing", "nothing", "has no split in any layout")
    faults_of(tmp_path / "none", "none", "is not a folder")


def test_truncated_json_is_named_and_the_other_split_still_examined(tmp_path):
    file = small.coco(tmp_path)
    other = small.write_json(tmp_path / "annotations" / "instances_val2017.json", small.coco_data())
    for k in (1, 2):
        small.photo(tmp_path / "val2017" / f"{k}.png")
    file.write_text(file.read_text()[:300])
    edit_json(other, lambda d: d["annotations"][1].update(category_id=0))
    faults = faults_of(tmp_path, file.name, "is not whole JSON")
    assert any(other.name in fault and "unknown category 0" in fault for fault in faults)


def test_notes_are_no_faults(tmp_path):
    folder = small.voc(tmp_path / "voc", ["a"])
    small.index_png(
        folder / "SegmentationClass" / "a.png", np.where(small.BOX, 8, small.voc_values(0, 12))
    )
    assert check(tmp_path / "voc").faults == []
    shifted = small.voc_values(8, 12)
    shifted[5, 5] = 255
    small.index_png(folder / "SegmentationClass" / "a.png", shifted)
    report = check(tmp_path / "voc")
    assert report.faults == [] and any(
        "1 pixels where class and object PNG disagree" in n for n in report.notes
    )
    assert any("voc train: 1 images; the official split has 1464" in note for note in report.notes)
    small.coco(tmp_path / "coco")
    small.photo(tmp_path / "coco" / "train2017" / "unlisted.png")
    report = check(tmp_path / "coco")
    assert report.faults == [] and any("unlisted.png" in note for note in report.notes)


def test_a_plain_folder_is_examined(tmp_path):
    small.photo(tmp_path / "one.png")
    assert check(tmp_path).faults == []
    (tmp_path / "two.jpg").write_bytes(b"no image")
    assert len(faults_of(tmp_path, "two.jpg", "is not an image")) == 1


# --- points ---------------------------------------------------------------------------------------


def planted(tmp_path, bestiary, layout, edit, kind="uniform"):
    """The doctor's report on a points file whose record was edited and hashed anew."""
    file = tmp_path / "points.json"
    dataset = open_dataset(bestiary, "train", layout)
    write_points(file, sample_points(dataset, kind))
    record = json.loads(file.read_text())
    edit(record, dataset)
    record.pop("content_hash")
    body = json.dumps(record, sort_keys=True, separators=(",", ":"))
    file.write_text(
        json.dumps({**record, "content_hash": hashlib.sha256(body.encode()).hexdigest()})
    )
    return check(bestiary, points=file)


@pytest.mark.parametrize("layout", ["panoptic", "coco", "voc", "voc-panoptic"])
@pytest.mark.parametrize("kind", ["uniform", "extreme", "jitter"])
def test_sampled_points_are_sound(tmp_path, bestiary, layout, kind):
    assert planted(tmp_path, bestiary, layout, lambda record, dataset: None, kind).faults == []


def first_target(record):
    return next(target for image in record["images"] for target in image["targets"])


def other_class(record):
    return next(
        c["id"] for c in record["categories"] if c["id"] != first_target(record)["category_id"]
    )


def outside(record, dataset):
    """Move the first point to a pixel that its mask does not have."""
    target = first_target(record)
    truths = [dataset.truth(i) for i in range(len(dataset))]
    mask = next(
        t.masks[t.target == target["id"]][0] for t in truths if (t.target == target["id"]).any()
    )
    row, column = (~mask).nonzero()[0].tolist()
    target["points"][0] = [column + 0.5, row + 0.5]


FAULTY_POINTS = {
    "outside": (outside, "lies outside the mask of target"),
    "other source": (lambda r, _: r.update(source_hash="0" * 64), "source hash differs"),
    "unknown image": (lambda r, _: r["images"][0].update(id=987654), "image 987654 is not in"),
    "unknown target": (
        lambda r, _: first_target(r).update(id=987654),
        "target 987654 is not in the annotations",
    ),
    "another class": (lambda r, _: first_target(r).update(category_id=other_class(r)), "there"),
    "another size": (
        lambda r, _: r["images"][0].update(width=r["images"][0]["width"] + 1),
        "its image 64x64",
    ),
}


@pytest.mark.parametrize("case", FAULTY_POINTS)
def test_faulty_points_are_named(tmp_path, bestiary, case):
    edit, cause = FAULTY_POINTS[case]
    report = planted(tmp_path, bestiary, "coco", edit)
    assert [f for f in report.faults if "points.json" in f and cause in f], report.faults


def test_a_hand_may_miss_its_mask(tmp_path, bestiary):
    report = planted(tmp_path, bestiary, "coco", outside, "jitter")
    assert report.faults == [] and any("lies outside" in note for note in report.notes)


def test_a_points_file_in_the_root_is_found(tmp_path):
    small.photo(tmp_path / "one.png")
    (tmp_path / "points.json").write_text('{"format": "pointseg points", "version": 1}')
    faults_of(tmp_path, "points.json")


# --- real photographs -----------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(
    "folder, layout", [("coco2017_panoptic", "panoptic"), ("VOCdevkit", "voc")]
)
def test_the_real_photographs_are_sound(shared_data, folder, layout):
    assert check(shared_data / folder, layout).faults == []


@pytest.mark.realdata
def test_the_official_counts_are_noted(shared_data):
    notes = check(shared_data, layout="voc").notes
    for split, count in {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582}.items():
        assert any(note.startswith(f"voc {split}:") and note.endswith(str(count)) for note in notes)
