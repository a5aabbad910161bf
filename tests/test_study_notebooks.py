"""The notebooks that ask trained models something: each runs at scale smoke, on models trained there."""

import pytest

from pointseg import figures
from pointseg.ledger import Run
from pointseg.notebook import run_notebook


@pytest.fixture(scope="module")
def place(root, tmp_path_factory):
    """A project with two trained models: its folder of runs, and their ids by method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("studies"))
        made = {
            name: run_notebook(root / "book" / "experiment.py", {"method": name})
            for name in ("attentionshift", "point2mask", "panoptic_full")
        }
        yield made["attentionshift"].parent.absolute(), {name: folder.name for name, folder in made.items()}


def asked(root, place, monkeypatch, notebook, **parameters):
    monkeypatch.chdir(place[0].parent)
    return Run(run_notebook(root / "book" / notebook, {"scale": "smoke", **parameters}, runs=place[0]))


def test_what_a_trained_label_path_sees(root, place, monkeypatch):
    run = asked(root, place, monkeypatch, "attentionshift_study.py", start=place[1]["attentionshift"], pictures=4,
                shown=[0, 1, 2])  # fmt: skip
    assert {"A^S covers half", "purity, iteration 0"} <= set(run.result["metrics"]["label_path"])
    assert set(run.result["metrics"]["views"]) == {"one view", "and its mirror", "three sizes and their mirrors"}
    for name in ("figure5.png", "figure6.png"):
        assert 1000 < (run.folder / name).stat().st_size <= figures.LARGEST_FIGURE


def test_methods_answer_the_same_points_side_by_side(root, place, monkeypatch):
    run = asked(root, place, monkeypatch, "side_by_side.py", models=list(place[1].values()), pictures=3, shown=[0, 2],
                size=64)  # fmt: skip
    assert set(run.result["metrics"]) == {"attentionshift", "point2mask"}  # full masks take no points
    assert all(0 <= scores["thing_mIoU"] <= 100 for scores in run.result["metrics"].values())
    assert (run.folder / "side_by_side.png").exists()


def test_other_points_than_centres_are_trained_on(root, place, monkeypatch):
    run = asked(root, place, monkeypatch, "points_study.py", kind="jitter", jitter_px=3.0)
    assert run.read("recipe.json")["points"] == {"kind": "jitter", "n": 1, "seed": 0, "jitter_px": 3.0}
    assert run.result["metrics"]["val"]
