"""How hard a dataset is, in numbers that compare drawings with photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation

from pointseg.data.dataset import Dataset
from pointseg.data.layouts import open_dataset
from pointseg.structures import InputError

KEY_POINTS, TOKENS_A_KEY_POINT = 20, 4  # [AS Sec. 5.1] and where its shift begins to help
QUANTILES = (5, 25, 50, 75, 95)
FEWEST = 75  # images to fit the colours on, and to measure on: the score rises with them
PIXELS = 400  # sampled an image
BINS = 16  # of each colour channel
BORDER = 80  # objects touch within this part of the long side; VOC's void lines are that wide
COCO_SIZES = (32**2, 96**2)  # upper limits of small and medium, in pixels
PART_SHARE = 0.01  # of an object's pixels that count as a visible part


@dataclass(frozen=True)
class Gate:
    """What a dataset must reach to be as hard as photographs."""

    name: str
    text: str
    limit: float
    at_most: bool = False

    def verdict(self, value: float | None) -> str:
        if value is None:
            return "-"
        return "met" if (value <= self.limit) == self.at_most or value == self.limit else "missed"


GATES = (
    Gate("enough_tokens", "objects of >= 80 tokens, >= 50 %", 0.5),
    Gate("colour_auc", "one pixel's colour tells things, AUC <= .78", 0.78, at_most=True),
    Gate("touching", "objects that touch their own class, >= 30 %", 0.3),
)


@dataclass(frozen=True)
class Reading:
    """What is read of one image."""

    tokens: list[int]  # of each object: at least half covered
    areas: list[int]
    touching: list[bool]
    parts: list[int]  # visible, of each object; empty where the dataset has none
    colours: np.ndarray  # [k, 3] uint8 of sampled pixels
    thing: np.ndarray  # [k] bool


def gauge(folders: Sequence[str], split: str, stride: int, images: int) -> dict[str, dict]:
    """For each folder (or folder:split), its measures, all read at the same number of images."""
    if stride < 1 or images < 2:
        raise InputError(f"gauge: stride {stride} and images {images} must be at least 1 and 2")
    datasets = {folder: opened(folder, split) for folder in folders}
    count = min(images, *(len(dataset) for dataset in datasets.values()))
    return {folder: measure(dataset, stride, count) for folder, dataset in datasets.items()}


def opened(folder: str, split: str) -> Dataset:
    if not Path(folder).exists() and ":" in folder:
        folder, _, split = folder.rpartition(":")
    dataset = open_dataset(folder, split)
    if not dataset.has_truth:
        raise InputError(f"{folder}: split {split!r} has no ground truth to gauge")
    if len(dataset) < 2:
        raise InputError(f"{folder}: one image in split {split!r}; a gauge needs 2 or more")
    return dataset


def measure(dataset: Dataset, stride: int, count: int) -> dict:
    """The measures of `count` images, spread evenly over a dataset; None where there is none."""
    rows = [k * len(dataset) // count for k in range(count)]
    readings = [read_image(dataset, row, stride) for row in rows]
    tokens = np.array([n for reading in readings for n in reading.tokens])
    areas = np.array([n for reading in readings for n in reading.areas])
    parts = [n for reading in readings for n in reading.parts]
    measures = {
        "split": dataset.split,
        "images": count,
        "objects": len(areas),
        "stride": stride,
        "tokens": quantiles(tokens),
        "enough_tokens": share(tokens >= KEY_POINTS * TOKENS_A_KEY_POINT),
        "colour_auc": colour_auc(readings),
        "colour_images": count // 2,
        "touching": share(np.array([t for reading in readings for t in reading.touching])),
        "parts": share(np.array(parts)),
        "sizes": size_mix(areas),
    }
    measures["gates"] = {gate.name: gate.verdict(measures[gate.name]) for gate in GATES}
    if measures["colour_images"] < FEWEST and measures["colour_auc"] is not None:
        measures["gates"]["colour_auc"] = f"not judged on {measures['colour_images']} images"
    return measures


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    return dict(zip(map(str, QUANTILES), np.percentile(values, QUANTILES).round(1).tolist()))


def share(values: np.ndarray) -> float | None:
    """The mean: of flags, the share that is true."""
    return round(float(values.mean()), 4) if len(values) else None


def size_mix(areas: np.ndarray) -> dict[str, float] | None:
    """Shares of COCO's small, medium and large."""
    if not len(areas):
        return None
    kinds = np.bincount(np.digitize(areas, COCO_SIZES), minlength=3) / len(areas)
    return dict(zip(("small", "medium", "large"), kinds.round(4).tolist()))


