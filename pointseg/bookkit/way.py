"""The way of a point.

What happens between a file of points and AttentionShift's mask loss, in order. A test runs one
training step and holds this list against the functions that were really called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

from pointseg.bookkit.equations import code
from pointseg.bookkit.markup import filled, marked

WAY = (
    "data.point_file.read_points",
    "data.supervision.PointDataset.plain",
    "data.point_file.PointFile.for_image",
    "data.supervision.collate",
    "papers.method.PointSupervised.losses",
    "papers.attentionshift.labeller.Labeller.evidence",
    "papers.attentionshift.objects.Objects.of",
    "papers.attentionshift.querying.PointPredictions.matched",
    "papers.attentionshift.querying.rollout_maps",
    "papers.attentionshift.masks.pseudo_boxes",
    "papers.attentionshift.labeller.label_path",
    "papers.attentionshift.instance_map.instance_maps",
    "papers.attentionshift.labeller.key_points",
    "papers.attentionshift.shift.shift",
    "papers.attentionshift.filtering.filter_keypoints",
    "papers.attentionshift.shift.nearest_tokens",
    "papers.attentionshift.labeller.mask_points",
    "papers.attentionshift.labeller.Labels.targets",
    "students.mask_rcnn.MaskRCNN.losses",
    "students.mask_rcnn.MaskRCNN.mask_loss",
    "papers.attentionshift.masks.MaskPoints.loss",
)
HEAD = ["", "function", "gives", "what it does"]


def module_of(name: str) -> str:
    """The longest beginning of a dotted name that is a module of the library."""
    parts = name.split(".")
    module = "pointseg"
    while find_spec(f"{module}.{parts[0]}") is not None:
        module = f"{module}.{parts.pop(0)}"
        if getattr(import_module(module), "__path__", None) is None:
            return module
    return module


def function_of(name: str) -> Callable:
    module = module_of(name)
    target = import_module(module)
    for part in f"pointseg.{name}".removeprefix(f"{module}.").split("."):
        target = getattr(target, part)
    return target


def way_rows() -> list[list[str]]:
    """HTML cells under HEAD, a row a step of the way."""
    return [
        [str(at), code(name), *_described(function_of(name))]
        for at, name in enumerate(WAY, start=1)
    ]


def _described(function: Callable) -> list[str]:
    gives = inspect.signature(function).return_annotation
    gives = "" if gives is inspect.Signature.empty else str(gives)
    says = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ")
    return [filled("<code>{}</code>", gives), marked(says)]


def files() -> int:
    """In how many files the way lies."""
    return len({module_of(name) for name in WAY})
