"""A points file against the masks it speaks of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pointseg.data.dataset import Dataset
from pointseg.data.images import named
from pointseg.data.point_file import FORMAT, ImagePoints, PointFile, read_points
from pointseg.data.voc import VocDataset
from pointseg.structures import InputError, Truth

# A hand may miss, and the middle of an extreme span may sit beside a concave mask: worth a note, no
# more.
MAY_LEAVE = ("jitter", "manual", "extreme")
Finding = tuple[str, bool]  # the line, and whether it is a fault


def find_points(root: Path) -> list[Path]:
    """Files directly under the root that say they are points files."""
    if not root.is_dir():
        return []
    return [path for path in sorted(root.glob("*.json")) if _says_points(path)]


def _says_points(path: Path) -> bool:
    with path.open("rb") as file:
        return f'"{FORMAT}"'.encode() in file.read(200)


def _ignore(fault: InputError) -> None:
    """The split was opened before, and its faults were reported then."""


def point_faults(file: Path, datasets: list[Dataset]) -> Iterator[Finding]:
    """What is wrong with a points file, judged by the split it was made from."""
    try:
        points = read_points(file)
    except InputError as fault:
        yield str(fault), True
        return
    dataset = _source(points, datasets)
    if dataset is None:
        yield f"{file}: none of its images is in a split that was examined", True
        return
    if points.source_hash not in (None, dataset.content_hash()):
        yield f"{file}: was made from another state of {dataset!r} (source hash differs)", True
    if dataset.categories and set(points.categories) != set(dataset.categories):
        yield f"{file}: has other categories (id, name, isthing) than {dataset!r}", True
    row_of = {image_id: i for i, image_id in enumerate(dataset.ids)}
    for image_id, image in points.images.items():
        where = f"{file}: image {image_id!r}"
        if image_id not in row_of:
            yield f"{where} is not in {dataset!r}", True
        else:
            yield from _image_faults(where, points, image, dataset, row_of[image_id])


def _source(points: PointFile, datasets: list[Dataset]) -> Dataset | None:
    """The split with the file's source hash, else the one that shares most images with it."""
    with_stuff = [VocDataset(d.root, d.split, True, _ignore) for d in datasets if d.layout == "voc"]
    has_stuff = not all(category.is_thing for category in points.categories)
    candidates = [*datasets, *with_stuff] if has_stuff else datasets
    shared = {dataset: len(points.images.keys() & set(dataset.ids)) for dataset in candidates}
    if not any(shared.values()):
        return None
    same = lambda d: shared[d] > 0 and d.content_hash() == points.source_hash  # noqa: E731
    return max(shared, key=lambda d: (same(d), shared[d]))


def _image_faults(
    where: str, points: PointFile, image: ImagePoints, dataset: Dataset, i: int
) -> Iterator[Finding]:
    try:
        size = dataset.size(i)
        truth = dataset.arrays(i) if dataset.has_truth else None
    except InputError:  # the file is at fault and already named
        return
    if (image.height, image.width) != size:
        stated = named((image.height, image.width))
        yield f"{where} is {stated} there, its image {named(size)}", True
    elif truth is not None:
        yield from _mask_faults(where, points, image, dataset, truth)


def _mask_faults(
    where: str, points: PointFile, image: ImagePoints, dataset: Dataset, truth: Truth
) -> Iterator[Finding]:
    row_of = {target: row for row, target in enumerate(truth.target.tolist())}
    columns = (image.points.xy, image.points.label, image.points.target)
    for (x, y), label, target in zip(*(column.tolist() for column in columns)):
        row = row_of.get(target)
        if row is None:
            yield f"{where}: target {target} is not in the annotations", True
        elif points.categories[label].name != (true := dataset.categories[truth.label[row]].name):
            yield f"{where}: target {target} is a {true!r} there", True
        elif not truth.masks[row, int(np.floor(y)), int(np.floor(x))]:
            line = f"{where}: point ({x:g}, {y:g}) lies outside the mask of target {target}"
            yield line, points.kind not in MAY_LEAVE
