"""A batch killed at any moment and begun again ends as an undisturbed one does, to the bit."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import stage_batch
from support.long_form import LONG_FORM
from support.same_stages import differing, stages_in

from pointseg.lab.batch import job
from pointseg.lab.batch.engine import Machine, refuse_read_only, run_batch
from pointseg.lab.batch.locks import held, is_held, wait_until_free
from pointseg.lab.batch.states import BLOCKED, DONE, FAILED, RUNNING, place_of, report
from pointseg.lab.chain import Chain
from pointseg.lab.run_data import open_corpus
from pointseg.structures import InputError

KILLS = int(os.environ.get("POINTSEG_KILLS", 1))  # `POINTSEG_KILLS=20` is the long form
LONGEST = 9.0  # seconds after which a batch is killed at the latest


@pytest.fixture(scope="module")
def place(root, tmp_path_factory):
    """A project of its own, whose data are made once."""
    folder, before = tmp_path_factory.mktemp("batch"), Path.cwd()
    (folder / "book").mkdir()
    (folder / "book" / "_toc.yml").touch()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture(scope="module")
def whole(place):
    """Stage folders of an undisturbed training, in this process."""
    torch.set_num_threads(1)
    chains = [Chain(open_corpus(job.recipes[0]), place / "whole") for job in stage_batch.jobs()]
    return {chain.model(0).parent.name: chain.model(0).parent for chain in chains}


def test_a_stage_that_differs_is_seen(whole):
    name = next(iter(whole))
    swapped = {**whole, name: next(path for path in whole.values() if path != whole[name])}
    assert differing(whole, swapped) == [name] and differing(whole, {}) == sorted(whole)


def begun(runs):
    words = [sys.executable, "-m", "support.stage_batch", str(runs)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def children(pid):
    return [int(word) for task in Path(f"/proc/{pid}/task").iterdir()
            for word in (task / "children").read_text().split()]  # fmt: skip


def workers(runs):
    """Processes of jobs at work, by what their locks say."""
    locks = [path for path in (place_of(runs) / "locks").glob("*.lock") if is_held(path)]
    words = (re.match(r"process (\d+)", path.read_text()) for path in locks)
    return [int(word[1]) for word in words if word]


def kill_somebody(rng, batch, runs):
    """The command, its engine or a job, with a signal that leaves time or with one that does
    not."""
    victims = [batch.pid, *children(batch.pid), *workers(runs)]
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    try:
        os.kill(rng.choice(victims), number)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(not LONG_FORM, reason="the long form: POINTSEG_STOPS=12")
def test_killed_at_any_moment_it_ends_as_if_nothing_had_been(place, whole):
    rng, kills, number = random.Random(0), 0, 0
    while kills < KILLS or number == 0:
        runs = place / f"batch{number}" / "runs"
        number += 1
        while True:
            batch = begun(runs)
            if kills < KILLS:
                time.sleep(rng.uniform(1.0, LONGEST))
                kills += batch.poll() is None and kill_somebody(rng, batch, runs)
            output, _ = batch.communicate(timeout=300)
            if batch.returncode == 0:
                break
            assert "refused" not in output, output
        assert differing(stages_in(runs.parent), whole) == []


def test_a_failed_job_is_reported_while_others_go_on_each_on_a_gpu_of_its_own(place, whole):
    """Two pretended GPUs, and beside it a batch of another folder of the same disk."""
    runs, busy = place / "gpus" / "runs", []
    good = stage_batch.jobs()[0]
    bad = replace(good, name="bad", words={"recipe": "{}", "k": 0})
    jobs = [bad, replace(good, name="after-bad", needs=("bad",)), good,
            replace(good, name="late", needs=(good.name,))]  # fmt: skip
    with held(place_of(place / "neighbour" / "runs") / "lock", "another batch"):
        standing = run_batch(jobs, Machine.of(None, [3, 5], 1, None), runs, busy.append)
    states = {each.name: each.state for each in standing}
    assert states == {"bad": FAILED, "after-bad": BLOCKED, good.name: DONE, "late": DONE}
    lines = report(place_of(runs))
    assert lines[0].startswith("failed bad  (log: ") and "InputError: recipe" in lines[-2]
    assert lines[-1].startswith("blocked after-bad")
    at_work = [[s.gpus for s in moment if s.state == RUNNING and s.gpus] for moment in busy]
    assert {gpu for gpus in at_work for gpu in gpus} == {"3", "5"}
    assert all(len(gpus) == len(set(gpus)) for gpus in at_work)
    name = stages_in(runs.parent).keys()
    assert differing(stages_in(runs.parent), {n: whole[n] for n in name}) == []


@pytest.fixture
def folders(tmp_path):
    """What a batch makes before its jobs."""
    for name in ("states", "done"):
        (tmp_path / name).mkdir()


@pytest.mark.usefixtures("folders")
def test_a_full_disk_fails_the_job_in_one_line_and_leaves_no_marker(tmp_path, monkeypatch, capsys):
    def full(words, runs):
        raise OSError(28, "No space left on device", "model.pt")

    monkeypatch.setitem(job.WORK, "stage", full)
    assert job.noted({"name": "a", "kind": "stage", "words": {}}, tmp_path / "runs", tmp_path) == 1
    state = json.loads((tmp_path / "states" / "a.json").read_text())
    assert state["state"] == FAILED and "No space left on device" in state["error"]
    assert len(capsys.readouterr().err.splitlines()) == 1 and not list(tmp_path.glob("done/*"))


@pytest.mark.usefixtures("folders")
def test_a_state_that_a_full_disk_does_not_take_leaves_the_last_one(tmp_path, monkeypatch):
    """Nothing can be written any more: the job ends, and what it was reads as killed."""

    def full(words, runs):
        monkeypatch.setattr(job, "write_text", refuse)
        raise OSError(28, "No space left on device")

    def refuse(path, text):
        raise InputError(f"{path}: cannot be written (no space left on device)")

    monkeypatch.setitem(job.WORK, "stage", full)
    with pytest.raises(InputError, match="no space left"):
        job.noted({"name": "a", "kind": "stage", "words": {}}, tmp_path / "runs", tmp_path)
    assert json.loads((tmp_path / "states" / "a.json").read_text())["state"] == RUNNING


def test_a_second_batch_on_the_same_runs_says_so_and_changes_nothing(place):
    runs = place / "twice" / "runs"
    with held(place_of(runs) / "lock", "held"):
        before = sorted(place_of(runs).rglob("*"))
        with pytest.raises(InputError, match=r"runs: a batch is running \(process \d+ of"):
            stage_batch.run_batch(stage_batch.jobs(), stage_batch.Machine(1), runs, print)
        assert sorted(place_of(runs).rglob("*")) == before and not runs.exists()


def test_a_job_of_an_earlier_batch_that_still_lives_is_named(tmp_path):
    lock = tmp_path / "epld-s0.lock"
    with held(lock, "held"):
        with pytest.raises(InputError, match=r"^epld-s0: a job of an earlier batch .*process \d+"):
            wait_until_free([lock], 0.0)
    wait_until_free([lock], 0.0)


def test_runs_that_cannot_be_written_are_refused_before_anything_starts(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(InputError, match="runs: cannot be written"):
        refuse_read_only(tmp_path / "runs")
