"""COCO and VOC mask AP: hand-worked curves, slow literal oracles, pycocotools as referee, bad
files."""

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.coco_referee import pycocotools_ap, random_annotations

from pointseg.metrics import rle
from pointseg.metrics.coco_ap import NAMES, coco_ap, score
from pointseg.metrics.scores import evaluate_instances_files, instance_scores
from pointseg.metrics.voc_ap import eleven_point_ap, envelope_ap, mask_iou, right, voc_ap
from pointseg.structures import Category, InputError, Instances, Truth

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
CATEGORIES = (
    Category(1, "cat"),
    Category(2, "dog"),
    Category(9, "cow"),
    Category(20, "sky", False),
)


def random_masks(rng, n, h=24, w=30):
    """[n, h, w] bool rectangles."""
    masks = torch.zeros(n, h, w, dtype=torch.bool)
    for mask in masks:
        r, c = rng.integers(h - 4), rng.integers(w - 4)
        mask[r : r + rng.integers(2, 14), c : c + rng.integers(2, 14)] = True
    return masks


def boxes_of(masks):
    """[n, 4] xyxy of non-empty masks."""
    rows = [m.nonzero() for m in masks]
    corners = [torch.cat([r.min(0).values.flip(0), r.max(0).values.flip(0) + 1]) for r in rows]
    return torch.stack(corners).float() if corners else torch.zeros(0, 4)


def random_scene(seed, crowd=0.0):
    """A truth of 0..6 objects, and predictions that are shifted copies of some and some
    inventions."""
    rng = np.random.default_rng(seed)
    masks = random_masks(rng, rng.integers(0, 7))
    label = torch.as_tensor(rng.integers(0, 3, len(masks)))
    is_crowd = torch.as_tensor(rng.random(len(masks)) < crowd)
    yes = torch.ones(len(masks), dtype=torch.bool)
    truth = Truth(
        masks,
        label,
        torch.arange(1, len(masks) + 1),
        yes,
        is_crowd,
        torch.zeros(24, 30, dtype=torch.bool),
    )
    copied = torch.as_tensor(np.repeat(np.arange(len(masks)), rng.integers(0, 3, len(masks))))
    copies = [torch.roll(m, tuple(rng.integers(-3, 4, 2)), (0, 1))[None] for m in masks[copied]]
    predicted = torch.cat([*copies, random_masks(rng, rng.integers(0, 4))])
    guess = torch.as_tensor(rng.integers(0, 3, len(predicted)))
    guess[: len(copied)] = label[copied]
    scores = torch.as_tensor(rng.permutation(1000)[: len(predicted)] / 1000 + seed % 97 * 1e-6)
    return truth, Instances(predicted, scores, guess, boxes_of(predicted))


def scenes(seed, n=5, crowd=0.0):
    truths, predictions = zip(*[random_scene(100 * seed + k, crowd) for k in range(n)])
    return list(truths), list(predictions)


def slow_voc(truths, predictions, threshold):
    """The rule word by word: {rule: AP in percent}, loops over pixels' sums, objects and
    recalls."""
    eleven, area = [], []
    for c in range(3):
        detections = []
        objects = sum(int((t.label == c).sum()) for t in truths)
        if objects == 0:
            continue
        for truth, prediction in zip(truths, predictions):
            mine = [m for m, lab in zip(truth.masks, truth.label) if lab == c]
            taken = [False] * len(mine)
            rows = [k for k in range(len(prediction.scores)) if prediction.label[k] == c]
            for k in sorted(rows, key=lambda k: -float(prediction.scores[k])):
                predicted = prediction.masks[k]
                ious = [float((predicted & m).sum()) / float((predicted | m).sum()) for m in mine]
                best = max(range(len(mine)), key=lambda j: ious[j]) if mine else None
                hit = best is not None and ious[best] >= threshold and not taken[best]
                if hit:
                    taken[best] = True
                detections.append((float(prediction.scores[k]), hit))
        detections.sort(key=lambda d: -d[0])
        curve = []
        for k in range(1, len(detections) + 1):
            hits = sum(hit for _, hit in detections[:k])
            curve.append((hits / objects, hits / k))
        eleven.append(
            sum(max([p for r, p in curve if r >= g * 0.1], default=0.0) for g in range(11)) / 11
        )
        steps, last = 0.0, 0.0
        for k, (recall, _) in enumerate(curve):
            steps += (recall - last) * max(p for _, p in curve[k:])
            last = recall
        area.append(steps)
    mean = lambda v: 100 * sum(v) / len(v) if v else math.nan  # noqa: E731
    return {"11pt": mean(eleven), "area": mean(area)}


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_voc_equals_the_rule_word_by_word(seed):
    truths, predictions = scenes(seed)
    fast = voc_ap(truths, predictions, thresholds=(0.25, 0.5, 0.75))
    for threshold in (0.25, 0.5, 0.75):
        for rule, value in slow_voc(truths, predictions, threshold).items():
            assert fast[f"voc_mAP{threshold * 100:.0f}_{rule}"] == pytest.approx(
                value, abs=1e-9, nan_ok=True
            )


