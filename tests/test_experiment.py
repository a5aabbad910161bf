"""From a recipe to its scores.

Data made on demand, points sampled once, students trained, signals obeyed.
"""

import json
import os
import signal
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from pycocotools import mask as coco_mask
from support import tiny_method as tiny

from pointseg.data.supervision import MaskDataset, PointDataset
from pointseg.lab import experiment as experiments
from pointseg.lab import methods
from pointseg.lab import recipe as recipes
from pointseg.lab import run_data as corpora
from pointseg.lab.chain import Chain, head_hash
from pointseg.lab.evaluation import by_image, part_recall, shown_predictions
from pointseg.lab.experiment import experiment
from pointseg.lab.labels import Labelled, resized
from pointseg.lab.models import load_model, save_model
from pointseg.lab.progress import read_log
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import Interrupted, Run
from pointseg.structures import Category, InputError, Instances, Panoptic, Prediction


class Student(tiny.Tiny):
    """Learns from masks; keeps how much of the picture each of them covers."""

    SUPERVISION, SCORES, areas = "masks", ("val",), []

    def losses(self, batch, step):
        Student.areas.append([truth.masks.flatten(1).float().mean(1) for truth in batch.truths])
        return super().losses(batch, step)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def run(place, monkeypatch, request):
    """A run of its own in a project that keeps its data from test to test."""
    monkeypatch.chdir(place)
    tiny.register()
    monkeypatch.setitem(methods.METHODS, "student", "test_experiment:Student")
    name = request.node.name.replace("[", "-").rstrip("]")
    return Run(place / name / "runs" / "tried" / name / "s0")


CHAIN = [{"method": "tiny"}, {"method": "student", "learns_from": 0}]


def test_a_recipe_becomes_a_recorded_result(run):
    chosen = recipes.make("tiny", training={"epochs": 1.5})
    with run.recording():
        metrics = experiment(chosen, run)
    kept = {"recipe.json", "data.json", "env.json", "log.jsonl.gz", "answers.json", "result.json",
            "by_image.json.gz"}  # fmt: skip
    assert {path.name for path in run.folder.iterdir()} == kept
    assert run.result["metrics"]["val"]["AP"] == metrics["val"]["AP"]
    for part, name, images in (("val", "voc_mAP50_11pt", 4), ("labels", "mIoU", 8)):
        values = by_image(run, f"{part}/{name}")
        assert len(values) == images
        assert values.mean() == pytest.approx(metrics[part][name], abs=0.01)
    assert 0 < metrics["labels"]["mIoU"] < 60 and metrics["labels"]["part_recall"] == 100
    [stage] = run.result["metrics"]["stages"]
    assert stage["steps"] == 6 and 0 <= stage["seconds"] < 60  # 1.5 x 8 images / 2
    assert [line["step"] for line in read_log(run.folder / "log.jsonl.gz")] == list(range(6))
    facts = run.read("data.json")
    assert facts["train"]["images"] == 8 and len(facts["points"]) == 64
    assert (facts["scored"]["split"], facts["scored"]["images"]) == ("val", 4)
    _, recipe, categories = load_model(run.model)
    assert recipe == chosen and sum(c.is_thing for c in categories) >= 10


def test_a_run_killed_after_its_training_still_has_its_speed(run, monkeypatch):
    chosen, trained = recipes.make("tiny"), []

    def killed(chain, teachers):
        trained.append(chain.record()[0])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiments, "scores", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment(chosen, run)
    assert not (run.folder / "metrics.json").exists()
    [stage] = experiment(chosen, run)["stages"]
    speed = {"steps", "seconds", "images_per_s", "data_wait_share", "mem_gb"}
    assert stage == trained[0] and stage.keys() == {"method", "head", *speed}
    assert stage["steps"] == chosen.stage.training.steps and stage["images_per_s"] > 0


def test_the_first_predictions_and_labels_are_kept(run):
    corpus = open_corpus(recipes.make("tiny"))
    experiment(corpus.recipe, run)
    shown = run.read("answers.json")
    assert [one["image"] for one in shown["val"]] == corpus.scored.ids[:4]
    assert [one["image"] for one in shown["labels"]] == corpus.train.ids[:6]
    for one in shown["labels"]:
        things = corpus.points.for_image(one["image"]).things()
        assert one["label"] == things.label.tolist()
        assert all(coco_mask.area(code) == 64 * 64 for code in one["masks"])


def test_a_doubtful_instance_is_not_kept_and_a_panoptic_segment_always_is():
    masks = torch.tensor([[[1, 0]], [[0, 1]]]).bool()
    scores = torch.tensor([0.9, 0.1])
    instances = Instances(masks, scores, torch.tensor([3, 4]), torch.zeros(2, 4))
    segments = Panoptic(torch.tensor([[2, 1]]), torch.tensor([7, 8]), scores)
    one, other = shown_predictions([Prediction(5, instances), Prediction(6, panoptic=segments)])
    assert one["label"] == [3] and other["label"] == [7, 8]
    assert coco_mask.decode(other["masks"][1]).tolist() == [[1, 0]]


