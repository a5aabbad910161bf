"""Which layout a folder has, where its parts lie, and the one way to open it."""

from __future__ import annotations

import re
from glob import escape
from itertools import islice
from pathlib import Path

from pointseg.data.coco import CocoDataset
from pointseg.data.coco_json import read_index
from pointseg.data.dataset import Dataset
from pointseg.data.files import OnFault, raise_fault, refuse_name
from pointseg.data.folder import FolderDataset, list_images
from pointseg.data.panoptic import PanopticDataset
from pointseg.data.voc import COMPOSED, MERGED, VocDataset, find_sbd
from pointseg.structures import InputError

LAYOUTS = ("panoptic", "coco", "voc", "voc-panoptic", "folder")
PREFERRED = ("panoptic", "coco", "voc", "folder")  # "auto": the layout that says most comes first
YEAR = "20[0-9][0-9]"
OTHER_TASKS = ("panoptic", "captions", "person_keypoints", "image_info", "stuff", "points")
SPLIT_OF = {
    "panoptic": re.compile(r"panoptic_(.+?)(20\d\d)?\.json"),
    "coco": re.compile(r"instances(?:_.*)?_(.+?)(20\d\d)?\.json"),
}


def open_dataset(
    root: Path | str, split: str, layout: str = "auto", on_fault: OnFault = raise_fault
) -> Dataset:
    """The dataset of one split; where a root holds several layouts, "auto" takes the first of
    PREFERRED."""
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: is not a folder")
    if layout not in (*LAYOUTS, "auto"):
        raise InputError(f"{root}: unknown layout {layout!r}, there are {', '.join(LAYOUTS)}")
    if refuse_name(split) or "/" in split:
        raise InputError(f"{root}: {split!r} is not the name of a split")
    for name in PREFERRED if layout == "auto" else (layout,):
        dataset = _open(root, split, name, on_fault)
        if dataset is not None:
            return dataset
    wanted = "any layout" if layout == "auto" else f"layout {layout!r}"
    raise InputError(f"{root}: no split {split!r} in {wanted}{_known(root)}")


def splits_of(root: Path | str) -> dict[str, list[str]]:
    """Every layout found under a root, with the names of its splits."""
    root, splits = Path(root), {}
    for layout, pattern in SPLIT_OF.items():
        names = (pattern.fullmatch(file.name) for file in _json_files(root))
        splits[layout] = list(dict.fromkeys(match[1] for match in names if match))
    splits["voc"] = _voc_splits(find_voc(root))
    return {layout: names for layout, names in splits.items() if names}


def _voc_splits(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    lists = [path.stem for path in sorted((folder / "ImageSets" / "Segmentation").glob("*.txt"))]
    merged = {"train", "val"} <= set(lists) and find_sbd(folder)
    return list(dict.fromkeys([*lists, *[MERGED] * bool(merged)]))


def find_voc(root: Path) -> Path | None:
    """The VOC2012 folder at or under a root."""
    for base in (root, root / "VOCdevkit"):
        for folder in (base, *sorted(base.glob("VOC" + YEAR))):
            if (folder / "ImageSets" / "Segmentation").is_dir():
                return folder
    return None


def _open(root: Path, split: str, layout: str, on_fault: OnFault) -> Dataset | None:
    """The dataset when `root` holds that split in that layout, else None."""
    if layout == "folder":
        folder = find_images(root, split)
        return FolderDataset(folder, split, on_fault=on_fault) if folder else None
    if layout in ("voc", "voc-panoptic"):
        return _open_voc(root, split, layout == "voc-panoptic", on_fault)
    kind = "panoptic" if layout == "panoptic" else "instances"
    file = find_json(root, kind, split)
    return _open_coco(file, kind, split, on_fault) if file else None


def _open_voc(root: Path, split: str, background: bool, on_fault: OnFault) -> Dataset | None:
    folder = find_voc(root)
    if folder is None:
        return None
    listed = (folder / f"ImageSets/Segmentation/{split}.txt").is_file() or split in COMPOSED
    return VocDataset(folder, split, background, on_fault) if listed else None


def _open_coco(file: Path, kind: str, split: str, on_fault: OnFault) -> Dataset:
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    index = read_index(file, kind, on_fault)
    names = [entry["file_name"] for entry in islice(index.images.values(), 20)]
    images = _folder_with(base, split, names)
    if kind == "instances":
        return CocoDataset(base, split, index, images, on_fault)
    return PanopticDataset(base, split, index, images, _mask_folder(file), on_fault)


def find_json(root: Path, kind: str, split: str) -> Path | None:
    """The annotation file of a split: COCO's name first, then any name that says the kind and the
    split."""
    files = _json_files(root)
    split = re.escape(split)
    patterns = [rf"{kind}_{split}(20\d\d)?\.json", rf"{kind}.*_{split}(20\d\d)?\.json"]
    if kind == "instances":
        patterns.append(rf"(?!{'|'.join(OTHER_TASKS)})(.*[_.-])?{split}(20\d\d)?\.json")
    for pattern in patterns:
        fitting = [file for file in files if re.fullmatch(pattern, file.name)]
        if len(fitting) > 1:
            names = " and ".join(file.name for file in fitting)
            raise InputError(f"{fitting[0].parent}: {names} both fit the split")
        if fitting:
            return fitting[0]
    return None


def find_images(root: Path, split: str) -> Path | None:
    """A folder of images for a split: named like it, or the root itself."""
    for base in (root, root / "images", root / "coco"):
        for folder in (*sorted(base.glob(escape(split) + YEAR)), base / split):
            if list_images(folder):
                return folder
    if splits_of(root):  # annotated: a misspelt split must not open as a folder without truth
        return None
    return next((folder for folder in (root, root / "images") if list_images(folder)), None)


def _json_files(root: Path) -> list[Path]:
    """JSON files where COCO, or a root that holds a COCO folder, keeps them."""
    for folder in (root / "annotations", root / "coco" / "annotations", root):
        files = sorted(folder.glob("*.json"))
        if files:
            return files
    return []


def _folder_with(base: Path, split: str, names: list[str]) -> Path:
    """The folder that holds the images: one named like the split first, else any beside the
    annotations."""
    named = [
        *base.glob(escape(split) + YEAR),
        base / split,
        *base.glob("images/" + escape(split) + YEAR),
        base / "images" / split,
        base / "images",
        base / "JPEGImages",
        base,
    ]
    folders = [folder for folder in named if folder.is_dir()]
    rest = sorted(folder for folder in base.iterdir() if folder.is_dir())
    for folder in (*folders, *rest):
        if any(_exists(folder / name) for name in names):
            return folder
    return folders[0]


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def _mask_folder(file: Path) -> Path:
    """The PNG folder of a panoptic JSON has the file's own name, beside it or one level up."""
    beside, above = file.with_suffix(""), file.parent.parent / file.stem
    if not beside.is_dir() and not above.is_dir():
        raise InputError(f"{beside}: the folder of panoptic PNGs is missing")
    return beside if beside.is_dir() else above


def _known(root: Path) -> str:
    names = [f"{layout} {'/'.join(splits)}" for layout, splits in splits_of(root).items()]
    return "; found " + ", ".join(names) if names else ""
