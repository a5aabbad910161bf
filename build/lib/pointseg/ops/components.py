"""Connected components and boxes of many small masks at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def component_labels(masks: Tensor) -> Tensor:
    """[n, h, w] int64: 8-connected components of masks [n, h, w], named by their smallest token +
    1; 0 is background.

    Minimum labels spread to neighbours, then every label jumps to its label's label, until nothing
    changes.
    """
    n, h, w = masks.shape
    nowhere = h * w + 1
    label = torch.arange(1, h * w + 1, device=masks.device).view(1, h, w).expand(n, h, w)
    label = label.masked_fill(~masks, nowhere)
    while label.numel():
        # float64 holds every integer label exactly and max_pool2d knows it
        spread = -F.max_pool2d(-label.double()[:, None], 3, 1, 1)[:, 0].long()
        spread = spread.masked_fill(~masks, nowhere).flatten(1)
        roots = torch.cat(
            [torch.zeros_like(spread[:, :1]), spread, torch.full_like(spread[:, :1], nowhere)], 1
        )
        jumped = roots.gather(1, roots.gather(1, spread)).view(n, h, w)
        if torch.equal(jumped, label):
            break
        label = jumped
    return label.masked_fill(~masks, 0)


def component_areas(label: Tensor) -> Tensor:
    """[n, h * w + 1] tokens of every component label; entry 0, the background, is 0."""
    n, h, w = label.shape
    area = torch.zeros(n, h * w + 1, dtype=torch.long, device=label.device)
    area.scatter_add_(1, label.flatten(1), torch.ones_like(label).flatten(1))
    return area.index_fill(1, torch.zeros(1, dtype=torch.long, device=label.device), 0)


def largest_components(masks: Tensor) -> Tensor:
    """[n, h, w] bool: the largest component of each mask, of equal ones the first. [AS Sec. 4]"""
    label = component_labels(masks)
    return masks & (label == component_areas(label).argmax(1)[:, None, None])


def tight_boxes(masks: Tensor, stride: float = 1.0) -> tuple[Tensor, Tensor]:
    """Boxes [n, 4] xyxy in pixels around masks [n, h, w], and which masks hold anything [n];
    empty ones get zeros."""
    filled = masks.flatten(1).any(1)
    left, right = _extent(masks.any(1))
    top, bottom = _extent(masks.any(2))
    boxes = torch.stack([left, top, right, bottom], -1) * stride
    return boxes * filled[:, None], filled


def _extent(line: Tensor) -> tuple[Tensor, Tensor]:
    """First True and one past the last True of each row [n, w], as float."""
    first = line.to(torch.uint8).argmax(1)
    last = line.shape[1] - line.flip(1).to(torch.uint8).argmax(1)
    return first.float(), last.float()


def centre_symmetric(boxes: Tensor, points: Tensor, size: Tensor) -> Tensor:
    """Boxes [n, 4] grown to be symmetric around points [n, 2]: the farther side mirrored, cut at
    size [n, 2] (w, h).

    The official code's rule ("expand"); it supposes that a point is the centre of its object's box.
    """
    reach = torch.maximum(points - boxes[:, :2], boxes[:, 2:] - points).clamp(min=0)
    low, high = points - reach, points + reach
    return torch.cat([low.clamp(min=0), torch.minimum(high, size)], -1)


def tokens_in_boxes(boxes: Tensor, grid: tuple[int, int], stride: float) -> Tensor:
    """[n, h * w] bool: the tokens whose square meets each box [n, 4]."""
    columns = torch.arange(grid[1], device=boxes.device) * stride
    rows = torch.arange(grid[0], device=boxes.device) * stride
    across = (columns + stride > boxes[:, :1]) & (columns < boxes[:, 2:3])
    down = (rows + stride > boxes[:, 1:2]) & (rows < boxes[:, 3:4])
    return (down[:, :, None] & across[:, None, :]).flatten(1)
