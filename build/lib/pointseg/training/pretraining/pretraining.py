"""A backbone from images alone: settings, and masked autoencoding as a method for the loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pointseg.data.supervision import collate
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.nets.weights import load_backbone
from pointseg.ops.processes import child, draws_of
from pointseg.structures import Batch, Training
from pointseg.training.loader import Feed
from pointseg.training.loop import Record, Settings, fit
from pointseg.training.pretraining.images import Squares, random_views
from pointseg.training.pretraining.mae import MAEConfig, MaskedAutoencoder


def _small_mae() -> MAEConfig:
    return MAEConfig(colour=0.5, block=2, latent=1.0, masks=2)


@dataclass(frozen=True)
class Pretraining:
    """How a backbone is pretrained. The optimiser is He et al.'s of 2022, its rate scaled to a
    small network and batch. An image hidden in one way is one view."""

    views: int = 1_200_000
    alone: int = 96_000  # views before the teacher is followed; it starts as the encoder then is
    batch: int = 64  # images a step, hidden in one way at first and then in `mae.masks` ways
    seed: int = 0
    # an edition of Bestiary, or a folder of images; the shipped backbone saw the first
    source: str = "bestiary-easy"
    images: int = 30_000
    size: int = 128
    view: int | None = None  # side of a view in pixels; None: the image's own
    start: str | None = None  # weights that the encoder begins with; None: random
    smallest_crop: float = 0.5  # share of an image's side
    lr: float = 8e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.015  # share of the steps
    cooldown: float = 0.185  # the last share of the steps, over which the rate falls to zero
    precision: str = "auto"
    checkpoint_every: int = 500  # steps
    # views after which features are probed
    probes: tuple[int, ...] = (0, 8_000, 32_000, 96_000, 160_000, 320_000, 640_000, 960_000)
    probe_images: int = 96
    vit: ViTConfig = field(default_factory=ViTConfig)
    mae: MAEConfig = field(default_factory=_small_mae)

    @property
    def first_steps(self) -> int:
        """Steps of masking alone; every step, where there is no teacher."""
        alone = min(self.alone, self.views) if self.mae.latent else self.views
        return math.ceil(alone / self.batch)

    @property
    def steps(self) -> int:
        left = max(0, self.views - self.views_at(self.first_steps))
        return self.first_steps + math.ceil(left / (self.batch * self.mae.masks))

    def views_at(self, step: int) -> int:
        early = min(step, self.first_steps)
        return self.batch * (early + (step - early) * self.mae.masks)

    @property
    def settings(self) -> Settings:
        training = Training(
            lr=self.lr, weight_decay=self.weight_decay, betas=self.betas, schedule="trapezoid",
            warmup=self.warmup, cooldown=self.cooldown, steps=self.steps, batch=self.batch,
        )  # fmt: skip
        every = self.checkpoint_every
        return Settings(training, self.seed, self.precision, checkpoint_every=every)


class MaskedPretraining(nn.Module):
    """The method that the loop trains: views, the autoencoder, and when its teacher is followed."""

    def __init__(self, config: Pretraining):
        super().__init__()
        self.config = config
        self.model = MaskedAutoencoder(TokenViT(config.vit), config.mae)

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        first, draws = self.config.first_steps, draws_of(batch)
        if self.config.mae.latent and step == first:
            self.model.start_teacher()
        view = self.config.view or batch.images.shape[-1]
        images = random_views(batch.images, child(draws, 0), self.config.smallest_crop, view)
        return self.model.losses(images, child(draws, 1), with_teacher=step >= first)


def new_method(config: Pretraining) -> MaskedPretraining:
    """Before its first step; a function of the seed."""
    torch.manual_seed(config.seed)
    method = MaskedPretraining(config)
    if config.start:
        load_backbone(method.model.vit, config.start)
    return method


def pretraining(
    method: MaskedPretraining, images: np.ndarray, folder: Path, device: torch.device | None = None
) -> Iterator[Record]:
    """The loop's records; checkpoints lie in the folder."""
    config = method.config
    feed = Feed(Squares(images), collate, config.batch, config.seed)
    return fit(method, feed, config.settings, folder, device=device)
