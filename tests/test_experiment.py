"""From a recipe to its scores: data made on demand, points sampled once, students taught, signals obeyed."""

import json
import os
import signal
import threading
from dataclasses import replace

import pytest
import torch
from pycocotools import mask as coco_mask
from support import tiny_method as tiny

from pointseg.data.supervision import MaskDataset, PointDataset
from pointseg.lab import recipe as recipes
from pointseg.lab import run_data as corpora
from pointseg.lab.evaluation import as_truth, part_recall, recorded, resized
from pointseg.lab.experiment import experiment
from pointseg.lab.models import load_model
from pointseg.lab.run_data import PseudoLabelled, open_corpus
from pointseg.lab.run_record import Interrupted, Run
from pointseg.structures import Instances, Panoptic


class Pupil(tiny.Tiny):
    """Learns from masks; keeps what it was taught."""

    SUPERVISION, taught = "masks", []

    def losses(self, batch, step):
        Pupil.taught.append([truth.masks.flatten(1).float().mean(1) for truth in batch.truths])
        return super().losses(batch, step)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def run(place, monkeypatch, request):
    """A run of its own in a project that keeps its data from test to test."""
    monkeypatch.chdir(place)
    tiny.register()
    monkeypatch.setitem(recipes.METHODS, "pupil", lambda: Pupil)
    return Run(place / "runs" / request.node.name.replace("[", "-").rstrip("]"))


def test_a_recipe_becomes_a_recorded_result(run, capsys):
    chosen = recipes.make("tiny", training={"epochs": 1.5})
    with run.recording():
        metrics = experiment(chosen, run)
    names = {path.name for path in run.folder.iterdir()}
    kept = {
        "recipe.json",
        "data.json",
        "env.json",
        "log.jsonl",
        "speed.jsonl",
        "answers.json",
        "result.json",
    }
    assert names == kept
    assert run.result["metrics"]["val"]["AP"] == metrics["val"]["AP"]
    assert 0 < metrics["pseudo"]["mIoU"] < 60 and metrics["pseudo"]["part_recall"] == 100
    assert (
        json.loads((run.folder / "recipe.json").read_text())["training"]["steps"] == 6
    )  # 1.5 x 8 images / 2
    facts = run.read("data.json")
    assert (facts["train"]["images"], facts["val"]["images"]) == (8, 4) and len(
        facts["points"]
    ) == 64
    _, recipe, categories = load_model(run.scratch / "model.pt")
    assert recipe.training.steps == 6 and sum(c.is_thing for c in categories) >= 10


def test_answers_to_the_first_pictures_are_kept(run):
    corpus = open_corpus(recipes.make("tiny"))
    experiment(corpus.recipe, run)
    said = run.read("answers.json")
    assert [one["image"] for one in said["val"]] == corpus.val.ids[:4]
    assert [one["image"] for one in said["train"]] == corpus.train.ids[:6]
    for one in said["train"]:
        things = corpus.points.for_image(one["image"]).things()
        assert one["label"] == things.label.tolist()
        assert all(coco_mask.area(code) == 64 * 64 for code in one["masks"])


def test_a_doubtful_instance_is_not_kept_and_a_panoptic_segment_always_is():
    masks = torch.tensor([[[1, 0]], [[0, 1]]]).bool()
    found = Instances(masks, torch.tensor([0.9, 0.1]), torch.tensor([3, 4]), torch.zeros(2, 4))
    assert recorded(5, found)["label"] == [3]
    segments = Panoptic(torch.tensor([[2, 1]]), torch.tensor([7, 8]), torch.tensor([0.1, 0.2]))
    said = recorded(5, segments)
    assert said["label"] == [7, 8] and coco_mask.decode(said["masks"][1]).tolist() == [[1, 0]]


def test_done_again_it_trains_no_step_and_says_the_same(run):
    chosen = recipes.make("tiny")
    first = experiment(chosen, run)
    log = (run.folder / "log.jsonl").read_text()
    again = experiment(chosen, run)
    assert (
        json.dumps(again["val"]) == json.dumps(first["val"])
        and (run.folder / "log.jsonl").read_text() == log
    )


