"""AttentionShift (CVPR 2023): an instance is what its key-points, shifted to dense places of feature space, own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.attention import rollout_rows
from pointseg.nets.point_head import PointHead, TokenClassifier
from pointseg.nets.roi_heads import DepthChooser
from pointseg.nets.start import start_heads, starting_backbone
from pointseg.nets.token_levels import TokenLevels
from pointseg.nets.vit import ViTConfig, ViTOutput, layer_decay_groups
from pointseg.ops.components import centre_symmetric, large_components, tight_boxes, tokens_in_boxes
from pointseg.ops.parameter_groups import decay_groups
from pointseg.ops.processes import world_mean
from pointseg.papers.attentionshift import instance_map as maps
from pointseg.papers.attentionshift.keypoints import (
    filter_keypoints,
    nearest_tokens,
    random_seeds,
    spread_seeds,
    token_at,
    token_centres,
)
from pointseg.papers.attentionshift.mask_points import (
    MaskPoints,
    joined,
    known_points,
    mask_point_loss,
    scattered,
    tokens_drawn,
)
from pointseg.papers.attentionshift.matching import PointTargets
from pointseg.papers.attentionshift.objects import Objects, Scene, real_tokens
from pointseg.papers.attentionshift.parts import Parts
from pointseg.papers.attentionshift.picture_labels import picture_label_loss, point_label_loss
from pointseg.papers.attentionshift.point_choice import meant_by_points, replaced_rows
from pointseg.papers.attentionshift.shift import Ownership, Tokens, compact, shift
from pointseg.structures import Batch, Category, InputError, Instances, Prediction, Training
from pointseg.students.detector import BoxTargets, Detector, DetectorConfig


@dataclass(frozen=True)
class Config:
    """Every switch of the tables; the defaults are the paper's full method."""

    backbone: ViTConfig = field(
        default_factory=partial(ViTConfig, "vit_small_patch16_224", queries=100)
    )  # [AS Sec. 5.1]
    weights: str = (
        ""  # "shipped", a file, or nothing; [AS Sec. 5.1] starts from an MAE on ImageNet-1K
    )
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    levels: tuple[int, ...] = (
        3,
        5,
        7,
        11,
        11,
    )  # UNSTATED [AS Sec. 4]: blocks of the pyramid, official code
    level_scales: tuple[float, ...] = (4, 2, 1, 0.5, 0.25)  # of each level's map to the token grid
    # token querying
    depths: int = (
        7  # UNSTATED [AS Sec. 3.1]: roll-out depths offered to the MIL head, official code
    )
    depth: int = (
        -1
    )  # -1: the MIL head chooses (official code); 0: the last block alone; d: always d + 1 blocks
    attention: Literal["rollout", "point"] = "rollout"  # "point": likeness to the labelled token
    place_weight: float = 10.0  # UNSTATED [AS Sec. 4]: weight of l_L1, official code
    warmup_weight: float = 0.0  # of the two class-aware token losses
    centred: bool = False  # DEVIATION [AS Eq. 1]: features less their mean over the picture, so that cosines spread
    # instance attention map
    instance_map: Literal["released", "printed", "none"] = (
        "released"  # [AS Eq. 1]; "none" keeps A^S [AS Tab. 3]
    )
    foreground: float = 0.2  # UNSTATED [AS Sec. 3.1]: official code
    background: float = 0.1  # UNSTATED [AS Sec. 3.1]: official code
    refine_rounds: int = 0  # not in the paper; 2 in the official code
    refine_share: float = 0.9  # official code
    compete: bool = False  # not in the paper; instances compete for tokens in the official code
    # pseudo boxes
    box_threshold: float = 0.35  # UNSTATED [AS Sec. 4]: official code's level for a high map
    box_rule: Literal["tight", "centre"] = (
        "tight"  # [AS Sec. 4]; "centre": official code, for centre points
    )
    # key-point shift
    shift: bool = True  # [AS Tab. 3]
    keypoints: int = 20  # UNSTATED [AS Sec. 3.2]: K of the official code
    iterations: int = 10  # [AS Sec. 3.2], [AS Tab. 4]
    drawn_by: Literal["foreground", "box"] = (
        "foreground"  # [AS Eq. 3], [AS Eq. 7]; "box": official code
    )
    alpha: float = 1.0  # [AS Tab. 4]
    owner: Ownership = "share"  # [AS Eq. 2]
    bandwidth_floor: float = 1e-10  # UNSTATED [AS Eq. 6]: official code
    seed_threshold: float = 0.35  # UNSTATED [AS Sec. 3.2]: "high confidence area", official code
    # key-point filtering
    filtering: bool = True  # [AS Tab. 3]
    filter_threshold: float = 0.85  # T_f [AS Tab. 5]
    merge_threshold: float = 0.85  # T_m [AS Tab. 5]
    # masks
    background_points: int = 10  # UNSTATED [AS Sec. 4]: official code draws 10 pixels a box
    background_rule: Literal["low", "released"] = (
        "low"  # [AS Sec. 4]: low A^I; "released": high on a map of the ground
    )
    background_level: float = (
        0.1  # UNSTATED [AS Sec. 4]: A^I below this share of its range is background
    )
    background_share: float = (
        0.8  # official code: of the largest value in the box of its map of the ground
    )
    # losses
    mil_weight: float = 1.0
    box_weight: float = 1.0
    mask_weight: float = 1.0
    keypoints_as_points: bool = (
        False  # DEVIATION [AS Sec. 3.2]: off as in the official config; True is the text
    )
    layer_decay: float = 0.75  # UNSTATED [AS Sec. 5.1]: official code
    stage: Literal["points", "whole"] = (
        "whole"  # "points": the shared first stage, point branch alone
    )


