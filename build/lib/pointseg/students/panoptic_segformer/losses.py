"""What the panoptic student learns from: targets, their matching to queries, losses by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

from pointseg.ops.focal import focal_cost, focal_loss, presence_focal_loss
from pointseg.ops.processes import normaliser, size, world_mean
from pointseg.structures import IGNORE, InputError, Loss

# Summed over decoder layers, times the share of things or stuff among all targets [PSF Sec. 3.5].
# [PSF Sec. 4.1]; stuff_class: UNSTATED [PSF Sec. 4.1]: 2 x 2 in the official code.
LOSSES = {
    "location_class": Loss(2.0, share="things"),
    "location_l1": Loss(5.0, share="things"),
    "location_giou": Loss(2.0, share="things"),
    "thing_dice": Loss(2.0, share="things"),
    "stuff_class": Loss(4.0, share="stuff"),
    "stuff_dice": Loss(2.0, share="stuff"),
}
MATCH_CLASS, MATCH_L1, MATCH_GIOU = 2.0, 5.0, 2.0  # [PSF Sec. 4.1]


@dataclass(frozen=True)
class PanopticTarget:
    """What one image should look like; all on the padded canvas [H, W]."""

    things: Tensor  # [n, H, W] bool
    thing_label: Tensor  # [n] int64 index among the thing classes
    boxes: Tensor  # [n, 4] (x, y, w, h) about the centre, parts of the canvas
    stuff: Tensor  # [H, W] int64 index among the stuff classes, IGNORE elsewhere
    known: Tensor  # [H, W] bool: pixels that take part


@dataclass(frozen=True)
class PanopticTargets:
    """The targets of a batch."""

    images: list[PanopticTarget]

    @property
    def counts(self) -> list[int]:
        return [len(target.thing_label) for target in self.images]

    def thing_rows(self, image: Tensor, target: Tensor) -> Tensor:
        """[k] rows among the things of all images, of things `target` [k] of images `image` [k]."""
        starts = torch.tensor([0, *self.counts[:-1]], device=image.device).cumsum(0)
        return starts[image] + target

    def known_on(self, grid: tuple[int, int]) -> Tensor:
        """[b, 1, h, w] share of each cell that takes part."""
        return reduced(torch.stack([target.known for target in self.images]), grid)[:, None]

    def thing_share(self) -> Tensor:
        """Things as a part of all targets, over all processes. [PSF Sec. 3.5]"""
        stuff = [t.stuff[t.stuff != IGNORE].unique().numel() for t in self.images]
        counts = torch.tensor([sum(self.counts), sum(stuff)], device=self.images[0].stuff.device)
        counts = world_mean(counts.float())
        things = counts[0].clamp(min=1 / size())
        return things / (things + counts[1])


def centred_boxes(masks: Tensor) -> Tensor:
    """[n, 4] tight (x, y, w, h) of masks [n, H, W], parts of the canvas.

    An empty mask gets the middle half of the canvas. UNSTATED [PSPS]: the official code.
    """
    h, w = masks.shape[-2:]
    (left, right), (top, bottom) = _extent(masks.any(1)), _extent(masks.any(2))
    xyxy = torch.stack([left / w, top / h, right / w, bottom / h], -1)
    boxes = box_convert(xyxy, "xyxy", "cxcywh")
    empty = ~masks.flatten(1).any(1)
    return boxes.masked_fill(empty[:, None], 0.5)


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last True of each row of lines [n, k]."""
    first = line.float().argmax(1)
    last = line.shape[1] - line.flip(1).float().argmax(1)
    return first, last


@dataclass(frozen=True)
class Matches:
    """Pairs of a query and a thing, of all images."""

    image: Tensor  # [k]
    query: Tensor  # [k]
    target: Tensor  # [k] row among the things of its image


def match_prices(logits: Tensor, boxes: Tensor, label: Tensor, target_boxes: Tensor) -> Tensor:
    """[r, m] price of giving target m to row r of logits [r, T] and boxes [r, 4]. [PSF Sec. 4.1]"""
    overlap = generalized_box_iou(corners(boxes), corners(target_boxes))
    distance = torch.cdist(boxes, target_boxes, p=1)
    return MATCH_CLASS * focal_cost(logits, label) + MATCH_L1 * distance - MATCH_GIOU * overlap


def corners(boxes: Tensor) -> Tensor:
    return box_convert(boxes, "cxcywh", "xyxy")


