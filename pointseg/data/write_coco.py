"""One scene in the layouts of COCO instances and COCO panoptic."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from pointseg.data.bestiary.draw import CATEGORIES, STUFF, THINGS, Scene
from pointseg.data.write_voc import PALETTE
from pointseg.structures import VOID_SEGMENT, Truth

COCO = Path("coco")
INFO = {"description": "Bestiary, a drawn benchmark", "version": "1", "year": 2026}
LICENCES = [{"id": 1, "name": "MIT", "url": "https://opensource.org/license/mit"}]


def segment_id(row: int) -> int:
    """A 24-bit id, never 0 and different for every row, whose bytes make a readable colour."""
    return (row + 1) * 2654435761 % (1 << 24)


def segment_png(ids: np.ndarray) -> bytes:
    """RGB picture of segment ids [h, w]: id = R + 256 G + 65536 B."""
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], -1).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "PNG")
    return stream.getvalue()


def run_lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed RLE of a mask: column by column, background first."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    ends = np.concatenate([[0], changes, [len(flat)]])
    counts = np.diff(ends).tolist()
    return [0, *counts] if flat[0] else counts


def segmentation_of(mask: np.ndarray, crowd: bool) -> tuple[dict, dict]:
    """What the JSON holds, and the compressed RLE to measure it by."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if crowd:
        return {"size": list(mask.shape), "counts": run_lengths(mask)}, encoded
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}, encoded


def instance_annotations(number: int, truth: Truth) -> list[dict]:
    out = []
    things = truth.is_thing.tolist()
    for row, (mask, label, crowd) in enumerate(
        zip(truth.masks.numpy(), truth.label.tolist(), truth.is_crowd.tolist())
    ):
        if not things[row]:
            continue
        segmentation, encoded = segmentation_of(mask, crowd)
        out.append(
            {
                "id": number * 100 + row + 1,
                "image_id": number,
                "category_id": CATEGORIES[label].id,
                "segmentation": segmentation,
                "area": float(coco_mask.area(encoded)),
                "bbox": [float(x) for x in coco_mask.toBbox(encoded)],
                "iscrowd": int(crowd),
            }
        )
    return out


def panoptic_annotation(number: int, stem: str, truth: Truth) -> tuple[dict, np.ndarray]:
    """The JSON entry, and the segment ids [h, w] of its PNG."""
    ids = np.full(truth.void.shape, VOID_SEGMENT, np.int64)
    segments = []
    for row, (mask, label, crowd) in enumerate(
        zip(truth.masks.numpy(), truth.label.tolist(), truth.is_crowd.tolist())
    ):
        ids[mask] = segment_id(row)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        left, top = int(columns[0]), int(rows[0])
        box = [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]
        segments.append(
            {
                "id": segment_id(row),
                "category_id": CATEGORIES[label].id,
                "iscrowd": int(crowd),
                "bbox": box,
                "area": int(np.count_nonzero(mask)),
            }
        )
    return {"image_id": number, "file_name": f"{stem}.png", "segments_info": segments}, ids


def write_coco(folder: Path, split: str, number: int, scene: Scene, jpeg: bytes) -> dict:
    """The files of one picture, and its entries for the JSON files."""
    stem = f"{number:012d}"
    (folder / COCO / f"{split}2017" / f"{stem}.jpg").write_bytes(jpeg)
    if split == "pretrain":
        return {}
    entry, ids = panoptic_annotation(number, stem, scene.truth)
    target = folder / COCO / "annotations" / f"panoptic_{split}2017" / f"{stem}.png"
    target.write_bytes(segment_png(ids))
    h, w = scene.truth.void.shape
    image = {"id": number, "file_name": f"{stem}.jpg", "height": h, "width": w, "license": 1}
    return {
        "image": image,
        "instances": instance_annotations(number, scene.truth),
        "panoptic": entry,
    }


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
    head = {"info": INFO, "licenses": LICENCES, "images": [r["image"] for r in records]}
    entries = category_entries()
    things = [{k: c[k] for k in ("id", "name", "supercategory")} for c in entries if c["isthing"]]
    instances = [annotation for r in records for annotation in r["instances"]]
    panoptic = [r["panoptic"] for r in records]
    where = folder / COCO / "annotations"
    dump(
        where / f"instances_{split}2017.json",
        {**head, "annotations": instances, "categories": things},
    )
    dump(
        where / f"panoptic_{split}2017.json",
        {**head, "annotations": panoptic, "categories": entries},
    )


def dump(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")))


def coco_folders(labelled: list[str], pretrain: bool) -> list[Path]:
    splits = [*labelled, "pretrain"] if pretrain else labelled
    panoptic = [COCO / "annotations" / f"panoptic_{split}2017" for split in labelled]
    return [COCO / f"{split}2017" for split in splits] + panoptic
