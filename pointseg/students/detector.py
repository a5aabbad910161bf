"""The student: region proposals, boxes and masks on a feature pyramid, put together from torchvision's parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss, paste_masks_in_image
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign

from pointseg.nets.roi_heads import box_head, box_predictor, mask_head
from pointseg.structures import Instances

# (mask logits [p, s, s] of each region's own class, regions [p, 4], row of its image [p], row of its target [p])
MaskLoss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Sizes = list[tuple[int, int]]


@dataclass(frozen=True)
class DetectorConfig:
    """Defaults are the official code's at paper scale, where the paper is silent (UNSTATED [AS Sec. 4])."""

    channels: int = 256
    anchors: tuple[float, ...] = (
        32.0,
        64.0,
        128.0,
        256.0,
        512.0,
    )  # side of the anchors of each level
    heads: str = "decoder"  # or "light"
    width: int = 256
    rpn_before: int = 2000
    rpn_after: int = 1000
    rpn_sample: int = 256
    rois: int = 512
    positives: float = 0.25
    box_size: int = 7
    mask_size: int = 14
    samples: int = 2  # places read a side of each RoI cell
    mask_rois: int = (
        128  # regions of an image whose masks are trained; those with the best overlap come first
    )
    class_agnostic_masks: bool = False
    score: float = 0.05
    nms: float = 0.5
    detections: int = 100

    @classmethod
    def small(cls) -> DetectorConfig:
        """For pictures of 128 pixels, tokens of 8 and levels of 4, 8 and 16. DEVIATION [AS Sec. 4]: light heads."""
        return cls(
            channels=96, anchors=(20.0, 40.0, 80.0), heads="light", width=192, rpn_before=400, rpn_after=200,
            rpn_sample=64, rois=32, mask_rois=6, samples=1, class_agnostic_masks=True, detections=20,
        )  # fmt: skip

    @classmethod
    def smoke(cls) -> DetectorConfig:
        """The same in miniature."""
        return replace(cls.small(), channels=16, width=32, rpn_before=50, rpn_after=20, rpn_sample=16, rois=8,
                       mask_rois=4, detections=10)  # fmt: skip


@dataclass(frozen=True)
class BoxTargets:
    """What is known of one image's objects."""

    boxes: Tensor  # [m, 4]
    label: Tensor  # [m] int64 from 0

    def for_torchvision(self) -> dict[str, Tensor]:
        return {"boxes": self.boxes, "labels": self.label + 1}


