"""A trained model on images of one's own: COCO-format results, and an overlay of them."""

from __future__ import annotations

import colorsys
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from pointseg.data.files import hidden_folder, write_text
from pointseg.data.images import SUFFIXES, read_image, segment_colours, written_names
from pointseg.data.marked_images import Marks, read_marks
from pointseg.data.point_file import category_records
from pointseg.data.supervision import collate
from pointseg.lab.labels import at_size, autocast, nearest
from pointseg.lab.models import load_model
from pointseg.lab.recipe import Recipe
from pointseg.lab.run_data import viewing
from pointseg.lab.run_record import Run
from pointseg.metrics import rle
from pointseg.papers.method import Method
from pointseg.structures import (
    Category,
    InputError,
    Instances,
    Panoptic,
    Prediction,
    Sample,
    tensors,
)
from pointseg.training.loop import default_device

SHOWN_SCORE = 0.5
VEIL = 0.5  # opacity of a segment's colour
GOLDEN = 0.618034  # steps of hue that keep neighbours in the list apart


def predict_images(checkpoint: Path, images: Path, out: Path, points: Path | None = None) -> None:
    """Segments one image or every image of a folder into `out`: instances.json or panoptic.json,
    and overlays; all of them or, where one cannot be read, none. With `points`, a file of points or
    boxes, what the method makes of them in the images that have some."""
    paths = image_paths(images)
    method, recipe, categories = load_model(model_of(checkpoint))
    marks = marks_for(method, recipe, categories, points)
    categories = marks.categories if marks else categories
    method.to(default_device())
    with hidden_folder(out) as place:
        kind, count = write_results(method, recipe, paths, marks, categories, place)
        settle(place, out)
    print(f"{out / kind}.json: {count} images")


def settle(made: Path, out: Path) -> None:
    """Moves a finished folder to its place, at once; file by file where there is one."""
    if not out.exists():
        made.rename(out)
        return
    for file in sorted(made.iterdir()):
        file.replace(out / file.name)


def write_results(
    method: Method,
    recipe: Recipe,
    paths: Sequence[Path],
    marks: Marks | None,
    categories: Sequence[Category],
    out: Path,
) -> tuple[str, int]:
    """Fills a folder; the kind of its results, and how many images have some."""
    samples, segments, entries = samples_of(paths, marks), [], []
    named = dict(zip(paths, written_names([path.name for path in paths])))
    for path, sample in tqdm(samples, desc="predict", disable=None):
        prediction, size = predict_one(method, recipe, sample), sample.size
        entry = {"id": sample.image_id, "file_name": path.name}
        entries.append({**entry, "width": size[1], "height": size[0]})
        segments += results(prediction, size, categories, out / f"{named[path]}.segments.png")
        draw(sample.image, prediction, categories, out / f"{named[path]}.overlay.png")
    listing = {"images": entries, "categories": category_records(categories)}
    kind = "panoptic" if segments and "segments_info" in segments[0] else "instances"
    write_text(out / "images.json", json.dumps(listing, indent=1) + "\n")
    write_text(out / f"{kind}.json", json.dumps(segments) + "\n")
    return kind, len(entries)


def model_of(given: Path) -> Path:
    """The file of a trained model: itself, or that of a run's folder."""
    if not given.is_dir():
        return given
    if not (given / "result.json").is_file() or len(given.absolute().parents) < 4:
        raise InputError(f"{given}: is neither a model nor the folder of a run")
    model = Run(given).model
    if not model.is_file():
        raise InputError(f"{given}: its model is not on this machine ({model})")
    return model


def marks_for(
    method: Method, recipe: Recipe, categories: Sequence[Category], points: Path | None
) -> Marks | None:
    """The points of a file that a method can answer to; refused where it needs some, or others."""
    name, alone = recipe.stage.method, "val" in method.SCORES
    if "labels" not in method.SCORES:
        if points is not None or not alone:
            raise InputError(f"{name}: {'takes no points' if alone else 'segments nothing'}")
        return None
    if points is None:
        if not alone:
            raise InputError(f"{name}: segments what is clicked or boxed; give --points FILE")
        return None
    marks = read_marks(points)
    if alone and tuple(marks.categories) != tuple(categories):
        raise InputError(f"{points}: has other categories than the model was trained on")
    return marks


def samples_of(paths: Sequence[Path], marks: Marks | None) -> Iterator[tuple[Path, Sample]]:
    """Images with their points; those without any are left out where points are given."""
    count = 0
    for number, path in zip(image_ids(paths), paths):
        image = torch.from_numpy(read_image(path, upright=True)).permute(2, 0, 1)
        points = marks.of(path, tuple(image.shape[1:])) if marks else None
        if marks is None or (points is not None and len(points)):
            count += 1
            yield path, Sample(number, image, points=points and tensors(points))
    if not count:
        raise InputError(f"{marks.path}: has points for none of the images")