def test_hand_worked_curves():
    """Right, wrong, right on three objects: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3."""
    hits = np.array([1, 0, 1])
    recall, precision = np.cumsum(hits) / 3, np.cumsum(hits) / np.arange(1, 4)
    assert envelope_ap(recall, precision) == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)
    # recalls 0 .1 .2 .3 read precision 1; .4 .5 .6 read 2/3; .7 .8 .9 1 are out of reach
    assert eleven_point_ap(recall, precision) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_one_of_two_objects_found_perfectly():
    """Area: half of the axis at precision 1. Eleven points: recalls 0 ... .5 are six of eleven."""
    recall, precision = np.array([0.5]), np.array([1.0])
    assert envelope_ap(recall, precision) == 0.5
    assert eleven_point_ap(recall, precision) == pytest.approx(6 / 11)


def test_a_curve_without_detections_is_zero_under_both_rules():
    assert envelope_ap(np.zeros(0), np.zeros(0)) == 0 == eleven_point_ap(np.zeros(0), np.zeros(0))


def test_recall_of_exactly_three_tenths_misses_its_grid_point_as_in_chainercv():
    assert eleven_point_ap(np.array([0.3]), np.array([1.0])) == pytest.approx(3 / 11)


def test_no_second_choice_and_the_threshold_itself_counts():
    iou = np.array([[0.9, 0.0], [0.6, 0.55], [0.0, 0.5]])
    assert right(iou, 0.5).tolist() == [True, False, True]


def test_a_detection_that_misses_leaves_its_object_free():
    assert right(np.array([[0.4], [0.6]]), 0.5).tolist() == [False, True]


def test_voc_gives_no_second_choice_where_coco_does():
    """Two objects side by side; the second detection prefers the taken one, and would do for the
    other too."""
    masks = torch.zeros(2, 1, 10, dtype=torch.bool)
    masks[0, 0, :5] = masks[1, 0, 5:] = True
    predicted = torch.zeros(2, 1, 10, dtype=torch.bool)
    predicted[0, 0, :5] = True
    predicted[1, 0] = True  # covers both, IoU .5 with each; arg-max is the first
    truth = truth_of(masks)
    prediction = Instances(
        predicted, torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.long), boxes_of(predicted)
    )
    scores = instance_scores([truth], [prediction], CATEGORIES)
    assert scores["voc_mAP50_area"] == pytest.approx(50)
    assert scores["AP50"] == pytest.approx(100)


def truth_of(masks, label=None, crowd=None):
    n = len(masks)
    no = torch.zeros(n, dtype=torch.bool)
    label = torch.zeros(n, dtype=torch.long) if label is None else label
    return Truth(
        masks,
        label,
        torch.arange(1, n + 1),
        ~no,
        no if crowd is None else crowd,
        torch.zeros_like(masks[0]),
    )


def echo(truth, score=0.5):
    return Instances(
        truth.masks, torch.full((len(truth),), score), truth.label, boxes_of(truth.masks)
    )


