"""What a run is made from: one frozen value, a chain of stages on one choice of data and points."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pointseg.data.files import shown
from pointseg.data.points import Jitter, request_fault
from pointseg.lab.methods import FIRST, method_class, scored_on
from pointseg.lab.settings import (
    changed,
    check_values,
    hashable,
    read_value,
    refuse_unknown,
    table,
    types_of,
)
from pointseg.papers.method import Method
from pointseg.structures import POINT_KINDS, Category, InputError, Training
from pointseg.training.loop import Settings


@dataclass(frozen=True)
class Scale:
    """What one notch of the dial means for data and loop."""

    image_size: int  # pixels of the longer side
    images: int | None  # training images; None: all there are
    scored_images: int | None  # images predictions are scored on; None: all there are
    steps: int  # optimiser steps where the method states none
    batch: int  # images a step over all processes
    checkpoint_every: int  # steps
    first_stage: bool  # whether a chain begins with a stage that learns from points alone
    instance_size: int | None = None  # pixels for methods of instances; None: as all others
    data: str = "bestiary"
    train: str = "train"  # names of the splits
    tune: str = "tune"
    val: str = "val"


SCALES = {
    "smoke": Scale(64, 8, 4, steps=4, batch=2, checkpoint_every=2, first_stage=True),
    "small": Scale(192, 4000, 500, steps=3000, batch=32, checkpoint_every=250, first_stage=True),
    # 160 pixels and 1,500 steps found a first student on photographs; AttentionShift needs four
    # tokens a key-point, which most objects have at 320 pixels and stride 8
    "photos": Scale(
        160, None, None, steps=1500, batch=16, checkpoint_every=250, first_stage=False,
        instance_size=320, data="VOCdevkit/VOC2012", train="photos_train", tune="photos_tune",
        val="photos_val",
    ),
    "paper": Scale(
        1333, None, None, steps=90_000, batch=16, checkpoint_every=1000, first_stage=False
    ),
}  # fmt: skip
CHOICES = {
    "precision": ("auto", "float32", "bf16"),
    "scored_on": ("tune", "val"),
    "layout": ("auto", "panoptic", "coco", "voc", "voc-panoptic", "folder"),
}


@dataclass(frozen=True)
class PointChoice:
    """Which points a weak method sees; the same choice gives the same file to every method."""

    kind: str = "uniform"
    n: int = 1
    seed: int = 0
    jitter_px: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One training of a chain."""

    method: str
    learns_from: str | int  # "points", "boxes", "masks"; a number: the labels of that stage
    starts_from: int | str | None  # a stage, or a file of weights, that gives its first parts
    training: Training
    config: tuple[tuple[str, Any], ...]  # fields of the method's Config that differ, by name
    student: bool = True  # whether a student learns beside the labeller

    def steps_for(self, images: int) -> int:
        """Optimiser steps on that many training images; none of a stage that is only started."""
        wanted = self.training
        if wanted.steps is not None:
            return wanted.steps
        return max(1, math.ceil(wanted.epochs * images / wanted.batch))


