"""COCO's JSON lists, read entry by entry: what is wrong goes to `on_fault`, what is right into the
index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointseg.data.dataset import OnFault
from pointseg.data.files import is_name, is_whole, read_json, refuse_name, shown
from pointseg.data.images import MAX_PIXELS
from pointseg.structures import Category, InputError

Entry = dict[str, Any]
Check = Callable[[Entry], str | None]  # why an entry is refused, None when it is not


@dataclass
class CocoIndex:
    file: Path
    categories: dict[int, Category] = field(default_factory=dict)
    images: dict[int | str, Entry] = field(default_factory=dict)
    # by image id, in file order
    annotations: dict[int | str, list[Entry]] = field(default_factory=dict)


def read_index(path: Path, kind: str, on_fault: OnFault) -> CocoIndex:
    """The checked lists of an `instances` or a `panoptic` file."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: is not a COCO file (no object at the top)")
    index = CocoIndex(path)
    for entry in _accepted(path, data, "categories", _refuse_category, on_fault):
        index.categories[entry["id"]] = Category(
            entry["id"], entry["name"], bool(entry.get("isthing", 1))
        )
    for entry in _accepted(path, data, "images", _refuse_image, on_fault):
        index.images[entry["id"]] = entry
    refuse = {"instances": _refuse_instance, "panoptic": _refuse_segments}[kind]
    key = "id" if kind == "instances" else "image_id"
    for entry in _accepted(path, data, "annotations", lambda e: refuse(e, index), on_fault, key):
        index.annotations.setdefault(entry["image_id"], []).append(entry)
    return index


def _accepted(
    path: Path, data: Entry, name: str, refuse: Check, on_fault: OnFault, key: str = "id"
) -> Iterator[Entry]:
    """The entries of one list that are objects, keep their rules and do not repeat an id."""
    entries = data.get(name)
    if not isinstance(entries, list):
        raise InputError(f"{path}: has no list '{name}'")
    known: set[int | str] = set()
    for k, entry in enumerate(entries):
        cause = "is not an object" if not isinstance(entry, dict) else refuse(entry)
        if not cause and entry[key] in known:
            cause = f"duplicate {key.replace('_', ' ')} {shown(entry[key])}"
        if cause:
            on_fault(InputError(f"{path}: {name}[{k}]: {cause}"))
            continue
        known.add(entry[key])
        yield entry


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