def test_perfect_is_100_and_nothing_is_0():
    truths = [
        truth_of(random_masks(np.random.default_rng(k), 3), torch.tensor([0, 1, 2]))
        for k in range(4)
    ]
    nothing = Instances(
        torch.zeros(0, 24, 30, dtype=torch.bool),
        torch.zeros(0),
        torch.zeros(0).long(),
        torch.zeros(0, 4),
    )
    perfect = instance_scores(truths, [echo(t) for t in truths], CATEGORIES)
    empty = instance_scores(truths, [nothing] * 4, CATEGORIES)
    for key in ("AP", "AP50", "box_AP", "voc_mAP50_11pt", "voc_mAP75_area", "voc_ABO"):
        assert perfect[key] == pytest.approx(100), key
        assert empty[key] == 0, key
    assert math.isnan(perfect["APl"])  # no object is large


def test_without_any_object_every_score_is_nan():
    truth = truth_of(torch.zeros(1, 4, 4, dtype=torch.bool)).pick(torch.zeros(1, dtype=torch.bool))
    nothing = Instances(
        torch.zeros(0, 4, 4, dtype=torch.bool),
        torch.zeros(0),
        torch.zeros(0).long(),
        torch.zeros(0, 4),
    )
    assert all(math.isnan(v) for v in instance_scores([truth], [nothing], CATEGORIES).values())


@given(st.integers(0, 10_000), st.randoms())
@settings(max_examples=10, deadline=None)
def test_order_of_images_detections_and_objects_does_not_matter(seed, random):
    truths, predictions = scenes(seed, n=4, crowd=0.2)
    shuffled = []
    for truth, predicted in zip(truths, predictions):
        rows = torch.tensor(
            random.sample(range(len(predicted.scores)), len(predicted.scores)), dtype=torch.long
        )
        order = torch.tensor(random.sample(range(len(truth)), len(truth)), dtype=torch.long)
        shuffled.append(
            (truth.pick(order), Instances(*(v[rows] for v in vars(predicted).values())))
        )
    random.shuffle(shuffled)
    first = instance_scores(truths, predictions, CATEGORIES)
    second = instance_scores(*zip(*shuffled), CATEGORIES)
    assert first == pytest.approx(second, abs=1e-9, nan_ok=True)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_memory_and_files_give_the_same_voc(seed):
    truths, predictions = scenes(seed, crowd=0.2)
    by_matrix = voc_ap(truths, predictions)
    by_runs = instance_scores(truths, predictions, CATEGORIES)
    gt, dt = as_files(truths, predictions)
    by_file = evaluate_instances_files(gt, dt, "voc")
    for key, value in by_matrix.items():
        assert by_runs[key] == pytest.approx(value, abs=1e-9, nan_ok=True)
        assert by_file[key] == pytest.approx(value, abs=1e-9, nan_ok=True)


def test_generators_are_read_once_and_suffice():
    truths, predictions = scenes(5)
    once = instance_scores(iter(truths), (p for p in predictions), CATEGORIES)
    assert once == pytest.approx(instance_scores(truths, predictions, CATEGORIES), nan_ok=True)


def test_lists_of_two_lengths_are_refused():
    truths, predictions = scenes(5)
    with pytest.raises(ValueError, match="argument 2"):
        instance_scores(truths, predictions[:-1], CATEGORIES)


def text(code):
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


def as_files(truths, predictions):
    """What json.load would give of COCO files with these scenes; category ids are not labels."""
    gt = {
        "images": [],
        "annotations": [],
        "categories": [{"id": c.id, "name": c.name} for c in CATEGORIES],
    }
    dt = []
    for row, (truth, predicted) in enumerate(zip(truths, predictions)):
        gt["images"].append(
            {"id": f"im{row}", "file_name": f"{row}.png", "height": 24, "width": 30}
        )
        for code, c, crowd in zip(
            rle.encode(truth.masks), truth.label.tolist(), truth.is_crowd.tolist()
        ):
            gt["annotations"].append(
                {
                    "id": len(gt["annotations"]),
                    "image_id": f"im{row}",
                    "category_id": CATEGORIES[c].id,
                    "segmentation": text(code),
                    "area": float(coco_mask.area(code)),
                    "iscrowd": int(crowd),
                    "bbox": coco_mask.toBbox(code).tolist(),
                }
            )
        for code, c, s in zip(
            rle.encode(predicted.masks), predicted.label.tolist(), predicted.scores.tolist()
        ):
            dt.append(
                {
                    "image_id": f"im{row}",
                    "category_id": CATEGORIES[c].id,
                    "segmentation": text(code),
                    "score": s,
                }
            )
    return gt, dt