class Detector(nn.Module):
    """Mask R-CNN whose mask loss is handed in: full masks or a few points."""

    def __init__(self, classes: int, config: DetectorConfig):
        super().__init__()
        self.config, levels = config, [str(i) for i in range(len(config.anchors))]
        self.rpn = region_proposals(config)
        pool = MultiScaleRoIAlign(levels, config.box_size, config.samples)
        self.regions = RoIHeads(
            pool, box_head(config.heads, config.channels, config.box_size, config.width),
            box_predictor(config.width, classes), 0.5, 0.5, config.rois, config.positives, None,
            config.score, config.nms, config.detections,
        )  # fmt: skip
        self.mask_pool = MultiScaleRoIAlign(levels, config.mask_size, config.samples)
        channels = 1 if config.class_agnostic_masks else classes
        self.mask_head = mask_head(config.heads, config.channels, config.width, channels)

    def losses(
        self,
        maps: list[Tensor],
        size: tuple[int, int],
        sizes: Sizes,
        targets: list[BoxTargets],
        mask_loss: MaskLoss,
    ) -> dict[str, Tensor]:
        """Losses on the pyramid `maps` of pictures padded to `size`; unweighted."""
        features, known = named(maps), [target.for_torchvision() for target in targets]
        proposals, rpn = self.rpn(picture_list(maps, size, sizes), features, known)
        rois, matched, labels, offsets = self.regions.select_training_samples(proposals, known)
        seen = self.regions.box_head(self.regions.box_roi_pool(features, rois, sizes))
        logits, deltas = self.regions.box_predictor(seen)
        category, box = fastrcnn_loss(logits.float(), deltas.float(), labels, offsets)
        mask = self._mask_loss(features, sizes, rois, matched, labels, mask_loss)
        return {"rpn_class": rpn["loss_objectness"], "rpn_box": rpn["loss_rpn_box_reg"],
                "class": category, "box": box, "mask": mask}  # fmt: skip

    def _mask_loss(self, features, sizes, rois, matched, labels, mask_loss: MaskLoss) -> Tensor:
        """Mask loss of at most `mask_rois` positive regions an image; the targets' own boxes come last in `rois`."""
        chosen = [label.nonzero()[:, 0].flip(0)[: self.config.mask_rois] for label in labels]
        boxes = [roi[pick] for roi, pick in zip(rois, chosen)]
        image = torch.cat([torch.full_like(pick, i) for i, pick in enumerate(chosen)])
        target = torch.cat([row[pick] for row, pick in zip(matched, chosen)])
        label = torch.cat([row[pick] for row, pick in zip(labels, chosen)]) - 1
        logits = self.mask_logits(features, boxes, sizes, label)
        return mask_loss(logits, torch.cat(boxes), image, target)

    def mask_logits(
        self, features: dict[str, Tensor], boxes: list[Tensor], sizes: Sizes, label: Tensor
    ) -> Tensor:
        """[p, s, s] mask logits of regions, each in the channel of its class [p]."""
        logits = self.mask_head(self.mask_pool(features, boxes, sizes)).float()
        channel = torch.zeros_like(label) if self.config.class_agnostic_masks else label
        return logits[torch.arange(len(label), device=label.device), channel]

    @torch.no_grad()
    def detect(self, maps: list[Tensor], size: tuple[int, int], sizes: Sizes) -> list[Instances]:
        """Instances of each picture, best first. The module must be in eval mode."""
        features = named(maps)
        proposals, _ = self.rpn(picture_list(maps, size, sizes), features)
        found, _ = self.regions(features, proposals, sizes)
        boxes, label = [f["boxes"] for f in found], [f["labels"] - 1 for f in found]
        logits = self.mask_logits(features, boxes, sizes, torch.cat(label))
        parts = logits.sigmoid().split([len(b) for b in boxes])
        return [Instances(pasted(part, box, shape), f["scores"].float(), own, box)
                for part, box, shape, f, own in zip(parts, boxes, sizes, found, label)]  # fmt: skip


def region_proposals(config: DetectorConfig) -> RegionProposalNetwork:
    """RPN with three anchor shapes a place, trained at overlaps .7 / .3."""
    anchors = AnchorGenerator(
        tuple((side,) for side in config.anchors), ((0.5, 1.0, 2.0),) * len(config.anchors)
    )
    keep = {"training": config.rpn_before, "testing": max(config.rpn_before // 2, 1)}
    after = {"training": config.rpn_after, "testing": max(config.rpn_after // 2, 1)}
    head = RPNHead(config.channels, anchors.num_anchors_per_location()[0])
    return RegionProposalNetwork(anchors, head, 0.7, 0.3, config.rpn_sample, 0.5, keep, after, 0.7)


def named(maps: list[Tensor]) -> dict[str, Tensor]:
    """The pyramid as torchvision wants it, in float32: anchors and boxes take their precision from it."""
    return {str(i): level.float() for i, level in enumerate(maps)}


def picture_list(maps: list[Tensor], size: tuple[int, int], sizes: Sizes) -> ImageList:
    """Only the shape of the padded pictures matters to the anchors."""
    return ImageList(maps[0].new_empty(len(sizes), 0, *size), sizes)


def pasted(masks: Tensor, boxes: Tensor, shape: tuple[int, int]) -> Tensor:
    """[n, h, w] bool: mask probabilities [n, s, s] put where their boxes are."""
    return paste_masks_in_image(masks[:, None], boxes, shape, padding=1)[:, 0] > 0.5
