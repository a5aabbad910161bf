"""The supervision firewall.

With every true mask and box replaced by noise, a weak method learns the same weights.
"""

import hashlib
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from support.memory_dataset import MemoryDataset
from torch import nn

from pointseg.data.points import sample_points
from pointseg.data.supervision import ImageDataset, PointDataset, collate
from pointseg.lab import recipe as recipes
from pointseg.lab import run_data as corpora
from pointseg.lab.labels import label_train
from pointseg.lab.methods import METHODS, method_class
from pointseg.lab.run_data import Corpus, open_corpus
from pointseg.structures import InputError, Instances, Panoptic, Sample, Training, Truth
from pointseg.training.loader import Feed
from pointseg.training.loop import Settings, fit, seed_all

STEPS = 3  # at scale smoke every method has entered its last stage by then


class Poisoned:
    """A dataset whose every true mask, box, void and part is noise.

    It offers the loaders' interface and no more.
    """

    def __init__(self, source):
        self.source, self.ids, self.categories = source, source.ids, source.categories
        self.root, self.split, self.layout = source.root, source.split, source.layout

    def __len__(self):
        return len(self.source)

    def size(self, i):
        return self.source.size(i)

    def image(self, i):
        return self.source.image(i)

    def path(self, i):
        return self.source.path(i)

    def content_hash(self):
        return self.source.content_hash()

    def truth(self, i):
        return noise_for(self.source.truth(i), i)

    def arrays(self, i):
        kept = {name: value for name, value in vars(self.truth(i)).items() if value is not None}
        return Truth(**{name: value.numpy() for name, value in kept.items()})


def noise_for(truth: Truth, i: int) -> Truth:
    """Same shapes and classes, but which pixel is whose is drawn by lot."""
    lot = torch.Generator().manual_seed(i + 1)
    masks, void = (
        torch.rand(maps.shape, generator=lot) < 0.5 for maps in (truth.masks, truth.void)
    )
    parts = truth.parts
    if parts is not None:
        parts = parts.flatten()[torch.randperm(parts.numel(), generator=lot)].view_as(parts)
    return replace(truth, masks=masks, void=void, parts=parts)


def poisoned(dataset) -> Poisoned:
    return Poisoned(dataset)


class Sealed(Poisoned):
    """A dataset that nobody may ask for its truth."""

    def truth(self, i):
        raise AssertionError("a training set of a weak method asked for the ground truth")


def trained(build, dataset: ImageDataset, settings: Settings) -> dict[str, torch.Tensor]:
    """Weights after so many steps."""
    seed_all(settings.seed)
    method = build()
    feed = Feed(dataset, collate, settings.training.batch, settings.seed)
    for _ in fit(method, feed, settings, device="cpu"):
        pass
    return {name: value.clone() for name, value in method.state_dict().items()}


