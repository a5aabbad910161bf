"""runs/: what a folder says is true, whatever happened to the run; and it stays small."""

import csv
import math
import os
import signal
import textwrap
import time

import pytest
from support import imported

from pointseg.lab import fingerprint, run_index
from pointseg.lab import run_record as ledger
from pointseg.lab.chain import code_of
from pointseg.lab.run_index import COLUMNS, index_of, key_score
from pointseg.lab.run_record import Interrupted, Run, StopFlag, strict, write_text
from pointseg.structures import InputError


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "runs" / "attentionshift" / "as-tab3-shift" / "s0")


def test_a_good_run_says_ok_with_its_metrics_and_where_it_was_made(run):
    with run.recording(notebook="x.py"):
        assert run.status == "running"
        run.write("metrics.json", {"val": {"AP": 12.5, "AR": math.nan}})
    result, env = run.result, run.read("env.json")
    assert (run.status, result["error"], result["notebook"]) == ("ok", "", "x.py")
    assert result["metrics"] == {"val": {"AP": 12.5, "AR": None}}
    assert result["wall_s"] > 0 and "pid" not in result
    assert env["packages"]["torch"] and env["threads"] >= 1 and env["device"] and env["cpu"]
    assert set(env["instructions"]) <= set(ledger.FAST_ARITHMETIC)
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
    assert imported.run(["-c", textwrap.dedent(code), run.folder]).returncode == -9
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
        assert stop.raised
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_file_is_whole_or_what_it_was(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(
        os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(InputError, match=r"a.json: cannot be written \(no space left on device\)"):
        write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_broken_file_of_a_run_is_named(run):
    run.folder.mkdir(parents=True)
    (run.folder / "result.json").write_text("{")
    with pytest.raises(InputError, match=r"result.json: is not whole JSON"):
        _ = run.status


def test_strict_json_has_no_nan():
    assert strict({"a": [1, math.inf, {"b": (math.nan, 2.0)}]}) == {
        "a": [1, "inf", {"b": [None, 2.0]}]
    }


RECIPE = {
    "stages": [{"method": "token_querying", "config": {}},
               {"method": "attentionshift", "config": {"filtering": False}}],
    "layout": "voc", "seed": 0, "scored_on": "val", "val": "val", "scale": "small",
    "points": {"kind": "centre", "n": 1, "seed": 0},
}  # fmt: skip


def test_the_index_is_made_from_the_files_alone(run):
    with run.recording():
        run.write("recipe.json", RECIPE)
        scores = {"val": {"AP": 50.0, "per_class": {"otter": 1.0}}, "labels": {"mIoU": 40.123}}
        stages = [{"method": "token_querying", "head": "work/stages/a", "seconds": 70.4},
                  {"method": "attentionshift", "head": "work/stages/b", "seconds": 30}]  # fmt: skip
        run.write("metrics.json", {**scores, "stages": stages})
    text = index_of([run])
    (row,) = csv.DictReader(text.splitlines())
    assert tuple(row) == COLUMNS and len(COLUMNS) <= 15
    assert row["run"] == run.id == "attentionshift/as-tab3-shift/s0" and row["status"] == "ok"
    assert row["changed"] == "1 centre, filtering=False" and row["split"] == "val"
    assert row["stages"] == "token_querying > attentionshift" and row["layout"] == "voc"
    assert (row["score_name"], row["score"], row["seconds"]) == ("val/AP", "50.0", "100")
    assert index_of([run]) == text


def test_a_run_of_labels_alone_is_led_by_their_overlap(run):
    run.folder.mkdir(parents=True)
    run.write("result.json", {"metrics": {"labels": {"mIoU": 40.123, "mIoU_small": 1.0}}})
    assert key_score(run) == ("labels/mIoU", 40.12)


def test_a_run_that_is_too_large_is_a_fault(run, monkeypatch):
    with run.recording():
        (run.folder / "figure.png").write_bytes(b"x" * run_index.RUN_BYTES)
    root, size = run.folder.parents[2], run_index.size_of(run.folder)
    assert run_index.over_budget(root) == [f"{run.folder}: {size} bytes, 80000 allowed"]
    monkeypatch.setattr(run_index, "ALL_BYTES", 5)
    assert len(run_index.over_budget(root)) == 2


def test_home_is_the_project_from_inside_the_book(tmp_path, monkeypatch):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").touch()
    monkeypatch.chdir(tmp_path / "book")
    assert ledger.home() == tmp_path
    by_hand = ledger.unrecorded("again/s0")
    assert by_hand.root == tmp_path / "work" / "by-hand" / "again-s0"
    assert by_hand.stages == by_hand.root / "work" / "stages"


# --- fingerprints


def test_comments_docstrings_and_formatting_do_not_move_a_hash_but_code_does():
    code = 'def f(x):\n    return x + 1\n\nclass A:\n    b = "it"\n'
    dressed = (
        '"""Doc."""\ndef f( x ):\n    """Doc."""\n    return (x+1)  # why\n'
        "class A:\n    \"Doc.\"\n    b = 'it'\n"
    )
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
    assert before != fingerprint.library_hash([])


def test_touching_one_paper_does_not_stale_the_others(monkeypatch):
    before = {name: code_of(name) for name in ("psps", "mask_rcnn", "panoptic_full")}
    moved = fingerprint._module_hash
    touched = lambda name: "other" if name == "pointseg.papers.psps" else moved(name)  # noqa: E731
    monkeypatch.setattr(fingerprint, "_module_hash", touched)
    changed = {name for name, code in before.items() if code_of(name) != code}
    assert changed == {"psps"}


def test_shipped_weights_count_where_networks_do(monkeypatch):
    roots = ["pointseg.training.loader"], ["pointseg.nets.vit"]
    before = [fingerprint.library_hash(names) for names in roots]
    monkeypatch.setattr(fingerprint, "_weights", lambda: ["other weights"])
    after = [fingerprint.library_hash(names) for names in roots]
    assert [a == b for a, b in zip(before, after)] == [True, False]
