"""Checkpoints that a kill at any moment cannot spoil."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Protocol

import torch

from pointseg.ops.processes import rank
from pointseg.structures import InputError

KEPT = 2  # the newest, and the one before in case the newest is torn


class Resumable(Protocol):
    step: int

    def state(self) -> dict[str, Any]: ...

    def load(self, state: dict[str, Any]) -> None: ...


class Checkpointer:
    """Keeps the last two states in a folder. A file's name ends in the hash of its bytes, so one
    rename publishes both together and a torn file cannot pass for a whole one."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.torn: list[Path] = []  # what `restore` passed over

    def save(self, trainer: Resumable) -> Path | None:
        """Writes on the first process alone; a state already saved is not written again."""
        if rank() or self._has(trainer.step):
            return None
        self.folder.mkdir(parents=True, exist_ok=True)
        for left_over in self.folder.glob("*.part"):
            left_over.unlink()
        part = _written(self.folder / f"step{trainer.step:08d}.part", trainer.state())
        path = part.with_name(f"{part.stem}-{_digest(part)}.pt")
        part.rename(path)
        _sync_folder(self.folder)
        for old in self.paths()[KEPT:]:
            old.unlink()
        return path

    def restore(self, trainer: Resumable) -> bool:
        """Loads the newest whole state, if there is one."""
        for path in self.paths():
            if not is_whole(path):
                self.torn.append(path)
                continue
            state = torch.load(path, map_location="cpu", weights_only=True)
            _same_settings(path, state, trainer)
            trainer.load(state)
            return True
        return False

    def paths(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step*-*.pt"), reverse=True)

    def _has(self, step: int) -> bool:
        return any(is_whole(path) for path in self.folder.glob(f"step{step:08d}-*.pt"))


def _written(part: Path, state: dict[str, Any]) -> Path:
    try:
        with part.open("wb+") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch.save says the latter where a disk is full
        part.unlink(missing_ok=True)
        cause = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"{part}: cannot be written ({cause})") from None
    return part


def is_whole(path: Path) -> bool:
    named = re.fullmatch(r"step\d+-([0-9a-f]{16})", path.stem)
    return bool(named) and named[1] == _digest(path)


def _same_settings(path: Path, state: dict[str, Any], trainer: Resumable) -> None:
    mine, other = (json.loads(each["settings"]) for each in (trainer.state(), state))
    differing = [name for name in mine if mine[name] != other.get(name)]
    if differing:
        raise InputError(f"{path.name}: made with other settings ({', '.join(differing)} differ)")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
