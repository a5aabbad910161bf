"""What PSPS and Point2Mask share: cheapest paths from points over a learnt semantic map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pointseg.nets.deformable_encoder import Memory
from pointseg.nets.label_heads import ImageMaps, LabelMaps, joined_levels, pixel_net
from pointseg.ops.paths import (
    nearest_of_each,
    path_grid,
    path_lengths,
    start_cells,
    step_graph,
)
from pointseg.ops.point_labels import LabelledImage, SemanticMap, point_semantics, resized
from pointseg.ops.semantic_losses import PseudoLabel
from pointseg.ownership import owner
from pointseg.papers.panoptic_labels import PanopticLabels, semantic_head
from pointseg.structures import Batch, Points
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class Planes:
    """What steps are priced by, on the grid of the paths of one image, or of g alike in size."""

    prob: Tensor  # [P, (g,) h, w] of the classes that have a point; then zeros
    features: Tensor  # [D, (g,) h, w] of unit length
    boundary: Tensor | None  # [1, (g,) h, w]

    @classmethod
    def of(cls, semantic: SemanticMap, maps: ImageMaps, grid: tuple[int, int]) -> Planes:
        features = F.normalize(resized(maps.features, grid), dim=0)
        boundary = None if maps.boundary is None else resized(maps.boundary, grid)
        return cls(semantic.enlarged(grid).prob, features, boundary)

    @classmethod
    def together(cls, images: Sequence[Planes]) -> Planes:
        """The planes of g images: a step costs what it costs in its image alone."""
        features, boundary = (
            None if getattr(images[0], name) is None
            else torch.stack([getattr(image, name) for image in images], 1)
            for name in ("features", "boundary")
        )  # fmt: skip
        return cls(pad_sequence([image.prob for image in images]), features, boundary)


@dataclass(frozen=True)
class PathEvidence:
    """Semantic map and cheapest paths of one image."""

    size: tuple[int, int]  # of the image
    semantic: SemanticMap
    prices: Tensor  # [8, h, w] of the steps of paths
    things: Points  # the points of things alone
    distance: Tensor  # [n, h, w] from each thing's nearest point, on the grid of the prices
    first: Tensor  # [n] row among `things` of each thing's first point
    steps: csr_array | None = None  # the graph of the prices, where it is at hand

    @classmethod
    def along(
        cls, prices: Tensor, semantic: SemanticMap, things: Points, size: tuple[int, int],
        config: Any,
    ) -> PathEvidence:  # fmt: skip
        """Paths at these prices from the points of things."""
        grid = tuple(prices.shape[-2:])
        cells = start_cells(things.xy, size, grid, config.path_stride, config.start_cell)
        steps = step_graph(prices)
        distance, first = nearest_of_each(path_lengths(steps, cells, prices), things.target)
        return cls(size, semantic, prices, things, distance, first, steps)

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(self.prices.shape[-2:])

    @property
    def label(self) -> Tensor:
        """[n] class of each thing."""
        return self.things.label[self.first]

    def lengths_from(self, cells: Tensor) -> Tensor:
        """[m, h, w] of the cheapest paths from other cells [m]."""
        steps = step_graph(self.prices) if self.steps is None else self.steps
        return path_lengths(steps, cells, self.prices)

    @cached_property
    def fine(self) -> SemanticMap:
        """The semantic map at the image's size."""
        return self.semantic.enlarged(self.size)

    @cached_property
    def far(self) -> Tensor:
        """[n, H, W] the distances at the image's size."""
        return resized(self.distance, self.size)

    def semantic_on(self, grid: tuple[int, int]) -> SemanticMap:
        return self.fine if grid == self.size else self.semantic.enlarged(grid)

    def distance_on(self, grid: tuple[int, int]) -> Tensor:
        return self.far if grid == self.size else resized(self.distance, grid)

    def labelled(self, cost: Tensor, price: Tensor, points: Points) -> LabelledImage:
        """Owners by cost [n, H, W] and price [n]; pixels that prefer stuff are out of reach."""
        things = owner(cost.masked_fill(self.fine.stuff(), torch.inf), price)
        return LabelledImage.of(PseudoLabel(things, self.fine.stuff_target()), points)


