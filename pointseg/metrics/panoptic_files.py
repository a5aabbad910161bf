"""COCO panoptic files (JSON + PNG, id = R + 256 G + 65536 B, void 0): read and checked, one image at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pointseg.metrics.files import read_json, table, take
from pointseg.metrics.pq import Segments, run_starts
from pointseg.structures import VOID_SEGMENT, Category, InputError


def read_categories(content: object, name: str) -> tuple[Category, ...]:
    """The categories of a panoptic JSON, in file order."""
    categories = []
    for row, entry in enumerate(table(content, "categories", name)):
        what = f"categories[{row}]"
        key = take(entry, "id", int, name, what)
        thing = entry.get("isthing", 1)
        if thing not in (0, 1) or any(key == c.id for c in categories):
            raise InputError(f"{name}: {what} has isthing {thing!r} or an id that stands twice")
        categories.append(Category(key, take(entry, "name", str, name, what), bool(thing)))
    if not categories:
        raise InputError(f"{name}: holds no category")
    return tuple(categories)


def read_pairs(
    gt: Path, gt_dir: Path, dt: Path, dt_dir: Path
) -> tuple[tuple[Category, ...], Iterator[tuple[Segments, Segments]]]:
    """(categories of the ground truth, a generator of (truth, prediction) over its images)."""
    truth, results = read_json(gt), read_json(dt)
    categories = read_categories(truth, str(gt))
    theirs = _annotations(results, str(dt))
    ours = _annotations(truth, str(gt))
    if not ours:
        raise InputError(f"{gt}: holds no image")
    for key in ours:
        if key not in theirs:
            raise InputError(f"{dt}: has no prediction for image {key}")
    for key in theirs:
        if key not in ours:
            raise InputError(f"{dt}: names unknown image {key}")
    rows = {c.id: row for row, c in enumerate(categories)}
    pairs = (
        _pair(ours[key], theirs[key], rows, (str(gt), Path(gt_dir)), (str(dt), Path(dt_dir)))
        for key in ours
    )
    return categories, pairs


def read_segments(entry: dict, rows: dict[int, int], name: str, folder: Path) -> Segments:
    """One annotation of a panoptic JSON with its PNG; ids of the two must be the same."""
    path = png_path(folder, take(entry, "file_name", str, name, "an annotation"), name)
    infos = take(entry, "segments_info", list, name, f"{path.name}:")
    ids = np.array([_segment_id(info, path, name) for info in infos], dtype=np.int64)
    pixels = read_ids(path)
    _compare_ids(ids, pixels, path, name)
    labels = [_label(info, rows, path, name) for info in infos]
    crowd = [info.get("iscrowd", 0) == 1 for info in infos]
    areas = [info.get("area") for info in infos]
    stated = all(isinstance(a, (int, float)) and a >= 0 for a in areas)
    return Segments(
        pixels,
        ids,
        np.array(labels, dtype=int),
        np.array(crowd, dtype=bool),
        np.array(areas) if stated else None,
    )


def read_ids(path: Path) -> np.ndarray:
    """[h, w] uint32 segment ids of an RGB PNG."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.mode != "RGB":
                    raise InputError(f"{path}: is {image.mode}, a panoptic PNG is RGB")
                rgba = np.asarray(image.convert("RGBA"))
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: is missing") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    return rgba.view("<u4")[..., 0] & 0xFFFFFF


def png_path(folder: Path, file_name: str, name: str) -> Path:
    """folder / file_name, which must stay in the folder."""
    path = folder / file_name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{name}: file_name {file_name!r} leaves its folder")
    return path


def _annotations(content: object, name: str) -> dict:
    """image id -> annotation."""
    found: dict = {}
    for row, entry in enumerate(table(content, "annotations", name)):
        key = take(entry, "image_id", (int, str), name, f"annotations[{row}]")
        if key in found:
            raise InputError(f"{name}: image {key} is annotated twice")
        found[key] = entry
    return found


def _pair(
    truth: dict, result: dict, rows: dict, ours: tuple, theirs: tuple
) -> tuple[Segments, Segments]:
    first, second = read_segments(truth, rows, *ours), read_segments(result, rows, *theirs)
    if first.pixels.shape != second.pixels.shape:
        sizes = [" x ".join(map(str, s.pixels.shape)) for s in (second, first)]
        raise InputError(
            f"{theirs[1] / result['file_name']}: is {sizes[0]}, the ground truth is {sizes[1]}"
        )
    return first, second._replace(area=None)


def _segment_id(info: object, path: Path, name: str) -> int:
    key = take(info, "id", int, name, f"a segment of {path.name}")
    if key == VOID_SEGMENT:
        raise InputError(
            f"{name}: {path.name} has a segment with id 0, which means void; ids start at 1"
        )
    if not 0 < key < 2**24:
        raise InputError(f"{name}: {path.name} has segment id {key}, outside 1..16777215")
    return key


def _label(info: dict, rows: dict[int, int], path: Path, name: str) -> int:
    category = take(info, "category_id", int, name, f"a segment of {path.name}")
    if category not in rows:
        raise InputError(f"{name}: {path.name} has unknown category {category}")
    return rows[category]


def _compare_ids(ids: np.ndarray, pixels: np.ndarray, path: Path, name: str) -> None:
    if len(np.unique(ids)) != len(ids):
        raise InputError(f"{name}: {path.name} lists a segment id twice")
    present = np.unique(pixels.ravel()[run_starts(pixels.ravel())])
    missing = np.setdiff1d(ids, present)
    if len(missing):
        raise InputError(f"{name}: segment {missing[0]} of {path.name} is not in the PNG")
    unlisted = np.setdiff1d(present, [VOID_SEGMENT, *ids])
    if len(unlisted):
        raise InputError(
            f"{name}: {path.name} has pixels of segment {unlisted[0]}, which is not listed"
        )
