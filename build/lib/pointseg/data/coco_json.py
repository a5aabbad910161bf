"""COCO's JSON lists, read entry by entry: what is wrong goes to `on_fault`, what is right into the
index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pointseg.data.files import (
    OnFault,
    is_name,
    is_whole,
    raise_fault,
    read_json,
    refuse_name,
    shown,
)
from pointseg.data.images import MAX_PIXELS
from pointseg.data.measures import is_number
from pointseg.structures import Category, InputError

Entry = dict[str, Any]
Annotations = dict[int | str, list[Entry]]  # by image id, in file order
Check = Callable[[Entry], str | None]  # why an entry is refused, None when it is not


@dataclass
class CocoIndex:
    file: Path
    categories: dict[int, Category] = field(default_factory=dict)
    images: dict[int | str, Entry] = field(default_factory=dict)
    annotations: Annotations = field(default_factory=dict)

    @cached_property
    def sizes(self) -> dict[int | str, tuple[int, int]]:
        """image id -> (h, w)."""
        return {key: (entry["height"], entry["width"]) for key, entry in self.images.items()}


def read_index(path: Path, kind: str, on_fault: OnFault) -> CocoIndex:
    """The checked lists of an `instances` or a `panoptic` file."""
    return index_of(read_json(path), path, kind, on_fault)


def index_of(content: Any, path: Path, kind: str, on_fault: OnFault = raise_fault) -> CocoIndex:
    """The same for a file already read, which messages call `path`."""
    index = CocoIndex(path)
    for entry in _accepted(path, content, "categories", _refuse_category, on_fault, ("id", "name")):
        index.categories[entry["id"]] = Category(
            entry["id"], entry["name"], bool(entry.get("isthing", 1))
        )
    for entry in _accepted(path, content, "images", _refuse_image, on_fault, ("id", "file_name")):
        index.images[entry["id"]] = entry
    index.annotations = annotations_of(content, path, kind, index, on_fault)
    return index


def annotations_of(
    content: Any, path: Path, kind: str, index: CocoIndex, on_fault: OnFault = raise_fault
) -> Annotations:
    """The checked annotations of a file about the images and categories of an index."""
    refuse = {"instances": _refuse_instance, "panoptic": _refuse_segments}[kind]
    unique = ("id",) if kind == "instances" else ("image_id", "file_name")
    entries = _accepted(
        path, content, "annotations", partial(refuse, index=index), on_fault, unique
    )
    by_image: Annotations = {}
    for entry in entries:
        by_image.setdefault(entry["image_id"], []).append(entry)
    return by_image


def category_faults(content: Any, index: CocoIndex) -> Iterator[str]:
    """How the categories of a result, where it lists any, differ from those of the truth."""
    listed = content.get("categories") if isinstance(content, dict) else None
    for entry in listed if isinstance(listed, list) else ():
        cause = "is not an object" if not isinstance(entry, dict) else _refuse_category(entry)
        known = None if cause else index.categories.get(entry["id"])
        if known and (known.name, known.is_thing) != (entry["name"], bool(entry.get("isthing", 1))):
            cause = f"category {entry['id']} has another name or isthing than in {index.file}"
        if cause:
            yield cause


def result_of(entry: Any, index: CocoIndex, where: str) -> Entry:
    """One detection of a result file, which names a known image and a known category."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is not an object")
    cause = _refuse_reference(entry, index) or _refuse_class(entry, index)
    if not cause and not is_number(entry.get("score")):
        cause = f"score: expected a finite number, got {shown(entry.get('score'))}"
    if cause:
        raise InputError(f"{where}: {cause}")
    return entry


def _accepted(
    path: Path, data: Any, name: str, refuse: Check, on_fault: OnFault, unique: tuple[str, ...]
) -> Iterator[Entry]:
    """The entries of one list that are objects, keep their rules and repeat no unique value."""
    if not isinstance(data, dict):
        raise InputError(f"{path}: is not a COCO file (no object at the top)")
    if not isinstance(data.get(name), list):
        raise InputError(f"{path}: has no list '{name}'")
    known: dict[str, set] = {key: set() for key in unique}
    for k, entry in enumerate(data[name]):
        cause = "is not an object" if not isinstance(entry, dict) else refuse(entry)
        cause = cause or _refuse_repeated(entry, known)
        if cause:
            on_fault(InputError(f"{path}: {name}[{k}]: {cause}"))
            continue
        for key in unique:
            known[key].add(entry[key])
        yield entry


def _refuse_repeated(entry: Entry, known: dict[str, set]) -> str | None:
    for key, values in known.items():
        if entry[key] in values:
            return f"duplicate {key.replace('_', ' ')} {shown(entry[key])}"
    return None


def _refuse_category(entry: Entry) -> str | None:
    if not is_whole(entry.get("id")):
        return f"category id {shown(entry.get('id'))} is not an integer"
    if not is_name(entry.get("name")):
        return "category without a name"
    return None if _is_flag(entry.get("isthing", 1)) else "isthing is neither 0 nor 1"


def _refuse_image(entry: Entry) -> str | None:
    if not _is_id(entry.get("id")):
        return f"image id {shown(entry.get('id'))} is neither an integer nor a name"
    h, w = entry.get("height"), entry.get("width")
    if not (is_whole(h, 1) and is_whole(w, 1)):
        return f"image size {shown(w)} x {shown(h)} is not two positive integers"
    if h * w > MAX_PIXELS:
        return f"image size {w}x{h} has more than {MAX_PIXELS} pixels"
    return refuse_name(entry.get("file_name"))


def _refuse_instance(entry: Entry, index: CocoIndex) -> str | None:
    if not is_whole(entry.get("id")):
        return f"annotation id {shown(entry.get('id'))} is not an integer"
    return _refuse_reference(entry, index) or _refuse_class(entry, index)


def _refuse_segments(entry: Entry, index: CocoIndex) -> str | None:
    """A panoptic entry: one image, its PNG, its segments."""
    cause = _refuse_reference(entry, index) or refuse_name(entry.get("file_name"))
    segments = entry.get("segments_info")
    if cause or not isinstance(segments, list):
        return cause or "no list 'segments_info'"
    known: set[int] = set()
    causes = dict.fromkeys(_refuse_segment(segment, index, known) for segment in segments)
    return "; ".join(cause for cause in causes if cause) or None


def _refuse_segment(segment: object, index: CocoIndex, known: set[int]) -> str | None:
    if not isinstance(segment, dict) or not is_whole(segment.get("id"), 1, 256**3 - 1):
        return "a segment id is not an integer in 1..16777215 (0 is void)"
    if segment["id"] in known:
        return f"duplicate segment id {segment['id']}"
    known.add(segment["id"])
    return _refuse_class(segment, index)


def _refuse_reference(entry: Entry, index: CocoIndex) -> str | None:
    known = _is_id(entry.get("image_id")) and entry["image_id"] in index.images
    return None if known else f"unknown image id {shown(entry.get('image_id'))}"


def _refuse_class(entry: Entry, index: CocoIndex) -> str | None:
    if not is_whole(entry.get("category_id")) or entry["category_id"] not in index.categories:
        return f"unknown category {shown(entry.get('category_id'))}"
    return None if _is_flag(entry.get("iscrowd", 0)) else "iscrowd is neither 0 nor 1"


def _is_id(value: object) -> bool:
    return is_whole(value) or is_name(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, int) and value in (0, 1)
