"""Panoptic quality by the rules of panopticapi (Kirillov et al. 2019), void and crowd included.

A predicted and a true segment of one class match where IoU > 1/2; pixels of the prediction on true
void leave the union. A crowd segment matches nothing and is never missed. An unmatched prediction
is forgiven where more than half of it lies on void or on crowd of its class; as panopticapi keeps
one crowd a class, only the last one listed counts for that (`crowds="last"`), where `crowds="all"`
counts them all.
PQ = sum of matched IoU / (TP + FP/2 + FN/2), SQ = sum of IoU / TP, RQ = TP / (TP + FP/2 + FN/2),
each averaged over the classes that have any TP, FP or FN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pointseg.structures import VOID_SEGMENT, Category, InputError, Panoptic, Truth

Crowds = Literal["last", "all"]
UNKNOWN, VOID = 0, 1  # codes of pixels that belong to no listed segment; segment k has code k + 2


class Segments(NamedTuple):
    """One panoptic map: ids in the order of the file."""

    pixels: np.ndarray  # [h, w] ids below 2**24, 0 = void
    ids: np.ndarray  # [n]
    label: np.ndarray  # [n] index into the categories
    crowd: np.ndarray  # [n] bool


class Counts(NamedTuple):
    """Sums over images, one number a class."""

    iou: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray


def panoptic_quality(
    pairs: Iterable[tuple[Segments, Segments]],
    categories: Sequence[Category],
    crowds: Crowds = "last",
    per_class: bool = False,
) -> dict[str, float]:
    """PQ, SQ, RQ over all classes, things (`PQ_th`) and stuff (`PQ_st`) in percent; nan where no
    class counts.

    pairs are (truth, prediction) of each image; per_class adds `PQ/<name>`, `SQ/<name>`,
    `RQ/<name>`."""
    counts = count(pairs, len(categories), crowds)
    quality = by_class(counts)
    things = np.array([c.is_thing for c in categories], dtype=bool)
    scores = {}
    for suffix, group in (("", np.ones_like(things)), ("_th", things), ("_st", ~things)):
        scores |= {
            f"{name}{suffix}": _mean_percent(values[group]) for name, values in quality.items()
        }
    if per_class:
        for name, values in quality.items():
            scores |= {f"{name}/{c.name}": 100 * float(v) for c, v in zip(categories, values)}
    return scores


def count(
    pairs: Iterable[tuple[Segments, Segments]], classes: int, crowds: Crowds = "last"
) -> Counts:
    """Matches and mistakes of each class over all images."""
    if crowds not in ("last", "all"):
        raise InputError(f"crowds: expected last or all, got {crowds!r}")
    total = Counts(*np.zeros((4, classes)))
    for truth, prediction in pairs:
        for sum_, part in zip(total, count_image(truth, prediction, classes, crowds)):
            sum_ += part
    return total


def by_class(counts: Counts) -> dict[str, np.ndarray]:
    """PQ, SQ and RQ of each class in 0..1; nan where the class has neither TP, FP nor FN."""
    at_stake = counts.tp + (counts.fp + counts.fn) / 2
    counted = at_stake > 0
    divided = np.where(counted, at_stake, np.nan)
    recognition = counts.tp / divided
    segmentation = np.where(counted, counts.iou / np.maximum(counts.tp, 1), np.nan)
    return {"PQ": counts.iou / divided, "SQ": segmentation, "RQ": recognition}


def count_image(
    truth: Segments, prediction: Segments, classes: int, crowds: Crowds = "last"
) -> Counts:
    """Counts of one image. `common` [2 + n, 2 + m] holds the pixels shared by each pair of
    codes."""
    if truth.pixels.shape != prediction.pixels.shape:
        raise InputError(
            f"prediction of size {prediction.pixels.shape} on a truth of size {truth.pixels.shape}"
        )
    common = common_pixels(truth, prediction)
    iou = segment_iou(truth, prediction, common)
    matched = iou > 0.5
    hit_truth, hit_prediction = matched.any(axis=1), matched.any(axis=0)
    wrong = ~hit_prediction & ~forgiven(truth, prediction, common, crowds)
    missed = ~hit_truth & ~truth.crowd
    sums = np.where(matched, iou, 0.0).sum(axis=1)
    return Counts(
        np.bincount(truth.label, weights=sums, minlength=classes),
        np.bincount(truth.label[hit_truth], minlength=classes),
        np.bincount(prediction.label[wrong], minlength=classes),
        np.bincount(truth.label[missed], minlength=classes),
    )


def common_pixels(truth: Segments, prediction: Segments) -> np.ndarray:
    """[2 + n, 2 + m]: pixels with each pair of codes. Only where either map changes along the rows
    is looked at, a tenth of the pixels or less in real images."""
    true, predicted = truth.pixels.ravel(), prediction.pixels.ravel()
    starts = run_starts(true, predicted)
    lengths = np.diff(starts, append=len(true))
    width = len(prediction.ids) + 2
    joint = coded(true[starts], truth.ids) * width + coded(predicted[starts], prediction.ids)
    table = np.bincount(joint, weights=lengths, minlength=(len(truth.ids) + 2) * width)
    return table.astype(np.int64).reshape(-1, width)


def run_starts(*maps: np.ndarray) -> np.ndarray:
    """Where, in flat maps of one length, a run of pixels that are alike in all of them begins."""
    changed = np.ones(len(maps[0]), dtype=bool)
    changed[1:] = maps[0][1:] != maps[0][:-1]
    for other in maps[1:]:
        changed[1:] |= other[1:] != other[:-1]
    return np.flatnonzero(changed)


def coded(pixels: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Ids -> 0 for one that is not listed, 1 for void, 2 + k for segment k."""
    listed = np.concatenate([[VOID_SEGMENT], ids])
    order = np.argsort(listed)
    position = order[np.searchsorted(listed, pixels, sorter=order).clip(max=len(ids))]
    return np.where(listed[position] == pixels, position + VOID, UNKNOWN)


