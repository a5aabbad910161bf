"""A chapter is executed again when anything that it read has changed, and only then."""

import time
from pathlib import Path

import pytest

from pointseg.bookkit import executed, kernels

CHAPTER = """# %% [markdown]
# # A small chapter

# %%
import sys
from pathlib import Path

sys.path.insert(0, "..")
import answers

runs = Path("../runs")
print(answers.VALUE, sorted(p.name for p in runs.iterdir()), (runs / "a.txt").read_text())
Path("drawn.part").write_text("x")
_ = Path("drawn.part").rename("drawn.js"), list(Path("../__pycache__").iterdir())
"""


@pytest.fixture
def book(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")  # what is compiled lies beside its source
    monkeypatch.setattr(kernels, "PACKAGES", ("ipykernel.kernelapp",))
    for name, text in (("answers.py", "VALUE = 41\n"), ("runs/a.txt", "one"), ("other.py", "")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "book").mkdir()
    return tmp_path / "book"


def printed(notebook) -> str:
    return notebook.cells[1].outputs[0].text


def test_a_chapter_is_executed_once_and_again_after_every_kind_of_change(book):
    root = book.parent
    assert printed(executed.read(CHAPTER, book)) == "41 ['a.txt'] one\n"
    assert executed.fresh(CHAPTER, book) is not None
    (root / "other.py").write_text("X = 1\n")
    (root / "answers.py").touch()
    assert executed.fresh(CHAPTER, book) is not None  # nothing that it read says anything else

    (root / "answers.py").write_text("VALUE = +42\n")  # a library edit: new source, so new output
    assert executed.fresh(CHAPTER, book) is None
    assert printed(executed.read(CHAPTER, book)) == "42 ['a.txt'] one\n"
    (root / "runs" / "a.txt").write_text("two")  # a run read
    assert executed.fresh(CHAPTER, book) is None
    assert printed(executed.read(CHAPTER, book)) == "42 ['a.txt'] two\n"
    (root / "runs" / "b.txt").write_text("")  # a run more
    assert executed.fresh(CHAPTER, book) is None
    (root / "runs" / "b.txt").unlink()
    assert executed.fresh(CHAPTER, book) is not None  # all is as it was
    (book / "drawn.js").unlink()  # a file that the page needs
    assert executed.fresh(CHAPTER, book) is None
    assert executed.fresh(CHAPTER + "\n", book) is None  # the chapter itself


def test_a_source_that_changes_while_a_chapter_runs_makes_it_stale(book):
    late = CHAPTER + 'Path("../answers.py").touch()\n'
    executed.read(late, book)
    assert executed.fresh(late, book) is None


def test_what_only_the_machine_keeps_is_no_source(book):
    made = executed.read(CHAPTER, book).metadata["execution"]
    assert set(made["files"]) == {"answers.py", "runs/a.txt"}
    assert (list(made["folders"]), made["written"]) == (["runs"], ["book/drawn.js"])


def test_a_failing_cell_fails_the_build_and_is_not_kept(book):
    with pytest.raises(Exception, match="ZeroDivisionError"):
        executed.read("# %%\n1 / 0\n", book)
    assert not (book.parent / "_build").exists()


WHO = """# %%
import os, sys
print(os.getpid(), os.getppid(), "numpy" in sys.modules)
import numpy
"""


def test_each_chapter_has_a_process_of_its_own_that_ends_with_it(book):
    (one, parent, clean), (other, same, still_clean) = (
        printed_by(WHO + comment, book) for comment in ("", "# again\n")
    )
    assert parent == same and one != other and clean == still_clean == "False"
    assert [kernels.Forked(int(pid)).poll() for pid in (one, other)] == [0, 0]


def printed_by(text, book):
    return executed.read(text, book).cells[0].outputs[0].text.split()


def test_kernels_end_with_the_process_that_wanted_them(tmp_path, monkeypatch):
    process = kernels.forker.__wrapped__(("ipykernel.kernelapp",))
    monkeypatch.setattr(kernels, "forker", lambda packages: process)
    words, environment = ["-f", str(tmp_path / "kernel.json")], {}
    kernel = kernels.Forked(kernels.forked({"words": words, "folder": str(tmp_path),
                                            "environment": environment}))  # fmt: skip
    assert kernel.poll() is None
    process.communicate()
    for _ in range(100):
        if kernel.poll() == 0:
            break
        time.sleep(0.1)
    assert kernel.poll() == 0