class Labeller:
    """Points and attention in, pseudo boxes and key-points out; nothing here is trained. [AS Sec. 3]"""

    def __init__(self, config: Config, stride: int):
        self.config, self.stride = config, stride

    @torch.no_grad()
    def parts(
        self, tokens: Tensor, scene: Scene, attention: Tensor, keep_path: bool = False
    ) -> Parts:
        """Patch tokens [b, T, D] and self-attention maps [n, T] to parts; `keep_path` remembers every iteration."""
        attention = maps.unit_range(attention, scene.real)
        instance, ground = self.instance_map(tokens, scene, attention)
        high = (instance >= self.config.seed_threshold) & scene.real
        boxes = self.boxes(instance, scene, self.config.box_threshold)
        in_box = tokens_in_boxes(boxes, scene.grid, self.stride) & scene.real
        found = (attention, instance, high & in_box, self.background(instance, ground, in_box))
        return self.keypoints(tokens, scene, found, (boxes, in_box), keep_path)

    def instance_map(
        self, tokens: Tensor, scene: Scene, attention: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[n, T] A^I in 0..1 of A^S [n, T] [AS Eq. 1], and the official code's map of the ground."""
        c, real = self.config, scene.real
        if c.instance_map == "none":
            return attention, 1 - attention
        plus, minus = maps.token_sets(attention, real, scene.seed, c.foreground, c.background)
        own = tokens[scene.image]
        directions = F.normalize(own, dim=-1)
        like = maps.refined_similarity(
            maps.mean_token(plus, own), directions, real, c.refine_rounds, c.refine_share
        )
        unlike = maps.cosine_to(maps.mean_token(minus, own), directions)
        if c.compete:
            common = (maps.mean_over_image(attention, scene.image) < c.background) & real
            like = maps.strongest_only(
                like, scene.image, maps.cosine_to(maps.mean_token(common, own), directions)
            )
        ground = maps.ground_released(like, unlike, real)
        if c.instance_map == "printed":
            return maps.unit_range(
                maps.instance_map_printed(like, unlike, plus, minus), real
            ), ground
        return maps.instance_map_released(like, unlike, real), ground

    def background(self, instance: Tensor, ground: Tensor, in_box: Tensor) -> Tensor:
        """[n, T] bool: tokens of the box that are taken for background. [AS Sec. 4]"""
        if self.config.background_rule == "low":
            return (instance < self.config.background_level) & in_box
        inside = ground * in_box
        return in_box & (inside >= self.config.background_share * inside.amax(1, keepdim=True))

    def boxes(self, values: Tensor, scene: Scene, threshold: float) -> Tensor:
        """[n, 4] around the largest component of each binarised map, else the labelled token. [AS Sec. 4]"""
        area = (values >= threshold) & scene.real
        area = torch.where(
            area.any(1, keepdim=True), area, F.one_hot(scene.seed, area.shape[1]).bool()
        )
        boxes, _ = tight_boxes(large_components(area.unflatten(1, scene.grid)), self.stride)
        if self.config.box_rule == "centre":
            return centre_symmetric(boxes, scene.place, scene.limit)
        return torch.minimum(boxes, scene.limit.repeat(1, 2))

    def keypoints(
        self, tokens: Tensor, scene: Scene, found: tuple, box: tuple, keep_path: bool
    ) -> Parts:
        """Seeds, shift, filtering and places of the key-points inside the boxes. [AS Sec. 3.2]"""
        c, seed, high = self.config, scene.seed, found[2]
        index, inside = compact(box[1])
        known = Parts(*found, box[0], index, inside, None, None, seed[:, None], seed[:, None] >= 0)
        if not c.shift:
            token = random_seeds(high, c.keypoints, seed)
            return replace(known, token=token, valid=torch.ones_like(token, dtype=torch.bool))
        area = high.gather(1, index)
        held = Tokens.gathered(
            tokens, scene.image, index, inside, area if c.drawn_by == "foreground" else None
        )
        start = tokens[scene.image[:, None], spread_seeds(high, c.keypoints, seed)]
        shifted = shift(start, held, c.alpha, c.iterations, c.owner, c.bandwidth_floor, keep_path)
        final, valid, filtered = shifted.features, shifted.cells.any(-1), None
        if c.filtering:
            filtered = filter_keypoints(
                final, shifted.cells, area, c.filter_threshold, c.merge_threshold
            )
            final, valid = filtered.features, filtered.valid
        token = index.gather(1, nearest_tokens(final, held.directions, inside))
        return replace(known, shifted=shifted, filtered=filtered, token=token, valid=valid)

    def mask_points(self, parts: Parts, scene: Scene) -> MaskPoints:
        """Labelled points and key-points as object, pixels of the box outside it as background. [AS Sec. 4]"""
        own = scene.place[:, None]
        token, exists = tokens_drawn(parts.background, self.config.background_points)
        ground = MaskPoints(scattered(token, scene.grid, self.stride), torch.where(exists, 0, -1))
        found = known_points(token_centres(parts.token, scene.grid, self.stride), parts.valid)
        return joined(
            [known_points(own, torch.ones_like(own[..., 0], dtype=torch.bool)), found, ground]
        )


SCALES = {
    "paper": Config(),
    # DEVIATION [AS Sec. 5.1]: a small ViT with a convolutional stem, light heads and a class-aware warm-up from the
    # points' own labels; few pictures teach a plain ViT-S nothing that key-points could live on
    "small": Config(
        backbone=ViTConfig("small", queries=20, anchored=True),
        weights="shipped",
        depths=4,
        levels=(5, 5, 5),
        level_scales=(2, 1, 0.5),
        detector=DetectorConfig.small(),
        layer_decay=0.9,
        warmup_weight=1.0,
    ),
    "smoke": Config(
        backbone=ViTConfig("small", dim=32, depth=2, heads=2, image_size=64, queries=6),
        levels=(1, 1, 1),
        level_scales=(2, 1, 0.5),
        detector=DetectorConfig.smoke(),
        warmup_weight=1.0,
        keypoints=6,
        iterations=3,
    ),
}


class AttentionShift(nn.Module):
    """Wiring: a ViT with query tokens, the point branch, the label path, and the student it teaches."""

    KEY: ClassVar[str] = "AS"
    SUPERVISION: ClassVar[str] = "points"
    TASK: ClassVar[str] = "instances"
    FIRST_STAGE: ClassVar[tuple[str, ...]] = ("vit", "points", "classifier")
    TRAINING: ClassVar[dict[str, Training]] = {
        "smoke": Training(lr=1e-3, steps=4, batch=2),
        "small": Training(lr=1e-3, steps=400, batch=12),
        # [AS Sec. 5.1]: 12 epochs of 16 images, AdamW 1e-4, weight decay .05, divided by ten after epochs 8 and 11
        "paper": Training(
            lr=1e-4,
            weight_decay=0.05,
            schedule="step",
            milestones=(8 / 12, 11 / 12),
            epochs=12,
            batch=16,
        ),
    }

    def __init__(self, classes: int, config: Config):
        super().__init__()
        self.config, self.classes = config, classes
        self.vit = starting_backbone(config.backbone, config.weights)
        width = self.vit.dim
        self.points = PointHead(width, classes)
        self.classifier = TokenClassifier(width, classes) if config.warmup_weight else None
        self.chooser = (
            DepthChooser(width, classes, config.detector.width) if config.depth < 0 else None
        )
        self.levels = TokenLevels(
            width, config.detector.channels, config.levels, config.level_scales
        )
        self.detector = Detector(classes, config.detector)
        start_heads(self.detector, config.weights)
        self.labeller = Labeller(config, self.vit.stride)

    @classmethod
    def build(cls, categories: Sequence[Category], scale: str, **overrides: Any) -> Self:
        """The method for the thing classes of a dataset; `overrides` replace fields of the scale's Config."""
        return cls(sum(c.is_thing for c in categories), replace(SCALES[scale], **overrides))

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """L_P, L_D and L_M of [AS Sec. 4], with the MIL head's and the warm-up's beside them."""
        objects = self.objects(batch)
        seen = self.vit(batch.images, self.config.levels, trace=True)
        with torch.autocast(batch.images.device.type, enabled=False):
            answer, points, query = self.matched(seen, objects, batch)
            losses = self.token_losses(seen, objects, batch.sizes) if self.classifier else {}
            if self.config.stage == "points" or not len(objects):
                return losses | self.point_losses(answer, points, query)
            scene = Scene.of(objects, batch.sizes, seen.grid, self.vit.stride)
            attention, mil = self.self_attention(seen, objects, scene, query, batch.sizes)
            parts = self.labeller.parts(self.features(seen, batch.sizes), scene, attention)
            if self.config.keypoints_as_points:
                points = self.with_keypoints(points, objects, parts, seen.grid)
                query = points.matched(*answer, self.config.place_weight)
            losses |= self.point_losses(answer, points, query) | mil
        return losses | self.student_losses(seen, objects, scene, parts, batch)

    def objects(self, batch: Batch) -> Objects:
        """The things pointed at. One line of complaint if a class is not among those the method was built for."""
        objects = Objects.of([each.things() for each in batch.points])
        if len(objects) and int(objects.point_label.max()) >= self.classes:
            bad = int(objects.point_label.max())
            raise InputError(
                f"points: class index {bad} is out of range, there are {self.classes} thing classes"
            )
        return objects

    def matched(
        self, seen: ViTOutput, objects: Objects, batch: Batch
    ) -> tuple[tuple, PointTargets, Tensor]:
        """Answers of the query tokens, the points as their targets, and the query of each point. [AS Sec. 3.1]"""
        anchors = self.vit.anchors if self.config.backbone.anchored else None
        answer = self.points(seen.queries.float(), anchors)
        # UNSTATED [AS Sec. 3.1]: places are shares of the padded picture, which is what query tokens can see
        extent = batch.images.new_tensor([batch.images.shape[-1], batch.images.shape[-2]])
        points = PointTargets(objects.point_label, objects.xy / extent, objects.point_image)
        return answer, points, points.matched(*answer, self.config.place_weight)

    def point_losses(self, answer: tuple, points: PointTargets, query: Tensor) -> dict[str, Tensor]:
        """L_P = l_L1 + l_cls. [AS Sec. 4]"""
        count = world_mean(answer[0].new_tensor(float(len(query)))).clamp(min=1)
        category, place = points.losses(*answer, query, count)
        return {"point_class": category, "point_place": self.config.place_weight * place}

    def with_keypoints(
        self, points: PointTargets, objects: Objects, parts: Parts, grid: tuple[int, int]
    ) -> PointTargets:
        """Every key-point a supervision point of its object's class. [AS Sec. 3.2]"""
        owner, column = parts.valid.nonzero(as_tuple=True)
        share = token_centres(parts.token[owner, column], grid, 1.0) / parts.token.new_tensor(
            [grid[1], grid[0]]
        )
        return points.extended(objects.label[owner], share, objects.image[owner])

    def token_losses(
        self, seen: ViTOutput, objects: Objects, sizes: list[tuple[int, int]]
    ) -> dict[str, Tensor]:
        """DEVIATION [AS Sec. 3.1]: patch tokens are taught the points' own labels, for features worth shifting in."""
        logits, weight = self.classifier(seen.tokens.float()), self.config.warmup_weight
        real = real_tokens(sizes, seen.grid, self.vit.stride, logits.device)
        at = token_at(objects.xy, seen.grid, self.vit.stride)
        picture = picture_label_loss(logits, real, objects.point_image, objects.point_label)
        token = point_label_loss(logits, at, objects.point_image, objects.point_label)
        return {"warm_picture": weight * picture, "warm_token": weight * token}

    def features(self, seen: ViTOutput, sizes: list[tuple[int, int]]) -> Tensor:
        """[b, T, D] Phi: what the label path compares. No gradient comes back from it."""
        tokens = seen.tokens.detach().float()
        if not self.config.centred:
            return tokens
        real = real_tokens(sizes, seen.grid, self.vit.stride, tokens.device).float()[..., None]
        return tokens - (tokens * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)

    def attention_maps(
        self, seen: ViTOutput, objects: Objects, query: Tensor, sizes: list[tuple[int, int]]
    ) -> Tensor:
        """[n, depths, T] self-attention maps A^S, a mean over an object's points; 0 without a query. [AS Sec. 3.1]"""
        if self.config.attention == "point":
            directions = F.normalize(self.features(seen, sizes), dim=-1)
            at = token_at(objects.xy, seen.grid, self.vit.stride)
            like = directions[objects.point_image, at, None] @ directions[
                objects.point_image
            ].transpose(1, 2)
            return objects.per_object(like)
        rows = query.new_zeros(len(seen.tokens), max(objects.slot_count, 1))
        rows[objects.point_image, objects.slot] = query.clamp(min=0)
        depths = min(self.config.depths, self.vit.depth)
        rolled = rollout_rows(self.vit, seen.trace, rows + seen.trace.query_start, depths)
        own = rolled[:, objects.point_image, objects.slot, seen.trace.patches].transpose(0, 1)
        return objects.per_object(own * (query >= 0)[:, None, None])

    def self_attention(
        self,
        seen: ViTOutput,
        objects: Objects,
        scene: Scene,
        query: Tensor,
        sizes: list[tuple[int, int]],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A^S [n, T] at the depth whose box looks most like the object's class, and the loss that teaches choosing."""
        stack = self.attention_maps(seen, objects, query, sizes)
        depths = stack.shape[1]
        if self.chooser is None or depths == 1:
            return stack[:, min(max(self.config.depth, 0), depths - 1)], {}
        every = scene.repeated(depths)
        stretched = maps.unit_range(stack.flatten(0, 1), every.real)
        boxes = self.labeller.boxes(stretched, every, self.config.foreground).unflatten(
            0, (-1, depths)
        )
        share = self.chooser(seen.map().float(), self.vit.stride, boxes, scene.image)
        said = share.sum(1).clamp(1e-6, 1 - 1e-6)
        loss = F.binary_cross_entropy(said, F.one_hot(objects.label, self.classes).float())
        row = torch.arange(len(stack), device=stack.device)
        return stack[row, share[row, :, objects.label].argmax(1)], {
            "mil": self.config.mil_weight * loss
        }

    def student_losses(
        self, seen: ViTOutput, objects: Objects, scene: Scene, parts: Parts, batch: Batch
    ) -> dict[str, Tensor]:
        """L_D on the pseudo boxes and L_M at the key-points. [AS Sec. 4]"""
        targets = [
            BoxTargets(*pair)
            for pair in zip(objects.split(parts.boxes), objects.split(objects.label))
        ]
        points = self.labeller.mask_points(parts, scene)
        starts = objects.starts

        def mask_loss(logits: Tensor, boxes: Tensor, image: Tensor, target: Tensor) -> Tensor:
            return mask_point_loss(logits, boxes, points.rows(starts[image] + target))

        losses = self.detector.losses(
            self.levels(seen.features), batch.images.shape[-2:], batch.sizes, targets, mask_loss
        )
        weights = {"box": self.config.box_weight, "mask": self.config.mask_weight}
        return {name: weights.get(name, 1.0) * loss for name, loss in losses.items()}

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: list[tuple[int, int]]) -> list[Prediction]:
        """Detector and mask head alone. [AS Sec. 4]"""
        seen = self.vit(images, self.config.levels)
        found = self.detector.detect(self.levels(seen.features), images.shape[-2:], sizes)
        return [Prediction(row, instances=instances) for row, instances in enumerate(found)]

    @torch.no_grad()
    def explain(self, batch: Batch) -> tuple[Parts, Scene]:
        """What the label path finds in a batch with points."""
        objects = self.objects(batch)
        seen = self.vit(batch.images, trace=True)
        scene = Scene.of(objects, batch.sizes, seen.grid, self.vit.stride)
        _, _, query = self.matched(seen, objects, batch)
        attention, _ = self.self_attention(seen, objects, scene, query, batch.sizes)
        return self.labeller.parts(
            self.features(seen, batch.sizes), scene, attention, keep_path=True
        ), scene

    def pseudo_labels(self, batch: Batch) -> list[Instances]:
        """Masks and boxes of the label path, a row an object in the order of the points."""
        parts, scene = self.explain(batch)
        coarse = parts.masks().unflatten(1, scene.grid)[:, None].float()
        fine = F.interpolate(coarse, scale_factor=self.vit.stride, mode="bilinear")[:, 0] > 0.5
        objects = self.objects(batch)
        rows = zip(*(objects.split(t) for t in (fine, parts.boxes, objects.label)), batch.sizes)
        return [Instances(mask[:, :h, :w], torch.ones(len(mask), device=mask.device), label, boxes)
                for mask, boxes, label, (h, w) in rows]  # fmt: skip

    def student_labels(self, batch: Batch) -> list[Instances]:
        """What a refinement trains on: the student's own answer to each point, else the label path's. [AS Sec. 5.1]"""
        found = [prediction.instances for prediction in self.predict(batch.images, batch.sizes)]
        places = self.objects(batch).place.split(self.objects(batch).counts)
        return [replaced_rows(known, own, meant_by_points(own, place, known.label))
                for known, own, place in zip(self.pseudo_labels(batch), found, places)]  # fmt: skip

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Early blocks of the pretrained ViT learn more slowly than what stands on top of it."""
        groups = layer_decay_groups(self.vit, lr, weight_decay, self.config.layer_decay)
        beside = [p for name, p in self.named_parameters() if not name.startswith("vit.")]
        return [*groups, *decay_groups(beside, lr, weight_decay)]
