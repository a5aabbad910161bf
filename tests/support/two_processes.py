"""Two steps of every method on one small batch, alone or in torchrun's processes."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.data.points import extreme
from pointseg.data.supervision import collate
from pointseg.lab.methods import METHODS
from pointseg.nets.vit import ViTConfig
from pointseg.ops.processes import rank, size
from pointseg.structures import Batch, Points, Sample, Training, Truth
from pointseg.training.distributed import joined
from pointseg.training.loop import Settings, Trainer
from pointseg.training.pretraining.mae import MAEConfig
from pointseg.training.pretraining.pretraining import MaskedPretraining, Pretraining

MODULES = dict(METHODS)
EXTREME = ("mal", "similarity_warmup", "exits")  # these learn from four extreme points
BATCHES = {"things everywhere": (3, 2, 2, 1), "things in one share": (3, 2, 0, 0)}
STEPS, SIDE = 2, 64


def method_of(name):
    torch.manual_seed(0)
    if name == "pretraining":
        vit = ViTConfig(dim=48, depth=2, heads=2, image_size=SIDE)
        mae = MAEConfig(latent=1.0, masks=2, decoder_dim=24, colour=0.5)
        return MaskedPretraining(
            Pretraining(views=12, alone=4, batch=4, size=SIDE, vit=vit, mae=mae)
        )
    module, attribute = MODULES[name].split(":")
    cls = getattr(importlib.import_module(module), attribute)
    return cls.build(CATEGORIES, "smoke")


def batch_of(things, points) -> Batch:
    """An image for each number of things, with points and truth; stuff is in all of them."""
    return collate([sample_of(index, count, points) for index, count in enumerate(things)])


def sample_of(index: int, things: int, points) -> Sample:
    scene = draw(0, "train", index, SIDE)
    truth = scene.truth.pick(scene.truth.masks.any((1, 2)) & ~scene.truth.is_crowd)
    chosen = truth.is_thing & (truth.is_thing.cumsum(0) <= things)
    truth = truth.pick(chosen | ~truth.is_thing)
    image = torch.from_numpy(scene.image).permute(2, 0, 1)
    return Sample(index, image, points=points(truth), truth=truth)


def points_of(truth: Truth) -> Points:
    """The middle pixel of each segment, in reading order."""
    pixels = [mask.nonzero()[mask.sum() // 2].flip(0) for mask in truth.masks]
    return Points(torch.stack(pixels) + 0.5, truth.label, truth.target, truth.is_thing)


def extreme_points_of(truth: Truth) -> Points:
    truth = truth.pick(truth.is_thing)
    pixels = [torch.from_numpy(extreme(mask.numpy(), 4)) for mask in truth.masks]
    rows = torch.arange(len(truth)).repeat_interleave(4)
    xy = torch.cat(pixels).float() if pixels else torch.zeros(0, 2)
    return Points(xy, truth.label[rows], truth.target[rows], truth.is_thing[rows])


def share_of(batch: Batch) -> Batch:
    """The block of rows that is this process's."""
    count = len(batch) // size()
    rows = slice(rank() * count, (rank() + 1) * count)
    lists = {
        name: getattr(batch, name)[rows] for name in ("sizes", "image_ids", "points", "truths")
    }
    return replace(batch, images=batch.images[rows], **lists)


def losses_of(name: str, things, pieces: int = 1) -> list[dict[str, float]]:
    """Of each step, with the size of the weights after it."""
    training = Training(lr=1e-3, steps=STEPS + 1, batch=4)
    trainer = Trainer(method_of(name), Settings(training, precision="float32"), "cpu")
    trainer.pieces = pieces
    points = extreme_points_of if name in EXTREME else points_of
    batch, rows = batch_of(things, points), []
    for _ in range(STEPS):
        losses, _ = trainer.advance(share_of(batch))
        weights = sum(p.detach().double().square().sum().item() for p in trainer.parameters)
        rows.append(losses | {"weights": weights})
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined():
        cases = [(name, title) for name in sys.argv[2:] for title in BATCHES]
        losses = {f"{name}, {title}": losses_of(name, BATCHES[title]) for name, title in cases}
        if rank() == 0:
            Path(sys.argv[1]).write_text(json.dumps(losses))
