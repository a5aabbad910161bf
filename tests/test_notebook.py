"""Strict notebooks.

Nothing runs on a misspelt parameter, nothing runs twice, nothing stale goes unnoticed.
"""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import imported
from support import tiny_method as tiny
from support.long_form import LONG_FORM

from pointseg.lab import carry
from pointseg.lab import notebook as notebooks
from pointseg.lab.notebook import (
    checked,
    compare_results,
    read_notebook,
    run_notebook,
    stale,
    state,
)
from pointseg.lab.run_record import Run, runs_in
from pointseg.structures import InputError

HEAD = """
# %% [markdown]
# # A tiny chapter

# %% tags=["parameters"]
power: int = 2
rate: float = 0.5  # per step
name: str = "a"
loud: bool = False
more: dict = {}
out: str = ""

"""
BODY = """
# %%
import json
from pathlib import Path
value = rate * 3**power + len(more)
print(value)

# %%
Path(out, "metrics.json").write_text(json.dumps({"value": value}));
"""


def chapter(folder, body=BODY, head=HEAD):
    path = folder / "chapter.py"
    path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    return path


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book").mkdir()
    return tmp_path


# --- parameters


@pytest.mark.parametrize("given, value", [
    ({"power": "3"}, {"power": 3}), ({"rate": "1e-3"}, {"rate": 1e-3}),
    ({"rate": "2"}, {"rate": 2.0}), ({"rate": 1}, {"rate": 1.0}),
    ({"name": "12"}, {"name": "12"}), ({"loud": "true"}, {"loud": True}),
    ({"more": '{"a": 1, "b": [2]}'}, {"more": {"a": 1, "b": [2]}}),
    ({"more": {"a": 1}}, {"more": {"a": 1}}),
])  # fmt: skip
def test_texts_and_values_become_what_the_cell_declares(tmp_path, given, value):
    values = checked(read_notebook(chapter(tmp_path)), given)
    assert values == {"power": 2, "rate": 0.5, "name": "a", "loud": False, "more": {}} | value
    assert {name: type(v) for name, v in values.items()} == {
        "power": int, "rate": float, "name": str, "loud": bool, "more": dict}  # fmt: skip


@pytest.mark.parametrize("given, complaint", [
    ({"pwer": "3"}, "there is no parameter 'pwer'; there are power, rate, name, loud, more"),
    ({"out": "elsewhere"}, "there is no parameter 'out'"),
    ({"power": "two"}, "power: expected an integer, got 'two'"),
    ({"power": "2.5"}, "power: expected an integer, got '2.5'"),
    ({"power": "true"}, "power: expected an integer, got 'true'"),
    ({"power": True}, "power: expected an integer, got True"),
    ({"power": "010"}, "power: expected an integer, got '010'"),
    ({"power": "1:30"}, "power: expected an integer, got '1:30'"),
    ({"power": "0x10"}, "power: expected an integer, got '0x10'"),
    ({"rate": "1e400"}, "rate: expected a number, got '1e400'"),
    ({"rate": "NaN"}, "rate: expected a number, got 'NaN'"),
    ({"loud": "yes"}, "loud: expected true or false, got 'yes'"),
    ({"more": '{"a": 1, "a": 2}'}, "more: expected a table"),
    ({"more": "{a: 1}"}, "more: expected a table"),
    ({"more": "[" * 100_000}, "more: expected a table"),
    ({"rate": "fast"}, "rate: expected a number, got 'fast'"),
    ({"rate": ""}, "rate: expected a number, got ''"),
    ({"loud": "1"}, "loud: expected true or false, got '1'"),
    ({"more": "[1]"}, r"more: expected a table, got '\[1\]'"),
    ({"more": "{a: ["}, "more: expected a table, got '{a: \\['"),
    ({"name": 3}, "name: expected a text, got 3"),
    ({"name": None}, "name: expected a text, got None"),
])  # fmt: skip
def test_a_misspelt_or_mistyped_parameter_stops_before_anything_runs(place, given, complaint):
    path = chapter(place, "\n# %%\nraise SystemExit('it ran')\n")
    with pytest.raises(InputError, match=complaint) as caught:
        run_notebook(path, given)
    assert "\n" not in str(caught.value)
    assert not (place / "runs").exists() and not (place / "work").exists()


@given(
    st.dictionaries(
        st.sampled_from(["power", "rate", "name", "loud", "more"]), st.text(max_size=12)
    )
)
def test_any_text_is_parsed_or_refused(tmp_path_factory, given_texts):
    source = read_notebook(chapter(tmp_path_factory.mktemp("n")))
    try:
        values = checked(source, given_texts)
    except InputError:
        return
    kinds = {"power": int, "rate": float, "name": str, "loud": bool, "more": dict}
    assert all(type(values[name]) is kind for name, kind in kinds.items())