def test_done_again_it_trains_no_step_and_gives_the_same(run):
    first = experiment(recipes.make("tiny"), run)
    log = (run.folder / "log.jsonl.gz").read_bytes()
    again = experiment(recipes.make("tiny"), run)
    assert json.dumps(again) == json.dumps(first)
    assert (run.folder / "log.jsonl.gz").read_bytes() == log


def test_a_signal_ends_the_step_saves_and_leaves_the_rest_for_later(run, monkeypatch):
    chosen = recipes.make("tiny", training={"steps": 9})
    whole = Run(run.root / "whole" / "runs" / "tried" / "tiny" / "s0")
    with whole.recording():
        experiment(chosen, whole)
    losses = tiny.Tiny.losses

    def signalling(self, batch, step):
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(self, batch, step)

    monkeypatch.setattr(tiny.Tiny, "losses", signalling)
    with pytest.raises(Interrupted, match="after step 4, resumable"), run.recording():
        experiment(chosen, run)
    assert run.status == "interrupted" and not list(run.stages.glob("*/model.pt"))
    monkeypatch.setattr(tiny.Tiny, "losses", losses)
    with run.recording():
        experiment(chosen, run)
    assert run.status == "ok"
    logs = [(r.stage_folder(0) / "log.jsonl").read_bytes() for r in (run, whole)]
    models = [load_model(r.model)[0] for r in (run, whole)]
    assert logs[0] == logs[1] and tiny.weights(models[0]) == tiny.weights(models[1])


# --- chains


def test_a_stage_learns_from_the_labels_of_another_and_never_from_the_truth(run):
    Student.areas.clear()
    metrics = experiment(recipes.make(stages=CHAIN), run)
    assert "AP" in metrics["val"] and metrics["labels"]["part_recall"] == 100
    assert Student.areas and all((area == 1).all() for batch in Student.areas for area in batch)
    assert {line["stage"] for line in read_log(run.folder / "log.jsonl.gz")} == {0, 1}


def test_labels_are_made_once_for_learning_scores_and_record(run, monkeypatch):
    labels, labelled_ids = tiny.Tiny.pseudo_labels, []
    monkeypatch.setattr(
        tiny.Tiny,
        "pseudo_labels",
        lambda self, batch: labelled_ids.extend(batch.image_ids) or labels(self, batch),
    )
    experiment(recipes.make(stages=CHAIN), run)
    assert len(labelled_ids) == len(set(labelled_ids)) == 8


def test_a_head_that_two_chains_share_is_trained_once(run, monkeypatch):
    steps, losses = [], tiny.Tiny.losses
    monkeypatch.setattr(
        tiny.Tiny,
        "losses",
        lambda self, batch, step: steps.append(step) or losses(self, batch, step),
    )
    other = Run(run.folder.with_name("s1"))
    first = experiment(recipes.make(stages=CHAIN[:1]), other)
    assert len(steps) == 4
    second = experiment(recipes.make(stages=CHAIN), run)
    assert len(steps) == 4 + 4 and len(list(run.stages.glob("*/model.pt"))) == 2
    assert first["stages"][0]["head"] == second["stages"][0]["head"]
    assert json.dumps(first["labels"]) == json.dumps(second["labels"])


def test_a_head_is_known_by_all_that_it_stands_on_and_by_nothing_else():
    base = recipes.make(stages=CHAIN)
    slow = recipes.make(stages=[{"method": "tiny", "training": {"lr": 1.0}}, CHAIN[1]])
    hashes = {
        "seed": head_hash(replace(base, seed=1), 1, "images"),
        "precision": head_hash(replace(base, precision="bf16"), 1, "images"),
        "first stage": head_hash(slow, 1, "images"),
        "images": head_hash(base, 1, "other images"),
        "itself": head_hash(base, 1, "images"),
    }
    assert len(set(hashes.values())) == len(hashes)
    scored = replace(base, scored_images=1, scored_on="tune", workers=3)
    assert head_hash(scored, 1, "images") == hashes["itself"]
    assert head_hash(base, 0, "images") == head_hash(base.head(0), 0, "images")


def test_two_runs_do_not_train_the_same_head_at_once(run):
    """The second one waits for the first, and then finds the stage made."""
    corpus = open_corpus(recipes.make("tiny"))
    order, inside = [], threading.Event()

    def first():
        with Chain(corpus, run.stages)._alone(0):
            inside.set()
            time.sleep(0.3)
            order.append("first")

    worker = threading.Thread(target=first)
    worker.start()
    inside.wait()
    with Chain(corpus, run.stages)._alone(0):
        order.append("second")
    worker.join()
    assert order == ["first", "second"]


