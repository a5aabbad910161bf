"""Scores shared out among images: their mean is the score, each what its image does to it."""

import numpy as np
import pytest

from pointseg.metrics.by_image import map_by_image, mean_by_image, pq_by_image
from pointseg.metrics.pq import Counts, quality_of
from pointseg.metrics.voc_ap import Overlap, score
from pointseg.structures import Category

CATEGORIES = [Category(1, "a", True), Category(2, "b", True), Category(3, "ground", False)]


def jackknife(whole, without):
    """The slow way, one score a call."""
    mean = np.mean(without)
    return [whole + (len(without) - 1) * (mean - each) for each in without]


def counts(rng, images=7):
    tp, fp, fn = rng.integers(0, 4, (3, images, 3)).astype(float)
    return Counts(tp * rng.uniform(0.5, 1, tp.shape), tp, fp, fn)


def test_pq_of_images_is_what_each_leaves_when_it_goes():
    some = counts(np.random.default_rng(0))
    pq = lambda keep: quality_of(  # noqa: E731
        Counts(*(c[keep] for c in some)).over_images(), CATEGORIES
    )["PQ"]
    everything = np.ones(7, bool)
    by_hand = jackknife(pq(everything), [pq(np.arange(7) != i) for i in range(7)])
    values = pq_by_image(some)
    assert values == pytest.approx(by_hand) and values.mean() == pytest.approx(pq(everything))


def test_a_class_that_leaves_with_its_image_leaves_the_mean_too():
    none, iou = np.zeros((2, 3)), np.array([[1, 0, 0], [0, 0.6, 0]])
    assert pq_by_image(Counts(iou, np.ceil(iou), none, none)) == pytest.approx([100, 60])


def test_map_of_images_is_what_each_leaves_when_it_goes():
    rng = np.random.default_rng(1)
    overlaps = [
        Overlap(rng.random((6, 4)), rng.random(6), rng.integers(0, 3, 6), rng.integers(0, 3, 4))
        for _ in range(6)
    ]
    ap = lambda some: score(some, [0.5])["voc_mAP50_11pt"]  # noqa: E731
    by_hand = jackknife(ap(overlaps), [ap(overlaps[:i] + overlaps[i + 1 :]) for i in range(6)])
    assert map_by_image(overlaps) == pytest.approx(by_hand)


def test_a_mean_over_objects_stays_their_mean_and_an_even_one_is_the_images_own():
    values, image = np.array([1.0, 2.0, 6.0, 4.0, 0.0]), np.array([0, 0, 0, 2, 2])
    assert mean_by_image(values, image, 3).mean() == pytest.approx(values.mean())
    assert mean_by_image(values[:4], np.array([0, 0, 1, 1]), 2) == pytest.approx([1.5, 5.0])
