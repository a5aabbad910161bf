"""Tiny datasets on disk in the official layouts: two images, two classes, small enough to check by
hand."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

H, W = 10, 12
BOX = np.zeros((H, W), bool)
BOX[2:6, 3:9] = True  # 24 pixels
CORNER = np.zeros((H, W), bool)
CORNER[7:, 8:] = True  # 12 pixels
CATEGORIES = [{"id": 5, "name": "cat"}, {"id": 9, "name": "dog"}]


def photo(path, h=H, w=W, seed=0, **save):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (h, w, 3), dtype=np.uint8)).save(
        path, **save
    )


def compressed(mask):
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def runs(mask):
    """Uncompressed RLE, pixel by pixel."""
    counts, last = [0], False
    for inked in mask.T.ravel().tolist():
        if inked != last:
            counts.append(0)
        counts[-1] += 1
        last = inked
    return {"size": list(mask.shape), "counts": counts}


def coco_data():
    """Image 1: a polygon, a compressed and a crowd of plain runs; image 2: no object at all."""
    polygon = [[3, 2, 9, 2, 9, 6, 3, 6]]
    objects = [
        (11, 5, polygon, 0, 24),
        (12, 9, compressed(CORNER), 0, 12),
        (13, 9, runs(CORNER[::-1]), 1, 12),
    ]
    return {
        "images": [{"id": k, "file_name": f"{k}.png", "height": H, "width": W} for k in (1, 2)],
        "annotations": [
            {
                "id": k,
                "image_id": 1,
                "category_id": c,
                "segmentation": s,
                "iscrowd": crowd,
                "area": area,
            }
            for k, c, s, crowd, area in objects
        ],
        "categories": [dict(c) for c in CATEGORIES],
    }


def write_json(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def coco(root, data=None):
    for k in (1, 2):
        photo(root / "train2017" / f"{k}.png", seed=k)
    return write_json(root / "annotations" / "instances_train2017.json", data or coco_data())


def panoptic_data():
    segments = [{"id": 70000, "category_id": 5, "iscrowd": 0, "area": 24},
                {"id": 300, "category_id": 2, "iscrowd": 0, "area": 12}]  # fmt: skip
    return {
        "images": [{"id": 1, "file_name": "1.jpg", "height": H, "width": W}],
        "annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": segments}],
        "categories": [
            {"id": 2, "name": "grass", "isthing": 0},
            {"id": 5, "name": "cat", "isthing": 1},
        ],
    }


def segments_png(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(
        np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    ).save(path)


def panoptic(root, data=None, ids=None):
    photo(root / "train2017" / "1.jpg")
    ids = np.where(BOX, 70000, np.where(CORNER, 300, 0)) if ids is None else ids
    segments_png(root / "annotations" / "panoptic_train2017" / "1.png", ids)
    return write_json(root / "annotations" / "panoptic_train2017.json", data or panoptic_data())


def index_png(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def voc(root, names=("a", "b"), split="train"):
    """Each image: object 1 of class 8 (cat), object 2 of class 12 (dog), a void row on top."""
    folder = root / "VOCdevkit" / "VOC2012"
    for k, name in enumerate(names):
        photo(folder / "JPEGImages" / f"{name}.jpg", seed=k)
        index_png(folder / "SegmentationObject" / f"{name}.png", voc_values(1, 2))
        index_png(folder / "SegmentationClass" / f"{name}.png", voc_values(8, 12))
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return folder


def voc_values(box, corner):
    values = np.where(BOX, box, np.where(CORNER, corner, 0))
    values[0] = 255
    return values


def sbd(root, name, objects, categories):
    folder = root / "SBD" / "dataset" / "inst"
    folder.mkdir(parents=True, exist_ok=True)
    inst = {
        "Segmentation": objects.astype(np.uint8),
        "Categories": np.array(categories, np.uint8)[:, None],
    }
    savemat(folder / f"{name}.mat", {"GTinst": inst})
    return folder / f"{name}.mat"
