"""A method is a labeller composed with a student: the equation that all papers of this book share.

total = labeller.losses + student.losses(features, labels), weighted by one table of the method.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from pointseg.ops.weighted_losses import ramp, weighted
from pointseg.structures import (
    Answer,
    Batch,
    Category,
    Classes,
    Instances,
    Loss,
    Panoptic,
    Points,
    Prediction,
    Training,
    replaced,
)

Losses = dict[str, Tensor]  # name -> scalar
Sizes = list[tuple[int, int]]  # (h, w) of each image without padding


class Labels(Protocol):
    """What a labeller answers for a batch: which pixels each point owns."""

    def targets(self, batch: Batch) -> Any:
        """What the student learns from; it has a `thing_share` where a table of losses shares."""

    def pseudo_labels(self) -> list[Instances | Panoptic]:
        """The answer of each image in its own size."""


class Labeller(Protocol):
    """Which pixels does a point own? Three verbs, in the order in which a paper explains itself.

    It may name in `ASSIGNING` the settings that `evidence` never reads: rows that differ in these
    alone are judged on one evidence.
    """

    def evidence(self, features: Any, batch: Batch) -> Any:
        """What the paper looks at, cost maps above all. Points are in the batch."""

    def assign(self, evidence: Any, batch: Batch) -> Labels:
        """Owners, refused pixels, boxes, key-points; no gradient flows through it."""

    def losses(self, evidence: Any, labels: Labels, batch: Batch) -> Losses:
        """What teaches the evidence itself; without weights."""


class Student(Protocol):
    """A network that learns from labels, wherever they come from, and answers alone afterwards."""

    def features(self, images: Tensor, sizes: Sizes) -> Any:
        """What labeller and student both look at."""

    def losses(self, features: Any, targets: Any, batch: Batch) -> Losses:
        """Losses on targets of labels or of the truth; without weights."""

    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        """One prediction an image, masks of its (h, w), with the row in the batch as `image_id`."""

    def param_groups(self, lr: float, weight_decay: float, beside: Iterable[nn.Parameter]) -> list:
        """Groups for AdamW; `beside` learns with the student, at its full rate."""


class Configured(nn.Module):
    """A method for some classes, made from one table: scale -> Config."""

    CONFIGS: ClassVar[Mapping[str, Any]]
    LOSSES: ClassVar[Mapping[str, Loss]]
    PROPERTIES: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for a dataset at a scale; `overrides` replace fields of its Config."""
        return cls(Classes.of(categories), replaced(cls.CONFIGS[scale], overrides))


class StudentAlone(Configured):
    """A student on targets that nobody has to find: the truth, or the bare points."""

    SCORES: ClassVar[tuple[str, ...]] = ("val",)
    student: nn.Module

    def targets(self, batch: Batch) -> Any:
        """What the student learns from."""
        raise NotImplementedError

    def features(self, batch: Batch) -> Any:
        return self.student.features(batch.images, batch.sizes)

    def losses(self, batch: Batch, step: int) -> Losses:
        targets, features = self.targets(batch), self.features(batch)
        return weighted(self.student.losses(features, targets, batch), self.LOSSES, 1.0, targets)

    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        return self.student.predict(images, sizes)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        return self.student.param_groups(lr, weight_decay)


