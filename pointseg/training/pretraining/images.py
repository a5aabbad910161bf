"""Images to pretrain on: squares on disk, and the views of them that a step takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from signal import SIGKILL

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pointseg.data.bestiary import EDITION_NAMED, draw
from pointseg.data.files import hidden_folder, refuse_special, shown
from pointseg.data.images import SUFFIXES, read_image
from pointseg.data.orphans import die_with
from pointseg.ops.processes import uniform
from pointseg.structures import InputError, Sample


class Squares:
    """Stored images [n, s, s, 3] as a dataset for the loop; there is no label to look at."""

    def __init__(self, images: np.ndarray):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def set_epoch(self, epoch: int) -> None:
        """Views are drawn in the step, so that epochs alike need nothing."""

    def __getitem__(self, index: int) -> Sample:
        return Sample(index, torch.from_numpy(self.images[index].transpose(2, 0, 1).copy()))


def random_views(images: Tensor, draws: Tensor, smallest: float, side: int) -> Tensor:
    """[b, 3, side, side]: of each image a square crop of at least `smallest` of its side, mirrored
    or not."""
    share, mirror, x, y = uniform(draws, 4).unbind(1)
    scale = smallest + (1 - smallest) * share
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0] = scale * (2 * (mirror < 0.5) - 1)
    theta[:, 1, 1] = scale
    theta[:, :, 2] = (2 * torch.stack([x, y], 1) - 1) * (1 - scale[:, None])
    grid = affine_grid(theta, [len(images), 3, side, side], align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def stored_squares(path: Path, source: str, count: int, size: int, seed: int) -> np.ndarray:
    """[n, size, size, 3] uint8 of a Bestiary's split "pretrain" or of a folder of images with all
    that lies below it; made once, then read from disk."""
    if not path.exists():
        make = _maker(source, size, seed)
        sources = range(count) if source in EDITION_NAMED else files_below(Path(source))[:count]
        _write(path, make, sources, size)
    refuse_special(path)
    try:
        stored = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: holds no images ({shown(str(error))})") from None
    if stored.shape[1:] != (size, size, 3):
        raise InputError(f"{path}: holds images of shape {stored.shape[1:]}, not of size {size}")
    return stored


def files_below(folder: Path) -> list[Path]:
    """Images of a folder and of the folders in it, by name."""
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{folder}: holds no images")
    return files


def _write(path: Path, make: partial, sources: range | list[Path], size: int) -> None:
    shape = (len(sources), size, size, 3)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with hidden_folder(path) as folder:
        with (folder / path.name).open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for image in _in_parallel(make, sources):
                file.write(image.tobytes())
        (folder / path.name).replace(path)


def _in_parallel(make: partial, sources: range | list[Path]) -> Iterator[np.ndarray]:
    with ProcessPoolExecutor(2, initializer=die_with, initargs=(os.getpid(), SIGKILL)) as pool:
        yield from pool.map(make, sources, chunksize=64)


def _maker(source: str, size: int, seed: int) -> partial:
    if source in EDITION_NAMED:
        return partial(_drawn, seed, size, EDITION_NAMED[source])
    return partial(_cut, size)


def _drawn(seed: int, size: int, edition: int, index: int) -> np.ndarray:
    return draw(seed, "pretrain", index, size, edition).image


def _cut(size: int, path: Path) -> np.ndarray:
    """The middle square of a file's image."""
    image = Image.fromarray(read_image(path, upright=True))
    side = min(image.size)
    left, top = ((whole - side) // 2 for whole in image.size)
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((size, size), Image.Resampling.BILINEAR))
