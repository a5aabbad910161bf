"""COCO panoptic files (JSON + PNG, id = R + 256 G + 65536 B, void 0), read one image at a time by
the reader of the data sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointseg.data.coco_json import Annotations, annotations_of, category_faults, index_of
from pointseg.data.files import inside, read_json, shown
from pointseg.data.images import named, read_segment_ids
from pointseg.metrics.pq import Segments, run_starts
from pointseg.structures import VOID_SEGMENT, Category, InputError


@dataclass(frozen=True)
class PanopticFile:
    """A panoptic JSON and the folder of its PNGs."""

    json: Path
    folder: Path
    annotations: Annotations
    sizes: dict[int | str, tuple[int, int]]  # image id -> (h, w)


def read_pairs(
    gt: Path, gt_dir: Path, dt: Path, dt_dir: Path
) -> tuple[tuple[Category, ...], Iterator[tuple[Segments, Segments]]]:
    """(categories of the ground truth, a generator of (truth, prediction) over its images)."""
    content, results = read_json(Path(gt)), read_json(Path(dt))
    index = index_of(content, Path(gt), "panoptic")
    truth = PanopticFile(Path(gt), Path(gt_dir), index.annotations, index.sizes)
    if not index.annotations or not index.categories:
        raise InputError(f"{gt}: has no {'category' if index.annotations else 'image'}")
    for fault in category_faults(results, index):
        raise InputError(f"{dt}: {fault}")
    annotations = annotations_of(results, Path(dt), "panoptic", index)
    result = PanopticFile(Path(dt), Path(dt_dir), annotations, index.sizes)
    for key in truth.annotations.keys() - result.annotations.keys():
        raise InputError(f"{dt}: has no prediction for image {shown(key)}")
    for key in result.annotations.keys() - truth.annotations.keys():
        raise InputError(f"{dt}: names image {shown(key)}, of which {gt} says nothing")
    label_of = {key: label for label, key in enumerate(index.categories)}
    pairs = (_pair(truth, result, key, label_of) for key in truth.annotations)
    return tuple(index.categories.values()), pairs


def _pair(
    truth: PanopticFile, result: PanopticFile, key: int | str, label_of: dict
) -> tuple[Segments, Segments]:
    [entry], [predicted] = truth.annotations[key], result.annotations[key]
    first, second = (
        read_segments(truth, entry, label_of), read_segments(result, predicted, label_of),
    )  # fmt: skip
    _check_areas(truth, entry, first)
    pairs = ((truth, entry, first, truth.sizes[key], "its JSON says"),
             (result, predicted, second, first.pixels.shape, "the ground truth is"))  # fmt: skip
    for file, each, segments, size, whose in pairs:
        if segments.pixels.shape != size:
            where = file.folder / each["file_name"]
            raise InputError(f"{where}: is {named(segments.pixels.shape)}, {whose} {named(size)}")
    return first, second


def read_segments(file: PanopticFile, entry: dict, label_of: dict[int, int]) -> Segments:
    """One annotation of a panoptic JSON with its PNG; ids of the two must be the same."""
    where, infos = f"{file.json}: {shown(entry['file_name'])}", entry["segments_info"]
    ids = np.array([info["id"] for info in infos], dtype=np.int64)
    pixels = read_segment_ids(inside(file.folder, entry["file_name"]))
    _compare_ids(ids, pixels, where)
    labels = [label_of[info["category_id"]] for info in infos]
    crowd = [info.get("iscrowd", 0) == 1 for info in infos]
    return Segments(pixels, ids, np.array(labels, dtype=int), np.array(crowd, dtype=bool))


def _compare_ids(ids: np.ndarray, pixels: np.ndarray, where: str) -> None:
    present = np.unique(pixels.ravel()[run_starts(pixels.ravel())])
    for missing in np.setdiff1d(ids, present):
        raise InputError(f"{where}: segment {missing} is not in the PNG")
    for unlisted in np.setdiff1d(present, [VOID_SEGMENT, *ids]):
        raise InputError(f"{where}: has pixels of segment {unlisted}, which is not listed")


def _check_areas(file: PanopticFile, entry: dict, segments: Segments) -> None:
    """panopticapi believes the areas of the JSON; where they are not the PNG's, neither number is
    right."""
    values, counts = np.unique(segments.pixels, return_counts=True)
    pixels = dict(zip(values.tolist(), counts.tolist()))
    for info in entry["segments_info"]:
        if info.get("area", pixels[info["id"]]) != pixels[info["id"]]:
            stated = f"area {shown(info['area'])}, the PNG has {pixels[info['id']]} pixels"
            where = f"{file.json}: {shown(entry['file_name'])}"
            raise InputError(f"{where}: segment {info['id']}: {stated}")
