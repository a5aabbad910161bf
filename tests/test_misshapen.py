"""Records, plans, claims and notebooks of another shape: one line that names the file and the
place in it, and nothing begins."""

import gzip
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from pointseg.cli import main
from pointseg.data.files import read_yaml
from pointseg.data.shapes import refuse_misshapen
from pointseg.lab.bench import OBJECTS, objects_of
from pointseg.lab.claims import Claims, read_claims
from pointseg.lab.evaluation import BY_IMAGE, by_image, write_by_image
from pointseg.lab.notebook import checked, read_notebook
from pointseg.lab.plan import rows
from pointseg.lab.pretrain import pretrain
from pointseg.lab.progress import read_log
from pointseg.lab.recipe import make
from pointseg.lab.run_record import Run
from pointseg.structures import InputError

RUN = {
    "result.json": {"status": "ok", "metrics": {"stages": [], "bench": {"iou": 1.5}}},
    "recipe.json": {"stages": [{"method": "psps", "config": {}}], "seed": 0, "points":
                    {"n": 1, "kind": "uniform"}},
    "env.json": {"git": "0", "device": "one"},
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "claims.yml").write_text("{papers: {}, tolerance: 1}\n")
    folder = tmp_path / "runs" / "psps" / "row" / "s0"
    folder.mkdir(parents=True)
    for name, content in RUN.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name, change, cause", [
    ("result.json", [], "expected a table, got []"),
    ("result.json", {"status": None}, "status: expected one of ok, crashed"),
    ("result.json", {"metrics": 3}, "metrics: expected a table, got 3"),
    ("result.json", {"metrics": {"val": {"AP": 10**400}}}, "val: AP: the number 1000"),
    ("result.json", {"metrics": {"bench": {"iou": "x"}}}, "bench: iou: expected a number"),
    ("result.json", {"metrics": {"stages": [{"head": "x"}]}}, "entry 0: 'method' is missing"),
    ("result.json", {"wall_s": "long"}, "wall_s: expected a number"),
    ("result.json", {"key": {"notebook": "x"}}, "is missing"),
    ("recipe.json", {"stages": {}}, "stages: expected a list"),
    ("recipe.json", {"stages": [{"method": "x"}]}, "'config' is missing"),
    ("recipe.json", {"seed": "x"}, "seed: expected an integer"),
    ("recipe.json", {"points": [1]}, "points: expected a table"),
    ("env.json", {"git": 3}, "git: expected a text"),
    ("env.json", {"packages": ["torch"]}, "packages: expected a table"),
    ("result.json", {"row": ["x"]}, "row: expected a text"),
    ("env.json", {"device": "\\ud800"}, "device: expected a text"),
])  # fmt: skip
def test_a_record_of_another_shape_is_one_line(place, capsys, name, change, cause):
    content = change if isinstance(change, list) else RUN[name] | change
    (place / name).write_text(json.dumps(content).replace("\\\\u", "\\u"))
    assert main(["index"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert name in line and cause in line, line
    assert not (place.parents[2] / "index.csv").exists()


def test_a_run_is_one_line_of_the_index_whatever_its_machine_is_called(place):
    (place / "env.json").write_text(json.dumps({"git": "a\nb", "device": "one\r\ntwo\u2028three"}))
    assert main(["index"]) == 0
    head, line = (place.parents[2] / "index.csv").read_text().splitlines()
    assert "one two three" in line and "a b" in line and line.count(",") == head.count(",")


def test_a_record_may_not_lead_out_of_the_stages(place):
    stages = [{"method": "x", "head": "../../../secret"}]
    (place / "result.json").write_text(json.dumps({"metrics": {"stages": stages}}))
    with pytest.raises(InputError, match="cannot name a run"):
        _ = Run(place).model


CLAIMS = {
    "papers": {"P": {"tables": [{"id": "1", "columns": ["m", "AP"], "units": {"AP": "percent"},
                                 "rows": [{"AP": 1.0}, {"AP": 2.0}, {"AP": None}]}]}},
    "tolerance": 1.0,
    "measured": [{"paper": "P", "table": "1", "row": k, "ours": f"row{k}",
                  "scores": {"AP": "val/AP"}} for k in (0, 1)],
    "orders": [{"id": "o", "paper": "P", "table": "1", "column": "AP", "rows": [0, 1],
                "says": "up", "beds": ["bed"], "gates": "G"}],
    "gates": {"G": [{"name": "g", "row": "row0", "score": "iou", "at_least": 1}]},
}  # fmt: skip


def altered(content, path, value):
    content = json.loads(json.dumps(content))
    if not path:
        return value
    spot = content
    for step in path[:-1]:
        spot = spot[step]
    spot[path[-1]] = value
    return content


@pytest.mark.parametrize("path, value, cause", [
    (("papers",), [], "papers: expected a table"),
    (("papers", "P", "tables", 0, "rows"), 3, "rows: expected a list"),
    (("measured", 0, "row"), 3, "there is no row 3"),
    (("measured", 0, "row"), True, "row: expected an integer"),
    (("measured", 0, "scores"), {"PQ": "x"}, "there is no column 'PQ'"),
    (("measured", 0, "paper"), "Q", "there is no table '1' of 'Q'"),
    (("orders", 0, "rows"), [0], "expected two rows or more"),
    (("orders", 0, "rows"), [0, 2], "a row without a number"),
    (("orders", 0, "rows"), "ab", "rows: expected a list"),
    (("orders", 0, "gates"), "H", "there are no gates 'H'"),
    (("orders", 0, "beds"), ["../x"], "cannot name a run"),
    (("orders", 0, "ours"), ["a"], "ours: expected 2 rows, got 1"),
    (("orders", 0, "ours"), ["a", "../x"], "cannot name a run"),
    (("orders", 0, "seeds"), 0, "seeds: expected a positive integer"),
    (("orders", 0), {"id": "o"}, "is missing"),
    (("gates", "G", 0, "score"), 3, "score: expected a text"),
    (("gates", "G", 0, "at_least"), 10**400, "at_least: expected a number"),
    ((), {"orders": []}, "is missing"), (("tolerance",), "x", "tolerance: expected a number"),
])  # fmt: skip
def test_claims_of_another_shape_are_one_line(place, capsys, path, value, cause):
    file = place.parents[3] / "book" / "claims.yml"
    file.write_text(yaml.safe_dump(CLAIMS))
    assert read_claims(file) == CLAIMS
    file.write_text(yaml.safe_dump(altered(CLAIMS, path, value)))
    assert main(["verdicts"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert cause in line, line


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
)


@pytest.mark.parametrize("text, cause", [
    (LAUGHS, "aliases unfold"), ("a: &a [*a]", "in itself"), ("[" * 5000, "nested too deeply"),
    ("[" * 10**6, "nested too deeply"), ("- " * 10**5, "nested too deeply"),
    ("a: [}", "line 1: "), ("", "is empty"), ("a: 2001-99-99", "is not whole YAML"),
    ("? [1]\n: 2", "unhashable"), ("a: !!python/name:os.system x", "constructor"),
])  # fmt: skip
def test_yaml_that_is_not_whole_is_one_line(tmp_path, text, cause):
    (tmp_path / "a.yml").write_text(text)
    with pytest.raises(InputError, match=cause) as caught:
        read_yaml(tmp_path / "a.yml")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("text, cause", [
    ("rows: 3", "rows: expected a table"), ("rows: {p: {r: [1]}}", "r: expected a table"),
    ("rows: {p: {r: {seeds: x}}}", "seeds: expected a list"), ("bench: {}", "'rows' is missing"),
    ("rows: {}\nbench: {p: {b: {}}}", "'rows' is missing"),
    ("rows: {}\nbench: {p: {b: {rows: [x]}}}", "bench: p: b: no row is called"),
    ("rows: {p: {r: {stages: [{}]}}}", "stages: entry 0: 'method' is missing"),
    ("rows: {p: {r: {stages: [{method: psps, config: [1]}]}}}", "config: expected a table"),
    ("rows: {p: {r: {stages: [{method: psps, training: 3}]}}}", "training: expected a table"),
    ("rows: {}\nbench: {p: {b: {rows: [], first: [{method: 3}]}}}", "method: expected a text"),
    ("[1]", "expected a table"),
])  # fmt: skip
def test_a_plan_of_another_shape_is_one_line(tmp_path, text, cause):
    (tmp_path / "plan.yml").write_text(text)
    with pytest.raises(InputError, match=cause):
        rows(tmp_path / "plan.yml")


def test_a_name_that_is_missing_or_a_number_that_fits_nowhere_has_its_place():
    with pytest.raises(InputError, match=r"f: measured: entry 0: '\w+' is missing"):
        refuse_misshapen("f", {"papers": {}, "tolerance": 1, "measured": [{}]}, Claims)
    with pytest.raises(InputError, match="f: other: entry 1: x: the number"):
        refuse_misshapen("f", {"papers": {}, "tolerance": 1, "other": [1, {"x": 1e999}]}, Claims)


@pytest.mark.parametrize("lines, cause", [
    (["1,2,apart,4", "1"], "argument 2 is"), (["1,2,apart,inf"], "without an end"),
    (["1,2,apart,x"], "could not convert"), ([], None),
])  # fmt: skip
def test_a_table_of_objects_has_a_number_in_every_cell(place, lines, cause):
    text = "\n".join(["image,target,contact,iou", *lines]) + "\n"
    (place / OBJECTS).write_bytes(gzip.compress(text.encode()))
    if cause is None:
        assert all(len(column) == 0 for column in objects_of(Run(place)).values())
        return
    with pytest.raises(InputError, match=cause):
        objects_of(Run(place))
    (place / OBJECTS).write_bytes(gzip.compress(text.encode())[:-9])
    with pytest.raises(InputError, match="not readable"):
        objects_of(Run(place))


PACKED = {
    BY_IMAGE: lambda place: by_image(Run(place), "val/PQ"),
    OBJECTS: lambda place: objects_of(Run(place)),
    "log.jsonl.gz": lambda place: read_log(place / "log.jsonl.gz"),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("kind, cause", [
    ("pipe", "is not a file"), ("device", "is not a file"), ("bomb", "unfolds to more than"),
    ("half", "not readable"), ("text", "not readable"),
])  # fmt: skip
def test_a_packed_file_is_read_within_its_budget(place, name, kind, cause):
    if kind == "pipe":
        os.mkfifo(place / name)
    elif kind == "device":
        (place / name).symlink_to("/dev/zero")
    else:
        whole = gzip.compress(bytes(2**26 + 1 if kind == "bomb" else 99))
        made = {"bomb": whole, "half": whole[:-9], "text": b"{}"}
        (place / name).write_bytes(made[kind])
    with pytest.raises(InputError, match=f"{name}: {cause}"):
        PACKED[name](place)


def test_values_of_images_are_read_back_what_is_unknown_too(place):
    values = np.array([1.25, np.nan])
    write_by_image(Run(place), {"val": SimpleNamespace(by_image={"PQ": values})})
    assert np.array_equal(by_image(Run(place), "val/PQ"), values, equal_nan=True)
    assert b"NaN" not in gzip.decompress((place / BY_IMAGE).read_bytes())
    (place / BY_IMAGE).write_bytes(gzip.compress(b'{"val/PQ": ["x"]}'))
    with pytest.raises(InputError, match="val/PQ: entry 0: expected"):
        by_image(Run(place), "val/PQ")


HEAD = '# %% tags=["parameters"]\n'


@pytest.mark.parametrize("text", [
    "# %%\nx = (\n", "# %%\nx = '\\0'\n".replace("\\0", "\0"),
    HEAD + "seed: int = 'x'\n", HEAD + "seed: int = 1 + {}\n", HEAD + "x: int = 10**9\n",
    "# %%\nx = " + "(" * 3000 + "\n", HEAD + "seed: int = -[]\n", HEAD + f"n: int = {10**30}\n",
])  # fmt: skip
def test_a_notebook_that_does_not_parse_is_one_line(tmp_path, text):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(InputError, match=r"a\.py: ") as caught:
        checked(read_notebook(tmp_path / "a.py"), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", [
    {"batch": 0}, {"views": 0}, {"images": 0}, {"size": 1}, {"size": 33}, {"view": 1},
    {"seed": -1}, {"source": 3}, {"alone": -1}, {"source": "no-source"},
])  # fmt: skip
def test_a_pretraining_that_cannot_be_is_refused_before_it_begins(tmp_path, settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        pretrain(out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_setting_of_four_hundred_digits_is_refused():
    with pytest.raises(InputError, match="alpha: expected a number"):
        make("attentionshift", config={"alpha": 10**400})
    with pytest.raises(InputError, match="steps"):
        make("attentionshift", training={"steps": 10**400})


def test_a_notebook_without_an_experiment_has_no_recipe(tmp_path, capsys):
    (tmp_path / "a.py").write_text(HEAD + "method: str = 'psps'\n")
    assert main(["recipe", "psps", "--notebook", str(tmp_path / "a.py")]) == 2
    assert "describes no experiment" in capsys.readouterr().err
