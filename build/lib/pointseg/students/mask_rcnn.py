"""Mask R-CNN on a plain ViT: region proposals, boxes and masks, taught by boxes and by whatever is
known of the masks. Put together from torchvision's parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from pointseg.nets.roi_heads import RegionPool, box_head, box_predictor, mask_head
from pointseg.nets.start import start_heads, starting_backbone
from pointseg.nets.timm_backbone import IMAGENET, IMAGENET_NETWORK
from pointseg.nets.token_levels import TokenLevels
from pointseg.nets.vit import TokenViT, ViTConfig, ViTOutput, layer_decay_groups
from pointseg.ops.parameter_groups import decay_groups
from pointseg.ops.processes import child, draws_of, normaliser, uniform
from pointseg.structures import Batch, Instances, Loss, Prediction

Sizes = list[tuple[int, int]]  # (h, w) of each image without padding


LOSSES = {name: Loss() for name in ("rpn_class", "rpn_box", "class", "box", "mask")}


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Defaults are AttentionShift's official code at paper scale, where the paper is silent
    (UNSTATED [AS Sec. 4])."""

    backbone: ViTConfig = field(
        default_factory=partial(ViTConfig, "vit_small_patch16_224")  # [AS Sec. 5.1]
    )
    weights: str | None = None  # "shipped", or a file; [AS Sec. 5.1] an MAE on ImageNet-1K
    layer_decay: float = 0.75  # UNSTATED [AS Sec. 5.1]: official code
    levels: tuple[int, ...] = (3, 5, 7, 11, 11)  # the block of each level of the pyramid
    level_scales: tuple[float, ...] = (4, 2, 1, 0.5, 0.25)  # of its map to the token grid
    channels: int = 256
    anchors: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)  # sides, one a level
    heads: str = "decoder"  # or "light"
    width: int = 256
    rpn_before: int = 2000
    rpn_after: int = 1000
    rpn_sample: int = 256
    rois: int = 512
    positives: float = 0.25
    box_size: int = 7
    mask_size: int = 14
    samples: int = 2  # positions read a side of each RoI cell
    roi_side: float = 224.0  # side of the regions that are read at stride 16 (FPN, Eq. 1)
    mask_rois: int = 128  # regions of an image that teach masks; the targets' own boxes come first
    class_agnostic_masks: bool = False
    score: float = 0.05
    nms: float = 0.5
    detections: int = 100


# For images of 128 to 192 pixels, tokens of 8 and levels of 4, 8 and 16, where a region of 112
# pixels has seven cells of the coarsest. DEVIATION [AS Sec. 4]: light heads.
SMALL = MaskRCNNConfig(
    backbone=ViTConfig("small", queries=20, anchored=True), weights="shipped", layer_decay=0.9,
    levels=(5, 5, 5), level_scales=(2, 1, 0.5), channels=96, anchors=(20.0, 40.0, 80.0),
    heads="light", width=192, rpn_before=400, rpn_after=200, rpn_sample=64, rois=32, mask_rois=6,
    samples=1, roi_side=112.0, class_agnostic_masks=True, detections=20,
)  # fmt: skip
# DEVIATION [AS Sec. 5.1]: a hybrid ViT, see FeatureStem; anchors and regions for 320 pixels.
# Tokens of stride 8 would be 1,600 on images side by side, four times as many as these
PHOTOS = replace(
    SMALL, weights=None, levels=(3, 3, 3), level_scales=(4, 2, 1), anchors=(40.0, 90.0, 200.0),
    roi_side=224.0,
    backbone=ViTConfig("small", depth=4, patch=16, queries=20, anchored=True, image_size=320,
                       stem="features", stem_network=IMAGENET_NETWORK, stem_weights=IMAGENET),
)  # fmt: skip
CONFIGS = {
    "paper": MaskRCNNConfig(),
    "small": SMALL,
    "photos": PHOTOS,
    "smoke": replace(
        SMALL, backbone=ViTConfig("small", dim=32, depth=2, heads=2, image_size=64, queries=6),
        weights=None, layer_decay=0.75, levels=(1, 1, 1), channels=16, width=32, rpn_before=50,
        rpn_after=20, rpn_sample=16, rois=8, mask_rois=4, detections=10,
    ),
}  # fmt: skip


