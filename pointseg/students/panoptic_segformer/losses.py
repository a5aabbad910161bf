"""What the panoptic student is asked for: matching, and every loss with its weight by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

from pointseg.ops.focal import focal_cost, focal_loss
from pointseg.structures import IGNORE, InputError

# Summed over decoder layers. [PSF Sec. 4.1]; stuff_class: UNSTATED [PSF Sec. 4.1]: 2 x 2 in the official code.
WEIGHTS = {"location_class": 2.0, "location_l1": 5.0, "location_giou": 2.0, "thing_dice": 2.0,
           "stuff_class": 4.0, "stuff_dice": 2.0}  # fmt: skip
THING_LOSSES = ("location_class", "location_l1", "location_giou", "thing_dice")
MATCH_CLASS, MATCH_L1, MATCH_GIOU = 2.0, 5.0, 2.0  # [PSF Sec. 4.1]


@dataclass(frozen=True)
class PanopticTarget:
    """What one image should look like; all on the padded canvas [H, W]."""

    things: Tensor  # [n, H, W] bool
    thing_label: Tensor  # [n] int64 index among the thing classes
    boxes: Tensor  # [n, 4] (x, y, w, h) about the centre, parts of the canvas
    stuff: Tensor  # [H, W] int64 index among the stuff classes, IGNORE elsewhere
    known: Tensor | None = None  # [H, W] bool, pixels that may be asked for; None: all


def centred_boxes(masks: Tensor) -> Tensor:
    """[n, 4] tight (x, y, w, h) of masks [n, H, W], parts of the canvas; an empty mask gets its middle half. [PSPS]"""
    h, w = masks.shape[-2:]
    (left, right), (top, bottom) = _extent(masks.any(1)), _extent(masks.any(2))
    xyxy = torch.stack([left / w, top / h, right / w, bottom / h], -1)
    boxes = box_convert(xyxy, "xyxy", "cxcywh")
    return torch.where(
        masks.flatten(1).any(1)[:, None], boxes, boxes.new_tensor([0.5, 0.5, 0.5, 0.5])
    )


def _extent(seen: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last True of each row [n, k]."""
    first = seen.float().argmax(1)
    last = seen.shape[1] - seen.flip(1).float().argmax(1)
    return first, last


def match_prices(logits: Tensor, boxes: Tensor, label: Tensor, wanted: Tensor) -> Tensor:
    """[r, m] price of giving target m to row r of logits [r, T] and boxes [r, 4]. [PSF Sec. 4.1]"""
    overlap = generalized_box_iou(
        box_convert(boxes, "cxcywh", "xyxy"), box_convert(wanted, "cxcywh", "xyxy")
    )
    return (MATCH_CLASS * focal_cost(logits, label) + MATCH_L1 * torch.cdist(boxes, wanted, p=1)
            - MATCH_GIOU * overlap)  # fmt: skip


@torch.no_grad()
def matched(
    logits: Tensor, boxes: Tensor, targets: list[PanopticTarget], image_ids, rounds: int = 1
):
    """Hungarian matching of one layer: (image [k], query [k], target [k]) of all pairs of the batch.

    logits [b, q, T], boxes [b, q, 4]. With more `rounds` every target is served again by queries left. [PSF Sec. 3.5]
    """
    counts = [len(t.thing_label) for t in targets]
    b, q = logits.shape[:2]
    for count, name in zip(counts, image_ids):
        if count > q:
            raise InputError(f"image {name}: {count} things but only {q} queries; raise `queries`")
    label, wanted = (
        torch.cat([t.thing_label for t in targets]),
        torch.cat([t.boxes for t in targets]),
    )
    prices = match_prices(logits.flatten(0, 1).float(), boxes.flatten(0, 1).float(), label, wanted)
    prices = prices.reshape(b, q, -1).nan_to_num(1e6, 1e6, -1e6).cpu().numpy()
    found, start = [], 0
    for image, count in enumerate(counts):
        found.append(_served(prices[image, :, start : start + count], image, rounds))
        start += count
    pairs = torch.from_numpy(np.concatenate(found, axis=1)).to(logits.device)
    return pairs[0], pairs[1], pairs[2]


def _served(prices: np.ndarray, image: int, rounds: int) -> np.ndarray:
    """[3, k] rows (image, query, target) of one image."""
    free, found = np.arange(len(prices)), []
    for _ in range(rounds):
        if prices.shape[1] == 0 or len(free) < prices.shape[1]:
            break
        query, target = linear_sum_assignment(prices[free])
        found.append(np.stack([np.full_like(query, image), free[query], target]))
        free = np.delete(free, query)
    return np.concatenate(found, axis=1) if found else np.zeros((3, 0), dtype=np.int64)


