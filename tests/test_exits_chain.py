"""Stage two: what a mask generator makes of the training objects teaches an ordinary segmenter."""

import pytest

from pointseg.lab import run_data
from pointseg.lab.experiment import experiment
from pointseg.lab.progress import read_log
from pointseg.lab.recipe import make
from pointseg.lab.run_record import Run

CHAINS = {
    "exits": [{"method": "similarity_warmup"}, {"method": "exits", "starts_from": 0},
              {"method": "mask_rcnn", "learns_from": 1}],
    "mal": [{"method": "mal"}, {"method": "mask_rcnn", "learns_from": 0}],
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One tiny Bestiary for both chains."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_data, "cache", lambda: folder)
        yield folder


@pytest.mark.parametrize("name", CHAINS)
def test_labels_of_a_generator_teach_mask_rcnn(name, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = make(stages=CHAINS[name], images=6, scored_images=2)
    run = Run(tmp_path / "runs" / "smoke" / name / "s0")
    metrics = experiment(recipe, run)
    assert [stage["method"] for stage in metrics["stages"]] == [s["method"] for s in CHAINS[name]]
    assert "AP50" in metrics["val"] and 0 <= metrics["labels"]["mIoU"] <= 100
    assert len(list(run.stages.glob("*/labels.json.gz"))) == 1
    if name == "exits":
        notes = [
            line["notes"] for line in read_log(run.folder / "log.jsonl.gz") if line["stage"] == 1
        ]
        levels = {(each["level foreground"], each["level background"]) for each in notes}
        assert len(levels) == 1 and levels != {(1.0, 0.5)}, "calibrated once, before the first step"


def test_two_processes_train_label_and_score_a_whole_chain(data, tmp_path, monkeypatch):
    """torchrun's processes share the training; the first one labels for the student, and scores
    when the others have gone."""
    recipe, done = make(stages=CHAINS["mal"], images=6, scored_images=2), []
    for processes in (1, 2):
        place = tmp_path / str(processes)
        place.mkdir()
        monkeypatch.chdir(place)
        run = Run(place / "runs" / "smoke" / "mal" / "s0")
        metrics = experiment(recipe, run, processes)
        first = read_log(run.folder / "log.jsonl.gz")[0]["total"]
        done.append((metrics, first))
        assert (run.folder / "answers.json").exists()
    (one, alone), (two, shared) = done
    assert shared == pytest.approx(alone, rel=1e-4)
    assert [stage["steps"] for stage in two["stages"]] == [s["steps"] for s in one["stages"]]
    assert [two[part].keys() == one[part].keys() for part in ("val", "labels")] == [True, True]