@torch.no_grad()
def matched(
    logits: Tensor, boxes: Tensor, targets: PanopticTargets, image_ids: list, rounds: int = 1
) -> Matches:
    """Hungarian matches of one layer's logits [b, q, T] and boxes [b, q, 4].

    With more `rounds` every target is served again by queries left. [PSF Sec. 3.5]
    """
    b, q = logits.shape[:2]
    for count, name in zip(targets.counts, image_ids):
        if count > q:
            raise InputError(f"image {name}: {count} things but only {q} queries; raise `queries`")
    label = torch.cat([t.thing_label for t in targets.images])
    target_boxes = torch.cat([t.boxes for t in targets.images])
    flat = logits.flatten(0, 1).float(), boxes.flatten(0, 1).float()
    prices = match_prices(*flat, label, target_boxes).reshape(b, q, -1)
    prices = prices.nan_to_num(1e6, 1e6, -1e6).cpu().numpy()
    columns = np.split(prices, np.cumsum(targets.counts)[:-1], axis=2)
    rows = [_served(part[image], image, rounds) for image, part in enumerate(columns)]
    return Matches(*torch.from_numpy(np.concatenate(rows, axis=1)).to(logits.device))


def _served(prices: np.ndarray, image: int, rounds: int) -> np.ndarray:
    """[3, k] rows (image, query, target) of one image."""
    free, pairs = np.arange(len(prices)), [np.zeros((3, 0), dtype=np.int64)]
    for _ in range(rounds):
        if prices.shape[1] == 0 or len(free) < prices.shape[1]:
            break
        query, target = linear_sum_assignment(prices[free])
        pairs.append(np.stack([np.full_like(query, image), free[query], target]))
        free = np.delete(free, query)
    return np.concatenate(pairs, axis=1)


def location_losses(
    logits: Tensor, boxes: Tensor, targets: PanopticTargets, matches: Matches
) -> dict[str, Tensor]:
    """Class, L1 and GIoU of one layer; each divided by the number of matched queries."""
    row = targets.thing_rows(matches.image, matches.target)
    label = torch.cat([t.thing_label for t in targets.images])[row]
    target_boxes = torch.cat([t.boxes for t in targets.images])[row]
    no_class = logits.shape[-1]
    classes = torch.full(logits.shape[:2], no_class, dtype=torch.long, device=logits.device)
    classes[matches.image, matches.query] = label
    located = boxes[matches.image, matches.query].float()
    count = normaliser(torch.tensor(float(len(row)), device=logits.device))
    giou = generalized_box_iou_loss(corners(located), corners(target_boxes), reduction="sum")
    return {
        "location_class": focal_loss(logits.flatten(0, 1).float(), classes.flatten()) / count,
        "location_l1": (located - target_boxes).abs().sum() / count,
        "location_giou": giou / count,
    }


def dice(value: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """[...] 1 - 2 sum(p t) / (sum p^2 + sum t^2) of mask values: no sigmoid. [PSF Sec. 3.5]

    Cells count as far as they are `known`. UNSTATED [PSF Sec. 3.5]: 1e-3 as in the official code.
    """
    value, target = value.float() * known, target.float() * known
    overlap = (value * target).sum((-2, -1))
    mass = value.square().sum((-2, -1)) + target.square().sum((-2, -1))
    return 1 - 2 * overlap / (mass + 1e-3)


def reduced(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each grid cell [..., h, w] that a mask [..., H, W] covers."""
    if not mask.numel():
        return mask.new_zeros(*mask.shape[:-2], *grid, dtype=torch.float32)
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return F.interpolate(flat, size=grid, mode="area").reshape(*mask.shape[:-2], *grid)


def thing_dice(masks: Tensor, target: Tensor, known: Tensor, present: Tensor) -> Tensor:
    """Sum over layers of the mean dice of masks [l, b, k, h, w] that are present [b, k]."""
    return (dice(masks, target, known) * present).sum() / normaliser(present.sum())


def stuff_losses(
    presence: Tensor, masks: Tensor, target: Tensor, known: Tensor
) -> dict[str, Tensor]:
    """Class of all stuff queries and dice of those present, summed over layers.

    presence [l, b, S], masks [l, b, S, h, w], target [b, S, h, w], known [b, 1, h, w].
    """
    present = target.flatten(2).amax(-1) > 0
    count = normaliser(present.sum())
    score = presence_focal_loss(presence.float(), present)
    shape = dice(masks, target, known)
    return {"stuff_class": score / count, "stuff_dice": (shape * present).sum() / count}


def stuff_planes(stuff: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """[b, S, h, w] share of each cell that each stuff class covers; stuff [b, H, W] with IGNORE."""
    planes = [stuff == c for c in range(classes)]  # bool: a few bytes a pixel and class
    return reduced(torch.stack(planes, 1), grid)
