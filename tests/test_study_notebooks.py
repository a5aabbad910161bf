"""The notebooks that ask trained models something.

Each runs at scale smoke, on models trained there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import same_process
from support.long_form import LONG_FORM

from pointseg.bookkit import figures
from pointseg.lab import notebook
from pointseg.lab import recipe as recipes
from pointseg.lab.notebook import run_notebook
from pointseg.lab.run_data import open_for_study
from pointseg.lab.run_record import Run
from pointseg.structures import InputError


@pytest.fixture(scope="module")
def place(root, tmp_path_factory):
    """A project with two trained models: its folder of runs, and their ids by method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("studies"))
        with pytest.MonkeyPatch.context() as here:
            here.setattr(notebook, "execute", same_process.execute)
            made = {
                name: run_notebook(root / "book" / "experiment.py", {"method": name})
                for name in ("attentionshift", "point2mask", "epld", "panoptic_full")
            }
        yield Path.cwd() / "runs", {name: Run(folder).id for name, folder in made.items()}


def run_of(root, place, monkeypatch, name, in_kernel=False, **parameters):
    monkeypatch.chdir(place[0].parent)
    if not in_kernel:  # which takes ten seconds to import
        monkeypatch.setattr(notebook, "execute", same_process.execute)
    return Run(run_notebook(root / "book" / name, parameters, runs=place[0]))


LOOKS_AT_VAL = re.compile(r"""["']\w*val["']|\bopen_corpus\b""")  # the run's own


@pytest.mark.parametrize("name", ["attentionshift_study.py", "epld_study.py", "panoptic_study.py",
                                  "side_by_side.py"])  # fmt: skip
def test_a_study_looks_at_tune_and_never_at_val(root, name):
    assert not LOOKS_AT_VAL.search((root / "book" / name).read_text())
    assert LOOKS_AT_VAL.search('draw(0, "val", 3)') and LOOKS_AT_VAL.search("open_corpus(recipe)")


def test_a_study_of_a_run_judged_on_val_opens_tune(place, monkeypatch):
    monkeypatch.chdir(place[0].parent)
    chosen = recipes.make("panoptic_full", scored_on="val")
    assert open_for_study(chosen).scored.split == "tune"


def test_what_a_trained_label_path_sees(root, place, monkeypatch):
    chosen = {"start": place[1]["attentionshift"], "compared": 4, "shown": [0, 1, 2]}
    run = run_of(root, place, monkeypatch, "attentionshift_study.py", scale="smoke", **chosen)
    assert {"A^S covers half", "purity, iteration 0"} <= set(run.result["metrics"]["label_path"])
    assert set(run.result["metrics"]["views"]) == {
        "one view",
        "and its mirror",
        "three sizes and their mirrors",
    }
    for name in ("figure5.png", "figure6.png"):
        assert 1000 < (run.folder / name).stat().st_size <= figures.LARGEST_FIGURE


def test_methods_answer_the_same_points_side_by_side(root, place, monkeypatch):
    models = list(place[1].values())
    chosen = {"models": models, "compared": 3, "shown": [0, 2], "size": 64}
    run = run_of(root, place, monkeypatch, "side_by_side.py", scale="smoke", **chosen)
    full = "panoptic_full"  # full masks take no points
    assert set(run.result["metrics"]) == set(place[1]) - {full}
    assert all(0 <= scores["thing_mIoU"] <= 100 for scores in run.result["metrics"].values())
    assert (run.folder / "side_by_side.png").exists()


def test_pseudo_labels_of_panoptic_methods_have_a_quality_and_pictures(root, place, monkeypatch):
    models = [place[1]["point2mask"], place[1]["panoptic_full"]]
    run = run_of(
        root,
        place,
        monkeypatch,
        "panoptic_study.py",
        scale="smoke",
        models=models,
        compared=4,
        shown=[0, 2],
    )
    quality = run.result["metrics"]["pseudo"]
    assert list(quality) == models[:1]  # full masks make no pseudo labels
    assert {"PQ", "PQ_th", "PQ_st"} <= set(quality[models[0]])
    solved = run.result["metrics"]["solver"][models[0]]
    assert (
        set(solved) == {"none", "sinkhorn", "converged"}
        and solved["sinkhorn"] == quality[models[0]]
    )
    for name in ("figure_a1.png", "figure_a2.png"):
        assert 1000 < (run.folder / name).stat().st_size <= figures.LARGEST_FIGURE
    with pytest.raises(InputError, match="this study is of panoptic methods"):
        run_of(
            root,
            place,
            monkeypatch,
            "panoptic_study.py",
            scale="smoke",
            models=[place[1]["attentionshift"]],
        )


def test_the_layers_of_a_distance_branch_have_overlaps_maps_and_labellers_beside(
    root, place, monkeypatch
):
    models = [place[1]["epld"], place[1]["point2mask"]]
    chosen = {"models": models, "compared": 5, "shown": [0, 2]}
    run = run_of(root, place, monkeypatch, "epld_study.py", scale="smoke", **chosen)
    metrics = run.result["metrics"]
    assert list(metrics["layers"]) == list(metrics["depth"]) == models[:1]
    assert len(metrics["depth"][models[0]]) == 3 == run.read("layers.json")["count"]
    assert sum(row[2] for row in metrics["agreement"]) >= 5
    for name in ("layers.png", "figure4.png"):
        assert 1000 < (run.folder / name).stat().st_size <= figures.LARGEST_FIGURE
    with pytest.raises(InputError, match="no run of epld"):
        run_of(root, place, monkeypatch, "epld_study.py", scale="smoke", models=models[1:])


def checked_by_nbval(path):
    """Lines of nbval about a notebook: one a cell."""
    words = ["-m", "pytest", "--nbval-lax", "-rA", "-p", "no:cacheprovider", "-c", os.devnull, path]
    failure = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False
    ).stdout
    return [line for line in failure.splitlines() if line.startswith(("PASSED", "FAILED"))]


@pytest.mark.skipif(not LONG_FORM, reason="the long form: POINTSEG_STOPS=12")
def test_nbval_trains_a_run_again_and_sees_a_score_that_moved(root, place, monkeypatch):
    (place[0].parent / "book").mkdir(exist_ok=True)
    (
        place[0].parent / "book" / "_toc.yml"
    ).touch()  # marks the project, as nbval works in the notebook's folder
    kept = Run(place[0] / place[1]["panoptic_full"])
    again = run_of(root, place, monkeypatch, "again.py", in_kernel=True, again=kept.id)
    executed = again.folder / "notebook.ipynb"
    assert "True []" in executed.read_text()
    assert all(line.startswith("PASSED") for line in checked_by_nbval(executed))
    result = kept.result
    result["metrics"]["val"]["PQ"] += 5
    kept.write("result.json", result)
    assert any(line.startswith("FAILED") for line in checked_by_nbval(executed))
