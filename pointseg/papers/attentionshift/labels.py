"""The label path: from a self-attention map to the boxes, key-points and mask points that teach.
[AS Sec. 3, 4]"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.components import tokens_in_boxes
from pointseg.ops.processes import child, uniform
from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.filtering import Filtered, filter_keypoints
from pointseg.papers.attentionshift.instance_map import instance_maps
from pointseg.papers.attentionshift.masks import (
    MaskPoints,
    background_tokens,
    drawn_tokens,
    pseudo_boxes,
)
from pointseg.papers.attentionshift.querying import Objects, PointTargets
from pointseg.papers.attentionshift.shift import (
    Shifted,
    nearest_tokens,
    random_seeds,
    shift,
    spread_seeds,
)
from pointseg.papers.attentionshift.tokens import Region, Tokens, token_centres
from pointseg.structures import Batch, Instances
from pointseg.students.mask_rcnn import Targets

RANDOM_SEEDS, BACKGROUND, WITHIN = range(3)  # what an object's random numbers are drawn for


@dataclass(frozen=True)
class KeyPoints:
    """Key-points of n objects; rows that are not `valid` are padding."""

    token: Tensor  # [n, K] where they lie, Eq. 4
    valid: Tensor  # [n, K] bool
    shifted: Shifted | None = None
    filtered: Filtered | None = None
    turns: Sequence[Tensor] = ()  # N + 1 times [n, K], where they lay at each turn, on request


@dataclass(frozen=True)
class Labels:
    """All that the label path finds out about n objects. T tokens an image, S of them in a box."""

    objects: Objects
    attention: Tensor  # [n, T] A^S in 0..1
    instance_map: Tensor  # [n, T] A^I in 0..1
    foreground: Tensor  # [n, T] bool: high-confidence area of A^I in the box
    background: Tensor  # [n, T] bool: tokens of the box that are none of the object's
    boxes: Tensor  # [n, 4] pseudo boxes in pixels
    region: Region
    keypoints: KeyPoints
    mask_points: MaskPoints

    def targets(self, batch: Batch) -> Targets:
        """Pseudo boxes and mask points: what the student learns from. [AS Sec. 4]"""
        split = self.objects.split
        return Targets(split(self.boxes), split(self.objects.label), self.mask_points)

    def masks(self) -> Tensor:
        """[n, T] bool: cells of the key-points that survived, else the high-confidence area."""
        keypoints = self.keypoints
        if keypoints.filtered is None:
            return self.foreground
        survivors = keypoints.filtered.members.any(1)
        cells = (keypoints.shifted.cells & survivors[..., None]).any(1)
        owned = self.region.on_grid(cells, self.foreground.shape[1])
        return torch.where(owned.any(1, keepdim=True), owned, self.foreground)

    def instances(self, sizes: list[tuple[int, int]]) -> list[Instances]:
        """Masks and boxes in pixels, a row an object in the order of the points."""
        objects = self.objects
        coarse = self.masks().unflatten(1, objects.grid)[:, None].float()
        fine = F.interpolate(coarse, scale_factor=objects.stride, mode="bilinear")[:, 0] > 0.5
        rows = zip(*map(objects.split, (fine, self.boxes, objects.label)), sizes)
        return [Instances(mask[:, :h, :w], torch.ones(len(mask), device=mask.device), label, boxes)
                for mask, boxes, label, (h, w) in rows]  # fmt: skip

    def keypoint_targets(self) -> PointTargets:
        """The points, and every key-point as one of its object's class. [AS Sec. 3.2]"""
        objects, points = self.objects, self.objects.points
        owner, column = self.keypoints.valid.nonzero(as_tuple=True)
        token = self.keypoints.token[owner, column]
        image = torch.cat([points.image, objects.image[owner]])
        xy = torch.cat([points.xy, token_centres(token, objects.grid, objects.stride)])
        label, order = torch.cat([points.label, objects.label[owner]]), image.argsort(stable=True)
        return PointTargets(xy[order], label[order], image[order])


def label_path(
    tokens: Tokens,
    objects: Objects,
    attention: Tensor,
    config: Config,
    draws: Tensor,
    keep_path: bool = False,
) -> Labels:
    """Labels of objects with A^S [n, T] in 0..1; random numbers by the seeds [b] of their images."""
    maps = instance_maps(tokens, objects, attention, config)
    rule = config.box_threshold, config.box_rule
    boxes = pseudo_boxes(maps.foreground[:, None], objects, *rule)[:, 0]
    in_box = tokens_in_boxes(boxes, objects.grid, objects.stride) & objects.valid
    foreground = (maps.foreground >= config.seed_threshold) & in_box
    background, region = background_tokens(maps, in_box, config), Region.of(in_box)
    draws = child(draws[objects.image], objects.rank())
    keypoints = key_points(tokens, objects, foreground, region, config, draws, keep_path)
    points = mask_points(objects, keypoints, background, config.background_points, draws)
    return Labels(objects, attention, maps.foreground, foreground, background, boxes, region,
                  keypoints, points)  # fmt: skip


def key_points(
    tokens: Tokens,
    objects: Objects,
    foreground: Tensor,
    region: Region,
    config: Config,
    draws: Tensor,
    keep_path: bool,
) -> KeyPoints:
    """Seeds, shift, filtering and places of the key-points inside the boxes. [AS Sec. 3.2]"""
    c, seeds = config, (foreground, config.keypoints, objects.seed)
    if not c.shift:
        token = random_seeds(*seeds, child(draws, RANDOM_SEEDS))
        return KeyPoints(token, torch.ones_like(token, dtype=torch.bool))
    held, inside = region.of_tokens(tokens), region.inside
    area = foreground.gather(1, region.index)
    shifted = shift(
        tokens.features_at(spread_seeds(*seeds)),
        held,
        inside,
        area if c.drawn_by == "foreground" else inside,
        *(c.alpha, c.iterations, c.owner, c.bandwidth_floor),
        keep_path,
    )
    features, valid, filtered = shifted.features, shifted.cells.any(-1), None
    if c.filtering:
        thresholds = c.filter_threshold, c.merge_threshold
        filtered = filter_keypoints(features, shifted.cells, area, *thresholds)
        features, valid = filtered.features, filtered.valid
    *turns, token = (region.index.gather(1, nearest_tokens(points, held, inside))
                     for points in (*shifted.path, features))  # fmt: skip
    return KeyPoints(token, valid, shifted, filtered, turns)


def mask_points(
    objects: Objects, keypoints: KeyPoints, background: Tensor, count: int, draws: Tensor
) -> MaskPoints:
    """The point and the key-points as object, pixels of the box outside it as background.
    [AS Sec. 4]"""
    token, exists = drawn_tokens(background, count, child(draws, BACKGROUND))
    within = uniform(child(draws, WITHIN), token.shape[1], 2)
    labelled = torch.ones_like(objects.seed, dtype=torch.bool)[:, None]
    centres = token_centres(keypoints.token, objects.grid, objects.stride)
    return (
        MaskPoints.of(objects.xy[:, None], labelled, True)
        + MaskPoints.of(centres, keypoints.valid, True)
        + MaskPoints.in_tokens(token, exists, objects, within)
    )
