"""Numbers that a file states and its pixels deny: what the doctor names, no scorer believes."""

import copy
import json

import pytest
from support import small_datasets as small

from pointseg.data.doctor import check
from pointseg.metrics.scores import evaluate_instances_files, evaluate_panoptic_files
from pointseg.structures import InputError


def truth(change=lambda data: None):
    data = small.coco_data()
    for entry, box in zip(data["annotations"], ([3, 2, 6, 4], [8, 7, 4, 3], [8, 0, 4, 3])):
        entry["bbox"] = box
    change(data)
    return data


def detections(change=lambda entries: None):
    entries = [
        {"image_id": 1, "category_id": c, "segmentation": small.compressed(mask), "score": s}
        for c, mask, s in ((5, small.BOX, 0.9), (9, small.CORNER, 0.8))
    ]
    change(entries)
    return entries


ENDLESS = 12345.678  # written as 1e400, which JSON allows and a float does not hold


def written(file):
    """The file with its endless numbers."""
    file.write_text(file.read_text().replace(str(ENDLESS), "1e400"))
    return file


def first(**changes):
    return lambda data: data["annotations"][1].update(changes)


UNTRUE = {
    "area below zero": (first(area=-1.0), "area"),
    "area of nothing": (first(area=ENDLESS), "area"),
    "area times three": (first(area=36), "12 pixels"),
    "area that is true": (first(area=True), "area"),
    "box elsewhere": (first(bbox=[0, 0, 4, 3]), "bbox"),
    "box of three": (first(bbox=[1, 2, 3]), "bbox"),
    "box of texts": (first(bbox=["1", 2, 3, 4]), "bbox"),
    "box of an endless number": (first(bbox=[8, 7, 4, 10**400]), "bbox"),
    "box below zero": (first(bbox=[8, 7, -4, 3]), "bbox"),
    "a mask is missing": (lambda d: d["annotations"][1].pop("segmentation"), "annotation"),
    "two categories of one name": (lambda d: d["categories"][1].update(name="cat"), "name 'cat'"),
    "two images of one file": (lambda d: d["images"][1].update(file_name="1.png"), "'1.png'"),
}


def test_sound_files_are_scored():
    scores = evaluate_instances_files(truth(), detections())
    assert scores["AP"] == scores["box_AP"] == pytest.approx(100)


@pytest.mark.parametrize("fault", UNTRUE)
def test_the_doctor_names_it_and_the_scorer_refuses_it(tmp_path, fault):
    change, cause = UNTRUE[fault]
    file = written(small.coco(tmp_path, truth(change)))
    assert any(cause in line for line in check(tmp_path).faults)
    with pytest.raises(InputError, match=cause) as caught:
        evaluate_instances_files(file, detections())
    assert file.name in str(caught.value) and "\n" not in str(caught.value)


def test_one_detection_without_a_mask_does_not_turn_off_mask_ap():
    boxed = detections(lambda entries: entries[1].update(segmentation=None, bbox=[8, 7, 4, 3]))
    with pytest.raises(InputError, match=r"detections: entry 2 .*has no mask, while others have"):
        evaluate_instances_files(truth(), boxed)
    everywhere = [{**each, "bbox": [8, 7, 4, 3]} for each in boxed]
    for each in everywhere:
        del each["segmentation"]
    assert "AP" not in evaluate_instances_files(truth(), everywhere)  # nobody asks for masks


def test_masks_are_not_scored_against_a_truth_of_boxes():
    def boxes_alone(data):
        for entry in data["annotations"]:
            del entry["segmentation"]

    with pytest.raises(InputError, match="ground truth: has no masks, and detections has"):
        evaluate_instances_files(truth(boxes_alone), detections())


def panoptic(folder, change=lambda data: None):
    data = small.panoptic_data()
    change(data)
    return small.panoptic(folder, data), folder / "annotations" / "panoptic_train2017"


def segment(**changes):
    return lambda data: data["annotations"][0]["segments_info"][0].update(changes)


@pytest.mark.parametrize(
    "change",
    [segment(area=-24), segment(area=ENDLESS), segment(area=None), segment(area="24"),
     lambda d: d["categories"][1].update(name="grass"), lambda d: d["images"][0].update(width=13)],
)  # fmt: skip
def test_a_panoptic_truth_is_held_to_its_pixels_by_both(tmp_path, change):
    gt, good = panoptic(tmp_path / "gt", change), panoptic(tmp_path / "dt")
    written(gt[0])
    assert check(tmp_path / "gt").faults
    with pytest.raises(InputError, match=r"panoptic_train2017"):
        evaluate_panoptic_files(*gt, *good)


def test_a_result_of_other_categories_is_refused(tmp_path):
    good = panoptic(tmp_path / "gt")
    assert evaluate_panoptic_files(*good, *panoptic(tmp_path / "same"))["PQ"] == 100
    other = panoptic(tmp_path / "dt", lambda d: d["categories"][1].update(isthing=0))
    with pytest.raises(InputError, match="category 5 has another name or isthing"):
        evaluate_panoptic_files(*good, *other)


def test_what_is_read_is_not_changed():
    gt, dt = truth(), detections()
    before = copy.deepcopy(json.dumps([gt, dt]))
    evaluate_instances_files(gt, dt)
    assert json.dumps([gt, dt]) == before
