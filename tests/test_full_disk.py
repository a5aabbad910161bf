"""Every writer on a full disk and in a read-only folder: one line, exit 2, the old files as they
were, nothing half-written."""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import same_process
from support import tiny_method as tiny

from pointseg.cli import main
from pointseg.data.bestiary import CATEGORIES, make
from pointseg.lab import notebook, recipe
from pointseg.lab.models import save_model

HELD = {"points.json": "old points", "runs/index.csv": "old index", "runs/README.md": "old guide"}
PLAN = "rows: {attentionshift: {toy: {stages: [{method: tiny}]}}}\n"
PLAN += "bench: {attentionshift: {bed: {scale: smoke, seeds: [0], rows: [toy]}}}\n"
CLAIMS = "tolerance: 5\npapers: {}\n"
BIG = "x = 'text ' * 100_000\nprint(x)\n"
WRITERS = {
    "data make": ["data", "make", "DISK/made", "--images", "1", "--size", "64"],
    "data tile": ["data", "tile", "GIVEN/made/coco", "--out", "DISK/tiles", "--side", "64"],
    "points": ["points", "GIVEN/made/coco", "--out", "DISK/points.json"],
    "predict": ["predict", "GIVEN/model.pt", "GIVEN/made/coco/val2017", "--out", "DISK/out"],
    "labels": ["labels", "tiny", "--run", "GIVEN/model.pt", "--data", "GIVEN/made/coco",
               "--points", "GIVEN/points.json", "--out", "DISK/labels"],
    "pretrain": ["pretrain", "mae", "--out", "DISK/pretrained", "--views", "64", "--images", "8"],
    "train": ["train", "tiny", "--notebook", "GIVEN/experiment.py"],
    "run": ["run", "GIVEN/chapter.py"],
    "bench": ["bench", "bed"],
    "index": ["index"],
}  # fmt: skip
RECORDS = ("work", "data", "pretrained", "runs/smoke", "runs/notebooks", "runs/attentionshift")


@pytest.fixture(scope="module")
def given(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("given")
    tiny.register()
    make(folder / "made", "coco", images=2, val=2, size=64, progress=False)
    chosen = recipe.make("tiny")
    save_model(folder / "model.pt", chosen.build(CATEGORIES), chosen, CATEGORIES)
    assert main(["points", str(folder / "made/coco"), "--out", str(folder / "points.json")]) == 0
    (folder / "experiment.py").write_text((root / "book" / "experiment.py").read_text())
    (folder / "chapter.py").write_text("# %% [markdown]\n# # A\n\n# %%\n" + BIG)
    return folder


@contextmanager
def mounted(place, size):
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    before = Path.cwd()
    try:
        yield place
    finally:
        os.chdir(before)
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.fixture
def disk(tmp_path):
    """A disk of a megabyte with old files and a project."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "disk", "1m") as place:
        for name, text in {
            **HELD,
            "book/_toc.yml": "",
            "book/plan.yml": PLAN,
            "book/claims.yml": CLAIMS,
        }.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(text)
        yield place


def fill(disk, free):
    """Leaves so many pages of the disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - free * 4096))


def contents(disk):
    return {str(p.relative_to(disk)): p.read_bytes() for p in disk.rglob("*") if p.is_file()}


def refused(name, disk, given, monkeypatch, capsys):
    """The one line that a writer says, after nothing but records of stopped work has changed."""
    monkeypatch.chdir(disk)
    monkeypatch.setattr(notebook, "execute", same_process.execute)
    before = contents(disk)
    words = [w.replace("DISK", str(disk)).replace("GIVEN", str(given)) for w in WRITERS[name]]
    code, printed = main(words), capsys.readouterr().err
    problem = [line for line in printed.splitlines() if line.startswith("pointseg: ")]
    assert code == 2 and len(problem) == 1 and "Traceback" not in printed, printed
    after = contents(disk)
    assert {n: after.get(n) for n in before} == before
    new = [n for n in after.keys() - before.keys() if not n.startswith(RECORDS)]
    assert new == [] and not [n for n in after if "/." in n or n.endswith(".part")], new
    return problem[0]


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_keeps_the_old_files(name, disk, given, monkeypatch, capsys):
    fill(disk, free=0)
    assert "no space left" in refused(name, disk, given, monkeypatch, capsys).lower()


@pytest.mark.parametrize("name, free", [
    ("data make", 5), ("predict", 5), ("labels", 2), ("train", 5), ("bench", 5),
])  # fmt: skip
def test_a_disk_that_fills_on_the_way(name, free, disk, given, monkeypatch, capsys):
    fill(disk, free)
    assert "no space left" in refused(name, disk, given, monkeypatch, capsys).lower()


@pytest.mark.parametrize("name", WRITERS)
def test_a_read_only_folder_is_one_line(name, disk, given, monkeypatch, capsys):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert "read-only" in refused(name, disk, given, monkeypatch, capsys).lower()
