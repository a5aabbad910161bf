"""runs/ holds what it says: an index that follows from the folders, no run beyond its budget, stale ones named."""

import shutil

from pointseg.bookkit import report
from pointseg.lab import run_record as ledger


def test_the_index_follows_from_the_runs(root, tmp_path):
    shutil.copytree(
        root / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("*-smoke-*", "*.ipynb")
    )
    kept = root / "runs" / "index.csv"
    assert ledger.write_index(tmp_path / "runs").read_text() == kept.read_text(), (
        "run `pointseg index`"
    )


def test_no_run_outgrows_its_megabyte(root):
    assert ledger.over_budget(root / "runs") == []


def test_every_kept_run_says_how_it_ended_and_where_it_was_made(root):
    for run in ledger.runs_in(root / "runs"):
        assert run.status in ("ok", "crashed", "interrupted"), run.id
        assert run.read("env.json").get("packages"), run.id


def test_a_changed_library_makes_a_run_stale_and_names_it(tmp_path):
    run = ledger.Run(tmp_path / "runs" / "as-small")
    run.folder.mkdir(parents=True)
    run.write("recipe.json", {"scale": "small"})
    run.write("result.json", {"status": "ok", "key": {}})
    smoke = ledger.Run(tmp_path / "runs" / "as-smoke")
    smoke.folder.mkdir()
    smoke.write("recipe.json", {"scale": "smoke"})
    smoke.write("result.json", {"status": "ok", "key": {}})
    assert report.stale_runs(tmp_path / "runs", lambda folder: ["library"]) == {
        "as-small": ["library"]
    }
    assert report.stale_runs(tmp_path / "runs", lambda folder: []) == {}
