"""Speeds of methods: measured apart, kept in one record, shown and held against the processor's."""

import subprocess

import pytest

from pointseg.bookkit.cost import tables
from pointseg.lab.batch import speed
from pointseg.lab.batch.speed import Trial, faults, measured, speed_run

ROW = {"batch": 16, "image_size": 512, "steps": 2, "images_per_s": 8.0, "data_wait_share": 0.25,
       "memory_gb": 3.0, "first_loss": 2.02, "first_loss_cpu": 2.0, "parameters": 5}  # fmt: skip


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two methods that were measured earlier."""
    monkeypatch.chdir(tmp_path)
    for scale, batch in (("smoke", 1), ("small", None)):
        run = speed_run(tmp_path / "runs", scale, "cpu", batch)
        run.folder.mkdir(parents=True)
        rows = {"epld": {"float32": ROW}, "mal": {"float32": {"error": "planted <fault>"}}}
        run.write("result.json", {"status": "ok", "metrics": {"speeds": rows}})
    return tmp_path / "runs"


def test_one_method_is_measured_in_its_own_process_and_the_record_keeps_the_others(runs):
    [line] = measured("smoke", 2, runs, batch=1, methods=["point_semantics"])
    run = speed_run(runs, "smoke", "cpu", 1)
    rows = run.metrics["speeds"]
    assert run.status == "ok" and rows["epld"] == {"float32": ROW}
    row = rows["point_semantics"]["float32"]
    assert row["batch"] == row["steps"] == 1 and row["first_loss"] == row["first_loss_cpu"] > 0
    assert min(row["images_per_s"], row["memory_gb"], row["parameters"]) > 0
    assert line.split()[:2] == ["point_semantics", "float32"] and "images/s" in line


def test_a_method_that_fails_leaves_its_last_line(monkeypatch):
    def fails(words, **_):
        return subprocess.CompletedProcess(words, 1, "", "Traceback\nMemoryError: too large\n")

    monkeypatch.setattr(speed.subprocess, "run", fails)
    assert speed.apart(Trial("psps", "smoke", 2)) == {"error": "MemoryError: too large"}
    assert faults({"float32": {"error": "MemoryError"}}) == ["float32: MemoryError"]


def test_first_losses_of_a_gpu_are_held_against_the_processors():
    row = {"first_loss": 2.02, "first_loss_cpu": 2.0}
    assert faults({"float32": {**row, "first_loss": 2.001}, "bf16": row}) == []
    assert faults({"float32": row}) == ["float32: first loss 2.02, on the processor 2"]


def test_without_a_gpu_the_check_says_so_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(speed.torch.cuda, "is_available", lambda: False)
    [line] = speed.check_gpu("paper", 50, tmp_path / "runs")
    assert line.startswith("not measured: there is no GPU") and not (tmp_path / "runs").exists()


def test_the_chapter_shows_seconds_a_step_and_what_has_not_been_measured(runs):
    head, rows = tables.speed_table(runs, "small", "cpu")
    cells = dict(zip(head, rows[0], strict=True))
    assert cells["method"] == "epld" and cells["s a step"] == "2" and cells["waits, %"] == "25"
    assert cells["first loss, its own less the processor's, %"] == "1"
    assert rows[1][2] == "planted &lt;fault&gt;" and len(rows[1]) == len(head)
    assert tables.speed_table(runs, "paper", "cuda")[1] == []
    assert "pointseg gpu-check --scale paper" in tables.speed_line(runs, "paper", "cuda")