@pytest.mark.parametrize("line, complaint", [
    ("print('x')", "line 1: expected 'name: type = value'"),
    ("x: int", "expected 'name: type = value'"),
    ("x = some()", "parameter x: its default is not a literal"),
    ("x: complex = 1", "x has type complex"),
    ("a, b = 1, 2", "expected 'name: type = value'"),
])  # fmt: skip
def test_a_parameters_cell_holds_typed_literals_only(tmp_path, line, complaint):
    path = chapter(tmp_path, head=f'\n# %% tags=["parameters"]\n{line}\n')
    with pytest.raises(InputError, match=complaint):
        checked(read_notebook(path), {})


def test_a_parameter_may_be_left_to_somebody_else(tmp_path):
    head = '\n# %% tags=["parameters"]\nlayout: str | None = None\nn: int | None = None\n'
    source = read_notebook(chapter(tmp_path, head=head))
    assert checked(source, {}) == {"layout": None, "n": None}
    assert checked(source, {"layout": "voc", "n": "3"}) == {"layout": "voc", "n": 3}
    assert checked(source, {"n": None}) == {"layout": None, "n": None}


def test_a_missing_notebook_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent\.py: no such file"):
        run_notebook(tmp_path / "absent.py", {})


# --- running


def test_it_runs_once_for_each_content(place):
    path = chapter(place / "book")
    folder = run_notebook(path, {"power": "3"})
    assert str(folder).startswith("runs/notebooks/chapter-") and folder.name == "s0"
    run = Run(folder)
    assert run.result["metrics"] == {"value": 13.5} and run.status == "ok"
    executed = nbformat.read(folder / "notebook.ipynb", 4)
    assert (
        "13.5" in str(executed.cells) and str(place) not in (folder / "notebook.ipynb").read_text()
    )

    stamp = (folder / "result.json").stat().st_mtime_ns
    assert run_notebook(path, {"power": 3}) == folder  # the same content, however it was given
    assert (folder / "result.json").stat().st_mtime_ns == stamp
    assert run_notebook(path, {"power": "3"}, force=True) == folder
    assert (folder / "result.json").stat().st_mtime_ns != stamp

    assert stale(folder) == []
    path.write_text(path.read_text() + "\n# %% [markdown]\n# Only prose.\n")
    assert stale(folder) == []
    path.write_text(path.read_text().replace("len(more)", "len(more) + 1"))
    assert stale(folder) == ["notebook"]
    other = run_notebook(path, {"power": "3"})
    assert other != folder and compare_results(folder, other) == ["value: 13.5 and 14.5"]
    assert compare_results(folder, other, rtol=0.1) == []


def key_of(path, **parameters):
    source = read_notebook(path)
    return notebooks.key_of(source, checked(source, parameters))


def kept(place, path, key):
    """A run of a chapter that ended well with that key."""
    run = Run(place / "runs" / "notebooks" / "chapter" / "s0")
    run.folder.mkdir(parents=True)
    run.write("result.json", {"status": "ok", "notebook": path.name, "key": asdict(key)})
    return run


def test_what_else_makes_a_run_stale(place, monkeypatch):
    path = chapter(place / "book")
    run = kept(place, path, key_of(path))
    assert stale(run.folder) == [] and state(run.folder) == "current"
    monkeypatch.setattr(notebooks, "library_hash", lambda roots: "moved")
    assert stale(run.folder) == ["code"] and state(run.folder) == "stale"
    path.write_text(path.read_text().replace("power: int", "strength: int"))
    assert stale(run.folder) == ["notebook", "parameters", "code"]
    path.unlink()
    assert stale(run.folder) == ["no key"]


def test_a_run_whose_code_was_proven_to_give_the_same_is_carried(place, monkeypatch):
    path = chapter(place / "book")
    old, new = {"chapter": "old"}, key_of(path).code["chapter"]
    run = kept(place, path, replace(key_of(path), code=old))
    assert state(run.folder) == "stale"
    step = {"method": "chapter", "battery": "b", "base": "1", "commit": "2"}
    carry.write_carried([step | {"old": "old", "new": "between"}], place / "runs")
    assert state(run.folder) == "stale"
    carry.write_carried([
        step | {"old": "old", "new": "between"}, step | {"old": "between", "new": new},
    ], place / "runs")  # fmt: skip
    assert state(run.folder) == "carried" and stale(run.folder) == []


