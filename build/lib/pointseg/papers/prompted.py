"""A segmenter that answers to clicks, such as SAM, as a labeller: the rival of EPLD Table 8.

Neither it nor its weights are part of this library: a recipe names a function of the user's own,
`segmenter: "module:function"`, from (image [3, h, w] in 0..1, points [k, 2]) to mask logits [h, w].
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pointseg.ops.point_labels import LabelledImage
from pointseg.ops.semantic_losses import PseudoLabel
from pointseg.ownership import NOBODY, owner
from pointseg.papers.method import Configured, Losses, targets_of
from pointseg.structures import (
    IGNORE,
    Answer,
    Batch,
    Classes,
    InputError,
    Panoptic,
    Points,
    Training,
)

Segmenter = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Config:
    segmenter: str | None = None  # "module:function"


def segmenter_of(name: str | None) -> Segmenter:
    """The function that a recipe names."""
    if not name or ":" not in name:
        raise InputError(f"prompted: segmenter: expected 'module:function', got {name!r}")
    module, function = name.split(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"prompted: segmenter: {error}") from None


class Prompted(Configured):
    """images and points -> labels, nothing is learnt: stages of it have 0 steps."""

    KEY: ClassVar[str] = "EPLD"
    TASK: ClassVar[str] = "panoptic"
    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("labels",)
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ()
    CONFIGS: ClassVar[dict[str, Config]] = dict.fromkeys(
        ("smoke", "small", "photos", "paper"), Config()
    )
    ANSWER = Answer(
        cost="- mask logit of a network that was trained on other masks", price="0",
        refusal="below 0", teachers="-", supervision="1 or 10 points a segment", student="-",
    )  # fmt: skip
    TRAINING: ClassVar[dict[str, Training]] = dict.fromkeys(CONFIGS, Training(steps=0))

    def __init__(self, classes: Classes, config: Config):
        super().__init__()
        self.config, self.segment = config, segmenter_of(config.segmenter)
        self.device = nn.Parameter(torch.zeros(()))  # it has no other, and is asked where it is

    def losses(self, batch: Batch, step: int) -> Losses:
        return {}

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> list[Panoptic]:
        """Owners by the largest logit; nobody's where all are below 0 [EPLD Sec. 4.5]."""
        rows = zip(batch.images, batch.sizes, batch.points)
        return [self.label(image[:, :h, :w], points) for image, (h, w), points in rows]

    def label(self, image: Tensor, points: Points) -> Panoptic:
        size, targets = tuple(image.shape[-2:]), targets_of(points).tolist()
        if not targets:
            return LabelledImage.void(size, points).as_panoptic()
        clicks = [points.xy[points.target == target] for target in targets]
        logits = torch.stack([self.segment(image, xy) for xy in clicks])
        rows = owner(-logits.float(), tau=0.0)
        things, kinds = len(targets_of(points.things())), labels_of(points, targets)
        stuff = (rows >= things).logical_and(rows != NOBODY)
        label = PseudoLabel(
            rows.masked_fill(stuff, NOBODY), torch.where(stuff, kinds[rows.clamp(min=0)], IGNORE)
        )
        return LabelledImage.of(label, points).as_panoptic()


def labels_of(points: Points, targets: list[int]) -> Tensor:
    """[n] class of each target."""
    at = [points.target.tolist().index(target) for target in targets]
    return points.label[at]
