"""Scores of a whole set shared out among its images: what an interval over images needs.

AP and PQ are no means over images. The jackknife gives each image S + (n - 1) (M - S_-i): S is the
score of all n images, S_-i the one without it, M the mean of these. Their mean is S, and paired
differences of two rows scatter over images as the difference of their scores does. [Tukey 1958]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointseg.metrics.pq import Counts, by_class
from pointseg.metrics.voc_ap import Overlap, curve, eleven_point_ap, ranked, right


def shared_out(whole: float, without: np.ndarray) -> np.ndarray:
    """[n] of a score and the scores without one image each."""
    return whole + (len(without) - 1) * (without.mean() - without)


def mean_by_image(values: np.ndarray, image: np.ndarray, images: int) -> np.ndarray:
    """[n] of a mean over objects, of which each lies in an image."""
    sums = np.bincount(image, values, images)
    counts = np.bincount(image, minlength=images)
    without = (sums.sum() - sums) / np.maximum(counts.sum() - counts, 1)
    return shared_out(sums.sum() / counts.sum(), without)


def pq_by_image(counts: Counts) -> np.ndarray:
    """[n] of PQ in percent, from counts [n, classes]."""
    totals = counts.over_images()
    rest = Counts(*(total - each for total, each in zip(totals, counts)))
    quality = [_mean_over_classes(by_class(each)["PQ"]) for each in (totals, rest)]
    return shared_out(*quality)


def map_by_image(overlaps: Sequence[Overlap], threshold: float = 0.5) -> np.ndarray:
    """[n] of VOC's mAP in percent, by the rule of 11 points."""
    overlaps = [ranked(one) for one in overlaps]
    image = np.repeat(np.arange(len(overlaps)), [len(one.score) for one in overlaps])
    joined = {
        "score": [one.score for one in overlaps],
        "label": [one.label for one in overlaps],
        "hit": [right(one.iou, threshold) for one in overlaps],
    }
    score, label, hit = (np.concatenate(pieces) for pieces in joined.values())
    order = np.argsort(-score, kind="stable")
    whole, without = [], []
    for c in np.unique(np.concatenate([one.truth_label for one in overlaps])):
        mine = order[label[order] == c]
        objects = np.array([(one.truth_label == c).sum() for one in overlaps])
        whole.append(_ap(hit[mine], objects.sum()))
        without.append(_ap_without(hit[mine], image[mine], objects))
    return shared_out(
        _mean_over_classes(np.array(whole)), _mean_over_classes(np.stack(without, axis=1))
    )


def _ap(hits: np.ndarray, objects: int) -> float:
    return eleven_point_ap(*curve(hits, objects)) if objects else np.nan


def _ap_without(hits: np.ndarray, image: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """[n] of one class, without one image each; nan where it then has no object."""
    total = objects.sum()
    return np.array([_ap(hits[image != i], total - count) for i, count in enumerate(objects)])


def _mean_over_classes(values: np.ndarray) -> np.ndarray:
    return 100 * np.nanmean(values, axis=-1)
