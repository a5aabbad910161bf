"""What a run is made from: one frozen value, and the one dial of scale that everything else derives from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pointseg.papers.method import Method
from pointseg.structures import POINT_KINDS, Category, InputError, Training
from pointseg.training.loop import Settings


@dataclass(frozen=True)
class Scale:
    """What one notch of the dial means for data and loop; a method reads the notch's name for its own width."""

    image_size: int  # pixels of the longer side
    images: int  # Bestiary's training images; 0 = all the data there is
    val: int  # images evaluated; 0 = all
    steps: int  # optimiser steps where the method states none
    batch: int  # images a step over all processes
    checkpoint_every: int  # steps


SCALES = {
    "smoke": Scale(image_size=64, images=8, val=4, steps=4, batch=2, checkpoint_every=2),
    "small": Scale(
        image_size=128, images=4000, val=500, steps=3000, batch=32, checkpoint_every=250
    ),
    "paper": Scale(image_size=1333, images=0, val=0, steps=90_000, batch=16, checkpoint_every=1000),
}
PRECISIONS = ("auto", "float32", "bf16")


def _attentionshift() -> type[Method]:
    from pointseg.papers.attentionshift.method import AttentionShift

    return AttentionShift


def _maskrcnn() -> type[Method]:
    from pointseg.students.mask_rcnn_full import MaskRCNNFull

    return MaskRCNNFull


def _token_querying() -> type[Method]:
    from pointseg.papers.attentionshift.token_querying import TokenQuerying

    return TokenQuerying


def _psps() -> type[Method]:
    from pointseg.papers.psps import PSPS

    return PSPS


def _point2mask() -> type[Method]:
    from pointseg.papers.point2mask import Point2Mask

    return Point2Mask


def _panoptic_full() -> type[Method]:
    from pointseg.students.panoptic_full import PanopticFull

    return PanopticFull


def _points_alone() -> type[Method]:
    from pointseg.papers.points_alone import PointsAlone

    return PointsAlone


def _point_semantics() -> type[Method]:
    from pointseg.papers.point_semantics import PointSemantics

    return PointSemantics


METHODS: dict[str, Callable[[], type[Method]]] = {
    "attentionshift": _attentionshift,
    "token_querying": _token_querying,
    "maskrcnn": _maskrcnn,
    "psps": _psps,
    "point2mask": _point2mask,
    "panoptic_full": _panoptic_full,
    "points_alone": _points_alone,
    "point_semantics": _point_semantics,
}


def method_class(name: str) -> type[Method]:
    if name not in METHODS:
        raise InputError(f"method: there is no '{name}'; there are {', '.join(METHODS)}")
    return METHODS[name]()


@dataclass(frozen=True)
class PointChoice:
    """Which points a weak method sees; the same choice gives the same file to every method."""

    kind: str = "uniform"
    n: int = 1
    seed: int = 0
    jitter_px: float = 0.0