def read_image(dataset: Dataset, row: int, stride: int) -> Reading:
    truth = dataset.arrays(row)
    keep = truth.is_thing & ~truth.is_crowd
    masks, labels = truth.masks[keep], truth.label[keep].tolist()
    parts = [] if truth.parts is None else [visible_parts(m, truth.parts) for m in masks]
    thing = truth.masks[truth.is_thing].any(0)
    chosen = sampled(~truth.void.ravel(), row)
    return Reading(
        [covered_tokens(mask, stride) for mask in masks],
        [int(mask.sum()) for mask in masks],
        touching(masks, labels),
        parts,
        np.asarray(dataset.image(row)).reshape(-1, 3)[chosen],
        thing.ravel()[chosen],
    )


def covered_tokens(mask: np.ndarray, stride: int) -> int:
    """Cells of stride x stride pixels of which the mask [h, w] covers half or more."""
    h, w = (-side % stride for side in mask.shape)
    padded = np.pad(mask, ((0, h), (0, w)))
    cells = padded.reshape(padded.shape[0] // stride, stride, -1, stride).sum((1, 3))
    return int((2 * cells >= stride * stride).sum())


def touching(masks: np.ndarray, labels: list[int]) -> list[bool]:
    """For each object, whether one of its own class lies within a border's width."""
    width = max(2, round(max(masks.shape[-2:]) / BORDER))
    out = []
    for a, label in enumerate(labels):
        others = [masks[b] for b, other in enumerate(labels) if b != a and other == label]
        grown = binary_dilation(masks[a], iterations=width) if others else None
        out.append(any((grown & other).any() for other in others))
    return out


def visible_parts(mask: np.ndarray, parts: np.ndarray) -> int:
    counts = np.bincount(parts[mask], minlength=1)[1:]
    return int((counts >= max(PART_SHARE * mask.sum(), 1)).sum())


def sampled(valid: np.ndarray, row: int) -> np.ndarray:
    """Indices of PIXELS valid pixels, or all where there are fewer."""
    chosen = np.flatnonzero(valid)
    rng = np.random.default_rng((0, row))
    return rng.choice(chosen, min(PIXELS, len(chosen)), replace=False)


def colour_auc(readings: list[Reading]) -> float | None:
    """Chance that one pixel's colour ranks a thing above the ground: a histogram of RGB, fitted on
    every other image and measured on the rest."""
    fit, rest = (
        [readings[k] for k in range(side, len(readings) - len(readings) % 2, 2)] for side in (0, 1)
    )
    code, thing = colour_codes(fit)
    other_code, other_thing = colour_codes(rest)
    if any(flags.all() or not flags.any() for flags in (thing, other_thing)):
        return None
    things, all_ = (np.bincount(c, minlength=BINS**3) for c in (code[thing], code))
    likely = (things + 4.0 * thing.mean()) / (all_ + 4.0)
    return auc(likely[other_code], other_thing)


def colour_codes(readings: list[Reading]) -> tuple[np.ndarray, np.ndarray]:
    """The bin [k] and the truth [k] of every sampled pixel."""
    bins = np.concatenate([reading.colours for reading in readings]).astype(np.int64) * BINS // 256
    return bins @ [BINS * BINS, BINS, 1], np.concatenate([reading.thing for reading in readings])


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive scores above a negative; ties count half."""
    n, total = int(positive.sum()), len(positive)
    _, level, ties = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (ties.cumsum() - (ties - 1) / 2)[level]  # from 1; ties share their mean
    above = ranks[positive].sum() - n * (n + 1) / 2
    return round(float(above / (n * (total - n))), 4)


def table(measures: dict[str, dict]) -> list[str]:
    """Lines that show the datasets side by side."""
    names, columns = [Path(folder).name for folder in measures], list(measures.values())
    rows = [("", names)]
    for name, text in LINES.items():
        rows.append((text, [written(name, each) for each in columns]))
    for gate in GATES:
        rows.append((f"gate: {gate.text}", [each["gates"][gate.name] for each in columns]))
    first = max(len(text) for text, _ in rows)
    widths = [max(len(row[k]) for _, row in rows) for k in range(len(names))]
    return [
        f"{text:{first}}  " + "  ".join(f"{cell:>{w}}" for cell, w in zip(cells, widths))
        for text, cells in rows
    ]


LINES = {
    "split": "split",
    "images": "images",
    "objects": "objects",
    "tokens": "tokens an object, quantiles 5 / 25 / 50 / 75 / 95",
    "enough_tokens": "objects of >= 80 tokens",
    "colour_auc": "thing or ground by one pixel's colour, AUC",
    "colour_images": "  fitted on, and measured on as many other images",
    "touching": "objects that touch their own class",
    "parts": "visible parts an object",
    "sizes": "small / medium / large (COCO)",
}


def written(name: str, measures: dict) -> str:
    value = measures[name]
    if value is None:
        return "-"
    if name == "tokens":
        return " / ".join(f"{v:.0f}" for v in value.values())
    if name == "sizes":
        return " / ".join(f"{100 * v:.0f} %" for v in value.values())
    if name in ("enough_tokens", "touching"):
        return f"{100 * value:.0f} %"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
