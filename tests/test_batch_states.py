"""A batch seen from outside: states by files and locks, a page, GPUs by slots, and a bill."""

import json
import os

import pytest

from pointseg.bookkit.status_page import Page, status_page
from pointseg.lab.batch import slots
from pointseg.lab.batch.bill import bill_lines, costs, rates
from pointseg.lab.batch.jobs import jobs_of
from pointseg.lab.batch.locks import held, is_held
from pointseg.lab.batch.states import Standing, counted, last_lines, place_of, report, standings
from pointseg.lab.notebook import read_notebook
from pointseg.lab.reproduce import Lines
from pointseg.lab.run_record import Run
from pointseg.structures import InputError


@pytest.fixture
def place(tmp_path):
    """A batch of six jobs in a folder."""
    folder = place_of(tmp_path / "runs")
    for name in ("done", "states", "logs", "locks"):
        (folder / name).mkdir(parents=True)
    needs = {"a": [], "b": [], "c": [], "d": ["c"], "e": [], "f": []}
    jobs = [{"name": name, "needs": need} for name, need in needs.items()]
    (folder / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    states = {
        "a": {"state": "done", "began": 10.0, "ended": 75.0},
        "b": {"state": "running", "began": 10.0, "gpus": "3"},
        "c": {"state": "failed", "began": 10.0, "ended": 11.0},
        "e": {"state": "running", "began": 10.0},
    }
    for name, state in states.items():
        (folder / "states" / f"{name}.json").write_text(json.dumps(state))
    (folder / "logs" / "b.log").write_text("one\nstep 1/4\rstep 2/4  loss 0.5  left 0:10\n\n")
    (folder / "logs" / "c.log").write_text("\n".join(f"line {k}" for k in range(20)))
    return folder


def test_states_come_from_files_and_locks(place):
    with held(place / "locks" / "b.lock", "b"):
        standing = {each.name: each for each in standings(place)}
    states = [standing[name].state for name in "abcdef"]
    assert states == ["done", "running", "failed", "blocked", "killed", "waiting"]
    assert standing["a"].seconds == 65.0 and standing["b"].gpus == "3"
    assert standing["b"].line == "step 2/4  loss 0.5  left 0:10"
    assert counted(list(standing.values())).startswith("1 done, 1 running, 1 waiting, 1 failed")
    assert str(standing["a"]).split() == ["done", "a", "1:05"]


@pytest.mark.parametrize("name", ["jobs.json", "states/c.json", "logs/c.log"])
@pytest.mark.parametrize("odd", ["pipe", "without end", "[3]", '{"state": "done"}'])
def test_a_folder_that_is_no_batch_is_refused(place, name, odd):
    (place / name).unlink()
    if odd == "pipe":
        os.mkfifo(place / name)
    elif odd == "without end":
        (place / name).symlink_to("/dev/zero")
    else:
        (place / name).write_text(odd)
    if name.endswith(".log") and odd[0] in "[{":
        assert f"    {odd}" in report(place)
        return
    with pytest.raises(InputError, match=f"{name}: "):
        report(place)


def test_the_report_has_the_last_lines_of_what_failed(place):
    lines = report(place)
    assert lines[0].startswith("killed b")  # it says that it runs, and nobody holds its lock
    begin = lines.index(f"failed c  (log: {place}/logs/c.log)")
    assert [line.strip() for line in lines[begin + 1 : begin + 9]] == [
        f"line {k}" for k in range(12, 20)
    ]


def test_no_batch_and_no_log_are_said_plainly(tmp_path):
    with pytest.raises(InputError, match="there has been no batch"):
        standings(tmp_path)
    assert last_lines(tmp_path / "none.log", 3) == ""


def test_a_line_is_printed_when_a_state_changes_and_only_then(capsys):
    lines, waiting = Lines(), Standing("a", "waiting")
    for each in (waiting, waiting, Standing("a", "running"), Standing("a", "running")):
        lines([each])
    lines([Standing("a", "done", 3.0)])
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines()] == [
        ["[0/1]", "running", "a"],
        ["[1/1]", "done", "a"],
    ]


