"""The splits of scale photos: photographs in VOC's layout to learn on, to choose on, to judge on.

VOC 2012: the lists stand beside this file and name 2,593 photographs of the official download (and
of SBD), so everybody has the same. A set with one list only, such as Penn-Fudan, is cut by names.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from pointseg.structures import InputError

PHOTO_SPLITS = ("photos_train", "photos_tune", "photos_val")
LISTS = Path(__file__).parent / "voc_photos"
POOL, JUDGED = "train_plus", "val_eval"  # names of the lists, here and in a root that has its own
TUNED = 8  # every so many-th photograph of the pool, by a draw from its name, is for choosing
HELD = 5  # the same of a set without a list to judge on


def photo_lists(folder: Path) -> list[Path]:
    """The lists of a folder ImageSets/Segmentation: a pool and what is judged, or a pool alone."""
    lists = [folder / f"{name}.txt" for name in (POOL, JUDGED)]
    if all(path.is_file() for path in lists):
        return lists
    if (folder / "val.txt").is_file():
        return [LISTS / path.name for path in lists]
    every = folder / "trainval.txt"
    return [every if every.is_file() else folder / "train.txt"]


def photo_ids(pool: list[str], judged: list[str] | None, split: str) -> list[str]:
    """The ids of a split; without ids to judge on, these are drawn from the pool by their names."""
    if judged is None:
        judged = [name for name in pool if _draw(name, "judged") % HELD == 0]
        pool = [name for name in pool if name not in set(judged)]
    if split == "photos_val":
        return judged
    tuned = split == "photos_tune"
    return [name for name in pool if (_draw(name, "tune") % TUNED == 0) == tuned]


def refuse_absent(root: Path, names: list[str], sbd: Path | None) -> None:
    """Of the official download every photograph is needed, and of those without a mask SBD's."""
    for name in names:
        if not (root / "JPEGImages" / f"{name}.jpg").is_file():
            raise InputError(f"{root}: photograph {name} is absent; this is not all of VOC 2012")
        if sbd is None and not (root / "SegmentationClass" / f"{name}.png").is_file():
            raise InputError(f"{root}: {name} needs SBD's dataset/inst beside the VOC folder")


def _draw(name: str, purpose: str) -> int:
    return int.from_bytes(sha256(f"{purpose} {name}".encode()).digest()[:4], "big")
