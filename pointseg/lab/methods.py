"""The methods by name, each imported only when somebody asks for it."""

from __future__ import annotations

import importlib
from functools import cache

from pointseg.papers.method import Method
from pointseg.structures import InputError

METHODS = {
    "attentionshift": "pointseg.papers.attentionshift.method:AttentionShift",
    "token_querying": "pointseg.papers.attentionshift.token_querying:TokenQuerying",
    "mask_rcnn": "pointseg.students.mask_rcnn_full:MaskRCNNFull",
    "psps": "pointseg.papers.psps:PSPS",
    "point2mask": "pointseg.papers.point2mask:Point2Mask",
    "points_alone": "pointseg.papers.points_alone:PointsAlone",
    "epld": "pointseg.papers.epld.method:EPLD",
    "exits": "pointseg.papers.exits.method:EXITS",
    "similarity_warmup": "pointseg.papers.exits.warmup:SimilarityWarmup",
    "mal": "pointseg.papers.mal:MAL",
    "point_semantics": "pointseg.papers.point_semantics:PointSemantics",
    "panoptic_full": "pointseg.students.panoptic_full:PanopticFull",
}
# Needs an extra of this package: nothing that runs every method runs it.
OPTIONAL = {"mask2former": "pointseg.students.mask2former:Mask2Former"}
# These learn nothing; the second needs something that is not part of the library.
EXTRA = {
    "exits_walk": "pointseg.papers.exits.walk_alone:WalkAlone",
    "prompted": "pointseg.papers.prompted:Prompted",
}
# What a method's chain begins with at the scales that have a first stage, or that this stage states
# a training for: points alone teach features.
FIRST = {
    "attentionshift": "token_querying",
    "mask_rcnn": "token_querying",
    "psps": "point_semantics",
    "point2mask": "point_semantics",
    "points_alone": "point_semantics",
    "exits": "similarity_warmup",
    "panoptic_full": "point_semantics",
}


@cache
def method_class(name: str) -> type[Method]:
    known = METHODS | OPTIONAL | EXTRA
    if name not in known:
        raise InputError(f"method: there is no '{name}'; there are {', '.join(METHODS)}")
    module, attribute = known[name].split(":")
    return getattr(importlib.import_module(module), attribute)


def scored_on(name: str) -> tuple[str, ...]:
    """What a method can be scored on: "val" (its predictions), "labels" (its pseudo labels)."""
    return tuple(method_class(name).SCORES)