def test_the_page_needs_no_server_and_escapes_what_a_log_says(tmp_path):
    page = status_page([Standing("a", "running", 1.0, line="<script>x</script> & more")], "noon")
    assert "&lt;script&gt;x&lt;/script&gt; &amp; more" in page and "<script" not in page
    assert "http:" not in page and "src=" not in page
    write = Page(tmp_path / "status.html", every=1e9)
    write([Standing("a", "running")])
    first = (tmp_path / "status.html").read_text()
    write([Standing("a", "running", line="a step later")])
    assert (tmp_path / "status.html").read_text() == first
    write([Standing("a", "done")])
    assert "1 done" in (tmp_path / "status.html").read_text()


# --- GPUs


def test_each_job_gets_a_gpu_of_its_own_then_a_place_beside_another(tmp_path):
    with slots.on_gpus(tmp_path, [2, 5], 2, 1) as a, slots.on_gpus(tmp_path, [2, 5], 2, 1) as b:
        assert (a, b) == ([2], [5])
        with slots.on_gpus(tmp_path, [2, 5], 2, 1) as c:
            assert c == [2]
    with slots.on_gpus(tmp_path, [2, 5], 2, 1) as again:
        assert again == [2]


def test_a_job_of_several_gpus_has_them_alone_and_keeps_none_while_it_waits(tmp_path, monkeypatch):
    rounds = []

    def waited(seconds):
        rounds.append(is_held(tmp_path / "gpu1.0"))
        first.__exit__(None, None, None)

    first = slots.on_gpus(tmp_path, [0, 1], 2, 1)
    assert first.__enter__() == [0]
    monkeypatch.setattr(slots.time, "sleep", waited)
    with slots.on_gpus(tmp_path, [0, 1], 2, 2) as both:
        assert both == [0, 1] and rounds == [False]
        for gpu, k in ((0, 0), (0, 1), (1, 0), (1, 1)):
            assert is_held(tmp_path / f"gpu{gpu}.{k}")


# --- the bill


def speeds(runs, scale, device, **per_second):
    run = Run(runs / "speed" / f"{scale}-{device}" / "s0")
    run.folder.mkdir(parents=True)
    rows = {name: {"float32": {"images_per_s": rate, "memory_gb": 2.0, "parameters": 2**26}}
            for name, rate in per_second.items()}  # fmt: skip
    run.write("result.json", {"status": "ok", "metrics": {"speeds": rows}})
    run.write("env.json", {"device": "a made up card"})


def test_hours_are_steps_times_batch_over_speed_and_a_shared_stage_counts_once(
    root, tmp_path, monkeypatch
):
    monkeypatch.chdir(root)
    source = read_notebook(root / "book" / "experiment.py")
    jobs = jobs_of(["as-tab3-shift", "as-tab3-map"], None, [0], source)
    speeds(tmp_path, "small", "cpu", token_querying=8.0, attentionshift=4.0)
    bill = costs(jobs, [], tmp_path, "cpu")
    stage, *rows = [bill[job.name] for job in jobs]
    first, second = jobs[1].recipes[0].stages
    assert stage.hours == pytest.approx(1000 * 16 / 8 / 3600)
    expected = second.training.steps * second.training.batch / 4 / 3600
    assert [row.hours for row in rows] == pytest.approx([expected, expected])
    assert stage.disk_gb == 1.0 and first.training.steps == 1000
    assert costs(jobs[1:], jobs[:1], tmp_path, "cpu")[jobs[1].name] == rows[0]
    lines = bill_lines(jobs, [], tmp_path, "cpu")
    assert "rests on: a made up card; training only" in lines[-1]


def test_what_nobody_has_measured_is_said_and_not_guessed(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    source = read_notebook(root / "book" / "experiment.py")
    jobs = jobs_of(["as-tab3-shift"], None, [0], source)
    assert rates(tmp_path, "small", "cpu") == {}
    lines = bill_lines(jobs, [], tmp_path, "cpu")
    assert "not measured (attentionshift, token_querying)" in lines[0]
    assert lines[-1].endswith("(`pointseg gpu-check --cpu --scale small`)")
    speeds(tmp_path, "small", "cpu", token_querying=8.0)
    [cost] = costs(jobs, [], tmp_path, "cpu").values()
    assert cost.unknown == {"attentionshift"} and cost.hours > 0
