"""COCO panoptic files (JSON + PNG, id = R + 256 G + 65536 B, void 0): read and checked, one image
at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointseg.data.files import inside, read_json, shown
from pointseg.data.images import named, read_segment_ids
from pointseg.metrics.files import take
from pointseg.metrics.pq import Segments, run_starts
from pointseg.structures import VOID_SEGMENT, Category, InputError


@dataclass(frozen=True)
class PanopticFile:
    """A panoptic JSON and the folder of its PNGs."""

    json: Path
    folder: Path
    content: object

    @classmethod
    def read(cls, json: Path, folder: Path) -> PanopticFile:
        return cls(json, Path(folder), read_json(Path(json)))

    def annotations(self) -> dict:
        """image id -> annotation."""
        by_image: dict = {}
        for row, entry in enumerate(take(self.content, "annotations", "a list", str(self.json))):
            key = take(entry, "image_id", "an id", f"{self.json}: annotations[{row}]")
            if key in by_image:
                raise InputError(f"{self.json}: image {key} is annotated twice")
            by_image[key] = entry
        return by_image

    def categories(self) -> tuple[Category, ...]:
        """In file order."""
        categories: dict[int, Category] = {}
        for row, entry in enumerate(take(self.content, "categories", "a list", str(self.json))):
            where = f"{self.json}: categories[{row}]"
            key = take(entry, "id", "an integer", where)
            thing = entry.get("isthing", 1)
            if thing not in (0, 1) or key in categories:
                cause = "the id stands twice" if key in categories else "isthing is neither 0 nor 1"
                raise InputError(f"{where}: {cause}")
            categories[key] = Category(key, take(entry, "name", "a text", where), bool(thing))
        if not categories:
            raise InputError(f"{self.json}: has no category")
        return tuple(categories.values())


def read_pairs(
    gt: Path, gt_dir: Path, dt: Path, dt_dir: Path
) -> tuple[tuple[Category, ...], Iterator[tuple[Segments, Segments]]]:
    """(categories of the ground truth, a generator of (truth, prediction) over its images)."""
    truth, result = PanopticFile.read(gt, gt_dir), PanopticFile.read(dt, dt_dir)
    categories = truth.categories()
    truths, results = truth.annotations(), result.annotations()
    if not truths:
        raise InputError(f"{gt}: has no image")
    for key in truths.keys() - results.keys():
        raise InputError(f"{dt}: has no prediction for image {key}")
    for key in results.keys() - truths.keys():
        raise InputError(f"{dt}: names unknown image {key}")
    label_of = {c.id: label for label, c in enumerate(categories)}
    return categories, (_pair(truth, truths[k], result, results[k], label_of) for k in truths)


def _pair(
    truth: PanopticFile, entry: dict, result: PanopticFile, predicted: dict, label_of: dict
) -> tuple[Segments, Segments]:
    first = read_segments(truth, entry, label_of)
    _check_areas(truth, entry, first)
    second = read_segments(result, predicted, label_of)
    if first.pixels.shape != second.pixels.shape:
        sizes = [named(segments.pixels.shape) for segments in (second, first)]
        where = result.folder / predicted["file_name"]
        raise InputError(f"{where}: is {sizes[0]}, the ground truth is {sizes[1]}")
    return first, second


def read_segments(file: PanopticFile, entry: dict, label_of: dict[int, int]) -> Segments:
    """One annotation of a panoptic JSON with its PNG; ids of the two must be the same."""
    name = take(entry, "file_name", "a text", f"{file.json}: an annotation")
    path, where = inside(file.folder, name), f"{file.json}: {shown(name)}"
    infos = take(entry, "segments_info", "a list", where)
    ids = np.array([_segment_id(info, where) for info in infos], dtype=np.int64)
    pixels = read_segment_ids(path)
    _compare_ids(ids, pixels, where)
    labels = [_label(info, label_of, where) for info in infos]
    crowd = [info.get("iscrowd", 0) == 1 for info in infos]
    return Segments(pixels, ids, np.array(labels, dtype=int), np.array(crowd, dtype=bool))


def _segment_id(info: object, where: str) -> int:
    key = take(info, "id", "an integer", f"{where}: a segment")
    if key == VOID_SEGMENT:
        raise InputError(f"{where}: has a segment with id 0, which means void; ids start at 1")
    if not 0 < key < 2**24:
        raise InputError(f"{where}: has segment id {key}, outside 1..16777215")
    return key


def _label(info: dict, label_of: dict[int, int], where: str) -> int:
    category = take(info, "category_id", "an integer", f"{where}: a segment")
    if category not in label_of:
        raise InputError(f"{where}: has unknown category {category}")
    return label_of[category]


def _compare_ids(ids: np.ndarray, pixels: np.ndarray, where: str) -> None:
    if len(np.unique(ids)) != len(ids):
        raise InputError(f"{where}: lists a segment id twice")
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
            raise InputError(f"{file.json}: {entry['file_name']}: segment {info['id']}: {stated}")
