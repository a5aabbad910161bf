"""The batch names runs that can start.

Every measured row of the claims has a run in it, and a chain never trains a head twice.
"""

import pytest
import torch
from support import same_process

from pointseg.lab import notebook, plan, reproduce
from pointseg.lab.methods import METHODS, scored_on
from pointseg.lab.notebook import run_notebook, stale
from pointseg.lab.recipe import make
from pointseg.lab.reproduce import summary
from pointseg.lab.run_record import Run
from pointseg.nets.weights import read_weights

OURS = [name for name in METHODS if name != "tiny"]
IN_A_KERNEL = "attentionshift"


@pytest.mark.parametrize("method", OURS)
def test_the_experiment_runs_at_smoke_and_leaves_its_scores(root, tmp_path, method, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if method != IN_A_KERNEL:  # which takes ten seconds to import
        monkeypatch.setattr(notebook, "execute", same_process.execute)
    folder = run_notebook(
        root / "book" / "experiment.py", {"method": method}, runs=tmp_path / "runs"
    )
    result = Run(folder).result
    assert result["status"] == "ok" and set(result["metrics"]) >= {"stages", *scored_on(method)}
    assert stale(folder, root / "book") == []


def test_every_row_of_the_plan_builds_its_methods(root, monkeypatch):
    from pointseg.data.bestiary import CATEGORIES

    monkeypatch.chdir(root)
    built = set()
    for row in plan.rows().values():
        if row.tier == "paper":  # too large: test_paper_size, test_mask2former
            continue
        for k, stage in enumerate(row.recipe.stages):
            if (stage.method, repr(stage.config)) not in built:
                row.recipe.head(k).build(CATEGORIES)
                built.add((stage.method, repr(stage.config)))


def test_a_later_stage_starts_from_the_weights_of_an_earlier_one(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "execute", same_process.execute)
    stages = [{"method": "token_querying"}, {"method": "mask_rcnn", "starts_from": 0}]
    given = {"method": "mask_rcnn", "stages": stages, "training": {"lr": 0.0}}
    run = Run(run_notebook(root / "book" / "experiment.py", given, runs=tmp_path / "runs"))
    first, second = (read_weights(run.stage_folder(k) / "model.pt") for k in (0, 1))
    assert all(torch.equal(second[n], first[n]) for n in second if n.startswith("vit."))


def test_training_says_first_what_it_will_do(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(root)
    monkeypatch.setattr(reproduce, "run_notebook", lambda *words, **more: tmp_path)
    reproduce.trained(root / "book/experiment.py", {"method": "as-tab1-refined"}, False, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("data: bestiary, layout voc, 4000 images of split train")
    assert lines[3].startswith(
        "stage 2: mask_rcnn learns from the labels of stage 1, starts from 0"
    )
    assert lines[-2] == "scored on: split val, 500 images"
    assert lines[-1] == f"record: {tmp_path}/attentionshift/as-tab1-refined/s0"


def test_a_summary_tells_points_and_epochs():
    chosen = make("psps", scale="paper", data="VOC", points={"n": 10})
    assert "psps learns from points (10 uniform a target), 20 epochs of 16" in summary(chosen)[1]
