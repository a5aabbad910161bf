"""Panoptic quality counted from one table of common pixels, and by a plain loop over segments, as a yardstick."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import numpy as np

from pointseg.bookkit.cost.clock import Work
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.metrics.panoptic_files import read_pairs
from pointseg.metrics.pq import Segments, count, segments_of_truth


def counting_works(truths: list[Segments], classes: int) -> dict[str, Work]:
    """Both ways over the same decoded maps; the predictions are the truth, moved."""
    dice = np.random.default_rng(0)
    pairs = [(truth, moved(truth, dice)) for truth in truths]
    return {
        "table": lambda: np.stack(count(pairs, classes)),
        "loop": lambda: plain_loop(pairs, classes),
    }


def drawn_maps(size: int, images: int) -> tuple[list[Segments], int]:
    """Truths of Bestiary pictures, and the number of classes."""
    return [segments_of_truth(draw(0, "val", index, size).truth) for index in range(images)], len(
        CATEGORIES
    )


def real_maps(annotations: Path, images: int) -> tuple[list[Segments], int]:
    """Truths of COCO panoptic pictures, the first again where there are too few, and the number of classes."""
    truths, classes = [], 0
    for split in ("train", "val"):
        files = (annotations / f"panoptic_{split}2017.json", annotations / f"panoptic_{split}2017")
        categories, pairs = read_pairs(*files, *files)
        truths += [truth for truth, _ in islice(pairs, images)]
        classes = len(categories)
    return list(islice(cycle(truths), images)), classes


def moved(truth: Segments, dice: np.random.Generator) -> Segments:
    """The truth rolled by up to 12 pixels each way, as a prediction."""
    pixels = np.roll(truth.pixels, dice.integers(-12, 13, 2), (0, 1))
    return Segments(pixels, truth.ids, truth.label, np.zeros_like(truth.crowd))


def plain_loop(pairs: list[tuple[Segments, Segments]], classes: int) -> np.ndarray:
    """[4, classes] summed IoU, TP, FP and FN with one boolean picture a segment."""
    table = np.zeros((4, classes))
    for truth, found in pairs:
        masks = [found.pixels == key for key in found.ids]
        taken = _match(truth, found, masks, table)
        table[2] += _unforgiven(truth, found, masks, taken, classes)
    return table


def _match(
    truth: Segments, found: Segments, masks: list[np.ndarray], table: np.ndarray
) -> set[int]:
    """Adds IoU, TP and FN of one picture to the table; the rows of `found` that matched."""
    void, taken = truth.pixels == 0, set()
    for key, label, crowd in zip(truth.ids, truth.label, truth.crowd):
        if crowd:
            continue
        mask, best = truth.pixels == key, None
        for row, other in enumerate(masks):
            if found.label[row] == label and best is None:
                common = (mask & other).sum()
                iou = common / (mask.sum() + other.sum() - common - (other & void).sum())
                best = (row, iou) if iou > 0.5 else None
        if best is None:
            table[3, label] += 1
        else:
            taken.add(best[0])
            table[:2, label] += (best[1], 1)
    return taken


def _unforgiven(
    truth: Segments, found: Segments, masks: list[np.ndarray], taken: set[int], classes: int
):
    """[classes] false positives of one picture."""
    void, wrong = truth.pixels == 0, np.zeros(classes)
    crowd_of = {
        label: truth.pixels == key
        for key, label, c in zip(truth.ids, truth.label, truth.crowd)
        if c
    }
    for row, (mask, label) in enumerate(zip(masks, found.label)):
        excused = (mask & void).sum()
        if label in crowd_of:
            excused += (mask & crowd_of[label]).sum()
        wrong[label] += row not in taken and excused / mask.sum() <= 0.5
    return wrong
