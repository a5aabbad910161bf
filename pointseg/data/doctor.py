"""The dataset doctor: reads everything, lists every fault with its file, changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pointseg.data.coco import CocoDataset
from pointseg.data.dataset import Dataset, category_fault
from pointseg.data.doctor_points import find_points, point_faults
from pointseg.data.files import shown
from pointseg.data.layouts import LAYOUTS, find_images, open_dataset, splits_of
from pointseg.data.measures import Measured, measure_faults
from pointseg.data.panoptic import PanopticDataset
from pointseg.data.voc import VocDataset
from pointseg.structures import IGNORE, InputError, Truth

OFFICIAL = {  # images of the official splits: VOC 2012 development kit, SBD, COCO 2017
    "voc": {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582},
    "coco": {"train": 118287, "val": 5000},
    "panoptic": {"train": 118287, "val": 5000},
}
WITNESS = {"person", "bird", "sheep"}  # in VOC and COCO, hardly ever in a dataset of one's own
VOC_FOLDERS = ("JPEGImages", "SegmentationClass", "SegmentationObject")


@dataclass
class Report:
    """Faults and notes. A dataset with a fault is not fit for use; a note is worth knowing."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set, repr=False)
    decoded: set[Path] = field(default_factory=set, repr=False)  # two splits may share an image

    def fault(self, cause: InputError | str) -> None:
        self._add(str(cause), self.faults)

    def note(self, text: str) -> None:
        self._add(text, self.notes)

    def _add(self, text: str, where: list[str]) -> None:
        if text not in self.known:
            self.known.add(text)
            where.append(text)


def check(
    root: Path | str, layout: str = "auto", points: Path | str | None = None, progress: bool = False
) -> Report:
    """Examine every split of every layout under `root` (or of one), and the points file given or
    found there."""
    report, root = Report(), Path(root)
    wanted = _wanted(root, layout, report)
    datasets = [_examine(root, split, name, report, progress) for name, split in wanted]
    opened = [dataset for dataset in datasets if dataset is not None]
    _compare(opened, root, report)
    for file in [Path(points)] if points else find_points(root):
        for fault, is_fault in point_faults(file, opened):
            (report.fault if is_fault else report.note)(fault)
    return report


def _compare(opened: list[Dataset], root: Path, report: Report) -> None:
    """Splits of one layout have the same categories in the same order."""
    for dataset in opened:
        first = next(other for other in opened if other.layout == dataset.layout)
        if fault := category_fault(first, dataset):
            report.fault(f"{root}: {fault}")


def _wanted(root: Path, layout: str, report: Report) -> list[tuple[str, str]]:
    """The pairs of layout and split to examine."""
    if not root.is_dir() or layout not in (*LAYOUTS, "auto"):
        cause = "is not a folder" if not root.is_dir() else f"unknown layout {layout!r}"
        report.fault(f"{root}: {cause}")
        return []
    kinds = splits_of(root)
    names = list(kinds) if layout == "auto" else [layout]
    pairs = [
        (name, split) for name in names for split in kinds.get(name.removesuffix("-panoptic"), ())
    ]
    pairs += [("folder", split) for split in _bare_splits(root, layout)]
    if not pairs:
        where = "any layout" if layout == "auto" else f"layout {layout!r}"
        report.fault(f"{root}: has no split in {where}")
    return pairs


def _bare_splits(root: Path, layout: str) -> list[str]:
    """Splits that are nothing but images: a plain folder, or the pretraining images beside a
    benchmark."""
    candidates = {
        "auto": ("pretrain",) if splits_of(root) else ("pictures",),
        "folder": ("pictures", "pretrain"),
    }
    return [split for split in candidates.get(layout, ()) if find_images(root, split)][:1]


def _examine(root: Path, split: str, layout: str, report: Report, progress: bool) -> Dataset | None:
    try:
        dataset = open_dataset(root, split, layout, report.fault)
    except InputError as fault:
        report.fault(fault)
        return None
    name = f"{dataset.layout} {split}"
    report.counts[f"{name}: images"] = len(dataset)
    _examine_layout(dataset, report)
    _note_split(dataset, name, report)
    for i in tqdm(range(len(dataset)), desc=name, disable=None if progress else True, leave=False):
        _examine_image(dataset, i, report)
        if dataset.has_truth:
            _examine_truth(dataset, i, name, report)
    _note_audit(name, report)
    return dataset


def _examine_image(dataset: Dataset, i: int, report: Report) -> None:
    try:
        path = dataset.path(i)
        if path not in report.decoded:
            report.decoded.add(path)
            dataset.image(i)
    except InputError as fault:
        report.fault(fault)


