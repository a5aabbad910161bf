"""Large pictures cut into square tiles: one dataset in COCO's layout, made of one or more others of that layout."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor
from tqdm import tqdm

from pointseg.data.dataset import Dataset
from pointseg.data.layouts import open_dataset
from pointseg.metrics import rle
from pointseg.structures import Category, InputError

LEAST_PIXELS = 12  # of an instance in a tile; what is smaller was cut off at the tile's edge
SPLITS = ("train", "val")


def write_tiles(roots: Sequence[Path], out: Path, side: int) -> Path:
    """Train and val of all roots, cut into tiles, in a new folder `out`: all of it or nothing."""
    if out.exists():
        raise InputError(f"{out}: exists already")
    if side < 16:
        raise InputError(f"tiles: a side of {side} pixels is too small")
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (part / "annotations").mkdir()
        for split in SPLITS:
            (part / split).mkdir()
            content = tiles_of(
                [open_dataset(root, split, "coco") for root in roots], part / split, side
            )
            (part / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        part.chmod(0o755)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def tiles_of(datasets: Sequence[Dataset], folder: Path, side: int) -> dict:
    """The pictures of one split, written; what its JSON says."""
    categories = datasets[0].categories
    if any(tuple(d.categories) != tuple(categories) for d in datasets):
        raise InputError(f"{datasets[1].root}: has other categories than {datasets[0].root}")
    images, annotations = [], []
    pairs = [(dataset, index) for dataset in datasets for index in range(len(dataset))]
    for dataset, index in tqdm(pairs, desc="tiles", unit="picture", disable=None, leave=False):
        truth, whole = dataset.truth(index), dataset.image(index)
        for top, left in corners(whole.shape[:2], side):
            number = len(images) + 1
            tile = whole[top : top + side, left : left + side]
            Image.fromarray(np.ascontiguousarray(tile)).save(folder / f"{number:06d}.png")
            images.append({"id": number, "file_name": f"{number:06d}.png", "height": tile.shape[0],
                           "width": tile.shape[1]})  # fmt: skip
            masks = truth.masks[:, top : top + side, left : left + side]
            for row in seen(masks):
                annotations.append(annotation(len(annotations) + 1, number, masks[row], categories[truth.label[row]],
                                              bool(truth.is_crowd[row])))  # fmt: skip
    named = [{"id": c.id, "name": c.name} for c in categories]
    return {"images": images, "annotations": annotations, "categories": named}


def corners(size: tuple[int, int], side: int) -> Iterator[tuple[int, int]]:
    """(top, left) of every tile; the last of a row or column is moved back into the picture, where it fits."""
    tops, lefts = (
        sorted({min(at, max(extent - side, 0)) for at in range(0, extent, side)}) for extent in size
    )
    return ((top, left) for top in tops for left in lefts)


def seen(masks: Tensor) -> list[int]:
    """Rows of masks [n, h, w] that show enough of themselves."""
    return (masks.flatten(1).sum(1) >= LEAST_PIXELS).nonzero()[:, 0].tolist()


def annotation(number: int, image: int, mask: Tensor, category: Category, crowd: bool) -> dict:
    code = rle.encode(mask[None])[0]
    area, box = float(coco_mask.area(code)), rle.box(code)
    counts = {"size": [int(s) for s in code["size"]], "counts": code["counts"].decode()}
    return {"id": number, "image_id": image, "category_id": category.id, "iscrowd": int(crowd), "area": area,
            "bbox": box, "segmentation": counts}  # fmt: skip
