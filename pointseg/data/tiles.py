"""Large images cut into square tiles: one dataset in COCO's layout, made of others of that
layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pointseg.data.dataset import Dataset, category_fault
from pointseg.data.files import folder_or_nothing
from pointseg.data.layouts import open_dataset
from pointseg.metrics import rle
from pointseg.structures import InputError

LEAST_PIXELS = 12  # of an instance in a tile; what is smaller was cut off at the tile's edge
SPLITS = ("train", "val")


def write_tiles(roots: Sequence[Path], out: Path, side: int) -> Path:
    """Train and val of all roots, cut into tiles, in a new folder `out`: all of it or nothing."""
    if out.exists():
        raise InputError(f"{out}: exists already")
    if side < 16:
        raise InputError(f"side: expected at least 16 pixels, got {side}")
    datasets = {split: [open_dataset(root, split, "coco") for root in roots] for split in SPLITS}
    first, *others = [dataset for split in SPLITS for dataset in datasets[split]]
    for other in others:
        if fault := category_fault(first, other):
            raise InputError(f"{other.root}: {fault}")
    with folder_or_nothing(out) as part:
        (part / "annotations").mkdir()
        for split in SPLITS:
            (part / split).mkdir()
            content = tiles_of(datasets[split], part / split, side)
            (part / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return out


def tiles_of(datasets: Sequence[Dataset], folder: Path, side: int) -> dict:
    """The images of one split, written; what its JSON says."""
    categories, images, annotations = datasets[0].categories, [], []
    pairs = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    for dataset, index in tqdm(pairs, desc="tiles", unit="image", disable=None, leave=False):
        truth, whole = dataset.arrays(index), dataset.image(index)
        for top, left in corners(whole.shape[:2], side):
            number = len(images) + 1
            tile = whole[top : top + side, left : left + side]
            Image.fromarray(np.ascontiguousarray(tile)).save(folder / f"{number:06d}.png")
            entry = {"id": number, "file_name": f"{number:06d}.png"}
            images.append({**entry, "height": tile.shape[0], "width": tile.shape[1]})
            masks = truth.masks[:, top : top + side, left : left + side]
            for row in large_enough(masks):
                entry = {"id": len(annotations) + 1, "image_id": number}
                entry["category_id"] = categories[truth.label[row]].id
                entry["iscrowd"] = int(truth.is_crowd[row])
                annotations.append({**entry, **shape_of(masks[row])})
    named = [{"id": c.id, "name": c.name} for c in categories]
    return {"images": images, "annotations": annotations, "categories": named}


def corners(size: tuple[int, int], side: int) -> Iterator[tuple[int, int]]:
    """(top, left) of every tile; the last of a row or column is moved back into the image, where it
    fits."""
    tops, lefts = (
        sorted({min(at, max(extent - side, 0)) for at in range(0, extent, side)}) for extent in size
    )
    return ((top, left) for top in tops for left in lefts)


def large_enough(masks: np.ndarray) -> list[int]:
    """Rows of masks [n, h, w] of which enough is left."""
    return np.flatnonzero(masks.sum((1, 2)) >= LEAST_PIXELS).tolist()


def shape_of(mask: np.ndarray) -> dict:
    """What a COCO annotation says of a mask."""
    code = rle.encode(mask[None])[0]
    return {"area": rle.area(code), "bbox": rle.box(code), "segmentation": rle.as_json(code)}