def _examine_truth(dataset: Dataset, i: int, name: str, report: Report) -> None:
    try:
        truth = dataset.arrays(i)
    except InputError as fault:
        report.fault(fault)
        return
    for fault in _stated_measures(dataset, i, truth):
        report.fault(fault)
    _audit(dataset, i, name, truth, report)


def _stated_measures(dataset: Dataset, i: int, truth: Truth) -> Iterator[str]:
    """One line for every area and box of the annotations that is not its mask's."""
    masks = dict(zip(truth.target.tolist(), truth.masks))
    if isinstance(dataset, PanopticDataset):
        file, entries = dataset.mask_file(i), dataset.entry(i)["segments_info"]
    elif isinstance(dataset, CocoDataset):
        file, entries = dataset.index.file, dataset.index.annotations.get(dataset.ids[i], [])
    else:
        return
    for entry in entries:
        if entry["id"] in masks:
            where = f"{file}: segment {entry['id']} (image {shown(dataset.ids[i])})"
            faults = measure_faults(entry, Measured.of(masks[entry["id"]]))
            yield from (f"{where}: {fault}" for fault in faults)


def _audit(dataset: Dataset, i: int, name: str, truth: Truth, report: Report) -> None:
    """Objects, crowd, void and images without anything, counted by layout and split."""
    counts = {
        "objects": int(truth.is_thing.sum()),
        "stuff segments": int((~truth.is_thing).sum()),
        "crowd regions": int(truth.is_crowd.sum()),
        "images without any segment": int(not len(truth)),
        "void pixels": int(truth.void.sum()),
        "pixels": truth.void.size,
        "images with parts": int(truth.parts is not None),
    }
    report.counts.update({f"{name}: {what}": count for what, count in counts.items()})
    if isinstance(dataset, VocDataset):
        _audit_pair(dataset, i, report)
    for target in truth.target[~np.any(truth.masks, (1, 2))].tolist():
        report.note(f"{dataset.path(i)}: target {target} has no pixel")


def _note_audit(name: str, report: Report) -> None:
    """One line that sums up a split's objects, crowd, void and empty images."""
    start = f"{name}: "
    counts = {k.removeprefix(start): n for k, n in report.counts.items() if k.startswith(start)}
    pixels = counts.pop("pixels", 0)
    if pixels:
        void = f"{100 * counts.pop('void pixels') / pixels:.2f} % void"
        report.note(start + ", ".join([*(f"{n} {what}" for what, n in counts.items()), void]))


def _audit_pair(dataset: VocDataset, i: int, report: Report) -> None:
    """Pixels that one of VOC's two PNGs gives to an object and the other to the background or to
    void."""
    objects, classes = dataset.masks(i)
    differ = ((objects == 0) != (classes == 0)) | ((objects == IGNORE) != (classes == IGNORE))
    if differ.any():
        what = f"{int(differ.sum())} pixels where class and object PNG disagree"
        report.note(f"{dataset.mask_files(i)[-1]}: {what}")


def _note_split(dataset: Dataset, name: str, report: Report) -> None:
    sizes = OFFICIAL.get(dataset.layout.removesuffix("-panoptic"), {})
    official = sizes.get(dataset.split.removesuffix("2017"))
    if official and WITNESS <= {category.name for category in dataset.categories}:
        report.note(f"{name}: {len(dataset)} images; the official split has {official}")


def _examine_layout(dataset: Dataset, report: Report) -> None:
    """Folders that must be there, and files that no list names."""
    if isinstance(dataset, VocDataset):
        for folder in (dataset.root / name for name in VOC_FOLDERS):
            if not folder.is_dir():
                report.fault(f"{folder}: the folder is missing")
    if isinstance(dataset, CocoDataset | PanopticDataset):
        named = {Path(entry["file_name"]).name for entry in dataset.index.images.values()}
        _note_unlisted(dataset.images, named, dataset.index.file, report)
    if isinstance(dataset, PanopticDataset):
        masks = {Path(dataset.entry(i)["file_name"]).name for i in range(len(dataset))}
        _note_unlisted(dataset.masks, masks, dataset.index.file, report)


def _note_unlisted(folder: Path, listed: Iterable[str], file: Path, report: Report) -> None:
    unlisted = sorted({path.name for path in folder.iterdir() if path.is_file()} - set(listed))
    if unlisted:
        what = f"{len(unlisted)} files that {file.name} does not list, first {unlisted[0]!r}"
        report.note(f"{folder}: {what}")
