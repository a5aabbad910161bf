"""What every method offers to the one loop and to the one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pointseg.structures import Batch, Category, Instances, Panoptic, Points, Prediction


@dataclass(frozen=True)
class Training:
    """How a method is trained. A method states it per scale and cites its source beside each value."""

    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: str = "cosine"  # "cosine", "step" or "constant"
    milestones: tuple[float, ...] = (
        0.75,
        0.92,
    )  # shares of all steps at which "step" divides lr by ten
    warmup: float = 0.05  # share of all steps over which lr rises linearly from zero
    clip: float = 1.0  # largest norm of all gradients together; 0 = not clipped
    ema: float = 0.0  # decay of the averaged weights used for evaluation; 0 = none
    steps: int = 0  # 0 = what `epochs` or else the scale says
    epochs: float = 0.0  # passes over the training images; counts only where steps is 0
    batch: int = 0  # images a step over all processes; 0 = what the scale says


class Method(Protocol):
    """An `nn.Module`, one a paper.

    What it remembers from step to step lives in parameters and buffers, and what it draws comes from torch's
    global generator: then a run that was killed and resumed ends with the very same weights.
    """

    KEY: ClassVar[str]  # the paper's key, such as "AS"
    SUPERVISION: ClassVar[str]  # "points" or "masks": what the batches of `losses` carry
    TASK: ClassVar[str]  # "instances" or "panoptic": what `predict` fills in
    TRAINING: ClassVar[
        dict[str, Training]
    ]  # scale -> how it is trained; a missing scale takes Training()

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method at a scale ("smoke", "small" or "paper"); `overrides` replace fields of its Config."""

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Scalars, already weighted: the loop sums them. `step` counts from 0 in optimiser steps."""

    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        """One prediction an image, masks of its (h, w), with the row in the batch as `image_id`."""

    def pseudo_labels(self, batch: Batch) -> list[Instances | Panoptic]:
        """What a weak method takes for the truth of a batch that carries points. Absent where there is no such thing.

        One row a target in the order of `targets_of` (things only for Instances), masks of the image's (h, w);
        a mask may be empty, a row may not be missing.
        """


class HasParamGroups(Protocol):
    """A method may split its parameters itself, for layer-wise decay of the learning rate."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its own `lr` and `weight_decay`."""


class HasStudentLabels(Protocol):
    """A method may teach its student with something better than what it learnt from itself."""

    def student_labels(self, batch: Batch) -> list[Instances | Panoptic]:
        """As `pseudo_labels`, which serves both where this is absent."""


class HasFirstStage(Protocol):
    """A method may name its parts that a first stage trains, for other runs to start from."""

    FIRST_STAGE: ClassVar[tuple[str, ...]]


class HasCompiledParts(Protocol):
    """A method may name its static parts, which torch.compile then takes where a recipe asks for it."""

    def compiled_parts(self) -> list[nn.Module]: ...


def targets_of(points: Points) -> Tensor:
    """[k] int64: the targets that own the points, in the order of their first point."""
    return torch.tensor(list(dict.fromkeys(points.target.tolist())), dtype=torch.int64)


def world_mean(count: Tensor) -> Tensor:
    """Mean over all processes of a normaliser such as the number of targets; the count itself on one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return count
    total = count.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
