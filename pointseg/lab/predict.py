"""A trained model on pictures of one's own: COCO-format results, and a picture with what was found."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from pointseg.data.files import write_text
from pointseg.data.images import read_image, segment_colours
from pointseg.data.supervision import collate
from pointseg.lab.labels import at_size, autocast
from pointseg.lab.models import load_model
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import viewing
from pointseg.metrics import rle
from pointseg.structures import Category, InputError, Prediction, Sample
from pointseg.training.loop import default_device

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
SHOWN_SCORE = 0.5
VEIL = 0.5  # opacity of a segment's colour
GOLDEN = 0.618034  # steps of hue that keep neighbours in the list apart


def predict_images(checkpoint: Path, images: Path, out: Path) -> None:
    """Segments one picture or every picture of a folder into `out`: instances.json or panoptic.json, and overlays."""
    paths = pictures(images)
    method, recipe, categories = load_model(checkpoint)
    method.to(default_device())
    found, entries = [], []
    out.mkdir(parents=True, exist_ok=True)
    for number, path in zip(image_ids(paths), tqdm(paths, desc="predict", disable=None)):
        image = torch.from_numpy(read_image(path)).permute(2, 0, 1)
        prediction = predict_one(method, recipe, Sample(number, image))
        entries.append(
            {
                "id": number,
                "file_name": path.name,
                "width": image.shape[2],
                "height": image.shape[1],
            }
        )
        found += results(prediction, categories, out / f"{path.stem}.segments.png")
        draw(image, prediction, categories, out / f"{path.stem}.overlay.png")
    named = [{"id": c.id, "name": c.name, "isthing": int(c.is_thing)} for c in categories]
    kind = "panoptic" if found and "segments_info" in found[0] else "instances"
    write_text(
        out / "images.json", json.dumps({"images": entries, "categories": named}, indent=1) + "\n"
    )
    write_text(out / f"{kind}.json", json.dumps(found) + "\n")
    print(f"{out / kind}.json: {len(paths)} pictures")


def pictures(where: Path) -> list[Path]:
    if where.is_dir():
        inside = sorted(p for p in where.iterdir() if p.suffix.lower() in PICTURES)
        if not inside:
            raise InputError(f"{where}: no pictures in this folder")
        return inside
    if not where.exists():
        raise InputError(f"{where}: no such picture or folder")
    return [where]


def image_ids(paths: Sequence[Path]) -> list[int]:
    """The numbers in COCO-style names (000000000139.jpg), so that results meet their ground truth; else 1, 2, ..."""
    if all(path.stem.isdigit() for path in paths):
        return [int(path.stem) for path in paths]
    return list(range(1, len(paths) + 1))


@torch.inference_mode()
def predict_one(method, recipe: Recipe, sample: Sample) -> Prediction:
    """What the method finds in one picture, at the picture's own size; where the method is, as a run evaluates it."""
    batch = collate([viewing(recipe)(sample, np.random.default_rng(0))])
    with autocast(method, recipe) as device:
        [prediction] = method.predict(batch.to(device).images, batch.sizes)
    return at_size(prediction, sample.image_id, sample.size)


def results(prediction: Prediction, categories: Sequence[Category], png: Path) -> list[dict]:
    """COCO result entries; a panoptic one leaves its segments in a PNG beside (id = R + 256 G + 65536 B)."""
    if prediction.panoptic is not None:
        ids = prediction.panoptic.segments.numpy()
        Image.fromarray(segment_colours(ids)).save(png)
        labels = prediction.panoptic.label.tolist()
        info = [
            {"id": k, "category_id": categories[label].id}
            for k, label in enumerate(labels, 1)
            if (ids == k).any()
        ]
        return [{"image_id": prediction.image_id, "file_name": png.name, "segments_info": info}]
    instances, entries = prediction.instances, []
    codes = rle.encode(instances.masks)
    for code, score, label in zip(codes, instances.scores.tolist(), instances.label.tolist()):
        entry = {"image_id": prediction.image_id, "category_id": categories[label].id}
        shape = {"bbox": rle.box(code), "segmentation": rle.as_json(code)}
        entries.append({**entry, "score": score, **shape})
    return entries


def draw(image: Tensor, prediction: Prediction, categories: Sequence[Category], path: Path) -> None:
    """Writes the picture with each segment in a colour of its own, its class beside it."""
    pixels, names = image.permute(1, 2, 0).numpy().astype(np.float32), []
    for k, (mask, label) in enumerate(zip(*shown_segments(prediction))):
        if mask.any():
            colour = np.array(colorsys.hsv_to_rgb(k * GOLDEN % 1, 1, 1)) * 255
            pixels[mask.numpy()] = (1 - VEIL) * pixels[mask.numpy()] + VEIL * colour
            row, column = mask.nonzero()[0].tolist()
            names.append(((column, row), categories[int(label)].name))
    overlay = Image.fromarray(pixels.round().astype(np.uint8))
    for corner, name in names:
        ImageDraw.Draw(overlay).text(corner, name, stroke_width=1, stroke_fill="black")
    overlay.save(path)


def shown_segments(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Masks [n, h, w] and labels [n] worth drawing: every panoptic segment, or instances above a score."""
    if prediction.panoptic is not None:
        rows = torch.arange(1, len(prediction.panoptic.label) + 1)
        return prediction.panoptic.segments == rows[:, None, None], prediction.panoptic.label
    sure = prediction.instances.scores >= SHOWN_SCORE
    return prediction.instances.masks[sure], prediction.instances.label[sure]
