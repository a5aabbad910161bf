"""The few things that cross floors.

Boxes are xyxy in pixels, points are (x, y) in pixels, masks are boolean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from pointseg.inputs import POINT_KINDS as POINT_KINDS
from pointseg.inputs import InputError as InputError

if TYPE_CHECKING:  # torch takes seconds to import, and scores of files need none
    from torch import Tensor

IGNORE = 255  # class index of a pixel nobody answers for (VOC's border value)
VOID_SEGMENT = 0  # segment id of void in a COCO panoptic PNG


@dataclass(frozen=True)
class Category:
    """One class.

    `id` is the number written in the files; a label is the index into a dataset's categories.
    """

    id: int
    name: str
    is_thing: bool = True


@dataclass(frozen=True)
class Classes:
    """How many classes there are; labels of things come first."""

    things: int
    stuff: int

    def __len__(self) -> int:
        return self.things + self.stuff

    @classmethod
    def of(cls, categories: Sequence[Category]) -> Classes:
        things = sum(category.is_thing for category in categories)
        return cls(things, len(categories) - things)


@dataclass(frozen=True)
class Points:
    """The supervision of one image: m points, each on one of its targets."""

    xy: Tensor  # [m, 2] float32, pixels; pixel (column c, row r) covers [c, c + 1) x [r, r + 1)
    label: Tensor  # [m] int64, index into the dataset's categories
    target: Tensor  # [m] int64, id of the target that owns the point; ten points may share one
    is_thing: Tensor  # [m] bool

    def __len__(self) -> int:
        return len(self.xy)

    def things(self) -> Points:
        return self.pick(self.is_thing)

    def pick(self, which: Tensor) -> Points:
        return Points(self.xy[which], self.label[which], self.target[which], self.is_thing[which])

    def to(self, device) -> Points:
        return Points(*(t.to(device) for t in (self.xy, self.label, self.target, self.is_thing)))


@dataclass(frozen=True)
class Truth:
    """Ground truth of one image. Training code of weak methods never holds one.

    Tensors, or arrays where a dataset's `arrays` are asked for.
    """

    masks: Tensor  # [n, h, w] bool
    label: Tensor  # [n] int64, index into the dataset's categories
    target: Tensor  # [n] int64, ids as in the files
    is_thing: Tensor  # [n] bool
    is_crowd: Tensor  # [n] bool
    void: Tensor  # [h, w] bool: pixels that count for nobody
    parts: Tensor | None = None  # [h, w] uint8, 0 = none, else 1 + part id inside its instance

    def __len__(self) -> int:
        return len(self.masks)

    def pick(self, which: Tensor) -> Truth:
        return replace(self, masks=self.masks[which], label=self.label[which],
                       target=self.target[which], is_thing=self.is_thing[which],
                       is_crowd=self.is_crowd[which])  # fmt: skip

    def to(self, device) -> Truth:
        moved = {k: v.to(device) for k, v in vars(self).items() if hasattr(v, "to")}
        return replace(self, **moved)


@dataclass(frozen=True)
class Training:
    """How a method is trained: stated per scale, with the source of each value beside it."""

    lr: float = 1e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "step", "constant", "trapezoid"] = "cosine"
    milestones: tuple[float, ...] = (
        0.75,
        0.92,
    )  # shares of all steps where "step" divides lr by 10
    warmup: float = 0.05  # share of all steps over which lr rises linearly from zero
    cooldown: float = 0.2  # the last share of them, over which "trapezoid" falls linearly to zero
    clip: float | None = 1.0  # largest norm of all gradients together; None: not clipped
    ema: float | None = None  # decay of the averaged weights used for evaluation
    steps: int | None = None  # None: what `epochs` or else the scale says
    epochs: float | None = None  # passes over the training images; counts only without `steps`
    batch: int | None = None  # images a step over all processes; None: what the scale says


@dataclass(frozen=True)
class Loss:
    """How one loss counts in a method's total."""

    weight: float = 1.0
    share: Literal["things", "stuff"] | None = None  # times the share of these among all targets
    ramped: bool = False  # grows linearly from 0 while the method warms up


@dataclass(frozen=True)
class Answer:
    """A row of the design table: a method's answer to "which pixels does a point own?"."""

    cost: str
    price: str
    refusal: str
    teachers: str  # what teaches the cost
    supervision: str
    student: str


@dataclass(frozen=True)
class Sample:
    """One image with what a method may know of it."""

    image_id: int | str
    image: Tensor  # [3, h, w] uint8 RGB
    points: Points | None = None
    truth: Truth | None = None

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.image.shape[-2:])


@dataclass(frozen=True)
class Batch:
    """Samples padded right and below to one size."""

    images: Tensor  # [b, 3, H, W] float32 in 0..1, padding 0; each backbone normalises for itself
    sizes: list[tuple[int, int]]  # (h, w) of each image without padding
    image_ids: list[int | str]
    points: list[Points] | None = None
    truths: list[Truth] | None = None
    draws: Tensor | None = None  # [b] int64, the random seed of each row (ops/processes.py)

    def __len__(self) -> int:
        return len(self.images)

    def padding(self) -> Tensor:
        """[b, H, W] bool, True outside the images."""
        return padding_mask(self.sizes, self.images)

    def to(self, device) -> Batch:
        move = lambda items: (  # noqa: E731
            None if items is None else [item.to(device) for item in items]
        )
        draws = None if self.draws is None else self.draws.to(device)
        return replace(self, images=self.images.to(device, non_blocking=True), draws=draws,
                       points=move(self.points), truths=move(self.truths))  # fmt: skip


def tensors(record: Any) -> Any:
    """A record of arrays as one of tensors: readers that need no torch keep arrays."""
    import torch

    maps = {name: torch.as_tensor(value) for name, value in vars(record).items()
            if value is not None}  # fmt: skip
    return replace(record, **maps)


def padding_mask(sizes: Sequence[tuple[int, int]], images: Tensor) -> Tensor:
    """[b, H, W] bool, True outside the (h, w) of each of the padded images [b, 3, H, W]."""
    outside = images.new_ones(len(images), *images.shape[-2:]).bool()
    for row, (h, w) in zip(outside, sizes):
        row[:h, :w] = False
    return outside


@dataclass(frozen=True)
class Instances:
    """Predicted instances of one image, best first."""

    masks: Tensor  # [n, h, w] bool
    scores: Tensor  # [n] float
    label: Tensor  # [n] int64
    boxes: Tensor  # [n, 4] float


@dataclass(frozen=True)
class Panoptic:
    """Predicted panoptic segmentation of one image."""

    segments: Tensor  # [h, w] int64, 0 = void, else 1 + row of `label`
    label: Tensor  # [n] int64
    scores: Tensor | None = None  # [n] float


@dataclass(frozen=True)
class Prediction:
    image_id: int | str
    instances: Instances | None = None
    panoptic: Panoptic | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def replaced(record: Any, changes: Mapping[str, Any]) -> Any:
    """A frozen record with changed fields; a mapping changes fields of the record in that field.

    Names that are none of the record's own are its student's.
    """
    known = [each.name for each in fields(record)]
    nested = {name: replaced(getattr(record, name), value) if isinstance(value, Mapping) else value
              for name, value in changes.items() if name in known}  # fmt: skip
    others = {name: value for name, value in changes.items() if name not in known}
    if others and not hasattr(record, "student"):
        raise InputError(
            f"config: there is no '{next(iter(others))}'; there are {', '.join(known)}"
        )
    changed = replace(record, **nested)
    return replace(changed, student=replaced(changed.student, others)) if others else changed
