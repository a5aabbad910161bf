"""Writes a Bestiary to disk in the official layouts: all of it, or nothing."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from pointseg.data import write_coco, write_voc  # modules: these import Bestiary's drawing
from pointseg.data.bestiary.draw import LARGEST, SMALLEST, Scene, draw
from pointseg.data.bestiary.edition import edition_of
from pointseg.data.bestiary.species import PARTS
from pointseg.data.files import folder_or_nothing, read_json, shown
from pointseg.data.orphans import die_with
from pointseg.structures import InputError, Truth

LAYOUTS = ("voc", "coco", "all")
LABELLED = ("train", "val", "tune")
# Disjoint ids within VOC's six digits.
FIRST_NUMBER = {"train": 1, "val": 400_001, "tune": 600_001, "pretrain": 700_001}
MOST = {"train": 400_000, "val": 200_000, "tune": 100_000, "pretrain": 300_000 - 1}
RECIPE_FILE = "bestiary.json"


@dataclass(frozen=True)
class Request:
    """What was asked for; the same request gives the same files."""

    edition: int
    layout: str
    images: int
    val: int
    tune: int
    pretrain: int
    size: int
    seed: int

    def has(self, layout: str) -> bool:
        return self.layout in (layout, "all")

    def jobs(self) -> list[tuple[str, int]]:
        counts = self.counts().items()
        return [(split, index) for split, count in counts for index in range(count)]

    def counts(self) -> dict[str, int]:
        return {"train": self.images} | {s: getattr(self, s) for s in ("val", "tune", "pretrain")}

    def labelled(self) -> list[str]:
        return [split for split in LABELLED if self.counts()[split]]


def check(request: Request) -> None:
    if request.layout not in LAYOUTS:
        raise InputError(
            f"bestiary: unknown layout {request.layout!r}; known are {', '.join(LAYOUTS)}"
        )
    if not SMALLEST <= request.size <= LARGEST:
        raise InputError(f"bestiary: size {request.size} is outside {SMALLEST}..{LARGEST}")
    if not 0 <= request.seed < 1 << 63:
        raise InputError(f"bestiary: seed {request.seed} is not a whole number from 0 to 2^63 - 1")
    for split, count in request.counts().items():
        least = int(split in ("train", "val"))
        if not least <= count <= MOST[split]:
            raise InputError(
                f"bestiary: {count} {split} images asked for; {least}..{MOST[split]} are possible"
            )


def make(
    out: Path,
    layout: str = "all",
    images: int = 64,
    size: int | None = None,
    seed: int = 0,
    val: int | None = None,
    tune: int | None = None,
    pretrain: int = 0,
    edition: int = 2,
    workers: int = 0,
    progress: bool = True,
) -> None:
    """Images to train on, `val` and `tune` (default: a quarter) and `pretrain`, under `out`."""
    out = Path(out)
    size = edition_of(edition).size if size is None else size
    val, tune = (max(2, images // 4) if count is None else count for count in (val, tune))
    request = Request(edition, layout, images, val, tune, pretrain, size, seed)
    check(request)
    if already_made(out, request):
        return
    try:
        with folder_or_nothing(out) as folder:
            fill(folder, request, workers, progress)
    except InputError:
        if not already_made(out, request):  # by another one that was asked for the same
            raise


def already_made(out: Path, request: Request) -> bool:
    """True where `out` holds this very request; refuses any other content."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise InputError(f"{out}: is a file, not a folder to write a Bestiary into")
    if not any(out.iterdir()):
        return False
    try:
        present = read_json(out / RECIPE_FILE)["recipe"]
    except (InputError, KeyError, TypeError):
        raise InputError(
            f"{out}: is not empty and holds no Bestiary; choose another folder"
        ) from None
    if present != recipe_of(request):
        raise InputError(
            f"{out}: holds a Bestiary of another recipe ({shown(present)}); choose another folder"
        )
    return True


def fill(folder: Path, request: Request, workers: int, progress: bool) -> None:
    for sub in folders(request):
        (folder / sub).mkdir(parents=True)
    jobs = request.jobs()
    bar = tqdm(total=len(jobs), desc="bestiary", unit="image", disable=None if progress else True)
    with bar, runner(workers) as run:
        records = []
        for record in run(partial(write_image, folder, request), jobs):
            records.append(record)
            bar.update()
    write_lists(folder, request, records)


def folders(request: Request) -> list[Path]:
    labelled = request.labelled()
    out = [Path("parts") / split for split in labelled]
    out += write_voc.voc_folders() if request.has("voc") else []
    return out + (
        write_coco.coco_folders(labelled, request.pretrain > 0) if request.has("coco") else []
    )


@contextmanager
def runner(workers: int):
    """A map over jobs in order: in this process, or in `workers` fresh ones."""
    if workers < 2:
        yield map
        return
    fresh = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, fresh, die_with, (os.getpid(), signal.SIGKILL))
    try:
        yield partial(pool.map, chunksize=16)
    finally:
        pool.shutdown(cancel_futures=True)


def write_image(folder: Path, request: Request, job: tuple[str, int]) -> dict:
    """All files of one image; its entries for the lists and the hash of its arrays."""
    split, index = job
    scene = draw(request.seed, split, index, request.size, request.edition)
    number = FIRST_NUMBER[split] + index
    jpeg = jpeg_bytes(scene.image)
    record = {"split": split, "number": number, "hash": hash_of(scene)}
    if request.has("voc"):
        write_voc_image(folder, split, number, scene, jpeg)
    if request.has("coco"):
        record.update(write_coco.write_coco(folder, split, number, scene, jpeg))
        if split != "pretrain":
            write_parts(folder, split, f"{number:012d}", scene.arrays())
    return record


def write_voc_image(folder: Path, split: str, number: int, scene: Scene, jpeg: bytes) -> None:
    name = voc_name(number)
    if split == "pretrain":
        (folder / write_voc.voc_folders()[0] / f"{name}.jpg").write_bytes(jpeg)
    else:
        write_parts(folder, split, name, write_voc.write_voc(folder, name, scene, jpeg))


def voc_name(number: int) -> str:
    return f"2012_{number:06d}"


def jpeg_bytes(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def write_parts(folder: Path, split: str, stem: str, truth: Truth) -> None:
    Image.fromarray(truth.parts).save(folder / "parts" / split / f"{stem}.png")


def hash_of(scene: Scene) -> str:
    """sha256 over the arrays, so that neither JPEG nor PNG libraries matter."""
    total = hashlib.sha256(scene.image.tobytes())
    truth = scene.arrays()
    for array in (truth.masks, truth.label, truth.is_crowd, truth.void, truth.parts):
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def write_lists(folder: Path, request: Request, records: list[dict]) -> None:
    by_split = {s: [r for r in records if r["split"] == s] for s in FIRST_NUMBER}
    if request.has("voc"):
        write_voc.write_voc_lists(
            folder, {s: [voc_name(r["number"]) for r in rs] for s, rs in by_split.items()}
        )
    if request.has("coco"):
        for split in request.labelled():
            write_coco.write_coco_lists(folder, split, by_split[split])
    content = {
        "recipe": recipe_of(request),
        "categories": [
            {k: c[k] for k in ("id", "name", "isthing")} for c in write_coco.category_entries()
        ],
        "parts": list(PARTS),
        "content_hash": hashlib.sha256("".join(r["hash"] for r in records).encode()).hexdigest(),
    }
    (folder / RECIPE_FILE).write_text(json.dumps(content, indent=1) + "\n")


def recipe_of(request: Request) -> dict:
    return {"benchmark": "bestiary", **asdict(request)}
