"""Panoptic quality: hand-worked cases of panopticapi's rules, a loop over segments as oracle, real
and bad files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pointseg.data.images import read_segment_ids
from pointseg.metrics.panoptic_files import read_pairs
from pointseg.metrics.pq import Segments, by_class, count, count_image, panoptic_quality
from pointseg.metrics.scores import evaluate_panoptic_files, panoptic_scores
from pointseg.structures import Category, InputError, Panoptic, Truth

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
CATEGORIES = (Category(1, "cat"), Category(3, "dog"), Category(7, "grass", False))
CAT, DOG, GRASS = 0, 1, 2


def segments(pixels, **labels):
    """segments("aab.", a=CAT, b=GRASS): one row of pixels, '.' void, a capital letter is a
    crowd."""
    ids = {letter: 5 + 1000 * k for k, letter in enumerate(labels)}
    row = np.array([[0 if p == "." else ids[p] for p in pixels]])
    crowd = np.array([letter.isupper() for letter in labels], dtype=bool)
    return Segments(
        row,
        np.array(list(ids.values()), dtype=int),
        np.array(list(labels.values()), dtype=int),
        crowd,
    )


def rows(truth, prediction, crowds="last"):
    """{class: (sum of IoU, TP, FP, FN)} of the classes that have any."""
    counts = count([(truth, prediction)], len(CATEGORIES), crowds)
    table = np.stack(counts, axis=1)
    return {c: tuple(row) for c, row in enumerate(table) if row.any()}


def test_perfect_match():
    one = segments("aaab", a=CAT, b=GRASS)
    assert rows(one, one) == {CAT: (1, 1, 0, 0), GRASS: (1, 1, 0, 0)}


def test_an_iou_of_exactly_half_is_no_match():
    assert rows(segments("aa..", a=CAT), segments("a...", a=CAT)) == {CAT: (0, 0, 1, 1)}


def test_just_above_half_is_a_match():
    assert rows(segments("aaa", a=CAT), segments("aa.", a=CAT)) == {CAT: (2 / 3, 1, 0, 0)}


def test_another_class_never_matches():
    assert rows(segments("aaaa", a=CAT), segments("aaaa", a=DOG)) == {
        CAT: (0, 0, 0, 1),
        DOG: (0, 0, 1, 0),
    }


def test_true_void_leaves_the_union():
    """Prediction 6 px, object 4 px, 2 px on void: IoU 4/4, not 4/6."""
    assert rows(segments("aaaa..", a=CAT), segments("aaaaaa", a=CAT)) == {CAT: (1, 1, 0, 0)}


def test_predicted_void_does_not_leave_the_union():
    assert rows(segments("aaaa", a=CAT), segments("aaa.", a=CAT)) == {CAT: (3 / 4, 1, 0, 0)}


def test_a_prediction_half_on_void_is_wrong_and_more_than_half_forgiven():
    truth = segments("bbb...", b=GRASS)
    assert rows(truth, segments("..bbbb", b=CAT)) == {GRASS: (0, 0, 0, 1)}  # 3 of 4 on void
    assert rows(truth, segments(".bbbb.", b=CAT)) == {
        CAT: (0, 0, 1, 0),
        GRASS: (0, 0, 0, 1),
    }  # 2 of 4


def test_a_crowd_is_never_missed_and_never_matched():
    truth = segments("AAAA", A=CAT)
    assert rows(truth, segments("....")) == {}
    assert rows(truth, segments("aaaa", a=CAT)) == {}  # wholly on crowd of its class: forgiven
    assert rows(truth, segments("aaaa", a=DOG)) == {
        DOG: (0, 0, 1, 0)
    }  # crowd of another class excuses nothing


def test_void_and_crowd_add_up():
    truth = segments("AAbb..", A=CAT, b=GRASS)
    predicted = segments("aaaaaa", a=CAT)  # 2 on crowd + 2 on void of 6: 4/6 > 1/2
    assert rows(truth, predicted) == {GRASS: (0, 0, 0, 1)}


def test_of_two_crowds_of_a_class_the_last_listed_counts():
    truth = segments("AAABBbbb", A=CAT, B=CAT, b=GRASS)
    on_first, on_last = segments("aaa.....", a=CAT), segments("...aa...", a=CAT)
    assert rows(truth, on_first) == {CAT: (0, 0, 1, 0), GRASS: (0, 0, 0, 1)}
    assert rows(truth, on_last) == {GRASS: (0, 0, 0, 1)}
    assert rows(truth, on_first, crowds="all") == {GRASS: (0, 0, 0, 1)}


def test_one_object_in_two_halves_costs_a_miss_and_two_inventions():
    assert rows(segments("aaaa", a=CAT), segments("aabb", a=CAT, b=CAT)) == {CAT: (0, 0, 2, 1)}


def test_averages_by_hand():
    """cat: IoU 3/4, one FN -> PQ 1/2, SQ 3/4, RQ 2/3; dog absent; grass: IoU 1 -> 1."""
    truth = segments("aaaabgg", a=CAT, b=CAT, g=GRASS)
    predicted = segments("aaa..gg", a=CAT, g=GRASS)
    scores = panoptic_quality([(truth, predicted)], CATEGORIES, per_class=True)
    assert scores["PQ_th"] == pytest.approx(50) == scores["PQ/cat"]
    assert scores["SQ_th"] == pytest.approx(75) and scores["RQ_th"] == pytest.approx(200 / 3)
    assert scores["PQ_st"] == 100 and scores["PQ"] == pytest.approx(75)
    assert math.isnan(scores["PQ/dog"])


def slow(truth, prediction, classes, crowds):
    """The rules with one boolean image a segment: [class, (iou, tp, fp, fn)]."""
    table = np.zeros((classes, 4))
    void = truth.pixels == 0
    last = {}
    for i, label in enumerate(truth.label):
        if truth.crowd[i]:
            last[label] = [i] if crowds == "last" else [*last.get(label, []), i]
    hit_truth, hit_predicted = set(), set()
    for i, label in enumerate(truth.label):
        for j, other in enumerate(prediction.label):
            t, p = truth.pixels == truth.ids[i], prediction.pixels == prediction.ids[j]
            if label != other or truth.crowd[i]:
                continue
            iou = (
                (t & p).sum() / (t.sum() + p.sum() - (t & p).sum() - (p & void).sum())
                if (t & p).any()
                else 0
            )
            if iou > 0.5:
                table[label] += (iou, 1, 0, 0)
                hit_truth.add(i)
                hit_predicted.add(j)
    for i, label in enumerate(truth.label):
        table[label, 3] += i not in hit_truth and not truth.crowd[i]
    for j, label in enumerate(prediction.label):
        p = prediction.pixels == prediction.ids[j]
        excused = (p & void).sum() + sum(
            (p & (truth.pixels == truth.ids[i])).sum() for i in last.get(label, [])
        )
        table[label, 2] += j not in hit_predicted and not excused / p.sum() > 0.5
    return table


def random_map(rng, crowd, base=None):
    """Blocks of segments, sparse ids, some void; with `base` a disturbed copy of it."""
    pixels = np.zeros((12, 14), dtype=int) if base is None else base.copy()
    names = rng.choice(2**24 - 1, size=8, replace=False) + 1
    for name in names[: rng.integers(1, 9 if base is None else 4)]:
        r, c = rng.integers(0, 9, 2)
        pixels[r : r + rng.integers(1, 9), c : c + rng.integers(1, 9)] = (
            name if rng.random() < 0.9 else 0
        )
    ids = rng.permutation(np.unique(pixels[pixels > 0]))
    return Segments(pixels, ids, rng.integers(0, 3, len(ids)), rng.random(len(ids)) < crowd)


def random_pair(seed):
    rng = np.random.default_rng(seed)
    truth = random_map(rng, 0.3)
    predicted = random_map(rng, 0.0, truth.pixels if rng.random() < 0.8 else None)
    known = dict(zip(truth.ids, truth.label))
    label = np.array([known.get(k, c) for k, c in zip(predicted.ids, predicted.label)], dtype=int)
    return truth, predicted._replace(label=label)


@given(st.integers(0, 10**6), st.sampled_from(["last", "all"]))
@settings(max_examples=150, deadline=None)
def test_counts_equal_the_loop_over_segments(seed, crowds):
    truth, predicted = random_pair(seed)
    fast = np.stack(count_image(truth, predicted, 3, crowds), axis=1)
    np.testing.assert_allclose(fast, slow(truth, predicted, 3, crowds), atol=1e-12)


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_order_of_segments_and_their_names_do_not_matter(seed):
    truth, predicted = random_pair(seed)
    order = np.random.default_rng(seed).permutation(len(predicted.ids))
    ids = np.arange(1, len(order) + 1)
    pixels = sum(
        (predicted.pixels == key) * new for key, new in zip(predicted.ids[order], ids)
    ) + np.zeros((12, 14), int)
    renamed = Segments(pixels, ids, predicted.label[order], predicted.crowd[order])
    np.testing.assert_allclose(
        count_image(truth, predicted, 3), count_image(truth, renamed, 3), atol=1e-12
    )


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_pq_is_sq_times_rq_in_each_class(seed):
    quality = by_class(count([random_pair(seed)], 3))
    np.testing.assert_allclose(quality["PQ"], quality["SQ"] * quality["RQ"], atol=1e-12)
    assert np.nan_to_num(quality["PQ"]).max() <= 1


def truth_of(scene):
    """A Truth with the segments of one random map."""
    masks = torch.as_tensor(scene.pixels[None] == scene.ids[:, None, None])
    label = torch.as_tensor(scene.label)
    return Truth(
        masks,
        label,
        torch.as_tensor(scene.ids),
        label < 2,
        torch.as_tensor(scene.crowd),
        torch.as_tensor(scene.pixels == 0),
    )


def panoptic_of(scene):
    numbers = (
        sum((scene.pixels == key) * (row + 1) for row, key in enumerate(scene.ids))
        + 0 * scene.pixels
    )
    return Panoptic(torch.as_tensor(numbers), torch.as_tensor(scene.label))


def write(folder, name, scenes):
    """COCO panoptic files of random maps."""
    (folder / name).mkdir(parents=True)
    annotations = []
    for row, scene in enumerate(scenes):
        colours = np.stack([scene.pixels >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(
            np.uint8
        )
        Image.fromarray(colours).save(folder / name / f"{row}.png")
        infos = [
            {
                "id": int(k),
                "category_id": CATEGORIES[c].id,
                "iscrowd": int(crowd),
                "area": int(area),
            }
            for k, c, crowd, area in zip(
                scene.ids, scene.label, scene.crowd, [(scene.pixels == k).sum() for k in scene.ids]
            )
        ]
        annotations.append({"image_id": row, "file_name": f"{row}.png", "segments_info": infos})
    content = {
        "images": [
            {
                "id": k,
                "file_name": f"{k}.jpg",
                "height": scene.pixels.shape[0],
                "width": scene.pixels.shape[1],
            }
            for k, scene in enumerate(scenes)
        ],
        "annotations": annotations,
        "categories": [
            {"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in CATEGORIES
        ],
    }
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / f"{name}.json", folder / name


def test_memory_files_and_arrays_agree(tmp_path):
    pairs = [random_pair(seed) for seed in range(12)]
    arrays = panoptic_quality(pairs, CATEGORIES)
    memory = panoptic_scores(
        [truth_of(t) for t, _ in pairs], [panoptic_of(p) for _, p in pairs], CATEGORIES
    )
    gt, gt_dir = write(tmp_path, "gt", [t for t, _ in pairs])
    dt, dt_dir = write(tmp_path, "dt", [p for _, p in pairs])
    assert memory == pytest.approx(arrays, nan_ok=True)
    assert evaluate_panoptic_files(gt, gt_dir, dt, dt_dir) == pytest.approx(arrays, nan_ok=True)


def test_nothing_predicted_is_0_and_no_segment_at_all_is_nan():
    truth = segments("aabb", a=CAT, b=GRASS)
    nothing = segments("....")
    assert panoptic_quality([(truth, nothing)], CATEGORIES)["PQ"] == 0
    assert math.isnan(panoptic_quality([(nothing, nothing)], CATEGORIES)["PQ"])


def test_a_label_without_pixels_is_no_segment():
    truth = truth_of(segments("aabb", a=CAT, b=GRASS))
    predicted = Panoptic(torch.tensor([[1, 1, 3, 3]]), torch.tensor([CAT, DOG, GRASS]))
    assert panoptic_scores([truth], [predicted], CATEGORIES)["PQ"] == 100


def test_a_pixel_without_a_label_is_an_error():
    truth = truth_of(segments("aabb", a=CAT, b=GRASS))
    with pytest.raises(InputError, match="holds segment 2"):
        panoptic_scores(
            [truth], [Panoptic(torch.tensor([[1, 1, 2, 2]]), torch.tensor([CAT]))], CATEGORIES
        )


def coco_pairs(split):
    folder = DATA / "coco2017_panoptic" / "annotations"
    path = folder / f"panoptic_{split}2017.json"
    if not path.exists():
        pytest.skip("../shared/data is absent")
    files = (path, folder / f"panoptic_{split}2017")
    return files, *read_pairs(*files, *files)


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_truth_against_itself_is_100(split):
    files, _, _ = coco_pairs(split)
    scores = evaluate_panoptic_files(*files, *files)
    assert scores == pytest.approx(dict.fromkeys(scores, 100.0))


@pytest.mark.realdata
def test_real_maps_disturbed_equal_the_loop():
    _, categories, pairs = coco_pairs("val")
    rng = np.random.default_rng(0)
    fast, loop = 0, 0
    for (truth, _), _ in zip(pairs, range(8)):
        moved = np.roll(truth.pixels, rng.integers(-40, 41, 2), (0, 1))
        ids = np.unique(moved[moved > 0])
        known = dict(zip(truth.ids, truth.label))
        predicted = Segments(
            moved, ids, np.array([known[k] for k in ids]), np.zeros(len(ids), dtype=bool)
        )
        fast = fast + np.stack(count_image(truth, predicted, len(categories)), axis=1)
        loop = loop + slow(truth, predicted, len(categories), "last")
    np.testing.assert_allclose(fast, loop, atol=1e-12)
    assert fast[:, 1].sum() > 20 and fast[:, 2].sum() > 5


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def first(content):
    return content["annotations"][0]["segments_info"][0]


FAULTS = {
    "id 0": (lambda c: first(c).update(id=0), "not an integer in 1..16777215 .0 is void"),
    "id not in PNG": (lambda c: first(c).update(id=77), "not in the PNG"),
    "id not in JSON": (lambda c: c["annotations"][0]["segments_info"].pop(), "not listed"),
    "id too large": (lambda c: first(c).update(id=2**24), "not an integer in 1..16777215"),
    "id twice": (
        lambda c: c["annotations"][0]["segments_info"].append(first(c)),
        "duplicate segment id",
    ),
    "unknown category": (lambda c: first(c).update(category_id=2), "unknown category 2"),
    "no prediction": (lambda c: c["annotations"].pop(0), "no prediction for image 0"),
    "unknown image": (lambda c: c["annotations"].append({"image_id": 9}), "unknown image id 9"),
    "image twice": (
        lambda c: c["annotations"].append({**c["annotations"][0], "file_name": "1.png"}),
        "duplicate image id 0",
    ),
    "PNG missing": (
        lambda c: c["annotations"][0].update(file_name="gone.png"),
        "gone.png: no such file",
    ),
    "leaves the folder": (
        lambda c: c["annotations"][0].update(file_name="../gt/0.png"),
        "leaves the folder",
    ),
    "absolute": (
        lambda c: c["annotations"][0].update(file_name="/etc/passwd"),
        "leaves the folder",
    ),
    "no segments": (
        lambda c: c["annotations"][0].pop("segments_info"),
        "no list 'segments_info'",
    ),
}


@pytest.fixture
def files(tmp_path):
    truth, predicted = random_pair(1)
    return *write(tmp_path, "gt", [truth]), *write(tmp_path, "dt", [predicted])


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_results_are_one_clear_line(files, fault):
    change, cause = FAULTS[fault]
    edit(files[2], change)
    with pytest.raises(InputError, match=cause) as caught:
        evaluate_panoptic_files(*files)
    assert "\n" not in str(caught.value) and "dt" in str(caught.value)


def test_an_area_of_the_truth_that_is_not_the_png_s_is_refused(files):
    edit(files[0], lambda c: first(c).update(area=3 * first(c)["area"]))
    with pytest.raises(InputError, match=r"gt\.json: '0\.png': segment \d+: area \d+, the PNG has"):
        evaluate_panoptic_files(*files)


def test_bad_pngs_are_one_clear_line(files):
    path = files[3] / "0.png"
    whole = path.read_bytes()
    for content in (b"", whole[:40], b"no image", whole[: len(whole) - 30]):
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=r"0\.png: (is empty|is not an image|corrupt or truncated)"
        ):
            evaluate_panoptic_files(*files)
    Image.new("L", (14, 12)).save(path)
    with pytest.raises(InputError, match="is a L image, a mask here is RGB"):
        evaluate_panoptic_files(*files)


def test_a_map_of_another_size_names_both_sizes(files):
    path = files[3] / "0.png"
    Image.open(path).resize((28, 24), Image.Resampling.NEAREST).save(path)
    with pytest.raises(InputError, match=r"0\.png: is 28x24, the ground truth is 14x12"):
        evaluate_panoptic_files(*files)


def test_a_bomb_is_refused(files, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="decompression bomb"):
        evaluate_panoptic_files(*files)


def test_a_link_out_of_the_folder_is_refused(files):
    path = files[3] / "0.png"
    path.unlink()
    path.symlink_to(files[1] / "0.png")
    with pytest.raises(InputError, match="symbolic link leads out"):
        evaluate_panoptic_files(*files)


def test_ids_are_read_as_r_256_g_65536_b(tmp_path):
    Image.fromarray(np.array([[[1, 2, 3]]], dtype=np.uint8)).save(tmp_path / "one.png")
    assert read_segment_ids(tmp_path / "one.png").tolist() == [[1 + 2 * 256 + 3 * 65536]]
