"""Files that come from outside: names that must stay in their folder, JSON without surprises."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import secrets
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, NoReturn
from unicodedata import category

import yaml

from pointseg.structures import IGNORE, InputError

CLASS_FILES = ("classes.txt", "labels.txt")
UNFIT = (
    "Cc",
    "Cs",
    "Zl",
    "Zp",
)  # control characters, halves of characters, line ends: in no file name
MOST_YAML = 2**20  # bytes, and values
DEEPEST_YAML = 300  # lists in lists; libyaml's own recursion ends the process
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # by libyaml, six times as fast
MOST_BYTES = 2**31  # of a file that is read as a whole; the largest list of COCO has half a GB
MOST_UNFOLDED = 2**26  # bytes of a compressed one
ANEW = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # no link, no pipe
SHOWN = 60  # longest piece of foreign text repeated in a message


OnFault = Callable[[InputError], None]  # loaders raise at the first fault, the doctor collects them


def raise_fault(fault: InputError) -> NoReturn:
    raise fault


def shown(value: object) -> str:
    """A foreign value as it may stand in a one-line message."""
    text = ascii(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def refuse_name(name: object) -> str | None:
    """Why `name` cannot be the name of a file inside a folder; None when it can."""
    if not isinstance(name, str) or not name.strip() or any(category(c) in UNFIT for c in name):
        return f"{shown(name)} is not a file name"
    windows, posix = PureWindowsPath(name), PurePosixPath(name)
    if posix.is_absolute() or windows.drive or windows.root or ".." in windows.parts:
        return f"file name {shown(name)} leaves the folder"
    return None


def inside(folder: Path, name: str) -> Path:
    """The path of `name` under `folder`; a name or a symbolic link that leads out of it is
    refused."""
    cause = refuse_name(name)
    if cause:
        raise InputError(f"{folder}: {cause}")
    path = folder / name
    try:
        stays = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links, a name too long
        raise InputError(f"{path}: cannot be followed ({type(error).__name__})") from None
    if not stays:
        raise InputError(f"{path}: a symbolic link leads out of the folder")
    return path


def refuse_special(path: Path, most: int | None = None) -> None:
    """Refuses what is no regular file: a pipe waits for ever, a device never ends; and one of more
    bytes than `most`."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise InputError(f"{path}: {cause_of(error)}") from None
    except ValueError:
        raise InputError(f"{shown(str(path))}: is not a file name") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is not a file")
    if most is not None and status.st_size > most:
        raise InputError(f"{path}: has {status.st_size} bytes, at most {most} are read")


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    refuse_special(path, most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {cause_of(error)}") from None


def read_gzip(path: Path, most: int = MOST_UNFOLDED) -> bytes:
    """What a compressed file unfolds to."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(read_bytes(path, most))) as file:
            content = file.read(most + 1)
    except (OSError, EOFError, zlib.error) as problem:
        raise InputError(f"{path}: not readable ({shown(str(problem))})") from None
    if len(content) > most:
        raise InputError(f"{path}: unfolds to more than {most} bytes")
    return content


def write_text(path: Path, text: str) -> Path:
    try:
        data = text.encode()
    except UnicodeError:
        raise InputError(f"{path}: cannot be written (half a character in the text)") from None
    return write_bytes(path, data)


def write_bytes(path: Path, data: bytes) -> Path:
    return write_whole(path, lambda file: file.write(data))


def write_whole(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """The path, after the file holds all that `write` gives it; stopped or failed, it holds what
    it held before. A second writer waits; what a kill left is written over."""
    part = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(alone_at(part, lambda: os.open(part, ANEW, 0o666)), "wb") as file:
            file.truncate()
            write(file)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save says the latter where a disk is full
        cause = cause_of(error) if isinstance(error, OSError) else shown(str(error))
        raise InputError(f"{path}: cannot be written ({cause})") from None
    finally:
        remove_left(part)
    return path


@contextmanager
def hidden_folder(beside: Path) -> Iterator[Path]:
    """An empty folder next to a path, gone at the end; its name is known before it exists, so a
    signal at any moment leaves nothing. What a kill left of such folders goes first."""
    folder, handle = beside.with_name(f".{beside.name}.{secrets.token_hex(4)}"), None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{escape(beside.name)}.{'[0-9a-f]' * 8}"):
            remove_left(left)
        handle = alone_at(folder, lambda: made_and_open(folder))
        yield folder
    except OSError as error:
        raise InputError(f"{beside}: cannot be written ({cause_of(error)})") from None
    finally:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        except KeyboardInterrupt:  # while it tidies up
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            if handle is not None:
                os.close(handle)


def made_and_open(folder: Path) -> int:
    """The handle of a new folder; made again where it was taken for left between the two calls."""
    while True:
        folder.mkdir()
        with suppress(FileNotFoundError):
            return os.open(folder, os.O_RDONLY)


def alone_at(path: Path, opened: Callable[[], int]) -> int:
    """The handle of a file or folder that no other process holds; opened anew where somebody moved
    or removed it before it was locked."""
    while True:
        handle = opened()
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


def remove_left(path: Path) -> None:
    """Removes a hidden file or folder that no process holds any more."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        finally:
            os.close(handle)


@contextmanager
def folder_or_nothing(out: Path) -> Iterator[Path]:
    """A folder that takes the name `out` at the end, or vanishes when it is stopped or fails."""
    with hidden_folder(out) as folder:
        yield folder
        folder.replace(out)


def cause_of(error: OSError) -> str:
    """What a failing file operation says, without the path that the message already names."""
    return (error.strerror or type(error).__name__).lower()


def read_lines(path: Path, every: bool = False) -> list[str]:
    """The lines of a text file, stripped; without `every` those that are not empty."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    return [line.strip() for line in text.splitlines() if every or line.strip()]


def class_names(folder: Path) -> list[str]:
    """The class names in a side file, one a line in the order of their values; empty without
    one."""
    side = next((folder / name for name in CLASS_FILES if (folder / name).is_file()), None)
    names = [] if side is None else read_lines(side)
    if side is not None and (not 0 < len(names) < IGNORE or len(set(names)) != len(names)):
        raise InputError(f"{side}: needs 1 to {IGNORE - 1} different names, one a line")
    return names


def read_json(path: Path) -> Any:
    """The value in a JSON file; truncated text and the non-JSON numbers NaN and Infinity are
    refused."""
    raw = read_gzip(path) if path.suffix == ".gz" else read_bytes(path)
    if not raw.strip():
        raise InputError(f"{path}: is empty")
    try:
        return json.loads(raw, parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path}: is not whole JSON ({str(error)[:SHOWN]})") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name}")


def is_whole(value: object, low: int = -(2**63), high: int = 2**63 - 1) -> bool:
    """Whether a JSON value is an integer that fits int64 and lies in low..high."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_text(value: object) -> bool:
    """Whether a value is text that can be written: it has no half characters."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not any(category(c) == "Cs" for c in value)


def is_name(value: object) -> bool:
    """Whether a value is text for one line, with something in it."""
    if not isinstance(value, str) or not value.strip():
        return False
    return value.isprintable() or not any(category(c) in UNFIT for c in value)


def read_yaml(path: Path) -> Any:
    """The value in a YAML file, refused where it is not whole or its aliases unfold too far."""
    raw = read_bytes(path, MOST_YAML)
    try:
        _refuse_deep(raw)
        loader = YAML_LOADER(raw)
        node = loader.get_single_node()
        if node is None:
            raise InputError(f"{path}: is empty")
        if _unfolded(node, {}) > MOST_YAML:
            raise InputError(f"{path}: its aliases unfold to more than {MOST_YAML} values")
        return loader.construct_document(node)
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply, or in itself") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, KeyError) as error:
        raise InputError(f"{path}: is not whole YAML ({_yaml_cause(error)})") from None


def _refuse_deep(raw: bytes) -> None:
    depth = 0
    for event in yaml.parse(raw, YAML_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_YAML:
            raise RecursionError


def _unfolded(node: Any, known: dict[int, int]) -> int:
    """Values in a node, those behind an alias counted each time; a node in itself never ends."""
    if id(node) not in known:
        pairs = node.value if isinstance(node, yaml.CollectionNode) else ()
        inside = (each for pair in pairs for each in (pair if isinstance(pair, tuple) else (pair,)))
        known[id(node)] = 1 + sum(_unfolded(each, known) for each in inside)
    return known[id(node)]


def _yaml_cause(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or (str(error).splitlines() or [""])[0]
    return f"line {mark.line + 1}: {words}"[:120] if mark else words[:120]