class MaskTargets(Protocol):
    """What is known of the masks of n objects."""

    def loss(self, logits: Tensor, boxes: Tensor, row: Tensor) -> Tensor:
        """Loss of mask logits [p, s, s] of regions [p, 4] that show the objects [p]."""


@dataclass(frozen=True)
class Targets:
    """What is known of the objects of a batch, image by image."""

    boxes: list[Tensor]  # [m, 4] each
    label: list[Tensor]  # [m] int64 from 0
    masks: MaskTargets  # of all objects in one row


@dataclass(frozen=True)
class Features:
    """What student and labeller look at: tokens of a ViT, and the network that explains them."""

    vit: TokenViT
    output: ViTOutput


class Backbone(nn.Module):
    """A ViT alone. As a student it learns nothing from labels: it is what a first stage trains."""

    def __init__(self, config: MaskRCNNConfig):
        super().__init__()
        self.config = config
        self.vit = starting_backbone(config.backbone, config.weights)

    def features(self, images: Tensor, sizes: Sizes, trace: bool = True) -> Features:
        """`trace` keeps what the attention of blocks can be formed from again."""
        return Features(self.vit, self.vit(images, self.config.levels, trace))

    def losses(self, features: Features, targets: None, batch: Batch) -> dict[str, Tensor]:
        return {}

    def param_groups(
        self, lr: float, weight_decay: float, beside: Iterable[nn.Parameter] = ()
    ) -> list[dict[str, Any]]:
        """Early blocks of the pretrained ViT learn more slowly than what stands on it or beside."""
        groups = layer_decay_groups(self.vit, lr, weight_decay, self.config.layer_decay)
        on_top = [p for name, p in self.named_parameters() if not name.startswith("vit.")]
        return [*groups, *decay_groups([*on_top, *beside], lr, weight_decay)]

    def compiled_parts(self) -> list[nn.Module]:
        """The blocks of the ViT, all of one shape."""
        return list(self.vit.blocks)


class MaskRCNN(Backbone):
    """The student of AttentionShift, and on true masks the upper row of its tables."""

    def __init__(self, classes: int, config: MaskRCNNConfig):
        super().__init__(config)
        vit, scales = self.vit, config.level_scales
        self.levels = TokenLevels(vit.dim, config.channels, config.levels, scales)
        strides = [vit.stride / scale for scale in scales]
        pool = partial(RegionPool, strides, config.roi_side, config.samples)
        self.rpn = region_proposals(config)
        self.regions = RoIHeads(
            pool(config.box_size),
            box_head(config.heads, config.channels, config.box_size, config.width),
            box_predictor(config.width, classes), 0.5, 0.5, config.rois, config.positives, None,
            config.score, config.nms, config.detections,
        )  # fmt: skip
        channels = 1 if config.class_agnostic_masks else classes
        self.mask_pool = pool(config.mask_size)
        self.mask_head = mask_head(config.heads, config.channels, config.width, channels)
        if config.weights:
            start_heads(self, config.weights)

    def losses(self, features: Features, targets: Targets, batch: Batch) -> dict[str, Tensor]:
        """Losses of region proposals, of classes and boxes, and of masks. [AS Sec. 4]"""
        maps, sizes, c = self.pyramid(features), batch.sizes, self.config
        known = [{"boxes": boxes, "labels": label + 1}
                 for boxes, label in zip(targets.boxes, targets.label)]  # fmt: skip
        draws = draws_of(batch)
        self.rpn.fg_bg_sampler = RowSampler(c.rpn_sample, 0.5, child(draws, 0))
        self.regions.fg_bg_sampler = RowSampler(c.rois, c.positives, child(draws, 1))
        proposals, rpn = self.rpn(image_list(batch.images, sizes), maps, known)
        rois, rows, labels, offsets = self.regions.select_training_samples(proposals, known)
        outputs = self.regions.box_head(self.regions.box_roi_pool(maps, rois, sizes))
        logits, deltas = self.regions.box_predictor(outputs)
        losses = box_losses(logits.float(), deltas.float(), torch.cat(labels), torch.cat(offsets))
        mask = self.mask_loss(maps, Regions.shown(rois, rows, labels, c.mask_rois), targets, sizes)
        return losses | {"rpn_class": rpn["loss_objectness"],
                         "rpn_box": rpn["loss_rpn_box_reg"], "mask": mask}  # fmt: skip

    def mask_loss(
        self, maps: dict[str, Tensor], regions: Regions, targets: Targets, sizes: Sizes
    ) -> Tensor:
        """Loss of the masks of regions that show an object."""
        logits = self.mask_logits(maps, regions.boxes, sizes, torch.cat(regions.label))
        starts = torch.tensor([0, *map(len, targets.boxes)]).cumsum(0).tolist()
        rows = torch.cat([row + start for row, start in zip(regions.row, starts)])
        return targets.masks.loss(logits, torch.cat(regions.boxes), rows)

    def mask_logits(
        self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, label: Tensor
    ) -> Tensor:
        """[p, s, s] mask logits of regions, each in the channel of its class [p]."""
        logits = self.mask_head(self.mask_pool(maps, boxes, sizes)).float()
        channel = torch.zeros_like(label) if self.config.class_agnostic_masks else label
        return logits[torch.arange(len(label), device=label.device), channel]

    def pyramid(self, features: Features) -> dict[str, Tensor]:
        """Levels as torchvision wants them, in float32: boxes take their precision from it."""
        levels = self.levels(features.output.features)
        return {str(i): level.float() for i, level in enumerate(levels)}

    @torch.no_grad()
    def detections(self, features: Features, images: Tensor, sizes: Sizes) -> list[Instances]:
        """Instances of each image, best first. The module must be in eval mode."""
        maps = self.pyramid(features)
        proposals, _ = self.rpn(image_list(images, sizes), maps)
        rows, _ = self.regions(maps, proposals, sizes)
        boxes, label = [row["boxes"] for row in rows], [row["labels"] - 1 for row in rows]
        logits = self.mask_logits(maps, boxes, sizes, torch.cat(label))
        shares = logits.sigmoid().split([len(b) for b in boxes])
        return [Instances(pasted(share, box, size), row["scores"].float(), kind, box)
                for share, box, size, row, kind in zip(shares, boxes, sizes, rows, label)
                ]  # fmt: skip

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        """Detector and mask head alone. [AS Sec. 4]"""
        instances = self.detections(self.features(images, sizes, trace=False), images, sizes)
        return [Prediction(row, instances=each) for row, each in enumerate(instances)]


