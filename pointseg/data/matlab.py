"""Arrays of a struct in a MATLAB-5 file, as SBD keeps its masks.

A corrupt file can end the process inside a general reader, and a small one can unfold to
gigabytes; here every element has to lie inside the one that holds it, and what is unfolded has a
limit. MATLAB's "MAT-File Format", chapter 1: an element is a tag (type, bytes) and so many bytes,
padded to eight; up to four bytes stand in the tag itself.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pointseg.data.files import read_bytes, shown
from pointseg.structures import InputError

HEADER = 128  # bytes of text and version, the last two say in which order bytes stand
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8",
           13: "u8"}  # fmt: skip
CHARACTERS, INTEGERS, MATRIX, COMPRESSED = 1, 5, 14, 15
STRUCT, NUMERIC, COMPLEX = 2, range(6, 16), 0x800
MOST_BYTES = 2**27  # of a file, and of all that it unfolds to; the largest mask has two thirds
MOST_ARRAYS, MOST_DIMENSIONS, MOST_FIELDS = 64, 8, 64


class Element(NamedTuple):
    kind: int
    content: memoryview


@dataclass(frozen=True)
class Bytes:
    """Bytes of a file with their order."""

    content: memoryview
    order: str  # "<" or ">"

    def elements(self) -> Iterator[Element]:
        """Those that stand one after another; ValueError where one does not fit."""
        at = 0
        while at < len(self.content):
            kind, count = self.integers(self.content[at : at + 8])
            start = at + 8
            if kind >> 16:  # a short element: its bytes stand in the tag
                kind, count, start = kind & 0xFFFF, kind >> 16, at + 4
            end = start + count
            if end > len(self.content) or (start == at + 4 and count > 4):
                raise ValueError("an element that is longer than what holds it")
            yield Element(kind, self.content[start:end])
            padded = at + 8 if start == at + 4 else end + -end % 8
            at = end if kind == COMPRESSED else padded

    def integers(self, content: memoryview) -> tuple[int, int]:
        if len(content) < 8:
            raise ValueError("an element without its tag")
        kind, count = np.frombuffer(content, f"{self.order}u4", 2).tolist()
        return kind, count

    def inside(self, content: memoryview) -> Bytes:
        return Bytes(content, self.order)

    def numbers(self, element: Element) -> np.ndarray:
        """[n] of an element of numbers."""
        if element.kind not in NUMBERS:
            raise ValueError(f"an element of type {element.kind} in the place of numbers")
        return np.frombuffer(element.content, self.order + NUMBERS[element.kind])


class Head(NamedTuple):
    """What an array says of itself before its values."""

    kind: int
    flags: int
    shape: tuple[int, ...]
    name: str


def read_struct(path: Path, name: str, fields: Collection[str]) -> dict[str, np.ndarray]:
    """Numeric arrays of the chosen fields of a struct in a .mat file; other fields are not looked
    at."""
    try:
        return _struct(_unfolded(_opened(read_bytes(path, MOST_BYTES)), name), fields)
    except (ValueError, zlib.error) as error:
        raise InputError(f"{path}: is not an SBD instance file ({error})") from None


def _opened(content: bytes) -> Bytes:
    orders = {b"IM": "<", b"MI": ">"}
    order = orders.get(content[HEADER - 2 : HEADER])
    if order is None:
        raise ValueError("no MATLAB 5 file")
    return Bytes(memoryview(content)[HEADER:], order)


def _unfolded(file: Bytes, name: str) -> Bytes:
    """The bytes of the array of that name."""
    left = MOST_BYTES
    for kind, content in islice(file.elements(), MOST_ARRAYS):
        if kind == COMPRESSED:
            content = _inflated(content, left)
            left -= len(content)
            kind, content = next(file.inside(content).elements(), Element(0, content))
        if kind != MATRIX:
            raise ValueError(f"an element of type {kind} in the place of an array")
        matrix = file.inside(content)
        if _head(matrix, matrix.elements()).name == name:
            return matrix
    raise ValueError(f"no {name}")


def _inflated(content: memoryview, most: int) -> memoryview:
    inflater = zlib.decompressobj()
    unfolded = inflater.decompress(content, most + 1)
    if len(unfolded) > most:
        raise ValueError(f"unfolds to more than {MOST_BYTES} bytes")
    if not inflater.eof:
        raise ValueError("ends early")
    return memoryview(unfolded)


def _head(matrix: Bytes, elements: Iterator[Element]) -> Head:
    """Flags, sides and name, which are the first three elements of every array."""
    flags, sides, name = (_next(elements) for _ in range(3))
    word, *_ = matrix.numbers(flags).tolist() or [0]
    shape = tuple(matrix.numbers(sides).tolist())
    if sides.kind != INTEGERS or not 2 <= len(shape) <= MOST_DIMENSIONS or min(shape) < 0:
        raise ValueError("an array without its sides")
    return Head(word & 0xFF, word & 0xFF00, shape, bytes(name.content).decode("ascii", "replace"))


def _next(elements: Iterator[Element]) -> Element:
    element = next(elements, None)
    if element is None:
        raise ValueError("an array that ends early")
    return element


def _struct(matrix: Bytes, fields: Collection[str]) -> dict[str, np.ndarray]:
    elements = matrix.elements()
    head = _head(matrix, elements)
    if head.kind != STRUCT or math.prod(head.shape) != 1:
        raise ValueError(f"{head.name} is no single struct")
    [length] = matrix.numbers(_next(elements)).tolist() or [0]
    names = _names(bytes(_next(elements).content), length)
    if len(set(names)) < len(names) or not set(fields) <= set(names):
        missing = [field for field in fields if field not in names]
        raise ValueError(f"fields {shown(missing)} are missing, or two have one name")
    inside = {name: _next(elements) for name in names}
    return {name: _array(matrix, inside[name]) for name in fields}


def _names(text: bytes, length: int) -> list[str]:
    """Names of fields, each in so many bytes."""
    if length < 1 or len(text) % length or len(text) // length > MOST_FIELDS:
        raise ValueError("fields without names")
    pieces = (text[k : k + length] for k in range(0, len(text), length))
    return [piece.partition(b"\0")[0].decode("ascii", "replace") for piece in pieces]


def _array(holder: Bytes, element: Element) -> np.ndarray:
    """A numeric array; MATLAB keeps whole numbers in as few bytes as they need, column after
    column."""
    if element.kind != MATRIX:
        raise ValueError(f"an element of type {element.kind} in the place of an array")
    matrix = holder.inside(element.content)
    elements = matrix.elements()
    head = _head(matrix, elements)
    if head.kind not in NUMERIC or head.flags & COMPLEX:
        raise ValueError("holds numbers that are no whole numbers")
    values = matrix.numbers(_next(elements)) if math.prod(head.shape) else np.zeros(0, "u1")
    if len(values) != math.prod(head.shape):
        raise ValueError(f"{len(values)} values for an array of {head.shape}")
    return values.reshape(head.shape, order="F")
