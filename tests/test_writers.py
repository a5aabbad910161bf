"""The one writer of text files: all of the new text or all of the old, nothing left beside it."""

import os
from pathlib import Path

import pytest

from pointseg.data.files import write_text
from pointseg.structures import InputError


def test_a_file_is_written_and_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    assert write_text(path, "first, Größe") == path == write_text(path, "second, Größe")
    assert path.read_text(encoding="utf-8") == "second, Größe"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("owner, step", [(os, "open"), (Path, "replace")])
def test_a_failed_write_keeps_the_old_text_and_names_file_and_cause(
    tmp_path, monkeypatch, owner, step
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    path = write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(owner, step, full)
    with pytest.raises(InputError, match=r"a\.json: cannot be written \(no space left"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_absent_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="absent"):
        write_text(tmp_path / "absent" / "a.json", "text")


def test_text_that_is_not_unicode_keeps_the_old_file(tmp_path):
    path = write_text(tmp_path / "a.json", "old")
    with pytest.raises(InputError, match=r"a\.json: cannot be written \(half a character"):
        write_text(path, "new \ud800")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