def segment_iou(truth: Segments, prediction: Segments, common: np.ndarray) -> np.ndarray:
    """[n, m] IoU of segments of one class, 0 elsewhere and for crowds."""
    shared = common[2:, 2:]
    area = common[2:].sum(axis=1)[:, None]
    union = area + common[:, 2:].sum(axis=0)[None] - shared - common[VOID, 2:][None]
    comparable = (truth.label[:, None] == prediction.label[None]) & ~truth.crowd[:, None]
    return np.where(comparable & (shared > 0), shared / np.maximum(union, 1), 0.0)


def forgiven(
    truth: Segments, prediction: Segments, common: np.ndarray, crowds: Crowds
) -> np.ndarray:
    """[m] bool: more than half of the segment lies on void or on crowd of its class."""
    counting = np.flatnonzero(truth.crowd)
    if crowds == "last":
        counting = np.array(list({truth.label[k]: k for k in counting}.values()), dtype=int)
    same = truth.label[counting][:, None] == prediction.label[None]
    excused = common[VOID, 2:] + (common[2 + counting, 2:] * same).sum(axis=0)
    return 2 * excused > common[:, 2:].sum(axis=0)


def segments_of_truth(truth: Truth) -> Segments:
    """Pixels of no mask and void pixels are void; of overlapping masks the later one wins."""
    pixels = np.zeros(truth.void.shape, dtype=np.int64)
    for row, mask in enumerate(truth.masks.cpu().numpy()):
        pixels[mask] = row + 1
    pixels[truth.void.cpu().numpy()] = VOID_SEGMENT
    return _present(pixels, truth.label.cpu().numpy(), truth.is_crowd.cpu().numpy())


def segments_of_panoptic(panoptic: Panoptic) -> Segments:
    label = panoptic.label.detach().cpu().numpy()
    return _present(
        panoptic.segments.detach().cpu().numpy(), label, np.zeros(len(label), dtype=bool)
    )


def _present(pixels: np.ndarray, label: np.ndarray, crowd: np.ndarray) -> Segments:
    """Row k of `label` owns the pixels k + 1; a row without pixels is no segment."""
    rows = np.unique(pixels.ravel()[run_starts(pixels.ravel())])
    if rows[0] < 0 or rows[-1] > len(label):
        raise InputError(
            f"a panoptic map holds segment {rows[-1]}, but only {len(label)} have a label"
        )
    rows = rows[rows > VOID_SEGMENT] - 1
    return Segments(pixels, rows + 1, label[rows].astype(int), crowd[rows].astype(bool))


def _mean_percent(values: np.ndarray) -> float:
    counted = values[~np.isnan(values)]
    return 100 * float(counted.mean()) if len(counted) else float("nan")
