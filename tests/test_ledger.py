"""runs/: what a folder says is true, whatever happened to the run; and it stays small."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from pointseg.lab import fingerprint
from pointseg.lab import run_record as ledger
from pointseg.lab.run_record import (
    Interrupted,
    Run,
    StopFlag,
    strict,
    trim,
    write_index,
    write_text,
)
from pointseg.structures import InputError


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "runs" / "tiny-bestiary-smoke-s0-01234567")


def test_a_good_run_says_ok_with_its_metrics_and_where_it_was_made(run):
    with run.recording(notebook="x.py"):
        assert run.status == "running"
        run.write("metrics.json", {"val": {"AP": 12.5, "AR": math.nan}})
    result, env = run.result, run.read("env.json")
    assert (run.status, result["error"], result["notebook"]) == ("ok", "", "x.py")
    assert result["metrics"] == {"val": {"AP": 12.5, "AR": None}}
    assert result["wall_s"] > 0 and "pid" not in result
    assert env["packages"]["torch"] and env["threads"] >= 1 and env["device"]
    assert sorted(p.name for p in run.folder.iterdir()) == ["env.json", "result.json"]


def test_a_crash_says_so_in_one_line_and_is_passed_on(run):
    with pytest.raises(ZeroDivisionError), run.recording():
        run.write("metrics.json", {"a": 1 / 0})
    assert run.status == "crashed" and run.result["error"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_says_interrupted(run, number):
    with pytest.raises(KeyboardInterrupt), run.recording():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert run.status == "interrupted" and run.result["metrics"] == {}


def test_a_kill_without_a_word_is_told_by_the_missing_process(run):
    code = """
        import os, sys
        from pathlib import Path
        from pointseg.lab.run_record import Run
        with Run(Path(sys.argv[1])).recording():
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), run.folder], check=False)
    assert run.result["status"] == "running" and run.status == "crashed"


def test_time_adds_up_over_attempts(run):
    with pytest.raises(Interrupted), run.recording():
        raise Interrupted("enough")
    first = run.result["wall_s"]
    with run.recording():
        time.sleep(0.01)
    assert run.result["wall_s"] >= first + 0.01 and run.status == "ok"


def test_the_first_signal_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM"), StopFlag() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_file_is_whole_or_what_it_was(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match=r"a.json: cannot be written \(No space left on device\)"):
        write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_broken_file_of_a_run_is_named(run):
    run.folder.mkdir(parents=True)
    (run.folder / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result.json: not readable"):
        _ = run.status


def test_strict_json_has_no_nan():
    assert strict({"a": [1, math.inf, {"b": (math.nan, 2.0)}]}) == {
        "a": [1, "inf", {"b": [None, 2.0]}]
    }


def test_the_index_is_made_from_the_files_alone(run):
    with run.recording():
        run.write(
            "recipe.json",
            {
                "method": "tiny",
                "data": "bestiary",
                "scale": "small",
                "seed": 0,
                "points": {"kind": "uniform", "n": 1, "seed": 3},
                "training": {"steps": 4},
            },
        )
        run.write("metrics.json", {"val": {"AP": 50.0, "per_class": {"otter": 1.0}}})
    path = write_index(run.folder.parent)
    first = path.read_text()
    (row,) = csv.DictReader(first.splitlines())
    assert row["run"] == run.id and row["status"] == "ok" and row["points"] == "uniform-1-s3"
    assert row["val/AP"] == "50.0" and row["steps"] == "4" and "val/per_class/otter" not in row
    path.unlink()
    assert write_index(run.folder.parent).read_text() == first


def test_a_run_is_trimmed_to_its_budget_largest_figure_first(run):
    run.folder.mkdir(parents=True)
    for name, size in [("a.png", 400), ("b.png", 700), ("log.jsonl", 300)]:
        (run.folder / name).write_bytes(b"x" * size)
    picture = {
        "output_type": "display_data",
        "data": {"image/png": "y" * 600, "text/plain": "Figure"},
    }
    (run.folder / "notebook.ipynb").write_text(json.dumps({"cells": [{"outputs": [picture]}]}))
    assert trim(run.folder, 1600) == ["b.png"]
    assert trim(run.folder, 900) == ["a.png", "pictures of notebook.ipynb"]
    notebook = json.loads((run.folder / "notebook.ipynb").read_text())
    assert notebook["cells"][0]["outputs"][0]["data"] == {"text/plain": "Figure"}


def test_what_cannot_be_trimmed_is_a_fault(run, monkeypatch):
    with run.recording():
        (run.folder / "log.jsonl").write_bytes(b"x" * ledger.RUN_BYTES)
    assert ledger.over_budget(run.folder.parent) == [
        f"{run.folder}: {ledger.size_of(run.folder)} bytes, 1000000 allowed"
    ]
    monkeypatch.setattr(ledger, "ALL_BYTES", 5)
    assert len(ledger.over_budget(run.folder.parent)) == 2


def test_home_is_the_project_from_inside_the_book(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path / "book")
    assert ledger.home() == tmp_path
    assert ledger.unrecorded("x").scratch == tmp_path / "work" / "work" / "x"


# --- fingerprints


def test_comments_docstrings_and_formatting_do_not_move_a_hash_but_code_does():
    code = 'def f(x):\n    return x + 1\n\nclass A:\n    b = "it"\n'
    dressed = '"""Doc."""\ndef f( x ):\n    """Doc."""\n    return (x+1)  # why\nclass A:\n    "Doc."\n    b = \'it\'\n'
    assert fingerprint.code_hash(code) == fingerprint.code_hash(dressed)
    for changed in (
        code.replace("+ 1", "+ 2"),
        code.replace("+", "-"),
        code.replace('"it"', '"at"'),
    ):
        assert fingerprint.code_hash(changed) != fingerprint.code_hash(code)


def test_a_runs_hash_follows_what_it_imports_and_nothing_else(monkeypatch):
    reached = fingerprint.closure(["pointseg.training.loop"])
    assert {
        "pointseg.training.loop",
        "pointseg.training.loader",
        "pointseg.structures",
        "pointseg.papers.method",
    } <= reached
    assert not reached & {
        "pointseg.cli",
        "pointseg.papers.attentionshift.method",
        "pointseg.lab.notebook",
    }
    assert "pointseg.data.bestiary" in fingerprint.closure(
        ["pointseg.lab.experiment"]
    )  # a lazy import
    before = fingerprint.library_hash(["pointseg.training.loop"])
    moved = fingerprint._module_hash
    for changed, same in [("pointseg.training.loader", False), ("pointseg.lab.notebook", True)]:
        monkeypatch.setattr(
            fingerprint, "_module_hash", lambda n, c=changed: "other" if n == c else moved(n)
        )
        assert (fingerprint.library_hash(["pointseg.training.loop"]) == before) is same
    assert fingerprint.library_hash() != before != fingerprint.library_hash([])


def test_shipped_weights_count_where_networks_do(monkeypatch):
    roots = ["pointseg.training.loader"], ["pointseg.nets.vit"]
    before = [fingerprint.library_hash(names) for names in roots]
    monkeypatch.setattr(fingerprint, "_weights", lambda: ["other weights"])
    after = [fingerprint.library_hash(names) for names in roots]
    assert [a == b for a, b in zip(before, after)] == [True, False]