@dataclass(frozen=True)
class PanopticEvidence:
    """Maps of a batch, and the paths of each image; None where an image has no point."""

    maps: LabelMaps
    padding: Tensor | None  # [b, h, w] bool on the maps' grid, True outside the images
    images: list[PathEvidence | None]


def rows_by_size(batch: Batch) -> dict[tuple[int, int], list[int]]:
    """Size (h, w) -> rows of the images of that size that have points."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, (size, points) in enumerate(zip(batch.sizes, batch.points)):
        if len(points):
            rows.setdefault(size, []).append(row)
    return rows


class PathLabeller(nn.Module):
    """A semantic map, and the cheapest paths over it; a paper says what a step and a path cost."""

    def __init__(self, student: PanopticStudent, config: Any):
        super().__init__()
        network = student.network.config
        self.config, self.things, self.levels = config, student.classes.things, network.mask_levels
        self.semantic = semantic_head(student, config.semantic)
        self.features = pixel_net(network.width, config.feature_width)

    def step_prices(self, planes: Planes, images: Sequence[Tensor]) -> Tensor:
        """[8, g, h, w] of g images [3, H, W] of one size."""
        raise NotImplementedError

    def cost(self, paths: PathEvidence) -> Tensor:
        """[n, H, W] path lengths."""
        return paths.far

    def price(self, paths: PathEvidence) -> Tensor:
        """[n] zero."""
        return paths.distance.new_zeros(len(paths.distance))

    def maps(self, memory: Memory, joined: Tensor) -> LabelMaps:
        """All maps; `joined` are the levels of the memory in one, without gradient."""
        return replace(
            self.semantic(memory), features=F.normalize(self.features(joined).float(), dim=1)
        )

    def evidence(self, features: Memory, batch: Batch) -> PanopticEvidence:
        maps = self.maps(features, joined_levels(features, self.levels).detach())
        images, canvas = [None] * len(batch), tuple(batch.images.shape[-2:])
        for (h, w), rows in rows_by_size(batch).items():
            shown = [maps.of_image(row, (h, w), canvas) for row in rows]
            points = [batch.points[row] for row in rows]
            paths = self.paths_of(shown, batch.images[rows, :, :h, :w], points)
            for row, each in zip(rows, paths):
                images[row] = each
        return PanopticEvidence(maps, features.padding_of(0), images)

    @torch.no_grad()
    def paths_of(
        self, maps: Sequence[ImageMaps], images: Tensor, points: Sequence[Points]
    ) -> list[PathEvidence]:
        """Paths in each of g images [g, 3, H, W] without padding."""
        size, c = tuple(images.shape[-2:]), self.config
        rule = self.things, size, c.point_side, c.semantic_size
        semantic = [point_semantics(m.logits, each, *rule) for m, each in zip(maps, points)]
        grid = path_grid(size, c.path_stride)
        planes = [Planes.of(*each, grid) for each in zip(semantic, maps)]
        prices = self.step_prices(Planes.together(planes), images)
        rows = zip(prices.unbind(1), semantic, points)
        return [PathEvidence.along(p, s, each.things(), size, c) for p, s, each in rows]

    def paths(self, maps: ImageMaps, image: Tensor, points: Points) -> PathEvidence:
        """Paths in one image [3, H, W]."""
        return self.paths_of([maps], image[None], [points])[0]

    @torch.no_grad()
    def assign(self, evidence: PanopticEvidence, batch: Batch) -> PanopticLabels:
        rows = zip(evidence.images, batch.points, batch.sizes)
        images = [LabelledImage.void(size, points) if paths is None
                  else self.label_paths(paths, points) for paths, points, size in rows]  # fmt: skip
        return PanopticLabels(images, tuple(batch.images.shape[-2:]), self.things)

    def label_image(self, maps: ImageMaps, image: Tensor, points: Points) -> LabelledImage:
        """The pseudo label of one image [3, H, W] without padding, from its maps."""
        return self.label_paths(self.paths(maps, image, points), points)

    def label_paths(self, paths: PathEvidence, points: Points) -> LabelledImage:
        return paths.labelled(self.cost(paths), self.price(paths), points)
