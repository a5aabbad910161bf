"""What trains or predicts, on a pretended GPU: no tensor is left behind, results are a CPU's."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support.fake_gpu import Elsewhere, pretended_gpu

from pointseg.bookkit.cost.works import creatures, step_pieces, vit_pieces
from pointseg.data.bestiary import CATEGORIES
from pointseg.data.supervision import MaskDataset, collate
from pointseg.lab import recipe as recipes
from pointseg.lab.evaluation import predictions, score_labels
from pointseg.lab.labels import label_train
from pointseg.lab.methods import METHODS, method_class, scored_on
from pointseg.lab.predict import masks_at, predict_one
from pointseg.lab.run_data import open_corpus
from pointseg.nets.vit import TokenViT
from pointseg.structures import Sample
from pointseg.training.loop import Trainer
from pointseg.training.pretraining.images import Squares
from pointseg.training.pretraining.pretraining import Pretraining, new_method

NAMES = sorted(METHODS)


@pytest.fixture
def gpu():
    with pretended_gpu() as device:
        yield device


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return tmp_path_factory.mktemp("project")


def test_what_a_gpu_refuses_is_refused(gpu):
    there, here = torch.arange(4.0, device=gpu), torch.arange(4.0)
    for mix in (
        lambda: there + here, lambda: torch.stack([there, here]), lambda: here[there.long()],
        lambda: there.masked_fill(here > 1, 0), lambda: torch.where(there > 1, there, here),
        lambda: here.add_(there),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="on cuda:0 and on cpu"):
            mix()
    for taken in (there.numpy, lambda: np.asarray(there)):
        with pytest.raises(TypeError, match="no numpy array"):
            taken()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(2, device=gpu, generator=torch.Generator())


def test_what_a_gpu_allows_is_allowed(gpu):
    there, here = torch.arange(4.0, device=gpu), torch.arange(4.0)
    assert (there + torch.tensor(1.0)).tolist() == [1, 2, 3, 4]
    assert (
        there[here.long()].tolist()
        == there.cpu().tolist()
        == here.copy_(there).tolist()
        == [0, 1, 2, 3]
    )
    assert (
        there.device
        == there[1:].device
        == torch.zeros_like(there).device
        == here.to(there).device
        == gpu
    )
    assert isinstance(there.cpu().numpy(), np.ndarray)


def test_gradients_come_back(gpu):
    here = torch.ones(3, requires_grad=True)
    (here.to(gpu) * torch.arange(3.0, device=gpu)).sum().backward()
    assert here.grad.tolist() == [0, 1, 2] and not isinstance(here.grad, Elsewhere)


def trained(name, device, precision):
    """Losses of three steps, and what the method is scored on: predictions of val, its labels."""
    recipe = recipes.make(name, scale="smoke", precision=precision)
    corpus = open_corpus(recipe)
    weak = method_class(name).SUPERVISION != "masks"
    dataset = corpus.marked() if weak else MaskDataset(corpus.train, None, 0)
    torch.manual_seed(0)
    method = recipe.build(dataset.categories)
    trainer = Trainer(method, recipe.loop_settings(len(dataset)), device)
    batch = collate([dataset[i] for i in range(2)])
    losses = [trainer.advance(batch)[0] for _ in range(3)]
    method.eval()
    predicted, scores = [], {}
    if "val" in scored_on(name):
        with torch.no_grad():  # inference tensors cannot be wrapped
            predicted = list(predictions.__wrapped__(method, recipe, corpus))
        assert len(predicted) == 4
    if "labels" in scored_on(name):
        scores = score_labels(label_train(method, corpus), corpus).whole
    return SimpleNamespace(losses=losses, scores=scores, device=next(method.parameters()).device)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_learns_labels_and_predicts_there_as_here(name, project, monkeypatch):
    """In float32 the GPU's engines (trees by doubling, fused attention) give the CPU's numbers."""
    monkeypatch.chdir(project)
    with pretended_gpu() as device:
        there = trained(name, device, "float32")
    here = trained(name, "cpu", "float32")
    assert there.device == device and set(there.scores) == set(here.scores)
    for ours, theirs in zip(there.losses, here.losses):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=2e-4)
    assert there.scores == pytest.approx(here.scores, rel=0.02, abs=0.5, nan_ok=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_method_runs_in_half_precision(name, project, monkeypatch, gpu):
    monkeypatch.chdir(project)
    losses = trained(name, gpu, "auto").losses
    assert all(np.isfinite(list(step.values())).all() for step in losses)


@pytest.mark.parametrize("name", ["mask_rcnn", "panoptic_full"])
def test_a_picture_is_segmented_there_and_comes_back(name, gpu):
    recipe = recipes.make(name)
    method = recipe.build(CATEGORIES).to(gpu).eval()
    picture = Sample(1, torch.randint(0, 255, (3, 50, 70), dtype=torch.uint8))
    with torch.no_grad():
        prediction = predict_one.__wrapped__(method, recipe, picture)
    part = prediction.panoptic or prediction.instances
    assert {value.device.type for value in vars(part).values() if value is not None} == {"cpu"}
    assert {mask.shape for mask in masks_at(part, (50, 70))} <= {(50, 70)}


def test_pretraining_runs_there(gpu):
    config = Pretraining(views=64, alone=16, batch=8, size=32)
    squares = Squares(np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), dtype=np.uint8))
    trainer = Trainer(method := new_method(config), config.settings, gpu)
    batch = collate([squares[i] for i in range(8)])
    losses = [trainer.advance(batch)[0] for _ in range(4)]
    assert "features" in losses[-1] and np.isfinite([sum(x.values()) for x in losses]).all()
    assert len({str(p.device) for p in method.parameters()}) == 1


def test_the_work_that_is_timed_runs_there(gpu):
    """What the chapter on cost measures there: parts of a ViT, and steps."""
    vit = TokenViT("vit_tiny_patch16_224", queries=10)
    pieces = vit_pieces(vit, "ViT", 64, gpu, "bf16", rows=4)
    for name in ("attentionshift", "point2mask"):
        pieces += step_pieces(name, "smoke", creatures(64, 2), CATEGORIES, gpu)
    for piece in pieces:
        piece.work()
