"""A method and a dataset small enough to be trained a hundred times within one test."""

import numpy as np
import torch
from torch import nn

from pointseg.lab import methods
from pointseg.structures import Batch, Instances, Prediction, Training
from pointseg.training.loader import Feed
from pointseg.training.loop import Settings

SIDE = 8


class Tiny(nn.Module):
    """Two convolutions with dropout and batch statistics: everything a resume could forget."""

    KEY, SUPERVISION, TASK, TRAINING = "TINY", "points", "instances", {}
    SCORES = ("val", "labels")

    def __init__(self, dropout: float = 0.1, norm: bool = True):
        super().__init__()
        middle = nn.BatchNorm2d(4) if norm else nn.Identity()
        stem, top = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 1, 1)
        self.net = nn.Sequential(stem, middle, nn.ReLU(), nn.Dropout(dropout), top)

    @classmethod
    def build(cls, categories, scale, **overrides):
        return cls(**overrides)

    def losses(self, batch, step):
        outputs = self.net(batch.images).flatten(1)
        noise = torch.rand(()).item() + np.random.rand()
        return {"fit": (outputs - 1).pow(2).mean(), "noise": 0.01 * noise * outputs.mean().abs()}

    def predict(self, images, sizes):
        return [
            Prediction(row, whole_image(size, torch.tensor([0, 1])))
            for row, size in enumerate(sizes)
        ]

    def pseudo_labels(self, batch):
        return [whole_image(size, p.things().label) for p, size in zip(batch.points, batch.sizes)]


def whole_image(size, label):
    """Every instance covers everything."""
    h, w = size
    boxes = torch.tensor([0.0, 0.0, w, h]).repeat(len(label), 1)
    scores = torch.linspace(0.9, 0.5, max(1, len(label)))[: len(label)]
    return Instances(torch.ones(len(label), h, w, dtype=torch.bool), scores, label, boxes)


class Noise:
    """Pictures that depend on (epoch, index), as augmented ones do."""

    def __init__(self, count=7):
        self.count, self.now, self.requested = count, 0, []

    def __len__(self):
        return self.count

    def set_epoch(self, epoch):
        self.now = epoch

    def __getitem__(self, index):
        self.requested.append((self.now, index))
        return torch.from_numpy(
            np.random.default_rng((self.now, index)).random((3, SIDE, SIDE))
        ).float(), index


def pile(items):
    return Batch(
        torch.stack([image for image, _ in items]),
        [(SIDE, SIDE)] * len(items),
        [i for _, i in items],
    )


def register():
    methods.METHODS["tiny"] = "support.tiny_method:Tiny"


def settings(**training):
    training = Training(**{"steps": 12, "lr": 1e-2, "batch": 2, **training})
    return Settings(training, checkpoint_every=3)


def feed(chosen, count=7, workers=0):
    return Feed(Noise(count), pile, chosen.training.batch, chosen.seed, workers)


def weights(method):
    """All parameters and buffers as one vector of bytes."""
    return b"".join(value.numpy().tobytes() for value in method.state_dict().values())
