"""Signals at every moment, two at once, one request twice."""

import hashlib
import signal
import time

import pytest
from support import imported
from support.at_work import leftovers
from support.imported import Program
from support.long_form import LONG_FORM

from pointseg.data.bestiary import make
from pointseg.lab import run_record
from pointseg.lab.notebook import run_notebook
from pointseg.lab.run_record import Run
from pointseg.structures import InputError

CHAPTER = """# %% tags=["parameters"]
seconds: float = 30.0

# %%
from pathlib import Path
import time

# %%
Path("began").touch()
time.sleep(seconds)
Path("ended").touch()
"""
COMMAND = ["-m", "pointseg", "run", "chapter.py"]


@pytest.fixture
def place(tmp_path, monkeypatch, root):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(root))
    (tmp_path / "chapter.py").write_text("# %% [markdown]\n# # A chapter\n\n" + CHAPTER)
    return tmp_path


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def results(place):
    return list(place.glob("runs/*/*/*/result.json"))


STOPPED = [(signal.SIGTERM, 1.0, 130), (signal.SIGINT, 2.0, 130), (signal.SIGKILL, 0.5, -9)]
STOPPED = STOPPED if LONG_FORM else STOPPED[:1]


@pytest.mark.parametrize("number, delay, code", STOPPED)
def test_a_signal_while_the_kernel_starts_is_not_swallowed(place, number, delay, code):
    process = Program(COMMAND)
    wait_for(lambda: results(place))
    time.sleep(delay)  # the record is open, the kernel is starting
    process.send_signal(number)
    assert process.wait(120) == code
    [result] = results(place)
    if number == signal.SIGKILL:
        wait_for(lambda: not leftovers(place))  # a kernel ends without its command
    else:
        assert process.stderr.splitlines()[-1].startswith("pointseg: interrupted")
    assert Run(result.parent).status == ("crashed" if number == signal.SIGKILL else "interrupted")
    assert not (place / "ended").exists()


def test_two_runs_of_one_notebook_are_one(place):
    words = [*COMMAND, "-p", "seconds=60"]
    first = Program(words)
    wait_for((place / "began").exists)
    second = imported.run(words)
    assert second.returncode == 2 and f"is running (process {first.pid} of" in second.stderr
    assert len(second.stderr.splitlines()) == 1
    first.kill()
    first.wait()


def test_a_reused_or_foreign_pid_never_blocks(place):
    run = Run(place / "runs" / "tried" / "row" / "s0")
    run.folder.mkdir(parents=True)
    here = run_record._process()
    run.write("result.json", {"status": "running", **here})
    assert run.status == "running"
    for change in ({"born": here["born"] - 1}, {"host": "elsewhere"}, {"pid": 2**30}):
        run.write("result.json", {"status": "running", **here, **change})
        assert run.status == "crashed"
        with run.alone():
            pass


def test_force_asks_nobody(place):
    run = Run(place / "runs" / "tried" / "row" / "s0")
    with run.alone():
        with pytest.raises(InputError, match="is running"), run.alone():
            pass
        with run.alone(force=True):
            pass


def test_bad_input_inside_the_kernel_is_one_line_and_exit_2(place):
    chapter = "# %%\nfrom pointseg.structures import InputError\nraise InputError('x: cause')\n"
    (place / "chapter.py").write_text("# %% [markdown]\n# # A\n\n" + chapter)
    with pytest.raises(InputError, match=r"^x: cause$"):
        run_notebook(place / "chapter.py", {})


# --- data make


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_equal_requests_give_equal_bytes(tmp_path, monkeypatch):
    made = []
    for name, hour in (("a", 1.0), ("b", 1e9)):
        monkeypatch.setattr(time, "time", lambda hour=hour: hour)
        monkeypatch.setattr(time, "asctime", lambda *_, hour=hour: f"hour {hour}")
        make(tmp_path / name, "all", images=1, val=2, tune=2, size=64, progress=False)
        made.append(digest(tmp_path / name))
    assert made[0] == made[1] and any(name.endswith(".mat") for name in made[0])


def test_data_make_stopped_leaves_nothing_and_two_equal_ones_succeed(place):
    words = ["-m", "pointseg", "data", "make", "made", "--images", "40"]
    process = Program(words)
    wait_for(lambda: list(place.glob(".made.*")))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert not list(place.glob(".made*")) and not (place / "made").exists()
    small = [*words[:-1], "2", "--size", "64"]
    both = [Program(small) for _ in range(2)]
    assert [each.wait(120) for each in both] == [0, 0]
    assert not list(place.glob(".made*")) and (place / "made").is_dir()
