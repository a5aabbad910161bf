"""The plan names runs that can start, and every measured row of the claims has a run in it."""

import pytest
import yaml

from pointseg import recipe
from pointseg.ledger import Run
from pointseg.notebook import checked, read_notebook, run_notebook, stale
from pointseg.report import fits, read_claims
from pointseg.reproduce import expanded, planned


def recipes(root, tier):
    source = read_notebook(root / "book" / "experiment.py")
    values = [checked(source, one) for one in planned(tier)]
    known = ("method", "data", "layout", "scale", "seed", "points", "n", "points_seed", "student",
             "training", "config", "settings")  # fmt: skip
    return [recipe.from_parameters({k: v[k] for k in known}) for v in values]


def test_smoke_has_every_method_once(root):
    assert [r.method for r in recipes(root, "smoke")] == list(recipe.METHODS)


@pytest.mark.parametrize("method", list(recipe.METHODS))
def test_the_experiment_runs_at_smoke_and_leaves_a_score(root, tmp_path, method, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_notebook(root / "book" / "experiment.py", {"method": method}, runs=tmp_path / "runs")
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
    missing = [s for s in claims["selectors"] if not any(fits(s, m, claims["ignored_settings"]) for m in made)]
    assert missing == []


def test_seeds_expand_and_nothing_else_changes():
    entry = yaml.safe_load("{method: m, config: {alpha: .inf}, seeds: [0, 2]}")
    assert expanded(entry) == [{"method": "m", "config": {"alpha": float("inf")}, "seed": s} for s in (0, 2)]