def location_losses(
    logits: Tensor, boxes: Tensor, targets: list[PanopticTarget], pairs
) -> dict[str, Tensor]:
    """Class, L1 and GIoU of one layer; each divided by the number of matched queries."""
    image, query, target = pairs
    start = (
        torch.tensor([0] + [len(t.thing_label) for t in targets]).cumsum(0)[:-1].to(image.device)
    )
    row = start[image] + target
    label = torch.cat([t.thing_label for t in targets])[row]
    wanted = torch.cat([t.boxes for t in targets])[row]
    classes = logits.shape[-1]
    asked = torch.full(logits.shape[:2], classes, dtype=torch.long, device=logits.device)
    asked[image, query] = label
    found, count = boxes[image, query].float(), max(1, len(image))
    to_corners = lambda box: box_convert(box, "cxcywh", "xyxy")  # noqa: E731
    giou = generalized_box_iou_loss(to_corners(found), to_corners(wanted), reduction="sum")
    return {
        "location_class": focal_loss(logits.flatten(0, 1).float(), asked.flatten()) / count,
        "location_l1": (found - wanted).abs().sum() / count,
        "location_giou": giou / count,
    }


def dice(value: Tensor, wanted: Tensor, known: Tensor | None = None) -> Tensor:
    """[...] 1 - 2 sum(p t) / (sum p^2 + sum t^2) of raw mask values [..., h, w]: no sigmoid. [PSF Sec. 3.5]"""
    value, wanted = value.float(), wanted.float()
    if known is not None:
        value, wanted = value * known, wanted * known
    overlap = (value * wanted).sum((-2, -1))
    mass = value.square().sum((-2, -1)) + wanted.square().sum((-2, -1))
    return 1 - 2 * overlap / (mass + 1e-3)


def reduced(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each grid cell [..., h, w] that a mask [..., H, W] covers."""
    if not mask.numel():
        return mask.new_zeros(*mask.shape[:-2], *grid, dtype=torch.float32)
    flat = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return F.interpolate(flat, size=grid, mode="area").reshape(*mask.shape[:-2], *grid)


def enlarged(masks: Tensor, factor: int) -> Tensor:
    """Mask values [l, b, k, h, w] `factor` times finer, bilinear."""
    finer = F.interpolate(
        masks.flatten(0, 1), scale_factor=factor, mode="bilinear", align_corners=False
    )
    return finer.unflatten(0, masks.shape[:2])


def thing_dice(masks: Tensor, wanted: Tensor, known: Tensor | None, present: Tensor) -> Tensor:
    """Sum over layers of the mean dice; masks [l, b, k, h, w], wanted [b, k, h, w], present [b, k] bool."""
    loss = dice(masks, wanted, None if known is None else known[:, None])
    return (loss * present).sum() / present.sum().clamp(min=1)


def stuff_losses(
    presence: Tensor, masks: Tensor, wanted: Tensor, known: Tensor | None
) -> dict[str, Tensor]:
    """Class of all stuff queries and dice of those present, summed over layers.

    presence [l, b, S], masks [l, b, S, h, w], wanted [b, S, h, w].
    """
    present = wanted.flatten(2).amax(-1) > 0
    count = present.sum().clamp(min=1)
    asked = present.float().expand_as(presence)
    score = _focal_yes_or_no(presence.float(), asked)
    shape = dice(masks, wanted, None if known is None else known[:, None])
    return {"stuff_class": score / count, "stuff_dice": (shape * present).sum() / count}


def _focal_yes_or_no(logits: Tensor, asked: Tensor) -> Tensor:
    """Sum of focal losses of independent yes/no questions: label 1 of a single class is 'none'."""
    return focal_loss(logits.reshape(-1, 1), 1 - asked.reshape(-1).long())


def stuff_planes(stuff: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """[b, S, h, w] share of each cell that each stuff class covers; stuff [b, H, W] with IGNORE."""
    planes = [(stuff == c) for c in range(classes)]  # bool: a few bytes a pixel and class
    return reduced(torch.stack(planes, 1), grid)


def thing_share(targets: list[PanopticTarget]) -> float:
    """Things as a part of all targets of the batch. [PSF Sec. 3.5]"""
    things = max(1, sum(len(t.thing_label) for t in targets))
    stuff = sum(int(t.stuff[t.stuff != IGNORE].unique().numel()) for t in targets)
    return things / (things + stuff)


def balanced(losses: dict[str, Tensor], targets: list[PanopticTarget]) -> dict[str, Tensor]:
    """Weights of the table, times the share of things or of stuff among all targets. [PSF Sec. 3.5]"""
    share = thing_share(targets)
    return {name: value * WEIGHTS[name] * (share if name in THING_LOSSES else 1 - share)
            for name, value in losses.items()}  # fmt: skip
