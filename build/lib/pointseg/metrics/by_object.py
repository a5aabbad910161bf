"""Scores of pseudo masks object by object: what the label bench pairs."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation
from torch import Tensor

from pointseg.data.gauge import BORDER
from pointseg.metrics.pseudo import part_recall_of_masks
from pointseg.structures import Truth

CONTACTS = ("apart", "other", "same", "stuff")  # touches nothing, another class, its own class
DISTANCE = 0.0075  # of the diagonal: how far a border may lie off in the boundary F [DAVIS 2016]


def mask_scores(truth: Truth, masks: Tensor) -> dict[str, np.ndarray]:
    """Score -> [n] of pseudo masks [n, h, w], one an object of the truth, without its void.

    `owned` is, of an object's pixels that things have, the share that its own mask has: ownership
    without the error of a semantic map. Part scores only where parts are known. Shares of nothing
    are nan.
    """
    counted = ~truth.void
    true, pseudo = truth.masks & counted, masks & counted
    things = true & pseudo[truth.is_thing].any(0)
    common, area, whole, shared = (
        m.flatten(1).sum(1).double() for m in (true & pseudo, pseudo, true, things)
    )
    scores = {
        "iou": common / (area + whole - common).clamp(min=1),
        "precision": common / area.where(area > 0, torch.nan),
        "recall": common / whole.clamp(min=1),
        "boundary": boundary_f(true, pseudo),
        "owned": common / shared.where(truth.is_thing & (shared > 0), torch.nan),
    }
    values = {name: value.numpy() for name, value in scores.items()}
    if truth.parts is not None:
        values["part_recall"] = part_recall_of_masks(truth, pseudo)
    return values


def boundary_f(true: Tensor, pseudo: Tensor) -> Tensor:
    """[n] harmonic mean of the shares of both borders that lie near the other one; 0 for an empty
    mask."""
    if not len(true):
        return torch.zeros(0, dtype=torch.float64)
    reach = max(1, round(DISTANCE * float(np.hypot(*true.shape[-2:]))))
    borders = inner_border(torch.stack([true, pseudo]))
    near = grown(borders, reach)
    hit = (borders & near.flip(0)).flatten(2).sum(2).double()
    shares = hit / borders.flatten(2).sum(2).clamp(min=1)
    return 2 * shares.prod(0) / shares.sum(0).clamp(min=1e-12)


def inner_border(masks: Tensor) -> Tensor:
    """Pixels of masks [..., h, w] with a 4-neighbour outside; the image's frame is no border."""
    outside = ~masks
    near = outside.clone()
    near[..., 1:, :] |= outside[..., :-1, :]
    near[..., :-1, :] |= outside[..., 1:, :]
    near[..., :, 1:] |= outside[..., :, :-1]
    near[..., :, :-1] |= outside[..., :, 1:]
    return masks & near


def grown(masks: Tensor, reach: int) -> Tensor:
    """Masks [..., h, w] grown by squares of `reach` pixels to each side."""
    flat = masks.flatten(0, -3)[:, None].float()
    rows = F.max_pool2d(flat, (2 * reach + 1, 1), 1, (reach, 0))
    return F.max_pool2d(rows, (1, 2 * reach + 1), 1, (0, reach))[:, 0].view_as(masks) > 0


def contacts(truth: Truth) -> list[str]:
    """[n] of CONTACTS: the closest kin that each thing touches."""
    masks, label = truth.masks.numpy(), truth.label.tolist()
    things = truth.is_thing.tolist()
    width = max(2, round(max(masks.shape[-2:]) / BORDER))
    near = [binary_dilation(m, iterations=width) if t else m for m, t in zip(masks, things)]
    return [_contact(row, near, masks, label, things) for row in range(len(masks))]


def _contact(row: int, near: list, masks: np.ndarray, label: list[int], things: list[bool]) -> str:
    if not things[row]:
        return "stuff"
    touched = {
        label[other] == label[row]
        for other in range(len(masks))
        if other != row and things[other] and (near[row] & masks[other]).any()
    }
    return "same" if True in touched else "other" if touched else "apart"
