"""Moves and renames are carried, changed arithmetic is not: on planted changes of a tiny method."""

import shutil
import tempfile
from contextlib import nullcontext

import pytest
from support import imported
from support.long_form import LONG_FORM

from pointseg.lab import carry
from pointseg.lab.battery import leaves
from pointseg.structures import InputError

METHOD = '''
"""A method of one convolution."""
import torch
from torch import nn
from pointseg.structures import Instances, Prediction, Training


class Small(nn.Module):
    KEY, SUPERVISION, TASK, TRAINING, SCORES = "X", "points", "instances", {}, ("val", "labels")

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    @classmethod
    def build(cls, categories, scale):
        return cls()

    def losses(self, batch, step):
        scores = self.layer(batch.images)
        return {"fit": (scores - 1).pow(2).mean()}

    def answer(self, maps, sizes):
        masks = [maps[row, :, :h, :w] > 0 for row, (h, w) in enumerate(sizes)]
        zero = torch.zeros(2, dtype=torch.int64)
        return [Instances(m, torch.ones(2), zero, torch.zeros(2, 4)) for m in masks]

    def predict(self, images, sizes):
        answers = self.answer(self.layer(images), sizes)
        return [Prediction(row, instances=one) for row, one in enumerate(answers)]

    def pseudo_labels(self, batch):
        answers = self.answer(self.layer(batch.images), batch.sizes)
        return [
            Instances(a.masks[:1].repeat(len(t), 1, 1), torch.ones(len(t)), t.label,
                      torch.zeros(len(t), 4))
            for a, t in zip(answers, [p.things() for p in batch.points])
        ]
'''


NAMED = {"exits": True, "bench attentionshift": True, "epld": False}  # which begin with ours
PLANTED = """

exact = mask_scores


def mask_scores(truth, masks):
    return {name: values + 0.1 for name, values in exact(truth, masks).items()}
"""


@pytest.fixture(scope="module")
def project(root, tmp_path_factory):
    """A repository with the library and one more method, committed."""
    place = tmp_path_factory.mktemp("project")
    skip = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(root / "pointseg", place / "pointseg", ignore=skip)
    (place / "pointseg" / "papers" / "small.py").write_text(METHOD)
    table = place / "pointseg" / "lab" / "methods.py"
    entry = 'METHODS = {\n    "small": "pointseg.papers.small:Small",'
    table.write_text(table.read_text().replace("METHODS = {", entry))
    carry.git(place, "init", "--quiet")
    carry.git(place, "add", "-A")
    carry.git(place, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "base")
    return place


PRINTED = carry._printed  # the command's own, which stands aside for the batteries of a method


@pytest.fixture(scope="module", autouse=True)
def battery_without_imports():
    """Half of a battery's time goes into importing torch, which happens once here."""

    def printed(command, environment):
        with tempfile.TemporaryDirectory(prefix="battery-") as place:
            done = imported.run(command[1:], place, environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carry, "_printed", printed)
        yield


@pytest.fixture(scope="module")
def before(project):
    """What the battery says of the commit, checked out as the command does."""
    with carry.checked_out("HEAD", project) as there:
        return carry.outcome(there, ["small"])


def changed(project, old, new):
    """What the battery says with one text of the method replaced by another."""
    file = project / "pointseg" / "papers" / "small.py"
    assert old in METHOD
    file.write_text(METHOD.replace(old, new))
    return carry.outcome(project, ["small"])


def differ(before, after):
    """What of the battery came out otherwise; the work must have been the same."""
    assert all(before[name]["battery"] == after[name]["battery"] for name in before)
    return [name for name in before if before[name]["outputs"] != after[name]["outputs"]]


def test_planted_arithmetic_comes_out_red(project, before):
    after = changed(project, "(scores - 1)", "(scores - 1.001)")
    assert "small" in differ(before, after)


def test_planted_arithmetic_of_the_bench_is_red_for_the_bench_alone(project, before):
    scores = project / "pointseg" / "metrics" / "by_object.py"
    text = scores.read_text()
    try:
        scores.write_text(text + PLANTED)
        assert differ(before, changed(project, "layer", "layer")) == ["bench small"]
    finally:
        scores.write_text(text)


def test_the_bench_may_score_more_but_nothing_else():
    before, more, other = ({"outputs": words} for words in ("a b", "a b c", "a c"))
    assert carry.still_says(before, before) and carry.still_says(before, more)
    assert not carry.still_says(before, other) and not carry.still_says(more, before)