def test_a_method_may_teach_with_labels_of_their_own(run, monkeypatch):
    def halves(self, batch):
        labels = self.pseudo_labels(batch)
        for label in labels:
            label.masks[:, : label.masks.shape[1] // 2] = False
        return labels

    Student.areas.clear()
    monkeypatch.setattr(tiny.Tiny, "student_labels", halves, raising=False)
    metrics = experiment(recipes.make(stages=CHAIN), run)
    assert Student.areas and all((area == 0.5).all() for batch in Student.areas for area in batch)
    assert metrics["labels"]["part_recall"] == 100  # scored are those that the method learnt from


def test_a_stage_is_scored_on_what_it_can_answer_alone(run, monkeypatch):
    monkeypatch.setattr(tiny.Tiny, "SCORES", ("labels",), raising=False)
    monkeypatch.setattr(tiny.Tiny, "predict", None)
    metrics = experiment(recipes.make("tiny"), run)
    assert set(metrics) == {"stages", "labels"} and set(run.read("answers.json")) == {"labels"}


def test_a_run_on_tune_has_its_scores_under_that_name(run, monkeypatch):
    opened = []

    def split_of(root, split, layout):
        opened.append(split)
        return SimpleNamespace(categories=())

    monkeypatch.setattr(corpora, "open_dataset", split_of)
    monkeypatch.setattr(corpora, "_first", lambda dataset, count: dataset)
    open_corpus(recipes.make("tiny", scored_on="tune"))
    assert opened == ["train", "tune"]


def test_a_saved_model_is_read_back_without_unpickling(tmp_path, run):
    categories = (Category(7, "otter"), Category(9, "river", False))
    chosen, method = recipes.make("tiny"), tiny.Tiny()
    save_model(tmp_path / "m.pt", method, chosen, categories)
    again, recipe, named = load_model(tmp_path / "m.pt")
    assert (recipe, named) == (chosen, categories) and tiny.weights(again) == tiny.weights(method)
    torch.save({"recipe": print}, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=r"bad.pt: not readable as weights"):
        load_model(tmp_path / "bad.pt")


# --- data


def test_only_a_method_that_says_masks_is_given_masks(run):
    weak, full = (open_corpus(recipes.make(name)).supervision() for name in ("tiny", "student"))
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
    chosen, folders = recipes.make("tiny", images=2, scored_images=1), []
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
        for s in ({}, {"images": 9}, {"scored_images": 5}, {"seed": 7})
    }
    assert len(hashes) == 3  # a run's seed is not the data's
    folder = str(corpora.bestiary(recipes.make("tiny")))
    assert corpora.data_hash(recipes.make("tiny", data=folder)) not in hashes


# --- pseudo labels


class Nothing:
    """A dataset of pictures of one size."""

    root, ids = None, [0, 1]

    def __init__(self, size):
        self.size = lambda row: size


CATEGORIES = [Category(1, "a"), Category(2, "b"), Category(3, "ground", False)]


def kept(labels, size):
    labelled = Labelled(Nothing(size), CATEGORIES)
    labelled.add(0, labels)
    return labelled


def test_labels_survive_their_file(tmp_path):
    masks, label = torch.rand(3, 6, 9) < 0.4, torch.tensor([2, 0, 1])
    labelled = kept(Instances(masks, torch.ones(3), label, torch.zeros(3, 4)), (6, 9))
    labelled.write(tmp_path / "labels.json.gz")
    again = Labelled.read(tmp_path / "labels.json.gz", labelled.dataset, CATEGORIES)
    truth, instances = again.truth(0), again.labels(0)
    assert torch.equal(truth.masks, masks) and not truth.void.any()
    assert truth.is_thing.tolist() == [False, True, True] and truth.target.tolist() == [1, 2, 3]
    assert torch.equal(instances.masks, masks) and torch.equal(instances.label, label)
    rows, columns = masks[0].any(1).nonzero(), masks[0].any(0).nonzero()
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert instances.boxes[0].tolist() == box


def test_an_empty_mask_teaches_nothing_and_a_pixel_of_no_segment_is_void():
    segments = torch.tensor([[0, 1, 1], [3, 3, 0]])
    labelled = kept(Panoptic(segments, torch.tensor([0, 1, 2])), (2, 3))
    truth = labelled.truth(0)
    assert truth.label.tolist() == [0, 2] and torch.equal(truth.void, segments == 0)
    assert truth.masks.sum((1, 2)).tolist() == [2, 2]
    assert torch.equal(labelled.labels(0).segments, segments)


def test_resizing_moves_masks_and_boxes_alike():
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, 1:3, 0:2] = True
    moved = resized(
        Instances(masks, torch.ones(1), torch.zeros(1).long(), torch.tensor([[0.0, 1, 2, 3]])),
        (8, 12),
    )
    rows, columns = moved.masks[0].any(1).nonzero(), moved.masks[0].any(0).nonzero()
    assert moved.boxes.tolist() == [[0, 2, 6, 6]]
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
