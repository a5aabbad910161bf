"""A picture made ready for the transport explorer: prices of steps, points, units and the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.bookkit.explorer.bundle import halves, picture_url, truth_record
from pointseg.bookkit.explorer.module import module_text
from pointseg.nets.label_heads import ImageMaps
from pointseg.ops.colour import pairs
from pointseg.ops.paths import (
    HALF,
    boundary_step,
    grid_cells,
    manifold_step,
    path_grid,
    semantic_step,
)
from pointseg.ops.point_labels import point_semantics
from pointseg.papers.path_labels import PathEvidence, Planes
from pointseg.papers.point2mask import COUNT_FINER, SMALL, pixel_to_point_cost, unit_numbers
from pointseg.structures import Category, Classes, Points, Truth

FILES = (
    "core.js",
    "bundle.js",
    "transport.js",
    "panel.js",
    "drawing.js",
    "export.js",
    "transport_view.js",
)
# How an explorer starts:
# Table A2's rounds and Table A3's beta are the paper's, epsilon the official code's.
STATE: dict[str, Any] = {
    "picture": 0, "point": [64.5, 64.5], "beta": SMALL.beta, "solver": "sinkhorn",
    "epsilon": SMALL.epsilon, "rounds": SMALL.rounds, "thing": 0, "factor": 1.0,
    "layer": "owners", "opacity": 0.55, "show_nearest": True, "show_truth": False,
}  # fmt: skip


def transport_module() -> str:
    return module_text(FILES)


def transport_record(
    maps: ImageMaps,
    image: np.ndarray,
    points: Points,
    truth: Truth,
    categories: Sequence[Category],
    title: str,
) -> dict[str, Any]:
    """One picture uint8 [h, w, 3] as JSON."""
    size, things, classes = tuple(image.shape[:2]), points.things(), Classes.of(categories)
    semantic = point_semantics(
        maps.logits, points, classes.things, size, SMALL.point_side, SMALL.semantic_size
    )
    planes = Planes.of(semantic, maps, path_grid(size, SMALL.path_stride))
    paths = PathEvidence.along(pixel_to_point_cost(planes, SMALL), semantic, things, size, SMALL)
    (h, w), (height, width) = paths.grid, size
    counted = semantic.enlarged((COUNT_FINER * h, COUNT_FINER * w))
    return {
        "title": title, "width": width, "height": height, "image": picture_url(image),
        "grid": [h, w], "stride": width / w, "manifold_weight": SMALL.manifold_weight,
        "steps": step_records(planes),
        "demand": halves(F.avg_pool2d((~counted.stuff()).float()[None], COUNT_FINER)[0]),
        "things": thing_records(paths, unit_numbers(paths, counted, SMALL), categories),
        "truth": truth_record(truth, categories),
    }  # fmt: skip


def step_records(planes: Planes) -> dict[str, Any]:
    """What steps cost by each map; what beta multiplies is apart, so that a page can price anew."""
    rules = {
        "semantic": (semantic_step, planes.prob),
        "boundary": (boundary_step, planes.boundary),
        "manifold": (manifold_step, planes.features),
    }
    return {name: halves(half_planes(*rule)) for name, rule in rules.items()}


def thing_records(
    paths: PathEvidence, units: Tensor, categories: Sequence[Category]
) -> list[dict[str, Any]]:
    """Name, first point, cell and number of units of each thing."""
    first = paths.things.pick(paths.first)
    names = [categories[label].name for label in first.label.tolist()]
    cells = grid_cells(first.xy, paths.size, paths.grid).tolist()
    rows = zip(names, first.xy.tolist(), cells, units.tolist())
    return [dict(zip(("name", "point", "cell", "units"), row)) for row in rows]


def half_planes(rule: Any, plane: Tensor) -> Tensor:
    """[4, h, w] price of each step right, down and diagonally down.

    0 where a step would leave the grid.
    """
    prices = plane.new_zeros(len(HALF), *plane.shape[-2:])
    for row, step in zip(prices, HALF):
        pairs(row, step)[0].copy_(rule(*pairs(plane, step)))
    return prices


def start_of(record: dict[str, Any]) -> list[float]:
    """A pixel half way between the first two points: where owners are most in doubt."""
    two = torch.tensor([thing["point"] for thing in record["things"][:2]])
    return [float(v) for v in two.mean(0).floor() + 0.5]
