"""Bestiary, first edition: the drawings and their truth."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import pointseg.data.bestiary.write as write
from pointseg.data.bestiary import CATEGORIES, PARTS, SPECIES, STUFF, THINGS, draw
from pointseg.data.bestiary.arith import cosine, sine
from pointseg.data.bestiary.draw import outlines
from pointseg.structures import InputError

# The one constant of our own output: it guards that pictures are the same on every platform, for
# ever.
REFERENCE = "a45e4d0c163829ceddf4567879c2e9d732a3b6fa14bdbb6ffe1397adeb94240c"


def reference_hash(order=range(16)) -> str:
    digests = {index: write.hash_of(draw(0, "train", index, edition=1)) for index in order}
    return hashlib.sha256("".join(digests[index] for index in sorted(digests)).encode()).hexdigest()


@pytest.fixture(scope="module")
def scenes():
    return [draw(3, "train", index, 64, edition=1) for index in range(240)]


# ---- drawings


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
    drawn = {
        draw(0, split, k, 64).image.tobytes()
        for split in ("train", "val", "pretrain", "tune")
        for k in range(15)
    }
    assert len(drawn) == 60


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


# ---- truth


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


# ---- what the benchmark promises


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
    counts = Counter()
    for scene in scenes:
        masks, labels = thing_masks(scene)
        counts["split"] += any(is_split(mask) for mask in masks)
        counts["touching"] += touches_its_kind(masks, labels)
        counts["cut"] += any(is_cut(mask) for mask in masks)
        counts["crowd"] += bool(scene.truth.is_crowd.any())
        counts["void"] += bool(scene.truth.void.any())
    share = {name: count / len(scenes) for name, count in counts.items()}
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