class PointSupervised(Configured):
    """A labeller that answers from points, and the student that it teaches."""

    SUPERVISION: ClassVar[str] = "points"
    SCORES: ClassVar[tuple[str, ...]] = ("val", "labels")
    student_learns = True  # not where labels alone are wanted

    def __init__(self, labeller: nn.Module, student: nn.Module, warmup_steps: int = 0):
        super().__init__()
        self.labeller, self.student, self.warmup_steps = labeller, student, warmup_steps

    def evidence_features(self, batch: Batch) -> Any:
        """What the evidence is read from: the student's features, unless a method says other."""
        return self.student.features(batch.images, batch.sizes)

    def losses(self, batch: Batch, step: int) -> Losses:
        """Of labeller and student, weighted; their sum is the total. [EPLD Eq. 12]"""
        features = self.student.features(batch.images, batch.sizes)
        evidence = self.labeller.evidence(features, batch)
        labels = self.labeller.assign(evidence, batch)
        targets = labels.targets(batch)
        teaching = self.labeller.losses(evidence, labels, batch)
        learning = self.student.losses(features, targets, batch) if self.student_learns else {}
        return weighted(teaching | learning, self.LOSSES, ramp(step, self.warmup_steps), targets)

    @torch.no_grad()
    def pseudo_labels(self, batch: Batch) -> list[Instances | Panoptic]:
        """The labeller's answers alone."""
        evidence = self.labeller.evidence(self.evidence_features(batch), batch)
        return self.labeller.assign(evidence, batch).pseudo_labels()

    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        """The student alone."""
        return self.student.predict(images, sizes)

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The student's groups, among which what the labeller learns goes."""
        return self.student.param_groups(lr, weight_decay, self.labeller.parameters())


class Method(Protocol):
    """An `nn.Module` with what the one loop and the one evaluation ask of it.

    What it remembers from step to step lives in parameters and buffers, and what it draws comes
    from `draws_of(batch)`: a run killed and resumed ends with the very same weights, whatever the
    number of processes.
    """

    KEY: ClassVar[str]  # the paper's key, such as "AS"
    TASK: ClassVar[str]  # "instances" or "panoptic": what `predict` fills in
    SUPERVISION: ClassVar[str]  # "points", "boxes" or "masks": what the batches of `losses` carry
    SCORES: ClassVar[tuple[str, ...]]  # of "val" and "labels": what an evaluation can score
    POINTS: ClassVar[Mapping[str, Any]]  # fields of a PointChoice, where not any points will do
    TRAINING: ClassVar[dict[str, Training]]  # scale -> how; a missing scale takes Training()
    FIRST_STAGE: ClassVar[tuple[str, ...]]  # the parts that a first stage gives to others
    ANSWER: ClassVar[Answer]  # its row of the design table
    PROPERTIES: ClassVar[tuple[str, ...]]  # names of laws that one test holds for every method

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for a dataset at a scale; `overrides` replace fields of its Config."""

    def losses(self, batch: Batch, step: int) -> Losses:
        """Weighted losses: the loop sums them. `step` counts from 0 in optimiser steps."""

    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        """One prediction an image. Absent where a method cannot answer without its points."""

    def pseudo_labels(self, batch: Batch) -> list[Instances | Panoptic]:
        """What a weak method takes for the truth of a batch with points. Absent without such.

        One row a target in the order of `targets_of` (things only for Instances), masks of the
        image's (h, w); a mask may be empty, a row may not be missing.
        """


class HasStudentLabels(Protocol):
    """A method may teach the next stage with something better than what it learnt from itself."""

    def student_labels(self, batch: Batch) -> list[Instances | Panoptic]:
        """As `pseudo_labels`, which serves both where this is absent."""


class HasParamGroups(Protocol):
    """A method may split its parameters itself, for learning rates that differ."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW, each with its own `lr` and `weight_decay`."""


class HasPreparation(Protocol):
    """A method may look at training images once before its first step."""

    def prepare(self, batches: Iterable[Batch]) -> None:
        """`batches` show what `losses` is shown; they come one by one, when asked for."""


class HasNotes(Protocol):
    """A method may note numbers of its last step, which are logged beside the losses."""

    notes: dict[str, Tensor]  # name -> scalar


class HasCompiledParts(Protocol):
    """A method may name its static parts, for torch.compile where a recipe asks for it."""

    def compiled_parts(self) -> list[nn.Module]: ...


def targets_of(points: Points) -> Tensor:
    """[k] int64: the targets that own the points: things in the order of their first point, then
    one a stuff class likewise."""
    thing, target = points.is_thing, points.target.tolist()
    stuff = dict(reversed(list(zip(points.label.tolist(), target))))
    classes = dict.fromkeys(points.label[~thing].tolist())
    things = dict.fromkeys(points.target[thing].tolist())
    return torch.tensor([*things, *(stuff[c] for c in classes)], dtype=torch.int64)
