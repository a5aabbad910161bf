"""The plan names runs that can start, and every measured row of the claims has a run in it."""

import pytest
import torch
import yaml

from pointseg.bookkit.report import fits, read_claims
from pointseg.lab import experiment, recipe, reproduce
from pointseg.lab.notebook import checked, read_notebook, run_notebook, stale
from pointseg.lab.reproduce import expanded, first_stage_of, planned, run_of, trained
from pointseg.lab.run_record import Run
from pointseg.nets.start import stored_weights
from pointseg.structures import InputError


def recipes(root, tier):
    source = read_notebook(root / "book" / "experiment.py")
    values = [checked(source, one) for one in planned(tier)]
    known = ("method", "data", "layout", "scale", "seed", "points", "n", "points_seed", "start", "student",
             "training", "config", "settings")  # fmt: skip
    return [recipe.from_parameters({k: v[k] for k in known}) for v in values]


def test_smoke_has_every_method_once(root):
    assert [r.method for r in recipes(root, "smoke")] == list(recipe.METHODS)


@pytest.mark.parametrize("method", list(recipe.METHODS))
def test_the_experiment_runs_at_smoke_and_leaves_a_score(root, tmp_path, method, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_notebook(
        root / "book" / "experiment.py", {"method": method}, runs=tmp_path / "runs"
    )
    result = Run(folder).result
    assert result["status"] == "ok" and result["metrics"]["val"]
    assert stale(folder, root / "book") == []


def test_every_run_of_the_plan_builds_its_method(root):
    from pointseg.data.bestiary import CATEGORIES

    for settings in {(r.method, r.config): r for r in recipes(root, "small")}.values():
        settings.build(CATEGORIES)


def test_every_measured_row_has_a_run_in_the_plan(root):
    import json

    made = [json.loads(r.to_json()) for r in recipes(root, "small")]
    claims = read_claims(root / "book" / "claims.yml")
    missing = [s for s in claims["selectors"] if not any(fits(s, m) for m in made)]
    assert missing == []


def test_seeds_expand_and_nothing_else_changes():
    entry = yaml.safe_load("{method: m, config: {alpha: .inf}, seeds: [0, 2]}")
    assert expanded(entry) == [
        {"method": "m", "config": {"alpha": float("inf")}, "seed": s} for s in (0, 2)
    ]


FIRST = {"method": "attentionshift", "scale": "smoke", "config": {"stage": "points"}}


def test_a_first_stage_comes_before_its_rows_once_a_seed(monkeypatch, tmp_path, root):
    row = {"method": "attentionshift", "scale": "smoke", "start": FIRST}
    monkeypatch.chdir(root)
    rows = [
        one
        for entry in ({**row, "seeds": [0, 1]}, row)
        for one in expanded(entry, tmp_path / "runs")
    ]
    firsts = [one for one in rows if "start" not in one]
    assert [one["seed"] for one in firsts] == [0, 1, 0] and [one["seed"] for one in rows] == [
        0,
        0,
        1,
        1,
        0,
        0,
    ]
    named = [one["start"] for one in rows if "start" in one]
    assert named[0] == named[2] != named[1]
    assert named[0] == run_of(FIRST | {"seed": 0}, tmp_path / "runs").id


def test_a_run_starts_from_the_first_stage_of_another_and_needs_it_on_disk(
    root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    notebook, runs = root / "book" / "experiment.py", tmp_path / "runs"
    first = Run(run_notebook(notebook, FIRST, runs=runs))
    row = {"method": "maskrcnn", "scale": "smoke", "start": first.id, "training": {"lr": 0.0}}
    second = Run(run_notebook(notebook, row, runs=runs))
    one, other = (stored_weights(run.scratch / "model.pt") for run in (first, second))
    assert all(torch.equal(other[name], one[name]) for name in other if name.startswith("vit."))
    with pytest.raises(RuntimeError, match="no such file"):
        run_notebook(notebook, row | {"start": "gone"}, runs=runs)
    with pytest.raises(RuntimeError, match="no first stage of this method, it has no student"):
        run_notebook(notebook, row | {"method": "points_alone"}, runs=runs)


def test_a_single_training_puts_the_first_stage_of_its_task_before_itself(
    root, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    notebook, runs = root / "book" / "experiment.py", tmp_path / "runs"
    given = {"method": "point2mask", "scale": "smoke", "seed": "0", "n": "2"}
    folder = trained(given, notebook, steps=2, force=False, runs=runs)
    first = Run(runs / Run(folder).read("recipe.json")["start"])
    told = first.read("recipe.json")
    assert (told["method"], told["config"]["stage"], told["points"]["n"]) == ("psps", "points", 2)
    assert Run(folder).status == first.status == "ok" and len(list(runs.glob("*/result.json"))) == 2
    assert first_stage_of({"method": "maskrcnn", "scale": "small"}, 5)["method"] == "attentionshift"


@pytest.mark.parametrize("status, force", [("", False), ("interrupted", False), ("ok", True)])
def test_a_first_stage_goes_on_where_it_stopped_and_lost_weights_are_made_again(
    root, tmp_path, monkeypatch, status, force
):
    asked, notebook, given = (
        [],
        root / "book" / "experiment.py",
        {"method": "psps", "scale": "smoke"},
    )
    monkeypatch.setattr(
        reproduce, "run_notebook", lambda path, given, force, runs: asked.append(force) or tmp_path
    )
    stage = reproduce.prepared(notebook, first_stage_of(given, 2), tmp_path)[2]
    if status:
        stage.folder.mkdir()
        stage.write("result.json", {"status": status})
    trained(given, notebook, steps=2, force=False, runs=tmp_path)
    assert asked == [force, False]


def test_a_method_without_a_first_stage_is_one_line(monkeypatch):
    monkeypatch.setattr(experiment, "method_class", lambda name: object)
    with pytest.raises(InputError, match="start: psps has no first stage to start from"):
        experiment.first_stage(recipe.make("psps"))