@dataclass(frozen=True)
class Regions:
    """Regions that show an object, image by image."""

    boxes: list[Tensor]  # [p, 4] each
    label: list[Tensor]  # [p]
    row: list[Tensor]  # [p] the object, counted within its image

    @classmethod
    def shown(
        cls, rois: list[Tensor], rows: list[Tensor], labels: list[Tensor], most: int
    ) -> Regions:
        """At most `most` positive regions an image; the targets' own boxes, which come last,
        first."""
        picks = [label.nonzero()[:, 0].flip(0)[:most] for label in labels]
        boxes, row, label = ([each[pick] for each, pick in zip(group, picks)]
                             for group in (rois, rows, labels))  # fmt: skip
        return cls(boxes, [each - 1 for each in label], row)


class RegionProposals(RegionProposalNetwork):
    """torchvision's, with losses over the number of samples in the world."""

    def compute_loss(self, objectness, pred_bbox_deltas, labels, regression_targets):
        positive, negative = (torch.cat(rows) for rows in self.fg_bg_sampler(labels))
        chosen, wanted = positive | negative, torch.cat(labels)
        count = normaliser(chosen.sum(), objectness.device)
        category = F.binary_cross_entropy_with_logits(
            objectness.flatten()[chosen], wanted[chosen], reduction="sum"
        )
        offsets = torch.cat(regression_targets)[positive]
        box = F.smooth_l1_loss(pred_bbox_deltas[positive], offsets, reduction="sum", beta=1 / 9)
        return category / count, box / count