@dataclass(frozen=True)
class Recipe:
    stages: tuple[Stage, ...]
    data: str  # "bestiary", "bestiary-easy" or the root of a dataset
    layout: str  # "auto": what the last method's task asks for
    scale: str
    seed: int
    points: PointChoice
    image_size: int
    images: int | None  # of the training split; None: all
    scored_images: int | None  # of the split that predictions are scored on; None: all
    checkpoint_every: int
    train: str = "train"  # names of the splits
    tune: str = "tune"
    val: str = "val"
    scored_on: str = "val"  # "tune" while something is being chosen
    precision: str = "auto"  # auto: bf16 on CUDA, float32 on a CPU
    compile: bool = False
    workers: int | None = None  # processes that load images; None: the device decides

    @property
    def stage(self) -> Stage:
        """The last stage, whose predictions are the run's."""
        return self.stages[-1]

    def build(self, categories: Sequence[Category]) -> Method:
        """The last stage's method, untrained."""
        cls, config = method_class(self.stage.method), dict(self.stage.config)
        return cls.build(categories, self.scale, **config)

    def loop_settings(self, images: int) -> Settings:
        """What the loop knows of the last stage's training on that many images."""
        training = replace(self.stage.training, steps=self.stage.steps_for(images))
        return Settings(training, self.seed, self.precision, self.compile, self.checkpoint_every)

    @property
    def scored_split(self) -> str:
        return self.tune if self.scored_on == "tune" else self.val

    def head(self, k: int) -> Recipe:
        """The chain up to stage k."""
        return replace(self, stages=self.stages[: k + 1])

    def to_json(self) -> str:
        values = asdict(self)
        for stage in values["stages"]:
            stage["config"] = dict(stage["config"])
        return json.dumps(values, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Inverse of `to_json`."""
        try:
            values = read_value(text)
            return _checked(_read_recipe(values))
        except InputError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"recipe: not readable ({error})") from None

    @property
    def sha8(self) -> str:
        """Short hash of everything but the seed."""
        text = replace(self, seed=0).to_json()
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def scale_of(name: str) -> Scale:
    if not isinstance(name, str) or name not in SCALES:
        raise InputError(f"scale: there is no '{name}'; there are {', '.join(SCALES)}")
    return SCALES[name]


def make(
    method: str | None = None,
    *,
    stages: Sequence[Mapping[str, Any]] | None = None,
    scale: str = "smoke",
    training: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    points: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """A resolved recipe: the scale's sizes, each method's own training, then what is given here.

    Without stages the method's usual chain; `training` and `config` change its last stage.
    """
    dial = scale_of(scale)
    given = usual_chain(method, scale) if stages is None else stages
    chain = _stage_tables(given, training=training, config=config)
    resolved = tuple(_resolved(k, each, scale) for k, each in enumerate(chain))
    recipe = Recipe(
        stages=resolved,
        data=dial.data,
        layout="auto",
        scale=scale,
        seed=0,
        points=changed("points", points_of(resolved), points or {}),
        image_size=_image_size(dial, resolved[-1].method),
        images=dial.images,
        scored_images=dial.scored_images,
        checkpoint_every=dial.checkpoint_every,
        train=dial.train,
        tune=dial.tune,
        val=dial.val,
    )
    return _checked(changed("recipe", recipe, settings))


def _stage_tables(stages: Any, **last: Any) -> list[dict[str, Any]]:
    """What is given of each stage, one at least; `last` changes tables of the last one."""
    if not (isinstance(stages, list | tuple) and stages):
        raise InputError(f"stages: expected a list of tables, got {shown(stages)}")
    tables = [table(f"stage {k}", each) for k, each in enumerate(stages)]
    for name, changes in last.items():
        what = f"stage {len(tables) - 1}: {name}"
        tables[-1][name] = table(what, tables[-1].get(name)) | table(what, changes)
    return tables


def _image_size(dial: Scale, method: str) -> int:
    instances = method_class(method).TASK == "instances"
    return dial.instance_size if instances and dial.instance_size else dial.image_size


def usual_chain(method: str, scale: str) -> list[dict[str, Any]]:
    """A method, behind the first stage of its task where the scale has one."""
    method_class(method)  # refuses an unknown name
    first = FIRST.get(method)
    if first and (scale_of(scale).first_stage or scale in method_class(first).TRAINING):
        return [{"method": first}, {"method": method, "starts_from": 0}]
    return [{"method": method}]


def points_of(stages: Sequence[Stage]) -> PointChoice:
    """The points that a chain learns from where nothing else is said: its methods' own."""
    stated = (getattr(method_class(stage.method), "POINTS", None) for stage in stages)
    return PointChoice(**next(filter(None, stated), {}))


def _resolved(k: int, given: Mapping[str, Any], scale: str) -> Stage:
    """Stage k of a chain with the values that its method and the scale state."""
    for name in given:
        refuse_unknown(f"stage {k}", name, types_of(Stage))
    plain = {name: given[name] for name in given if name not in ("training", "config")}
    check_values(f"stage {k}", Stage, plain)
    if "method" not in given:
        raise InputError(f"stage {k}: it names no method")
    cls, dial = method_class(given["method"]), scale_of(scale)
    stated = getattr(cls, "TRAINING", {}).get(scale, Training())
    what = f"stage {k}: training"
    training = changed(what, stated, table(what, given.get("training")))
    if training.steps is None and not training.epochs:
        training = replace(training, steps=dial.steps)
    _check_config(f"stage {k}: config", given["method"], scale, given.get("config", {}))
    return Stage(
        method=given["method"],
        learns_from=given.get("learns_from", cls.SUPERVISION),
        starts_from=given.get("starts_from"),
        training=replace(training, batch=training.batch or dial.batch),
        config=_frozen(given.get("config", {})),
        student=given.get("student", True),
    )


def _check_config(what: str, method: str, scale: str, values: Any) -> None:
    config = getattr(method_class(method), "CONFIGS", {}).get(scale)
    if config:  # names that are none of its own are its student's
        student = getattr(config, "student", None)
        check_values(what, type(config), values, type(student) if student else None)


def _checked(recipe: Recipe) -> Recipe:
    _one_of("points kind", recipe.points.kind, POINT_KINDS)
    for name, allowed in CHOICES.items():
        _one_of(name, getattr(recipe, name), allowed)
    for k, stage in enumerate(recipe.stages):
        _check_links(k, stage, recipe.stages)
        stated = getattr(method_class(stage.method), "POINTS", {}).get("kind", recipe.points.kind)
        if recipe.points.kind != stated:
            raise InputError(f"points kind: {stage.method} needs {stated} points")
        if recipe.compile and not hasattr(method_class(stage.method), "compiled_parts"):
            raise InputError(f"compile: {stage.method} has no part to compile")
    _check_points(recipe.points)
    return recipe


def _check_points(chosen: PointChoice) -> None:
    n = 4 if chosen.kind == "extreme" else chosen.n
    jitter = Jitter(px=chosen.jitter_px) if chosen.kind == "jitter" else None
    if fault := request_fault(chosen.kind, n, chosen.seed, jitter):
        raise InputError(f"points: {fault}")


def _check_links(k: int, stage: Stage, stages: Sequence[Stage]) -> None:
    """A stage learns from what its method understands, and starts from an earlier one."""
    source, start = stage.learns_from, stage.starts_from
    for name, number in (("learns_from", source), ("starts_from", start)):
        if isinstance(number, int) and not 0 <= number < k:
            raise InputError(f"stage {k}: {name}: there is no earlier stage {number}")
    if isinstance(source, int):
        if "labels" not in scored_on(stages[source].method):
            raise InputError(f"stage {k}: {stages[source].method} makes no labels to learn from")
    elif source != method_class(stage.method).SUPERVISION:
        raise InputError(f"stage {k}: {stage.method} cannot learn from {source}")
    if start is not None and not getattr(method_class(stage.method), "FIRST_STAGE", ()):
        raise InputError(f"stage {k}: {stage.method} has no parts that another stage could give")


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InputError(f"{name}: there is no '{value}'; there are {', '.join(allowed)}")


def _frozen(config: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted((name, hashable(value)) for name, value in config.items()))


def _read_recipe(values: dict[str, Any]) -> Recipe:
    rest = {name: value for name, value in values.items() if name not in ("points", "stages")}
    check_values("recipe", Recipe, rest)
    scale_of(values["scale"])
    points = changed("points", PointChoice(), values["points"])
    stages = tuple(_stage_of(k, each, values["scale"]) for k, each in enumerate(values["stages"]))
    return Recipe(**{**values, "points": points, "stages": stages})


def _stage_of(k: int, values: Mapping[str, Any], scale: str) -> Stage:
    training = changed(f"stage {k}: training", Training(), values["training"])
    _check_config(f"stage {k}: config", values["method"], scale, values["config"])
    return Stage(**{**values, "training": training, "config": _frozen(values["config"])})
