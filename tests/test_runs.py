"""runs/ holds what it says: index and guide follow from the folders, no run exceeds its budget."""

import csv

from support.finished_runs import finish

from pointseg.bookkit import report
from pointseg.lab import run_index
from pointseg.lab.run_record import Run, kept_runs, runs_in

KEY = {"notebook": "n", "parameters": {}, "code": {}, "data": None}


def test_index_and_guide_follow_from_the_runs(root, monkeypatch):
    monkeypatch.chdir(root)
    kept = kept_runs(root / "runs")
    index, guide = (root / "runs" / name for name in ("index.csv", "README.md"))
    assert run_index.index_of(kept) == index.read_text(), "run `pointseg index`"
    assert run_index.readme_of(kept) == guide.read_text(), "run `pointseg index`"


def test_the_guide_leads_from_a_printed_row_to_its_folders(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    run = finish(tmp_path, "as-tab3-shift", {"val": {"voc_mAP50_11pt": 49.21}}, seed=1)
    guide = run_index.readme_of([run])
    (line,) = [each for each in guide.splitlines() if "| as-tab3-shift |" in each]
    assert line.startswith("| AS Tab. 3 row 3 |")
    assert "[s1](attentionshift/as-tab3-shift/s1) val/voc_mAP50_11pt 49.21 (ok)" in line
    assert "| P2M Tab. A2 row 1 | p2m-tabA2-rounds40 | not made yet |" in guide


def test_no_run_outgrows_its_budget(root):
    assert run_index.over_budget(root / "runs") == []


def test_every_kept_run_says_how_it_ended_and_where_it_was_made(root):
    for run in runs_in(root / "runs"):
        assert run.status in ("ok", "crashed", "interrupted"), run.id
        assert run.read("env.json").get("packages"), run.id


def test_smoke_runs_are_not_kept(tmp_path):
    for paper in ("smoke", "tried"):
        run = Run(tmp_path / "runs" / paper / "psps-01234567" / "s0")
        run.folder.mkdir(parents=True)
        run.write("result.json", {"status": "ok", "key": KEY})
    assert [run.id for run in kept_runs(tmp_path / "runs")] == ["tried/psps-01234567/s0"]
    assert [row["row"] for row in csv.DictReader(
        run_index.index_of(kept_runs(tmp_path / "runs")).splitlines()
    )] == ["psps-01234567"]  # fmt: skip


def test_a_run_that_is_not_current_is_named(tmp_path):
    for name in ("a", "b", "c"):
        run = Run(tmp_path / "runs" / "tried" / name / "s0")
        run.folder.mkdir(parents=True)
        run.write("result.json", {"status": "ok", "key": KEY})
    bench = Run(tmp_path / "runs" / "bench-x" / "row" / "s0")
    bench.folder.mkdir(parents=True)
    bench.write("result.json", {"status": "ok", "kind": "bench", "code": "of long ago"})
    words = {"a": "stale", "b": "carried", "c": "current"}
    named = report.states(tmp_path / "runs", lambda folder: words[folder.parent.name])
    assert named == {"tried/a/s0": "stale", "tried/b/s0": "carried", "bench-x/row/s0": "stale"}
