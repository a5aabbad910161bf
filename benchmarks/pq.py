"""Panoptic quality: the table of common pixels against a plain loop over segments, as a ratio of times.

    python benchmarks/pq.py [--data ../shared/data] [--pictures 100] [--repeats 3]

Real COCO panoptic pictures (used again until there are enough); predictions are the truth, moved. Both ways get the
maps already decoded; the time of reading the PNGs is told apart. Best of the repeats, one process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pointseg.metrics.panoptic_files import read_pairs
from pointseg.metrics.pq import Segments, count

ROOT = Path(__file__).resolve().parents[1]


def plain_loop(pairs: list[tuple[Segments, Segments]], classes: int) -> np.ndarray:
    """The same counts, one boolean picture a segment: [4, classes]."""
    table = np.zeros((4, classes))
    for truth, found in pairs:
        void = truth.pixels == 0
        masks = [found.pixels == key for key in found.ids]
        crowd_of: dict[int, np.ndarray] = {}
        taken = set()
        for key, label, crowd in zip(truth.ids, truth.label, truth.crowd):
            mask = truth.pixels == key
            if crowd:
                crowd_of[label] = mask
                continue
            for row, other in enumerate(masks):
                if found.label[row] != label:
                    continue
                common = (mask & other).sum()
                iou = common / (mask.sum() + other.sum() - common - (other & void).sum())
                if iou > 0.5:
                    table[:2, label] += (iou, 1)
                    taken.add(row)
                    break
            else:
                table[3, label] += 1
        table[2] += unforgiven(found, masks, taken, void, crowd_of, classes)
    return table


def unforgiven(found: Segments, masks: list, taken: set, void: np.ndarray, crowd_of: dict, classes: int) -> np.ndarray:
    """[classes] false positives of one picture."""
    wrong = np.zeros(classes)
    for row, (mask, label) in enumerate(zip(masks, found.label)):
        excused = (mask & void).sum()
        if label in crowd_of:
            excused += (mask & crowd_of[label]).sum()
        wrong[label] += row not in taken and excused / mask.sum() <= 0.5
    return wrong


def moved(truth: Segments, rng: np.random.Generator) -> Segments:
    """The truth rolled by up to 12 pixels each way, as a prediction."""
    pixels = np.roll(truth.pixels, rng.integers(-12, 13, 2), (0, 1))
    return Segments(pixels, truth.ids, truth.label, np.zeros_like(truth.crowd))


def read_all(folder: Path) -> tuple[int, list[Segments]]:
    truths, classes = [], 0
    for split in ("train", "val"):
        files = (folder / f"panoptic_{split}2017.json", folder / f"panoptic_{split}2017")
        categories, pairs = read_pairs(*files, *files)
        truths += [truth for truth, _ in pairs]
        classes = len(categories)
    return classes, truths


def best_time(work: Callable[[], object], repeats: int) -> tuple[float, object]:
    seconds, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds = min(seconds, time.perf_counter() - start)
    return seconds, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = options.data / "coco2017_panoptic" / "annotations"
    reading, (classes, truths) = best_time(lambda: read_all(folder), 1)
    rng = np.random.default_rng(0)
    pairs = [(t, moved(t, rng)) for t in itertools.islice(itertools.cycle(truths), options.pictures)]
    fast, counted = best_time(lambda: count(pairs, classes), options.repeats)
    slow, looped = best_time(lambda: plain_loop(pairs, classes), options.repeats)
    np.testing.assert_allclose(np.stack(counted), looped, atol=1e-9)
    report = {"pictures": options.pictures, "distinct": len(truths), "table_s": fast, "loop_s": slow,
              "ratio": slow / fast, "reading_s_per_map": reading / (2 * len(truths))}  # fmt: skip
    print(json.dumps({key: round(value, 4) for key, value in report.items()}))


if __name__ == "__main__":
    main()
