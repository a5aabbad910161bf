"""Killed at any moment and resumed, a run ends with the very same weights and log."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import tiny_method as tiny

from pointseg.structures import InputError
from pointseg.training.checkpoint import Checkpointer, is_whole
from pointseg.training.loop import Trainer, fit

KILLS = 24


def test_twenty_four_kills_leave_no_trace(tmp_path):
    program = Path(__file__).with_name("support") / "killed_runs.py"
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(KILLS)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert report["kills"] >= KILLS and all(report["same"]), report
    assert (
        report["lines"] == report["steps"] and report["lost"] >= KILLS // 3
    )  # kills that cost some steps
    assert not list(tmp_path.rglob("*.part"))


def part_of_a_run(folder, stop, chosen=None, **options):
    """Trains until a step; the caller then closes the generator."""
    chosen = chosen or tiny.settings(ema=0.9)
    torch.manual_seed(0)
    method = tiny.Tiny()
    records = fit(method, tiny.feed(chosen), chosen, folder, device="cpu", **options)
    losses = []
    for record in records:
        losses.append(record.losses)
        if record.step == stop:
            break
    records.close()
    return method, losses


def test_stopped_by_the_caller_it_goes_on_at_the_next_step(tmp_path):
    whole, losses = part_of_a_run(None, None)
    _, first = part_of_a_run(tmp_path, 6)
    again, second = part_of_a_run(tmp_path, None)
    assert len(first) == 7 and first + second == losses
    assert tiny.weights(again) == tiny.weights(whole)


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    whole, _ = part_of_a_run(tmp_path, None)
    again, losses = part_of_a_run(tmp_path, None)
    assert losses == [] and tiny.weights(again) == tiny.weights(whole)


def test_without_resume_it_starts_over(tmp_path):
    _, losses = part_of_a_run(tmp_path, None)
    assert part_of_a_run(tmp_path, None, resume=False)[1] == losses


@pytest.mark.parametrize("forgotten", ["optimizer", "average", "step"])
def test_whatever_a_checkpoint_forgets_is_seen(tmp_path, monkeypatch, forgotten):
    whole, losses = part_of_a_run(None, None)
    part_of_a_run(tmp_path, 6)
    load = Trainer.load

    def lossy(self, state):
        load(self, {**state, forgotten: self.state()[forgotten]})

    monkeypatch.setattr(Trainer, "load", lossy)
    again, second = part_of_a_run(tmp_path, None)
    assert tiny.weights(again) != tiny.weights(whole) or losses[7:] != second


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_torn_checkpoint_is_seen_and_the_one_before_is_used(tmp_path, damage):
    whole, losses = part_of_a_run(None, None)
    part_of_a_run(tmp_path, 8)
    newest, before = Checkpointer(tmp_path).paths()
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(
        {"cut": content[: len(content) // 3], "flipped": content, "empty": b""}[damage]
    )
    assert not is_whole(newest) and is_whole(before)
    again, second = part_of_a_run(tmp_path, None)
    assert losses[-len(second) :] == second and len(second) == 12 - 6
    assert tiny.weights(again) == tiny.weights(whole)


def test_with_every_checkpoint_torn_it_starts_over(tmp_path):
    _, losses = part_of_a_run(None, None)
    part_of_a_run(tmp_path, 8)
    keeper = Checkpointer(tmp_path)
    for path in keeper.paths():
        path.write_bytes(b"nothing")
    assert part_of_a_run(tmp_path, None)[1] == losses


def test_the_last_two_are_kept_and_leftovers_of_a_kill_swept_away(tmp_path):
    (tmp_path / "step00000001.part").write_bytes(b"half")
    part_of_a_run(tmp_path, None)
    assert [path.name[:12] for path in Checkpointer(tmp_path).paths()] == [
        "step00000012",
        "step00000009",
    ]
    assert not list(tmp_path.glob("*.part"))


def test_a_checkpoint_made_with_other_settings_is_refused(tmp_path):
    part_of_a_run(tmp_path, 6)
    other = dataclasses.replace(tiny.settings(ema=0.9), seed=5)
    with pytest.raises(InputError, match=r"made with other settings \(seed differ\)"):
        part_of_a_run(tmp_path, 8, other)


def test_a_checkpoint_is_read_without_unpickling(tmp_path):
    part_of_a_run(tmp_path, 6)
    state = torch.load(Checkpointer(tmp_path).paths()[0], weights_only=True)
    assert state["step"] == 7