def region_proposals(config: MaskRCNNConfig) -> RegionProposals:
    """RPN with three anchor shapes a position, trained at overlaps .7 / .3."""
    anchors = AnchorGenerator(
        tuple((side,) for side in config.anchors), ((0.5, 1.0, 2.0),) * len(config.anchors)
    )
    keep = {"training": config.rpn_before, "testing": max(config.rpn_before // 2, 1)}
    after = {"training": config.rpn_after, "testing": max(config.rpn_after // 2, 1)}
    head = RPNHead(config.channels, anchors.num_anchors_per_location()[0])
    return RegionProposals(anchors, head, 0.7, 0.3, config.rpn_sample, 0.5, keep, after, 0.7)


@dataclass(frozen=True)
class RowSampler:
    """Positives up to a share, and negatives up to the size, of each image; drawn by its seed."""

    size: int
    positives: float
    draws: Tensor  # [b] int64

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Masks of positives (labels [a] >= 1) and of negatives (0) for each image."""
        positive, negative = [], []
        for label, draw in zip(labels, self.draws):
            chance = uniform(draw[None], len(label))[0]
            positive.append(_largest(chance, label >= 1, int(self.size * self.positives)))
            room = self.size - int(positive[-1].sum())
            negative.append(_largest(chance, label == 0, room))
        return positive, negative


def _largest(chance: Tensor, allowed: Tensor, count: int) -> Tensor:
    """[a] bool: the `count` allowed entries with the largest chance [a]."""
    top = chance.masked_fill(~allowed, -1).topk(min(count, len(chance))).indices
    return torch.zeros_like(allowed).index_fill(0, top, True) & allowed


def box_losses(
    logits: Tensor, deltas: Tensor, labels: Tensor, offsets: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy of the classes of regions [r] and smooth L1 of the boxes of positive ones, both
    over the number of regions in the world; logits [r, 1 + C], deltas [r, 4 (1 + C)]."""
    count, positive = normaliser(len(labels), logits.device), labels > 0
    ours = deltas.unflatten(1, (-1, 4))[positive, labels[positive]]
    box = F.smooth_l1_loss(ours, offsets[positive], reduction="sum", beta=1 / 9)
    return {"class": F.cross_entropy(logits, labels, reduction="sum") / count, "box": box / count}


@dataclass(frozen=True)
class FullMasks:
    """True masks of n objects: the targets of a mask head that learns from every pixel."""

    masks: Tensor  # [n, H, W] bool

    def loss(self, logits: Tensor, boxes: Tensor, row: Tensor) -> Tensor:
        """Mean binary cross-entropy of mask logits [p, s, s] with the masks [p] cut out by
        boxes."""
        side = (torch.arange(logits.shape[-1], device=logits.device) + 0.5) / logits.shape[-1]
        span = boxes[:, 2:] - boxes[:, :2]
        columns = (boxes[:, :1] + side * span[:, :1]).long().clamp(0, self.masks.shape[2] - 1)
        rows = (boxes[:, 1:2] + side * span[:, 1:]).long().clamp(0, self.masks.shape[1] - 1)
        wanted = self.masks[row[:, None, None], rows[:, :, None], columns[:, None, :]]
        loss = F.binary_cross_entropy_with_logits(logits, wanted.to(logits), reduction="sum")
        return loss / normaliser(wanted.numel(), logits.device)


def image_list(images: Tensor, sizes: Sizes) -> ImageList:
    """Only the shape of the padded images matters to the anchors."""
    return ImageList(images.new_empty(len(sizes), 0, *images.shape[-2:]), sizes)


def pasted(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, h, w] bool: mask probabilities [n, s, s] read at the pixel centres inside their boxes,
    with the geometry that the losses teach: the centre of cell i lies at (i + 1/2) / s of the
    box."""
    across = _cell_weights(boxes[:, 0], boxes[:, 2], size[1], masks.shape[2])
    down = _cell_weights(boxes[:, 1], boxes[:, 3], size[0], masks.shape[1])
    rows = [row @ mask @ column.T > 0.5 for row, mask, column in zip(down, masks, across)]
    return torch.stack(rows) if rows else masks.new_zeros(0, *size, dtype=torch.bool)


def _cell_weights(low: Tensor, high: Tensor, pixels: int, cells: int) -> Tensor:
    """[n, pixels, cells] shares of mask cells in the pixel centres of one axis, 0 off the box."""
    centre = torch.arange(pixels, device=low.device) + 0.5
    at = (centre - low[:, None]) / (high - low).clamp(min=1e-3)[:, None]
    cell = (at * cells - 0.5).clamp(0, cells - 1)
    near = (cell[..., None] - torch.arange(cells, device=low.device)).abs()
    return (1 - near).clamp(min=0) * ((at >= 0) & (at <= 1))[..., None]
