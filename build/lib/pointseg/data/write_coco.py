"""One scene in the layouts of COCO instances and COCO panoptic."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pointseg.data.bestiary.draw import CATEGORIES, STUFF, THINGS, Scene
from pointseg.data.files import write_text
from pointseg.data.images import segment_colours
from pointseg.data.masks import box_of
from pointseg.data.write_voc import PALETTE
from pointseg.metrics import rle
from pointseg.structures import VOID_SEGMENT, Category, Truth

COCO = Path("coco")
INFO = {"description": "Bestiary, a drawn benchmark", "version": "1", "year": 2026}
LICENCES = [{"id": 1, "name": "MIT", "url": "https://opensource.org/license/mit"}]


def segment_id(row: int) -> int:
    """A 24-bit id, never 0 and different for every row, whose bytes make a readable colour."""
    return (row + 1) * 2654435761 % (1 << 24)


def segment_png(ids: np.ndarray) -> bytes:
    """The panoptic PNG of segment ids [h, w]."""
    stream = io.BytesIO()
    Image.fromarray(segment_colours(ids)).save(stream, "PNG")
    return stream.getvalue()


def run_lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE of a mask: column by column, background first."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0], changes, [len(flat)]])
    counts = np.diff(ends).tolist()
    return [0, *counts] if flat[0] else counts


def instance_annotations(number: int, truth: Truth, categories: Sequence[Category]) -> list[dict]:
    """Things; crowds as plain run lengths, as in COCO."""
    entries = []
    for row in np.flatnonzero(truth.is_thing).tolist():
        code, crowd = rle.encode(truth.masks[row][None])[0], bool(truth.is_crowd[row])
        shape = rle.as_json(code)
        if crowd:
            shape["counts"] = run_lengths(np.asarray(truth.masks[row]))
        entry = {"id": number * 100 + row + 1, "image_id": number}
        entry["category_id"] = categories[int(truth.label[row])].id
        measured = {"area": rle.area(code), "bbox": rle.box(code), "iscrowd": int(crowd)}
        entries.append({**entry, "segmentation": shape, **measured})
    return entries


def panoptic_annotation(
    number: int, stem: str, truth: Truth, categories: Sequence[Category]
) -> tuple[dict, np.ndarray]:
    """The JSON entry, and the segment ids [h, w] of its PNG."""
    ids = np.full(truth.void.shape, VOID_SEGMENT, np.int64)
    segments = []
    columns = np.asarray(truth.masks), truth.label.tolist(), truth.is_crowd.tolist()
    for row, (mask, label, crowd) in enumerate(zip(*columns)):
        ids[mask] = segment_id(row)
        left, top, right, bottom = box_of(mask)
        entry = {"id": segment_id(row), "category_id": categories[label].id, "iscrowd": int(crowd)}
        box = [left, top, right - left + 1, bottom - top + 1]
        segments.append({**entry, "bbox": box, "area": int(np.count_nonzero(mask))})
    return {"image_id": number, "file_name": f"{stem}.png", "segments_info": segments}, ids


def write_coco(folder: Path, split: str, number: int, scene: Scene, jpeg: bytes) -> dict:
    """The files of one image, and its entries for the JSON files."""
    stem = f"{number:012d}"
    (folder / COCO / f"{split}2017" / f"{stem}.jpg").write_bytes(jpeg)
    if split == "pretrain":
        return {}
    truth = scene.arrays()
    entry, ids = panoptic_annotation(number, stem, truth, CATEGORIES)
    target = folder / COCO / "annotations" / f"panoptic_{split}2017" / f"{stem}.png"
    target.write_bytes(segment_png(ids))
    h, w = truth.void.shape
    image = {"id": number, "file_name": f"{stem}.jpg", "height": h, "width": w, "license": 1}
    instances = instance_annotations(number, truth, CATEGORIES)
    return {"image": image, "instances": instances, "panoptic": entry}


def category_entries() -> list[dict]:
    """Panoptic categories; instances JSON takes the things without colour and isthing."""
    return [
        {
            "id": c.id,
            "name": c.name,
            "supercategory": "creature" if c.is_thing else "ground",
            "isthing": int(c.is_thing),
            "color": PALETTE[3 * c.id : 3 * c.id + 3],
        }
        for c in THINGS + STUFF
    ]


def write_coco_lists(folder: Path, split: str, records: list[dict]) -> None:
    """instances_ and panoptic_ JSON of one split."""
    head = {"info": INFO, "licenses": LICENCES}
    write_lists(folder / COCO / "annotations", split, head, records, category_entries())


def write_lists(
    annotations: Path, split: str, head: dict, records: list[dict], entries: list[dict]
) -> None:
    """instances_ JSON of one split; panoptic_ JSON where every record has such an entry."""
    head = {**head, "images": [r["image"] for r in records]}
    things = [{k: c[k] for k in ("id", "name", "supercategory")} for c in entries if c["isthing"]]
    files = [("instances", [entry for r in records for entry in r["instances"]], things)]
    if all(r["panoptic"] for r in records):
        files.append(("panoptic", [r["panoptic"] for r in records], entries))
    for kind, rows, categories in files:
        content = {**head, "annotations": rows, "categories": categories}
        text = json.dumps(content, separators=(",", ":"))
        write_text(annotations / f"{kind}_{split}2017.json", text)


def coco_folders(labelled: list[str], pretrain: bool) -> list[Path]:
    splits = [*labelled, "pretrain"] if pretrain else labelled
    panoptic = [COCO / "annotations" / f"panoptic_{split}2017" for split in labelled]
    return [COCO / f"{split}2017" for split in splits] + panoptic
