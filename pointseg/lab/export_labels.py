"""A trained method's labels of images with points, as a COCO data set for any student."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from pointseg.data.files import folder_or_nothing
from pointseg.data.images import is_turned, written_names
from pointseg.data.layouts import open_dataset
from pointseg.data.marked_images import read_marks
from pointseg.data.point_file import things_first
from pointseg.data.supervision import PointDataset
from pointseg.data.write_coco import (
    instance_annotations,
    panoptic_annotation,
    segment_png,
    write_lists,
)
from pointseg.lab.labels import Labelled, label_images
from pointseg.lab.models import load_model
from pointseg.lab.predict import model_of
from pointseg.lab.run_data import viewing
from pointseg.structures import Category, InputError
from pointseg.training.loop import default_device


def export_labels(
    method: str, run: Path, data: Path, points: Path, out: Path, split: str = "train",
    layout: str = "auto",
) -> str:  # fmt: skip
    """What was written: images, COCO instances and, of panoptic methods, COCO panoptic."""
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty")
    model, recipe, categories = load_model(model_of(run))
    if recipe.stage.method != method:
        raise InputError(f"{run}: holds a trained {recipe.stage.method}, not {method}")
    if "labels" not in model.SCORES:
        raise InputError(f"{method}: makes no labels from points")
    marked = PointDataset(
        open_dataset(data, split, layout),
        things_first(read_marks(points).points),
        viewing(recipe),
    )
    if tuple(marked.categories) != categories:
        raise InputError(f"{points}: has other categories than {run} was trained on")
    labelled = label_images(model.to(default_device()), marked, recipe, teaching=True)
    with folder_or_nothing(out) as folder:
        write_labelled(labelled, folder, split)
    return f"{out}: labels of {len(labelled)} images by {method}"


def write_labelled(labelled: Labelled, out: Path, split: str) -> None:
    """The images, and the labels of all of them as if they were the truth."""
    annotations = out / "annotations"
    for folder in (out / f"{split}2017", annotations / f"panoptic_{split}2017"):
        folder.mkdir(parents=True, exist_ok=True)
    names = [labelled.dataset.path(row).name for row in labelled.rows]
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise InputError(f"{out}: {count} images would be {name}, of other folders")
    rows = tqdm(enumerate(written_names(names)), desc="write", total=len(names), disable=None)
    records = [_record(labelled, row, name, out, split) for row, name in rows]
    every = [annotation for record in records for annotation in record["instances"]]
    for number, annotation in enumerate(every, 1):
        annotation["id"] = number
    head = {"info": {"description": "labels made from points"}, "licenses": []}
    write_lists(annotations, split, head, records, category_entries(labelled.categories))
    if not any(record["panoptic"] for record in records):
        (annotations / f"panoptic_{split}2017").rmdir()


def _record(labelled: Labelled, row: int, name: str, out: Path, split: str) -> dict:
    """The files of one image, its mask called by a name, and its entries for the JSON files."""
    source, key = labelled.dataset.path(labelled.rows[row]), labelled.ids[row]
    number = key if isinstance(key, int) else row + 1
    if labelled.dataset.layout == "folder" and is_turned(source):  # its labels are upright
        upright = Image.fromarray(labelled.image(row))
        upright.save(out / f"{split}2017" / source.name, quality=95)
    else:
        shutil.copyfile(source, out / f"{split}2017" / source.name)
    truth, (h, w) = labelled.truth(row), labelled.size(row)
    image = {"id": number, "file_name": source.name, "height": h, "width": w}
    instances = instance_annotations(number, truth, labelled.categories)
    if not labelled.kept[row]["panoptic"]:
        return {"image": image, "instances": instances, "panoptic": None}
    entry, ids = panoptic_annotation(number, name, truth, labelled.categories)
    (out / "annotations" / f"panoptic_{split}2017" / entry["file_name"]).write_bytes(
        segment_png(ids)
    )
    return {"image": image, "instances": instances, "panoptic": entry}


def category_entries(categories: Sequence[Category]) -> list[dict]:
    """Categories as COCO panoptic lists them; a colour has one byte a channel."""
    return [
        {
            "id": c.id,
            "name": c.name,
            "supercategory": "thing" if c.is_thing else "stuff",
            "isthing": int(c.is_thing),
            "color": [(c.id * step) % 256 for step in (97, 57, 23)],
        }
        for c in categories
    ]