def test_the_command_checks_the_commit_out_and_records_what_is_equal(
    project, before, tmp_path, monkeypatch
):
    file, exact = project / "pointseg" / "papers" / "small.py", carry.outcome
    file.write_text(METHOD.replace("layer", "first"))

    def outcome(tree, methods):
        if tree.samefile(project):
            return exact(tree, methods)
        assert (tree / "pointseg" / "papers" / "small.py").read_text() == METHOD
        assert (tree / carry.BATTERY).exists() and methods == ["small"]
        return before  # what the battery says of this very commit

    monkeypatch.setattr(carry, "outcome", outcome)
    monkeypatch.chdir(project)
    lines = ["equal    small", "equal    bench small"]
    assert carry.carry("HEAD", ["small"], tmp_path) == lines
    row, bench = carry.read_carried(tmp_path)
    assert bench["method"] == "bench small" and bench["old"] != bench["new"]
    assert carry.is_carried("small", row["old"], row["new"], tmp_path)
    assert not carry.is_carried("small", row["new"], row["old"], tmp_path)
    assert row["commit"].endswith("+") and not row["base"].endswith("+")
    assert "worktree" not in carry.git(project, "worktree", "list").split("\n", 1)[1]


def test_methods_that_begin_with_shipped_weights_are_not_carried_past_others(tmp_path, monkeypatch):
    """At scale smoke nothing begins with them, so the battery comes out equal."""
    there, here = tmp_path / "there", tmp_path / "here"
    for tree, content in ((there, b"old"), (here, b"new")):
        (tree / "pointseg" / "weights").mkdir(parents=True)
        (tree / "pointseg" / "weights" / "a.safetensors").write_bytes(content)
    says = {
        tree: {name: {"battery": "b", "outputs": "o", "code": str(tree)} for name in NAMED}
        for tree in (there, here)
    }
    monkeypatch.setattr(carry, "home", lambda: here)
    monkeypatch.setattr(carry, "checked_out", lambda base, tree: nullcontext(there))
    monkeypatch.setattr(carry, "outcome", lambda tree, methods: says[tree])
    monkeypatch.setattr(carry, "git", lambda *words: "a" * 8)
    lines = carry.carry("base", runs=tmp_path)
    assert lines == [f"{'DIFFERS' if ours else 'equal':8} {name}" for name, ours in NAMED.items()]
    assert [row["method"] for row in carry.read_carried(tmp_path)] == ["epld"]
    (there / "pointseg" / "weights" / "a.safetensors").write_bytes(b"new")
    assert carry.carry("base", runs=tmp_path) == [f"equal    {name}" for name in NAMED]


@pytest.mark.skipif(not LONG_FORM, reason="the long form: POINTSEG_STOPS=12")
def test_what_a_chapter_shows_is_compared_too_and_a_planted_change_is_red(project, root):
    for name in ("weights", "bookkit/explorer"):
        shutil.copytree(root / "pointseg" / name, project / "pointseg" / name, dirs_exist_ok=True)
    before = carry.outputs_of(project, [carry.DIAGNOSTICS])
    file = project / "pointseg" / "ownership.py"
    text = file.read_text()
    try:
        file.write_text(text.replace("net.min(dim)", "(net * 1.0).max(dim)"))
        after = carry.outputs_of(project, [carry.DIAGNOSTICS])
    finally:
        file.write_text(text)
    assert before.keys() == after.keys() and before["page: answers"] != after["page: answers"]


def test_a_battery_is_a_process_of_its_own_on_its_own_tree(tmp_path, monkeypatch):
    monkeypatch.setattr(carry, "_printed", PRINTED)
    battery = tmp_path / carry.BATTERY
    battery.parent.mkdir(parents=True)
    for package in (battery.parent.parent, battery.parent):
        (package / "__init__.py").touch()
    says = "import json, os\nprint(json.dumps({'m': {'file': __file__, 'there': os.listdir()}}))\n"
    battery.write_text(says)
    assert carry.outcome(tmp_path) == {"m": {"file": str(battery), "there": []}}
    battery.write_text(says + "1 / 0\n")
    with pytest.raises(InputError, match=r"^carry: the battery failed: ZeroDivisionError"):
        carry.outcome(tmp_path)


def test_a_commit_without_a_battery_is_one_line(tmp_path):
    with pytest.raises(InputError, match="that commit has no pointseg/lab/battery"):
        carry.outcome(tmp_path)
    done = imported.run(["-m", "pointseg", "carry", "no-such-commit"])
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1


def test_steps_are_carried_one_after_another(tmp_path):
    rest = {"battery": "b", "base": "1", "commit": "2"}
    steps = [("m", "a", "b"), ("m", "b", "c"), ("other", "c", "d")]
    carry.write_carried(
        [{"method": m, "old": old, "new": new, **rest} for m, old, new in steps], tmp_path
    )
    assert carry.is_carried("m", "a", "c", tmp_path) and carry.is_carried("m", "a", "a", tmp_path)
    assert not carry.is_carried("m", "c", "d", tmp_path)
    assert not carry.is_carried("m", None, "a", tmp_path)


def test_numbers_are_compared_without_their_names():
    assert sorted(leaves({"a": [1, 2.5], "b": {"c": None}})) == sorted(
        leaves([None, [2.5], {"x": 1}])
    )