def referee(gt, dt, iou_type):
    """pycocotools by its own loader; annotation ids from 1, as it needs."""
    gt = json.loads(json.dumps(gt))
    for number, entry in enumerate(gt["annotations"], start=1):
        entry["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = gt | {"info": {}}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(json.loads(json.dumps(dt))), iou_type)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {n: math.nan if v < 0 else 100 * v for n, v in zip(NAMES, evaluation.stats)}


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_all_twelve_numbers_have_the_digits_of_pycocotools(iou_type, seed):
    data = random_annotations(seed)
    np.testing.assert_equal(score(data, iou_type), pycocotools_ap(data, iou_type))


def test_the_referee_sees_a_detection_that_goes_astray():
    data = random_annotations(3)
    before, entry = score(data), max(data.detections, key=lambda d: d["score"])
    entry["score"] = -1.0
    assert pycocotools_ap(data, "segm") == pytest.approx(score(data), nan_ok=True)
    assert score(data) != pytest.approx(before, nan_ok=True)


def test_images_of_numbers_and_texts_may_stand_in_one_file():
    gt, dt = as_files(*scenes(4))
    plain = coco_ap(gt, dt)
    number = {f"im{k}": k if k % 2 else f"im{k}" for k in range(5)}
    for entry in (*gt["annotations"], *dt):
        entry["image_id"] = number[entry["image_id"]]
    for image in gt["images"]:
        image["id"] = number[image["id"]]
    assert coco_ap(gt, dt) == pytest.approx(plain, nan_ok=True)


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_coco_equals_pycocotools_by_its_own_loader(seed):
    truths, predictions = scenes(seed, n=6, crowd=0.2)
    gt, dt = as_files(truths, predictions)
    if dt:
        assert coco_ap(gt, dt) == pytest.approx(referee(gt, dt, "segm"), abs=1e-9, nan_ok=True)
        memory = instance_scores(truths, predictions, CATEGORIES)
        boxes = {k.removeprefix("box_"): v for k, v in memory.items() if k.startswith("box_")}
        with_boxes = [d | {"bbox": coco_mask.toBbox(d["segmentation"]).tolist()} for d in dt]
        assert boxes == pytest.approx(referee(gt, with_boxes, "bbox"), abs=1e-9, nan_ok=True)


def hollow_scene():
    """An object of 30 x 30 found, and a wrong detection: a frame whose mask is small and whose box
    is medium."""
    masks = torch.zeros(2, 150, 150, dtype=torch.bool)
    masks[0, :30, :30] = True
    masks[1, 60:110, 60:110], masks[1, 62:108, 62:108] = True, False
    gt = {
        "images": [{"id": 1, "file_name": "1.png", "height": 150, "width": 150}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    gt["annotations"] = [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "area": 900.0,
            "bbox": [0, 0, 30, 30],
            "segmentation": text(rle.encode(masks)[0]),
        }
    ]
    dt = [
        {"image_id": 1, "category_id": 1, "segmentation": text(code), "score": score}
        for code, score in zip(rle.encode(masks), (0.5, 0.9))
    ]
    return gt, dt


def test_an_annotation_of_id_0_can_be_found():
    """pycocotools alone takes a match with id 0 for none."""
    gt, dt = hollow_scene()
    gt["annotations"][0]["id"] = 0
    assert coco_ap(gt, dt[:1])["AP"] == pytest.approx(100)
    assert coco_ap(gt, dt[:1], "bbox")["AP"] == pytest.approx(100)


def test_size_classes_go_by_mask_for_masks_and_by_box_for_boxes():
    gt, dt = hollow_scene()
    with_boxes = [
        d | {"bbox": coco_mask.toBbox(d["segmentation"]).tolist(), "area": 1e6} for d in dt
    ]
    by_mask = coco_ap(gt, with_boxes, "segm")
    assert by_mask == pytest.approx(referee(gt, dt, "segm"), nan_ok=True)
    assert by_mask["APs"] == pytest.approx(
        50
    )  # the frame's mask is small: it counts as a mistake there
    by_box = coco_ap(gt, with_boxes, "bbox")
    assert by_box == pytest.approx(referee(gt, with_boxes, "bbox"), nan_ok=True)
    assert by_box["APs"] == pytest.approx(100)  # its box is medium: no mistake among the small


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
def test_coco_on_real_annotations_equals_pycocotools(split):
    path = DATA / "coco2017_instances" / "annotations" / f"instances_{split}2017.json"
    if not path.exists():
        pytest.skip("../shared/data is absent")
    gt = json.loads(path.read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in gt["images"]}
    rng, dt = np.random.default_rng(0), []
    for entry in gt["annotations"]:
        code = rle.checked(entry["segmentation"], *sizes[entry["image_id"]])
        moved = np.roll(coco_mask.decode(code), rng.integers(-6, 7, 2), (0, 1))
        kept = text(coco_mask.encode(np.asfortranarray(moved)))
        if rng.random() < 0.9:
            dt.append(
                {
                    "image_id": entry["image_id"],
                    "category_id": entry["category_id"],
                    "segmentation": kept,
                    "score": rng.random(),
                }
            )
    assert coco_ap(path, dt) == pytest.approx(referee(gt, dt, "segm"), abs=1e-9, nan_ok=True)


def test_nothing_is_printed_and_nothing_is_changed(capfd):
    gt, dt = as_files(*scenes(3))
    before = json.dumps([gt, dt])
    coco_ap(gt, dt, per_class=True)
    assert capfd.readouterr() == ("", "")
    assert json.dumps([gt, dt]) == before


def test_per_class_ap_averages_to_ap():
    gt, dt = as_files(*scenes(4))
    scores = coco_ap(gt, dt, per_class=True)
    assert np.nanmean([v for k, v in scores.items() if k.startswith("AP/")]) == pytest.approx(
        scores["AP"]
    )


def test_a_crowd_forgives_in_coco_and_not_in_voc():
    masks = torch.zeros(2, 10, 20, dtype=torch.bool)
    masks[0, :, :5], masks[1, :, 10:] = True, True
    truth = truth_of(masks, crowd=torch.tensor([False, True]))
    predicted = masks.clone()
    predicted[1, :, 15:] = False  # inside the crowd region
    prediction = Instances(
        predicted, torch.tensor([0.5, 0.9]), torch.zeros(2).long(), boxes_of(predicted)
    )
    scores = instance_scores([truth], [prediction], CATEGORIES)
    assert scores["AP"] == pytest.approx(100)
    assert scores["voc_mAP50_area"] == pytest.approx(50)


def test_mask_iou_by_pixel_counting():
    rng = np.random.default_rng(0)
    first, second = random_masks(rng, 3), random_masks(rng, 4)
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            assert mask_iou(first, second)[i, j] == pytest.approx(
                float((a & b).sum()) / float((a | b).sum())
            )


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 99))
def test_runs_are_those_of_the_mask(h, w, density, seed):
    mask = torch.as_tensor(np.random.default_rng(seed).random((1, h, w)) < density)
    code = rle.encode(mask)[0]
    column = mask[0].T.flatten().numpy()
    lengths = rle.runs(code["counts"])
    drawn = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    assert (drawn == column).all()
    assert rle.checked(text(code), h, w)["counts"] == text(code)["counts"]
    plain = rle.checked({"size": [h, w], "counts": lengths.tolist()}, h, w)
    assert plain["counts"] == code["counts"]


