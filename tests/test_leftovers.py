"""What a SIGKILL leaves under a hidden name is gone after the next command of the same target."""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import imported
from support.at_work import leftovers

from pointseg.data.bestiary import make
from pointseg.data.files import hidden_folder, write_bytes
from pointseg.structures import InputError

DIES = """import os
from pathlib import Path
from pointseg.data.files import hidden_folder, write_whole
def die(file):
    file.write(b"half of it, and more than the next one")
    file.flush()
    os.kill(os.getpid(), 9)
"""
IN_A_FILE = DIES + "write_whole(Path('a.bin'), die)"
IN_A_FOLDER = DIES + "with hidden_folder(Path('out')) as f: die((f / 'half').open('wb'))"


def killed(code, place):
    done = imported.run(["-c", code], place)
    assert done.returncode == -9
    return [path.name for path in place.iterdir()]


def test_half_a_file_is_written_over(tmp_path):
    assert killed(IN_A_FILE, tmp_path) == [".a.bin.part"]
    write_bytes(tmp_path / "a.bin", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"new"


def test_half_a_folder_is_removed(tmp_path):
    [left] = killed(IN_A_FOLDER, tmp_path)
    assert left.startswith(".out.")
    make(tmp_path / "out", "coco", images=1, val=1, size=64, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_no_worker_outlives_a_killed_command(tmp_path):
    words = "data make out --images 4000 --size 64 --layout coco --workers 2".split()
    command = subprocess.Popen([sys.executable, "-m", "pointseg", *words], cwd=tmp_path)
    for _ in range(3000):
        if len(leftovers(tmp_path)) > 2 and list(tmp_path.glob(".out.*/*/*")):
            break
        time.sleep(0.05)
    command.kill()
    command.wait()
    for _ in range(3000):
        if not leftovers(tmp_path):
            break
        time.sleep(0.05)
    assert not leftovers(tmp_path)


def test_what_somebody_is_still_writing_stays(tmp_path):
    with hidden_folder(tmp_path / "out") as first, hidden_folder(tmp_path / "out") as second:
        assert first.is_dir() and second.is_dir()
    assert not list(tmp_path.iterdir())


def test_folders_of_another_target_stay(tmp_path):
    others = [tmp_path / name for name in (".out.txt", ".other.0123abcd", ".out.0123abcd.x")]
    for other in others:
        other.mkdir()
    with hidden_folder(tmp_path / "out"):
        assert all(other.is_dir() for other in others)


def test_a_second_writer_of_a_file_waits(tmp_path):
    part = tmp_path / ".a.bin.part"
    with part.open("wb") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        code = DIES + "write_whole(Path('a.bin'), lambda file: file.write(b'second'))"
        second = imported.Program(["-c", code], tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(2)
        first.write(b"first")
        first.flush()
        part.replace(tmp_path / "a.bin")
    assert second.wait(60) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"second"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_nothing_is_written_through_what_lies_under_the_hidden_name(tmp_path, kind):
    part, other = tmp_path / ".a.bin.part", tmp_path / "other"
    other.write_bytes(b"another's")
    part.symlink_to(other) if kind == "link" else os.mkfifo(part)
    with pytest.raises(InputError, match=r"a\.bin: cannot be written"):
        write_bytes(tmp_path / "a.bin", b"new")
    assert other.read_bytes() == b"another's" and not (tmp_path / "a.bin").exists()


def test_a_signal_while_a_hidden_folder_is_removed_leaves_nothing(tmp_path, monkeypatch):
    removed, calls = shutil.rmtree, []

    def interrupted(folder, **how):
        calls.append(folder)
        if len(calls) == 1:
            raise KeyboardInterrupt
        removed(folder, **how)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt), hidden_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert list(tmp_path.iterdir()) == []


def test_a_new_hidden_folder_that_another_writer_took_for_left_is_made_again(tmp_path, monkeypatch):
    opened, taken = os.open, []

    def taken_once(path, *flags, **how):
        if not taken and Path(path).is_dir():
            Path(path).rmdir()
            taken.append(path)
        return opened(path, *flags, **how)

    monkeypatch.setattr(os, "open", taken_once)
    with hidden_folder(tmp_path / "out") as folder:
        assert taken and folder.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_hidden_folder_without_a_place_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), hidden_folder(tmp_path / "file/a"):
        pass