def test_a_killed_kernel_is_one_line(place):
    path = chapter(place, "\n# %%\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(InputError, match=r"chapter\.py: its kernel was killed"):
        run_notebook(path, {})
    (run,) = runs_in(place / "runs")
    assert run.status == "crashed"


def test_a_failing_cell_is_a_crash_with_its_notebook_kept(place):
    path = chapter(place, "\n# %%\nprint('before')\n1 / 0\n")
    with pytest.raises(InputError) as caught:
        run_notebook(path, {})
    line = r"\S+chapter\.py: cell \d: ZeroDivisionError: division by zero; its traceback stands in "
    assert re.fullmatch(line + r"runs/\S+/notebook\.ipynb", str(caught.value))
    (run,) = runs_in(place / "runs")
    assert run.status == "crashed" and "ZeroDivisionError" in run.result["error"]
    text = (run.folder / "notebook.ipynb").read_text()
    assert "before" in text and str(place) not in text


WAITING = """
# %%
import signal, time
from pathlib import Path
marks = Path("marks")
with marks.open("a") as file:
    file.write("started\\n")
try:
    time.sleep(0 if marks.read_text().count("started") > 1 else 300)
except KeyboardInterrupt:
    marks.open("a").write("saved\\n")
    raise
"""


SIGNALS = [signal.SIGTERM, signal.SIGINT] if LONG_FORM else [signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_reaches_the_cell_and_the_run_can_be_taken_up_again(place, number):
    path = chapter(place, WAITING)
    code = f"from pointseg.lab.notebook import run_notebook; run_notebook({str(path)!r}, {{}})"
    child = imported.Program(["-c", code])
    marks, patience = place / "marks", time.monotonic() + 240
    while not marks.exists() and time.monotonic() < patience and child.poll() is None:
        time.sleep(0.05)
    time.sleep(0.2)
    child.send_signal(number)
    code = child.wait(240)
    (run,) = runs_in(place / "runs")
    assert run.status == "interrupted", child.stderr[-2000:]
    assert code != 0 and marks.read_text().split() == ["started", "saved"]
    assert (run.folder / "notebook.ipynb").exists()
    if number == signal.SIGTERM:
        assert run_notebook(path, {}) == Path("runs") / run.id
        assert run.status == "ok"


TELLING = """
# %%
import subprocess, sys
child = "import sys; print('a child speaks', file=sys.stderr)"
subprocess.run([sys.executable, "-c", child], check=True)
print("the cell speaks", file=sys.stderr)
"""


def test_what_a_cell_or_its_child_says_is_heard_once(place, monkeypatch, capfd):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # ipykernel behaves otherwise in tests
    run_notebook(chapter(place, TELLING), {})
    heard = capfd.readouterr().err
    assert heard.count("a child speaks") == 1 and heard.count("the cell speaks") == 1


def test_a_run_that_is_running_is_not_started_twice(place):
    path = chapter(place)
    run = notebooks.prepared(path, {})[2]
    with run.alone(), pytest.raises(InputError, match=rf"is running \(process {os.getpid()} of"):
        run_notebook(path, {})


EXPERIMENT = """
# %% tags=["parameters"]
method: str = "tiny"
data: str | None = None
scale: str | None = None
seed: int = 3

"""


def test_a_run_of_an_experiment_lies_where_its_recipe_belongs(place):
    tiny.register()
    path = chapter(place, head=EXPERIMENT)
    smoke, small = (notebooks.prepared(path, {"scale": scale}) for scale in ("smoke", "small"))
    assert smoke[2].id.startswith("smoke/tiny-") and small[2].id.startswith("tried/tiny-")
    assert smoke[2].id.endswith("/s3") and smoke[1].data != small[1].data
    assert set(smoke[1].code) == {"tiny"}


# --- reproducible numbers


def test_nbval_finds_a_changed_cell_in_an_executed_notebook(place):
    path = chapter(place / "book", "\n# %%\n# NBVAL_CHECK_OUTPUT\nprint(rate * 3**power)\n")
    executed = run_notebook(path, {}) / "notebook.ipynb"
    changed = executed.with_name("changed.ipynb")
    changed.write_text(executed.read_text().replace("4.5", "4.6"))
    words = [
        "-m",
        "pytest",
        "--nbval-lax",
        "-rA",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        executed,
        changed,
    ]
    output = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False
    ).stdout
    verdicts = [
        line.split("::")[0] for line in output.splitlines() if line.startswith(("PASSED", "FAILED"))
    ]
    assert sum(v.startswith("FAILED") for v in verdicts) == 1 and f"FAILED {changed}" in output
    assert sum(v.startswith("PASSED") and v.endswith("notebook.ipynb") for v in verdicts) >= 2


def test_a_kept_notebook_has_texts_and_no_pictures(place):
    body = """
# %%
import base64
from IPython.display import Image, display
display(Image(base64.b64decode("iVBORw0KGgo="), format="png"))
print("a number")
"""
    text = (run_notebook(chapter(place, body), {}) / "notebook.ipynb").read_text()
    assert "a number" in text and "image/png" not in text and len(text) < 20_000


def test_the_stages_of_a_run_are_no_results(tmp_path):
    folders = []
    for name, speed, score in [("a", 10.0, 50.0), ("b", 99.0, 50.1)]:
        run = Run(tmp_path / name)
        run.folder.mkdir()
        stages = [{"method": "psps", "head": name, "images_per_s": speed}]
        run.write("result.json", {"metrics": {"stages": stages, "val": {"AP": score}, name: 1.0}})
        folders.append(run.folder)
    assert compare_results(*folders) == ["a: only in one of the two", "b: only in one of the two"]
    assert "val/AP: 50 and 50.1" in compare_results(*folders, rtol=1e-4)


def test_every_chapter_declares_parameters_that_can_be_checked(root):
    for path in sorted((root / "book").glob("*.py")):
        checked(read_notebook(path), {})


def test_the_experiment_notebook_is_valid_and_thin(root):
    source = read_notebook(root / "book" / "experiment.py")
    assert {"method", "scale", "seed", "out"} <= set(source.parameters)
    assert json.dumps(checked(source, {}))