@given(st.binary(max_size=20))
def test_random_bytes_are_a_mask_or_a_clear_error(counts):
    try:
        assert 0 <= coco_mask.area(rle.checked({"size": [5, 4], "counts": counts}, 5, 4)) <= 20
    except ValueError as error:
        assert "\n" not in str(error)


def broken(change):
    gt, dt = as_files(*scenes(3))
    change(gt, dt)
    return gt, dt


FAULTS = {
    "unknown image": lambda gt, dt: dt[0].update(image_id=77),
    "unknown category": lambda gt, dt: dt[0].update(category_id=77),
    "unknown category of truth": lambda gt, dt: gt["annotations"][0].update(category_id=77),
    "mask of another size": lambda gt, dt: dt[0]["segmentation"].update(size=[30, 24]),
    "too few runs": lambda gt, dt: dt[0]["segmentation"].update(counts="5"),
    "no code": lambda gt, dt: dt[0]["segmentation"].update(counts="~~~"),
    "nan score": lambda gt, dt: dt[0].update(score=math.nan),
    "no score": lambda gt, dt: dt[0].pop("score"),
    "text score": lambda gt, dt: dt[0].update(score="high"),
    "no mask and no box": lambda gt, dt: dt[0].pop("segmentation"),
    "box of three": lambda gt, dt: dt[0].update(bbox=[1, 2, 3]),
    "polygon of two corners": lambda gt, dt: gt["annotations"][0].update(
        segmentation=[[1, 2, 3, 4]]
    ),
    "polygon far outside": lambda gt, dt: gt["annotations"][0].update(
        segmentation=[[0, 0, 1e9, 0, 1e9, 5]]
    ),
    "image twice": lambda gt, dt: gt["images"].append(gt["images"][0]),
    "annotation twice": lambda gt, dt: gt["annotations"].append(gt["annotations"][0]),
    "category twice": lambda gt, dt: gt["categories"].append(gt["categories"][0]),
    "no images": lambda gt, dt: gt.update(images=[]),
    "no list": lambda gt, dt: gt.pop("annotations"),
    "no height": lambda gt, dt: gt["images"][0].pop("height"),
    "detection is a number": lambda gt, dt: dt.append(5),
    "area below zero": lambda gt, dt: gt["annotations"][0].update(area=-1.0),
    "area without an end": lambda gt, dt: gt["annotations"][0].update(area=math.inf),
    "area that is a text": lambda gt, dt: gt["annotations"][0].update(area="large"),
    "crowd of two": lambda gt, dt: gt["annotations"][0].update(iscrowd=2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_content_is_one_clear_line(fault):
    gt, dt = broken(FAULTS[fault])
    with pytest.raises(InputError) as caught:
        coco_ap(gt, dt)
    assert str(caught.value).startswith(("ground truth: ", "detections: ")) and "\n" not in str(
        caught.value
    )


@pytest.mark.parametrize("content", ["", "{", '{"images": [', "\x00", "[" * 100_000])
def test_a_cut_file_names_itself(tmp_path, content):
    path = tmp_path / "dt.json"
    path.write_text(content)
    gt, _ = as_files(*scenes(3))
    with pytest.raises(InputError, match=r"dt\.json: "):
        coco_ap(gt, path)


def test_a_missing_file_names_itself(tmp_path):
    with pytest.raises(InputError, match=r"gone\.json: no such file"):
        coco_ap(tmp_path / "gone.json", [])


def test_unknown_protocol_and_boxes_without_masks():
    gt, dt = as_files(*scenes(3))
    with pytest.raises(InputError, match="coco or voc"):
        evaluate_instances_files(gt, dt, "lvis")
    boxes = [
        {
            "image_id": d["image_id"],
            "category_id": d["category_id"],
            "score": d["score"],
            "bbox": [0, 0, 3, 3],
        }
        for d in dt
    ]
    assert "AP" not in (scores := evaluate_instances_files(gt, boxes)) and scores["box_AP"] >= 0
    with pytest.raises(InputError, match="needs a mask"):
        evaluate_instances_files(gt, boxes, "voc")
