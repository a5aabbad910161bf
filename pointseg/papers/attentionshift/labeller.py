"""What points own: evidence, labels and losses of AttentionShift's labeller. [AS Sec. 3, 4]

The label path leads from a self-attention map to the boxes, key-points and mask points that teach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.nets.roi_heads import DepthChooser
from pointseg.nets.vit import TokenViT
from pointseg.ops.components import tokens_in_boxes
from pointseg.ops.processes import child, draws_of, normaliser, uniform
from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.filtering import Filtered, filter_keypoints
from pointseg.papers.attentionshift.instance_map import instance_maps, unit_range
from pointseg.papers.attentionshift.masks import (
    MaskPoints,
    background_tokens,
    drawn_tokens,
    pseudo_boxes,
)
from pointseg.papers.attentionshift.objects import Objects, PointTargets
from pointseg.papers.attentionshift.querying import (
    PointBranch,
    Queried,
    in_full_precision,
    point_maps,
    rollout_maps,
)
from pointseg.papers.attentionshift.shift import (
    Shifted,
    nearest_tokens,
    random_seeds,
    shift,
    spread_seeds,
)
from pointseg.papers.attentionshift.tokens import Region, Tokens, token_centres, valid_tokens
from pointseg.structures import Batch, Instances
from pointseg.students.mask_rcnn import Features, Targets

RANDOM_SEEDS, BACKGROUND, WITHIN = range(3)  # what an object's random numbers are drawn for


@dataclass(frozen=True)
class Evidence:
    """What the label path starts from, and what the point branch is taught with."""

    queried: Queried
    tokens: Tokens  # Phi, a row an image; no gradient comes back from it
    maps: Tensor  # [n, depths, T] self-attention maps in 0..1
    class_share: Tensor  # [n, depths, C] of each depth's box in saying that it is of a class
    depth: Tensor  # [n] the depth chosen

    @property
    def objects(self) -> Objects:
        return self.queried.objects

    @property
    def attention(self) -> Tensor:
        """[n, T] A^S at the chosen depth."""
        return self.maps[torch.arange(len(self.depth), device=self.depth.device), self.depth]


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

    def pseudo_labels(self) -> list[Instances]:
        """Masks and boxes in pixels, a row an object in the order of the points."""
        objects = self.objects
        fine = objects.on_pixels(self.masks())
        rows = zip(*map(objects.split, (fine, self.boxes, objects.label)), objects.sizes)
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


class Labeller(PointBranch):
    """Points and attention in, pseudo boxes and key-points out. [AS Sec. 3]"""

    ASSIGNING: ClassVar[tuple[str, ...]] = (
        "instance_map", "background", "refine_rounds", "refine_share", "compete", "shift",
        "keypoints", "iterations", "drawn_by", "alpha", "owner", "bandwidth_floor",
        "seed_threshold", "filtering", "filter_threshold", "merge_threshold",
        "keypoints_as_points", "box_threshold", "background_points", "background_rule",
        "background_level", "background_share",
    )  # fmt: skip

    def __init__(self, vit: TokenViT, classes: int, config: Config):
        super().__init__(vit, classes, config.place_weight, config.warmup)
        self.config = config
        chooser = DepthChooser(vit.dim, classes, config.student.width)
        self.chooser = chooser if config.depth is None else None
        self.depths = config.depths if config.depth is None else config.depth + 1  # rolled out

    @in_full_precision
    def evidence(self, features: Features, batch: Batch) -> Evidence:
        """A^S at every depth, the depth whose box looks most like the object's class, and Phi."""
        queried = super().evidence(features, batch)
        objects, config = queried.objects, self.config
        tokens = Tokens.of(self.compared(features, batch.sizes), objects.counts)
        with torch.no_grad():
            maps = (
                point_maps(tokens, objects)
                if config.attention == "point"
                else rollout_maps(features, objects, queried.query, self.depths)
            )
            every = objects.valid[:, None].expand_as(maps).flatten(0, 1)
            maps = unit_range(maps.flatten(0, 1), every).view_as(maps)
        share, depth = self.choice(features, objects, maps)
        return Evidence(queried, tokens, maps, share, depth)

    def compared(self, features: Features, sizes: list[tuple[int, int]]) -> Tensor:
        """[b, T, D] the token features that the label path compares."""
        output = features.output
        tokens = output.tokens.detach().float()
        if not self.config.centred:
            return tokens
        valid = valid_tokens(sizes, output.grid, self.stride, tokens.device).float()[..., None]
        return tokens - (tokens * valid).sum(1, keepdim=True) / valid.sum(1, keepdim=True)

    def choice(self, features: Features, objects: Objects, maps: Tensor) -> tuple[Tensor, Tensor]:
        """[n, depths, C] share of each depth in the class of an object, and the depth [n] chosen.

        UNSTATED [AS Sec. 3.1]: "self-attention map"; the official code lets a multiple-instance
        head choose among roll-outs.
        """
        depths = maps.shape[1]
        if self.chooser is None or depths == 1:
            depth = min(self.config.depth or 0, depths - 1)
            share = maps.new_ones(len(objects), depths, self.classes) / depths
            return share, torch.full_like(objects.label, depth)
        c = self.config
        boxes = pseudo_boxes(maps, objects, c.foreground, c.box_rule)
        share = self.chooser(features.output.map().float(), self.stride, boxes, objects.image)
        row = torch.arange(len(objects), device=maps.device)
        return share, share[row, :, objects.label].argmax(1)

    @torch.no_grad()
    @in_full_precision
    def assign(self, evidence: Evidence, batch: Batch, keep_path: bool = False) -> Labels:
        """Boxes, parts and points of every object; `keep_path` remembers every turn of the
        shift."""
        return label_path(evidence.tokens, evidence.objects, evidence.attention, self.config,
                          draws_of(batch), keep_path)  # fmt: skip

    @in_full_precision
    def losses(self, evidence: Evidence, labels: Labels, batch: Batch) -> dict[str, Tensor]:
        """L_P of [AS Sec. 4], with the MIL head's and the warm-up's beside it."""
        queried, points = evidence.queried, labels.objects.points
        query = queried.query
        if self.config.keypoints_as_points:
            points = labels.keypoint_targets()
            query = queried.predictions.matched(points, self.place_weight)
        losses = queried.predictions.losses(points, query) | self.warmup_losses(queried, batch)
        return losses | ({"mil": self.choice_loss(evidence)} if self.chooser else {})

    def choice_loss(self, evidence: Evidence) -> Tensor:
        """Cross-entropy of what all depths together say of an object's class, with its class."""
        probability = evidence.class_share.sum(1).clamp(1e-6, 1 - 1e-6)
        label = F.one_hot(evidence.objects.label, self.classes).float()
        total = F.binary_cross_entropy(probability, label, reduction="sum")
        return total / normaliser(len(label), label.device) / self.classes


def label_path(
    tokens: Tokens,
    objects: Objects,
    attention: Tensor,
    config: Config,
    draws: Tensor,
    keep_path: bool = False,
) -> Labels:
    """Labels of objects with A^S [n, T] in 0..1; random numbers by the seeds [b] of their
    images."""
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
    start, draws_on = tokens.features_at(spread_seeds(*seeds)), c.drawn_by == "foreground"
    setting = c.alpha, c.iterations, c.owner, c.bandwidth_floor
    shifted = shift(start, held, inside, area if draws_on else inside, *setting, keep_path)
    filtered = None
    if c.filtering:
        levels = c.filter_threshold, c.merge_threshold
        filtered = filter_keypoints(shifted.features, shifted.cells, area, *levels)
    valid = shifted.cells.any(-1) if filtered is None else filtered.valid
    ends = (shifted if filtered is None else filtered).features
    *turns, token = (region.index.gather(1, nearest_tokens(points, held, inside))
                     for points in (*shifted.path, ends))  # fmt: skip
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
