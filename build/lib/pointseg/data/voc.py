"""VOC 2012 segmentation, and SBD's extra images merged into it as `train_aug`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from pointseg.data.dataset import Dataset, Row
from pointseg.data.files import (
    OnFault,
    class_names,
    inside,
    raise_fault,
    read_lines,
    refuse_name,
    shown,
)
from pointseg.data.images import named, read_index_mask
from pointseg.data.photo_splits import PHOTO_SPLITS, photo_ids, photo_lists, refuse_absent
from pointseg.structures import IGNORE, Category, InputError

PASCAL = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
BACKGROUND = Category(0, "background", is_thing=False)
MERGED = "train_aug"
COMPOSED = (MERGED, *PHOTO_SPLITS)  # splits that need no list of their own
BACKGROUND_TARGET = 256  # no byte of a mask PNG, so never an object's id; 0 would read as void


def train_aug_ids(
    voc_train: Iterable[str], voc_val: Iterable[str], sbd: Iterable[str]
) -> list[str]:
    """SBD's train and val united with VOC's train, minus VOC's val (10,582 of the official ids)."""
    return sorted(set(voc_train) | set(sbd) - set(voc_val))


class VocDataset(Dataset):
    """Instances from SegmentationObject x SegmentationClass; 255 is void in both."""

    layout = "voc"

    def __init__(
        self, root: Path, split: str, background: bool = False, on_fault: OnFault = raise_fault
    ):
        """`background` adds value 0 as the one stuff class, which makes VOC panoptic as PSPS and
        Point2Mask use it."""
        root = Path(root)
        self.background = background
        self.layout = "voc-panoptic" if background else "voc"
        self.sbd = find_sbd(root) if split in COMPOSED else None
        ids = read_split(root, split, self.sbd, on_fault)
        self.has_truth = split != "pretrain"
        super().__init__(
            root, split, [*voc_classes(root), *[BACKGROUND] * background], ids, on_fault
        )

    def path(self, i: int) -> Path:
        folder, name = self.root / "JPEGImages", self.ids[i]
        paths = (folder / f"{name}{suffix}" for suffix in (".jpg", ".png"))
        plain = next((path for path in paths if path.is_file()), folder / f"{name}.jpg")
        return inside(folder, plain.name)

    def mask_files(self, i: int) -> list[Path]:
        """VOC's pair of PNGs, or SBD's .mat for an image that VOC itself did not segment."""
        folders = ("SegmentationObject", "SegmentationClass")
        pair = [inside(self.root / folder, f"{self.ids[i]}.png") for folder in folders]
        if self.sbd is None or any(path.is_file() for path in pair):
            return pair
        return [inside(self.sbd / "inst", f"{self.ids[i]}.mat")]

    def annotation_files(self) -> list[Path]:
        return [path for i in range(len(self)) for path in self.mask_files(i) if path.is_file()]

    def masks(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Objects and classes of image i, each uint8[h, w]."""
        files, size = self.mask_files(i), self.size(i)
        if len(files) == 1:
            return read_sbd(files[0], size)
        return read_index_mask(files[0], size), read_index_mask(files[1], size)

    def rows(self, i: int) -> tuple[list[Row], np.ndarray]:
        objects, classes = self.masks(i)
        file = self.mask_files(i)[-1]
        rows = []
        for k in np.setdiff1d(objects, (0, IGNORE)).tolist():
            category = most_frequent_class(classes[objects == k])
            if category is not None and category in self.label_of:
                rows.append(Row(objects == k, category, k))
                continue
            cause = f"of unknown category {category}" if category else "without any class pixel"
            self.on_fault(InputError(f"{file}: object {k} {cause}"))
        if self.background:
            rows.append(Row((classes == 0) & (objects == 0), BACKGROUND.id, BACKGROUND_TARGET))
        return rows, (objects == IGNORE) | (classes == IGNORE)


def most_frequent_class(classes: np.ndarray) -> int | None:
    """The class that most pixels have; None where all are background or void."""
    counts = np.bincount(classes.ravel(), minlength=IGNORE + 1)
    counts[[0, IGNORE]] = 0
    return int(counts.argmax()) if counts.any() else None


def voc_classes(root: Path) -> list[Category]:
    """The names of the side file, from value 1 on; PASCAL's twenty without it."""
    return [
        Category(value, name) for value, name in enumerate(class_names(root) or PASCAL, start=1)
    ]


def read_split(
    root: Path, split: str, sbd: Path | None, on_fault: OnFault = raise_fault
) -> list[str]:
    """The ids of a split, checked as file names; `train_aug` and the splits of scale photos are put
    together when they have no list of their own."""
    lists = root / "ImageSets" / "Segmentation"
    listed = lists / f"{split}.txt"
    if split not in COMPOSED or listed.is_file():
        return _checked_ids(listed, on_fault)
    if split in PHOTO_SPLITS:
        return _read_photos(root, split, sbd, on_fault)
    if sbd is None:
        raise InputError(f"{root}: split {MERGED!r} needs SBD's dataset/inst beside the VOC folder")
    train, val = (_checked_ids(lists / f"{name}.txt", on_fault) for name in ("train", "val"))
    return train_aug_ids(train, val, sbd_ids(sbd, on_fault))


def _read_photos(root: Path, split: str, sbd: Path | None, on_fault: OnFault) -> list[str]:
    """The ids of a split of scale photos."""
    lists = photo_lists(root / "ImageSets" / "Segmentation")
    pool, *rest = (_checked_ids(path, on_fault) for path in lists)
    ids = photo_ids(pool, rest[0] if rest else None, split)
    refuse_absent(root, ids, sbd)
    return ids


def sbd_ids(sbd: Path, on_fault: OnFault = raise_fault) -> list[str]:
    """SBD's train and val lists, or its .mat files where the lists are absent."""
    lists = [sbd / f"{name}.txt" for name in ("train", "val")]
    if any(path.is_file() for path in lists):
        return [name for path in lists for name in _checked_ids(path, on_fault)]
    return sorted(path.stem for path in (sbd / "inst").glob("*.mat"))


def _checked_ids(path: Path, on_fault: OnFault) -> list[str]:
    ids: dict[str, None] = {}
    for line in read_lines(path):
        name = line.split()[0]
        cause = f"duplicate id {shown(name)}" if name in ids else _refuse_id(name)
        if cause:
            on_fault(InputError(f"{path}: {cause}"))
        else:
            ids[name] = None
    return list(ids)


def _refuse_id(name: str) -> str | None:
    return refuse_name(name) or (f"id {shown(name)} leaves the folder" if "/" in name else None)


def find_sbd(root: Path) -> Path | None:
    """The SBD folder that holds inst/*.mat: in the VOC folder, beside it, or beside the devkit."""
    for base in (root, *root.resolve().parents[:2]):
        for child in [base, *sorted(base.glob("*SBD*")), base / "sbd", base / "benchmark_RELEASE"]:
            for folder in (child / "dataset", child):
                if (folder / "inst").is_dir():
                    return folder
    return None


def read_sbd(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Objects and classes, each uint8[h, w], of GTinst in a .mat file (MATLAB 5, plain arrays,
    nothing is run)."""
    try:
        inst = loadmat(path, variable_names=["GTinst"], appendmat=False)["GTinst"][0, 0]
        objects, categories = (whole(inst[name]) for name in ("Segmentation", "Categories"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or directory") from None
    except Exception as error:  # scipy raises nearly anything on corrupt bytes
        raise InputError(f"{path}: is not an SBD instance file ({type(error).__name__})") from None
    if objects is None or categories is None:
        raise InputError(f"{path}: holds numbers that are no whole numbers")
    if objects.shape != tuple(size):
        shape = named(objects.shape) if objects.ndim == 2 else "no image"
        raise InputError(f"{path}: mask is {shape}, its image {named(size)}")
    return _with_classes(path, objects, categories.ravel())


def whole(numbers: np.ndarray) -> np.ndarray | None:
    """int64 of numbers that MATLAB may have kept as floats; None where one is no whole number."""
    values = np.asarray(numbers)
    if values.dtype.kind not in "iufb" or not np.isfinite(values).all():
        return None
    integers = values.astype(np.int64)
    return integers if (integers == values).all() else None


def _with_classes(
    path: Path, objects: np.ndarray, categories: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    top = int(objects.max(initial=0))
    if objects.min(initial=0) < 0 or top > len(categories) or top >= IGNORE:
        raise InputError(f"{path}: object {top} has no entry among {len(categories)} categories")
    if len(categories) and not 0 < categories.min() <= categories.max() < IGNORE:
        raise InputError(f"{path}: unknown category {shown(categories.tolist())}")
    classes = np.concatenate([[0], categories])[objects]
    return objects.astype(np.uint8), classes.astype(np.uint8)