@dataclass(frozen=True)
class Recipe:
    method: str
    data: str  # "bestiary" or the root of a dataset
    scale: str
    seed: int
    points: PointChoice
    training: Training
    config: tuple[tuple[str, Any], ...]  # fields of the method's Config that differ, sorted by name
    image_size: int
    images: int
    val: int
    checkpoint_every: int
    student: str = ""  # a mask method, trained afterwards on the pseudo labels of this one
    precision: str = "auto"  # auto = bf16 on CUDA, float32 on a CPU
    compile: bool = False
    workers: int = -1  # processes that load images; -1 leaves it to the device
    layout: str = "auto"
    start: str = ""  # id of a run whose first stage this one starts from
    train_split: str = "train"
    val_split: str = "val"

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "config": dict(self.config)}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Inverse of `to_json`."""
        try:
            values = json.loads(text)
            values["points"] = PointChoice(**values["points"])
            values["training"] = Training(**_tupled(values["training"]))
            values["config"] = _frozen(values["config"])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"recipe: not readable ({error})") from None

    @property
    def sha8(self) -> str:
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:8]

    def for_images(self, count: int) -> Recipe:
        """With the number of steps that its epochs make on that many training images."""
        if self.training.steps:
            return self
        steps = math.ceil(self.training.epochs * count / self.training.batch)
        return replace(self, training=replace(self.training, steps=max(1, steps)))

    def loop_settings(self, count: int) -> Settings:
        """What the loop knows of a training on that many images."""
        training = self.for_images(count).training
        return Settings(training, self.seed, self.precision, self.compile, self.checkpoint_every)

    def build(self, categories: Sequence[Category]) -> Method:
        return method_class(self.method).build(categories, self.scale, **dict(self.config))

    def for_student(self) -> Recipe:
        """The recipe of the student that learns from this method's pseudo labels."""
        return make(
            self.student, data=self.data, scale=self.scale, seed=self.seed, points=asdict(self.points),
            image_size=self.image_size, images=self.images, val=self.val, precision=self.precision,
            compile=self.compile, workers=self.workers, layout=self.layout, start=self.start,
            train_split=self.train_split, val_split=self.val_split,
        )  # fmt: skip


def scale_of(name: str) -> Scale:
    if name not in SCALES:
        raise InputError(f"scale: there is no '{name}'; there are {', '.join(SCALES)}")
    return SCALES[name]


def make(
    method: str,
    *,
    data: str = "bestiary",
    scale: str = "smoke",
    seed: int = 0,
    points: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """A resolved recipe: the scale's sizes, then the method's own training, then whatever is given here."""
    dial, cls = scale_of(scale), method_class(method)
    stated = getattr(cls, "TRAINING", {}).get(scale, Training())
    stated = _replaced("training", stated, training or {})
    if not stated.steps and not stated.epochs:
        stated = replace(stated, steps=dial.steps)
    recipe = Recipe(
        method=method, data=data, scale=scale, seed=seed,
        points=_replaced("points", PointChoice(), points or {}),
        training=replace(stated, batch=stated.batch or dial.batch),
        config=_frozen(config or {}),
        image_size=dial.image_size, images=dial.images, val=dial.val, checkpoint_every=dial.checkpoint_every,
    )  # fmt: skip
    return _checked(_replaced("recipe", recipe, settings))


def from_parameters(values: Mapping[str, Any]) -> Recipe:
    """A recipe from the flat parameters of book/experiment.py; what is absent keeps its default."""
    points = {"kind": values.get("points"), "n": values.get("n"), "seed": values.get("points_seed")}
    named = ("data", "layout", "scale", "seed", "start", "student", "training", "config")
    return make(
        values["method"],
        points={name: value for name, value in points.items() if value is not None},
        **{name: values[name] for name in named if name in values},
        **values.get("settings", {}),
    )


def _checked(recipe: Recipe) -> Recipe:
    choices = {
        "points kind": (recipe.points.kind, POINT_KINDS),
        "precision": (recipe.precision, PRECISIONS),
        "schedule": (recipe.training.schedule, ("cosine", "step", "constant")),
        "student": (recipe.student, ("", *METHODS)),
    }
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise InputError(
                f"{name}: there is no '{value}'; there are {', '.join(filter(None, allowed))}"
            )
    return recipe


def _replaced(what: str, value: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with changed fields; an unknown field is a fault of the one who asked."""
    known = {field.name for field in fields(value)}
    for name in changes:
        if name not in known:
            raise InputError(f"{what}: there is no '{name}'; there are {', '.join(sorted(known))}")
    return replace(value, **_tupled(changes))


def _tupled(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples and no infinity, frozen values no lists."""
    return {name: _hashable(value) for name, value in values.items()}


def _hashable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return float(value) if value in ("inf", "-inf") else value


def _frozen(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(_tupled(config).items()))