def test_a_signal_ends_the_step_saves_and_leaves_the_rest_for_later(run, monkeypatch):
    chosen = recipes.make("tiny", training={"steps": 9})
    whole = Run(run.folder.with_name("whole"))
    experiment(chosen, whole)
    losses = tiny.Tiny.losses

    def signalling(self, batch, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(self, batch, step)

    monkeypatch.setattr(tiny.Tiny, "losses", signalling)
    with pytest.raises(Interrupted, match="after step 4, resumable"), run.recording():
        experiment(chosen, run)
    assert run.status == "interrupted" and not (run.scratch / "model.pt").exists()
    monkeypatch.setattr(tiny.Tiny, "losses", losses)
    with run.recording():
        experiment(chosen, run)
    assert run.status == "ok"
    assert (run.folder / "log.jsonl").read_bytes() == (whole.folder / "log.jsonl").read_bytes()
    models = [load_model(r.scratch / "model.pt")[0] for r in (run, whole)]
    assert tiny.weights(models[0]) == tiny.weights(models[1])


def test_a_student_learns_from_the_pseudo_labels_and_never_from_the_truth(run):
    Pupil.taught.clear()
    metrics = experiment(recipes.make("tiny", student="pupil"), run)
    assert "AP" in metrics["student"]["val"]
    assert Pupil.taught and all((area == 1).all() for batch in Pupil.taught for area in batch)
    assert (run.folder / "student-log.jsonl").exists() and (
        run.scratch / "student-model.pt"
    ).exists()


def test_a_method_may_teach_its_student_with_labels_of_their_own(run, monkeypatch):
    def halves(self, batch):
        labels = self.pseudo_labels(batch)
        for label in labels:
            label.masks[:, : label.masks.shape[1] // 2] = False
        return labels

    Pupil.taught.clear()
    monkeypatch.setattr(tiny.Tiny, "student_labels", halves, raising=False)
    metrics = experiment(recipes.make("tiny", student="pupil"), run)
    assert Pupil.taught and all((area == 0.5).all() for batch in Pupil.taught for area in batch)
    assert metrics["pseudo"]["part_recall"] == 100  # scored are the labels the method learnt from


def test_only_a_method_that_says_masks_is_given_masks(run):
    weak, full = (open_corpus(recipes.make(name)).supervision() for name in ("tiny", "pupil"))
    assert isinstance(weak, PointDataset) and weak[0].truth is None and len(weak[0].points)
    assert isinstance(full, MaskDataset) and full[0].points is None and len(full[0].truth)


def test_points_are_sampled_once_and_follow_their_choice_alone(run, monkeypatch):
    chosen = recipes.make("tiny", points={"n": 10, "seed": 4})
    first = open_corpus(chosen).points
    monkeypatch.setattr(corpora, "sample_points", None)
    assert open_corpus(replace(chosen, seed=9)).points.content_hash == first.content_hash
    with pytest.raises(TypeError):
        _ = open_corpus(recipes.make("tiny", points={"n": 10, "seed": 5})).points


def test_two_runs_may_make_the_data_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.register()
    chosen, folders = recipes.make("tiny", images=2, val=1), []
    makers = [
        threading.Thread(target=lambda: folders.append(corpora.bestiary(chosen))) for _ in range(2)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert folders[0] == folders[1] and [p.name for p in (tmp_path / "data").iterdir()] == [
        folders[0].name
    ]


def test_the_name_of_the_data_follows_size_and_counts(run):
    hashes = {
        corpora.data_hash(recipes.make("tiny", **s))
        for s in ({}, {"images": 9}, {"val": 5}, {"seed": 7})
    }
    assert len(hashes) == 3  # a run's seed is not the data's
    folder = str(corpora.bestiary(recipes.make("tiny")))
    assert corpora.data_hash(recipes.make("tiny", data=folder)) not in hashes


# --- pseudo labels


def test_pseudo_labels_survive_their_packing():
    masks = torch.rand(3, 6, 9) < 0.4
    labels = Instances(masks, torch.ones(3), torch.tensor([2, 0, 1]), torch.zeros(3, 4))
    truth = as_truth(labels, torch.tensor([True, True, False]))
    packed = PseudoLabelled(type("Nothing", (), {"root": None, "categories": ()})())
    packed.add(0, truth)
    again = packed.truth(0)
    assert torch.equal(again.masks, masks) and not again.void.any()
    assert again.is_thing.tolist() == [False, True, True] and again.target.tolist() == [1, 2, 3]


def test_an_empty_mask_teaches_nothing_and_a_pixel_of_no_segment_is_void():
    segments = torch.tensor([[0, 1, 1], [3, 3, 0]])
    truth = as_truth(Panoptic(segments, torch.tensor([0, 1, 2])), torch.tensor([True, True, False]))
    assert truth.label.tolist() == [0, 2] and torch.equal(truth.void, segments == 0)
    assert truth.masks.sum((1, 2)).tolist() == [2, 2]


def test_resizing_moves_masks_and_boxes_alike():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 0:2] = True
    found = resized(
        Instances(masks, torch.ones(1), torch.zeros(1).long(), torch.tensor([[0.0, 1, 2, 3]])),
        (8, 12),
    )
    rows, columns = found.masks[0].any(1).nonzero(), found.masks[0].any(0).nonzero()
    assert found.boxes.tolist() == [[0, 2, 6, 6]]
    assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == [0, 2, 6, 6]


def test_part_recall_follows_targets_not_rows(run):
    corpus = open_corpus(recipes.make("tiny"))
    truth = corpus.train.truth(0)
    things = truth.pick(truth.is_thing & ~truth.is_crowd)
    order = torch.arange(len(things)).flip(0)
    exact = Instances(
        things.masks[order], torch.ones(len(order)), things.label[order], torch.zeros(len(order), 4)
    )
    assert part_recall([truth], [exact], [things.target[order]]) == {"part_recall": 100}
    nothing = replace(exact, masks=torch.zeros_like(exact.masks))
    assert part_recall([truth], [nothing], [things.target[order]]) == {"part_recall": 0}