def identical(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


# ----------------------------------------------------------- the machinery, on methods of this file


class Pointed(nn.Module):
    """A weak method as small as can be: class scores at the points."""

    SUPERVISION, TASK, SCORES = "points", "panoptic", ("labels",)

    def __init__(self, classes):
        super().__init__()
        self.scores = nn.Conv2d(3, classes, 5, padding=2)

    def losses(self, batch, step):
        predicted = self.scores(batch.images)
        total = predicted.new_zeros(())
        for scores, points in zip(predicted, batch.points):
            x, y = points.xy.floor().long().unbind(1)
            total = total + nn.functional.cross_entropy(scores[:, y, x].T, points.label)
        return {"points": total}

    @classmethod
    def build(cls, categories, scale):
        return cls(len(categories))

    def pseudo_labels(self, batch):
        segments = self.scores(batch.images).argmax(1) + 1
        labels = torch.arange(self.scores.out_channels)
        return [Panoptic(s[:h, :w], labels) for s, (h, w) in zip(segments, batch.sizes)]


class Peeking(Pointed):
    """A planted leak: it also learns from the mask of the first target."""

    def losses(self, batch, step):
        predicted = self.scores(batch.images)
        masks = [truth.masks[0] for truth in batch.truths]
        leak = sum(nn.functional.binary_cross_entropy_with_logits(
                       s[0, : m.shape[0], : m.shape[1]], m.float())
                   for s, m in zip(predicted, masks))  # fmt: skip
        return {**super().losses(batch, step), "leak": leak}


class Boxed(Pointed):
    """A subtler planted leak: the method holds the data set itself and uses only a box's width."""

    def __init__(self, classes, dataset):
        super().__init__(classes)
        self.width = {i: dataset.truth(k).masks[0].any(0).sum() for k, i in enumerate(dataset.ids)}

    def losses(self, batch, step):
        widths = sum(self.width[image_id] for image_id in batch.image_ids)
        return {**super().losses(batch, step), "leak": self.scores.bias.sum() * widths * 1e-3}


class LeakyDataset(PointDataset):
    """A planted leak: a training set that hands the truth over beside the points."""

    def plain(self, row) -> Sample:
        return replace(super().plain(row), truth=self.dataset.truth(row))


TINY = Settings(Training(steps=STEPS, batch=2))


@pytest.fixture(scope="module")
def memory():
    return MemoryDataset(4)


@cache
def memory_points(seed=0):
    return sample_points(MemoryDataset(4), "uniform", 1, seed)


def test_poison_changes_every_mask(memory):
    for i in range(len(memory)):
        clean, noise = memory.truth(i), poisoned(memory).truth(i)
        assert len(clean) == len(noise) and torch.equal(clean.target, noise.target)
        assert all((a != b).float().mean() > 0.3 for a, b in zip(clean.masks, noise.masks))
        assert not torch.equal(clean.parts, noise.parts) and not torch.equal(clean.void, noise.void)
        assert torch.equal(noise.masks, poisoned(memory).truth(i).masks)


def test_an_honest_weak_method_passes(memory):
    weights = [
        trained(lambda: Pointed(4), PointDataset(data, memory_points()), TINY)
        for data in (memory, poisoned(memory), Sealed(memory))
    ]
    assert identical(weights[0], weights[1]) and identical(weights[0], weights[2])
    seed_all(TINY.seed)
    assert not identical(weights[0], Pointed(4).state_dict())


def test_other_points_are_felt(memory):
    weights = [
        trained(lambda: Pointed(4), PointDataset(memory, memory_points(s)), TINY) for s in (0, 1)
    ]
    assert not identical(*weights)


def test_a_leak_through_the_training_set_is_red(memory):
    clean, noise = (
        trained(lambda: Peeking(4), LeakyDataset(data, memory_points()), TINY)
        for data in (memory, poisoned(memory))
    )
    assert not identical(clean, noise)


def test_a_leak_through_a_box_is_red(memory):
    clean, noise = (
        trained(lambda data=data: Boxed(4, data), PointDataset(data, memory_points()), TINY)
        for data in (memory, poisoned(memory))
    )
    assert not identical(clean, noise)


def test_the_leaking_method_finds_no_truth_in_an_honest_batch(memory):
    with pytest.raises(TypeError):
        trained(lambda: Peeking(4), PointDataset(memory, memory_points()), TINY)


def test_point_datasets_never_ask_for_the_truth(memory):
    sealed = Sealed(memory)
    with pytest.raises(AssertionError, match="asked for the ground truth"):
        sample_points(sealed, "uniform")
    training = PointDataset(sealed, memory_points(), corpora.Augment(short_sides=(20, 40)))
    for epoch in range(2):
        training.set_epoch(epoch)
        assert all(training[i].truth is None for i in range(len(training)))


# ---------------------------------------------------------------------------- every method there is


def prints(labels) -> list[str]:
    """One hash an image over all that a pseudo label says."""
    return [
        hashlib.sha256(b"".join(np.ascontiguousarray(value.cpu().numpy()).tobytes()
                                for value in vars(label).values() if value is not None)).hexdigest()
        for label in labels
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder for one tiny Bestiary, the same for all methods."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "cache", lambda: folder)
        yield folder


def outcomes(name: str) -> list[tuple[dict, list[str]]]:
    """(weights, prints of pseudo labels) learnt over true masks and over noise, all else equal."""
    stage = {"method": name, "training": {"steps": STEPS, "batch": 2}}
    recipe = recipes.make(stages=[stage], images=3, scored_images=1)
    clean = open_corpus(recipe)
    noise = Corpus(recipe, poisoned(clean.train), clean.scored)
    vars(noise)["points"] = clean.points  # else the points themselves would be sampled from noise
    results = []
    for corpus in (clean, noise):
        seed_all(recipe.seed)
        method = recipe.build(corpus.categories)
        before = {key: value.clone() for key, value in method.state_dict().items()}
        feed = Feed(corpus.supervision(), collate, 2, recipe.seed)
        for _ in fit(method, feed, recipe.loop_settings(3), device="cpu"):
            pass
        assert not identical(before, method.state_dict()), "nothing was learnt at all"
        seed_all(recipe.seed)
        labelled = "labels" in method.SCORES
        shown = prints_of(label_train(method, corpus)) if labelled else []
        results.append((method.state_dict(), shown))
    return results


def prints_of(labelled) -> list[str]:
    return prints([labelled.labels(i) for i in range(len(labelled))])


@pytest.mark.parametrize("name", METHODS)
def test_weak_methods_learn_nothing_from_masks(name, made):
    """Weights and pseudo labels are bit-identical over true masks and over noise."""
    if method_class(name).SUPERVISION == "masks":
        pytest.skip(f"{name} is a reference that asks for masks by name")
    (clean, labels), (noise, same_labels) = outcomes(name)
    assert identical(clean, noise) and labels == same_labels


@pytest.mark.parametrize(("cls", "training_set", "honest"),
                         [(Pointed, PointDataset, True),
                          (Peeking, LeakyDataset, False)])  # fmt: skip
def test_the_whole_way_tells_an_honest_method_from_a_leaking_one(
    cls, training_set, honest, made, monkeypatch
):
    monkeypatch.setitem(METHODS, cls.__name__, f"{__name__}:{cls.__name__}")
    monkeypatch.setattr(Corpus, "supervision", lambda self: training_set(self.train, self.points))
    (clean, labels), (noise, other_labels) = outcomes(cls.__name__)
    assert identical(clean, noise) is honest and (labels == other_labels or not honest)


def test_the_corpus_gives_a_weak_method_points_only(made, monkeypatch):
    monkeypatch.setitem(METHODS, "Pointed", f"{__name__}:Pointed")
    corpus = open_corpus(recipes.make(stages=[{"method": "Pointed"}], images=4, scored_images=2))
    for training in (corpus.supervision(), corpus.marked()):
        assert type(training) is PointDataset and training[0].truth is None
    assert corpus.unmarked()[0].truth is None and corpus.unmarked()[0].points is None


def test_the_points_of_a_real_bestiary_lie_in_their_masks(made):
    from pointseg.data.bestiary import make
    from pointseg.data.layouts import open_dataset

    make(made / "all", "all", images=6, size=64, seed=1, val=2, progress=False)
    for layout, split in (("coco", "train2017"), ("panoptic", "train2017"), ("voc", "train")):
        dataset = open_dataset(made / "all", split, layout)
        points = sample_points(dataset, "uniform", 10)
        for i, image_id in enumerate(dataset.ids):
            truth, marks = dataset.truth(i), points.for_image(image_id)
            rows = [truth.target.tolist().index(target) for target in marks.target.tolist()]
            x, y = marks.xy.floor().long().unbind(1)
            assert truth.masks[rows, y, x].all() and not truth.is_crowd[rows].any()
            assert set(marks.target.tolist()) == set(truth.target[~truth.is_crowd].tolist())
            assert not truth.void[y, x].any()
        assert len(PointDataset(dataset, points)) >= 1


def test_prints_tell_pseudo_labels_apart():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    one = Instances(mask, torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.zeros(1, 4))
    assert (
        prints([one])
        == prints([replace(one, masks=mask.clone())])
        != prints([replace(one, masks=~mask)])
    )


def test_noise_has_no_points_of_its_own(memory):
    """Points sampled from noise differ: the sampler does read masks, nothing else after it may."""
    first, second = sample_points(memory, "uniform"), sample_points(poisoned(memory), "uniform")
    assert first.content_hash != second.content_hash
    with pytest.raises(InputError):
        first.for_image("absent")
