"""What PSPS and Point2Mask share: cheapest paths from points over a learnt semantic map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.nets.label_heads import ImageMaps, LabelMaps, joined_levels, pixel_net
from pointseg.ops.paths import nearest_of_each, path_grid, shortest_paths, start_cells
from pointseg.ops.point_labels import LabelledImage, SemanticMap, point_semantics, resized
from pointseg.ops.semantic_losses import PseudoLabel
from pointseg.ownership import owner
from pointseg.papers.panoptic_labels import PanopticLabels, semantic_head
from pointseg.structures import Batch, Points
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class Planes:
    """What steps are priced by, on the grid of the paths."""

    prob: Tensor  # [P, h, w] of the classes that have a point
    features: Tensor  # [D, h, w] of unit length
    boundary: Tensor | None  # [1, h, w]

    @classmethod
    def of(cls, semantic: SemanticMap, maps: ImageMaps, grid: tuple[int, int]) -> Planes:
        features = F.normalize(resized(maps.features, grid), dim=0)
        boundary = None if maps.boundary is None else resized(maps.boundary, grid)
        return cls(semantic.enlarged(grid).prob, features, boundary)


@dataclass(frozen=True)
class PathEvidence:
    """Semantic map and cheapest paths of one image."""

    size: tuple[int, int]  # of the image
    semantic: SemanticMap
    prices: Tensor  # [8, h, w] of the steps of paths
    things: Points  # the points of things alone
    distance: Tensor  # [n, h, w] from each thing's nearest point, on the grid of the prices
    first: Tensor  # [n] row among `things` of each thing's first point

    @classmethod
    def along(
        cls, prices: Tensor, semantic: SemanticMap, things: Points, size: tuple[int, int],
        config: Any,
    ) -> PathEvidence:  # fmt: skip
        """Paths at these prices from the points of things."""
        grid = tuple(prices.shape[-2:])
        cells = start_cells(things.xy, size, grid, config.path_stride, config.start_cell)
        distance, first = nearest_of_each(shortest_paths(prices, cells), things.target)
        return cls(size, semantic, prices, things, distance, first)

    @property
    def grid(self) -> tuple[int, int]:
        return tuple(self.prices.shape[-2:])

    @property
    def label(self) -> Tensor:
        """[n] class of each thing."""
        return self.things.label[self.first]

    @cached_property
    def fine(self) -> SemanticMap:
        """The semantic map at the image's size."""
        return self.semantic.enlarged(self.size)

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


class PathLabeller(nn.Module):
    """A semantic map, and the cheapest paths over it; a paper says what a step and a path cost."""

    def __init__(self, student: PanopticStudent, config: Any):
        super().__init__()
        network = student.network.config
        self.config, self.things, self.levels = config, student.classes.things, network.mask_levels
        self.semantic = semantic_head(student, config.semantic)
        self.features = pixel_net(network.width, config.feature_width)

    def step_prices(self, planes: Planes, image: Tensor) -> Tensor:
        """[8, h, w] of an image [3, H, W]."""
        raise NotImplementedError

    def cost(self, paths: PathEvidence) -> Tensor:
        """[n, H, W] path lengths."""
        return resized(paths.distance, paths.size)

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
        images, canvas = [], tuple(batch.images.shape[-2:])
        for row, ((h, w), points) in enumerate(zip(batch.sizes, batch.points)):
            given = maps.of_image(row, (h, w), canvas), batch.images[row, :, :h, :w], points
            images.append(self.paths(*given) if len(points) else None)
        return PanopticEvidence(maps, features.padding_of(0), images)

    @torch.no_grad()
    def paths(self, maps: ImageMaps, image: Tensor, points: Points) -> PathEvidence:
        """Paths in one image [3, H, W] without padding."""
        size, c = tuple(image.shape[-2:]), self.config
        semantic = point_semantics(
            maps.logits, points, self.things, size, c.point_side, c.semantic_size
        )
        planes = Planes.of(semantic, maps, path_grid(size, c.path_stride))
        prices = self.step_prices(planes, image)
        return PathEvidence.along(prices, semantic, points.things(), size, c)

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