def image_paths(where: Path) -> list[Path]:
    if where.is_dir():
        paths = sorted(p for p in where.iterdir() if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise InputError(f"{where}: has no images")
        return paths
    if not where.exists():
        raise InputError(f"{where}: no such image or folder")
    return [where]


def image_ids(paths: Sequence[Path]) -> list[int]:
    """The numbers in COCO-style names (000000000139.jpg), so that results meet their ground truth;
    else, also where two names hold one number, 1, 2, ..."""
    stems = [path.stem for path in paths]
    if all(re.fullmatch("[0-9]{1,18}", stem) for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(paths) + 1))


@torch.inference_mode()
def predict_one(method, recipe: Recipe, sample: Sample) -> Prediction:
    """The method's prediction as a run evaluates it, on the CPU and at the size that the method
    looked at; of a sample with points what the method makes of these."""
    batch = collate([viewing(recipe)(sample, np.random.default_rng(0))])
    with autocast(method, recipe) as device:
        if sample.points is None:
            [prediction] = method.predict(batch.to(device).images, batch.sizes)
        else:
            [labels] = method.pseudo_labels(batch.to(device))
            kind = "panoptic" if isinstance(labels, Panoptic) else "instances"
            prediction = Prediction(sample.image_id, **{kind: labels})
    whole = prediction.panoptic
    looked_at = prediction.instances.masks.shape[-2:] if whole is None else whole.segments.shape
    return at_size(prediction, sample.image_id, looked_at)


def masks_at(labels: Instances | Panoptic, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Masks [h, w] bool of an image's size, one after another: all of a large image's would not
    fit into memory."""
    if isinstance(labels, Panoptic):
        ids = segments_at(labels, size)
        yield from (ids == k for k in range(1, len(labels.label) + 1))
    else:
        yield from (nearest(mask[None], size)[0].numpy() for mask in labels.masks)


def segments_at(labels: Panoptic, size: tuple[int, int]) -> np.ndarray:
    """[h, w] int32 of an image's size."""
    return nearest(labels.segments[None].int(), size)[0].numpy()


def results(
    prediction: Prediction, size: tuple[int, int], categories: Sequence[Category], png: Path
) -> list[dict]:
    """COCO result entries for an image of (h, w); a panoptic one leaves its segments in a PNG
    beside (id = R + 256 G + 65536 B)."""
    if prediction.panoptic is not None:
        ids = segments_at(prediction.panoptic, size)
        Image.fromarray(segment_colours(ids)).save(png)
        labels = prediction.panoptic.label.tolist()
        info = [
            {"id": k, "category_id": categories[label].id}
            for k, label in enumerate(labels, 1)
            if (ids == k).any()
        ]
        return [{"image_id": prediction.image_id, "file_name": png.name, "segments_info": info}]
    instances, entries = prediction.instances, []
    scored = zip(masks_at(instances, size), instances.scores.tolist(), instances.label.tolist())
    for mask, score, label in scored:
        [code] = rle.encode(mask[None])
        entry = {"image_id": prediction.image_id, "category_id": categories[label].id}
        shape = {"bbox": rle.box(code), "segmentation": rle.as_json(code)}
        entries.append({**entry, "score": score, **shape})
    return entries


def draw(image: Tensor, prediction: Prediction, categories: Sequence[Category], path: Path) -> None:
    """Writes the image [3, h, w] with each segment in a colour of its own, its class beside it."""
    pixels, names = image.permute(1, 2, 0).numpy().copy(), []
    shown = worth_drawing(prediction)
    for k, (mask, label) in enumerate(zip(masks_at(shown, pixels.shape[:2]), shown.label.tolist())):
        if mask.any():
            colour = np.array(colorsys.hsv_to_rgb(k * GOLDEN % 1, 1, 1)) * 255
            paint(pixels, mask, colour)
            row, column = divmod(int(mask.argmax()), mask.shape[1])
            names.append(((column, row), categories[label].name))
    overlay = Image.fromarray(pixels)
    for corner, name in names:
        ImageDraw.Draw(overlay).text(corner, name, stroke_width=1, stroke_fill="black")
    overlay.save(path)


def paint(pixels: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """Veils the pixels [h, w, 3] of a mask, by a table of what each byte becomes."""
    for channel in range(3):
        become = (1 - VEIL) * np.arange(256) + VEIL * colour[channel]
        one = pixels[..., channel]
        one[mask] = become.round().astype(np.uint8)[one[mask]]


def worth_drawing(prediction: Prediction) -> Instances | Panoptic:
    """Every panoptic segment, or instances above a score."""
    if prediction.panoptic is not None:
        return prediction.panoptic
    every = prediction.instances
    kept = every.scores >= SHOWN_SCORE
    return Instances(every.masks[kept], every.scores[kept], every.label[kept], every.boxes[kept])
