"""Anchor queries: one a target, the mean of fused features over its cells. [EPLD Sec. 3.3]

All planes lie on the grid of the finest level, [b, h, w] cells; a target is a row of [b, N].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from pointseg.ops.paths import grid_cells
from pointseg.structures import Points


@dataclass(frozen=True)
class Targets:
    """The targets of a batch, as many rows as the fullest image has, at least one."""

    label: Tensor  # [b, N] int64 class, 0 where absent
    is_thing: Tensor  # [b, N] bool
    present: Tensor  # [b, N] bool
    points: Tensor  # [b, N, h, w] bool: P^01, the cells that hold a point of the target
    inside: Tensor  # [b, h, w] bool: cells without padding, of images that have targets

    @property
    def labelled(self) -> Tensor:
        """[b, h, w] bool: cells that the points of exactly one target claim.

        UNSTATED [EPLD Eq. 8]: a cell of two targets, or one in the padding, says nothing.
        """
        return (self.points.sum(1) == 1) & self.inside


def targets_on_grid(points: list[Points], inside: Tensor, canvas: tuple[int, int]) -> Targets:
    """Things in the order of their first point, then stuff classes likewise.

    UNSTATED [EPLD Eq. 1]: P and F^fuse differ in size; a point labels the cell that it stands in.
    """
    b, h, w = inside.shape
    xy, label, is_thing = (torch.cat([getattr(p, k) for p in points]) for k in POINT_FIELDS)
    image = _image_of(points, label.device)
    row, first = _rows(points, image, label, is_thing)
    shape = (b, max(1, int(row.max()) + 1 if len(row) else 0))
    planes = torch.zeros(*shape, h * w, dtype=torch.bool, device=inside.device)
    planes[image, row, grid_cells(xy, canvas, (h, w))] = True
    table = torch.zeros(3, *shape, dtype=torch.int64, device=inside.device)
    at = (image[first], row[first])
    for plane, values in zip(table, (label, is_thing.long(), torch.ones_like(label))):
        plane[at] = values[first]
    label, is_thing, present = table[0], table[1].bool(), table[2].bool()
    inside = inside & present.any(1)[:, None, None]
    return Targets(label, is_thing, present, planes.unflatten(2, (h, w)), inside)


POINT_FIELDS = ("xy", "label", "is_thing")


def _image_of(points: list[Points], device) -> Tensor:
    """[m] image of each point of the batch."""
    counts = torch.tensor([len(p) for p in points], device=device)
    return torch.arange(len(points), device=device).repeat_interleave(counts)


def _rows(points: list[Points], image: Tensor, label: Tensor, is_thing: Tensor):
    """([m] row of each point's target in its image, [k] first point of each target)."""
    target = torch.where(is_thing, torch.cat([p.target for p in points]), label)
    kind = image * 2 + ~is_thing
    group = torch.stack([kind, target], 1).unique(dim=0, return_inverse=True)[1]
    count, order = len(label), torch.arange(len(label), device=label.device)
    first = order.new_full((int(group.max()) + 1 if count else 0,), count)
    first = first.scatter_reduce(0, group, order, "amin")
    first = first[(kind[first] * count + first).argsort()]
    rank = torch.zeros_like(order).index_copy_(0, group[first], order[: len(first)])
    start = torch.searchsorted(image[first].contiguous(), image.contiguous())
    return rank[group] - start, first


def aggregated(masks: Tensor, fused: Tensor) -> Tensor:
    """Q [b, N, D]: means of F^fuse [b, D, h, w] over masks [b, N, h, w]. [EPLD Eq. 1] [EPLD Eq. 3]

    Z = 0 happens for absent targets alone; their query is zero.
    """
    weight = masks.flatten(2).to(fused.dtype)
    Z = weight.sum(-1, keepdim=True).clamp(min=1)
    return weight @ fused.flatten(2).transpose(1, 2) / Z


def interior(owner: Tensor, passes: int, inside: Tensor) -> Tensor:
    """[b, h, w] bool: cells whose (2 passes + 1) square has one owner: all eroded masks.

    `passes` erosions by 3 x 3 are one by that square. UNSTATED [EPLD Sec. 4.2]: the frame and the
    padding count as foreground, so a target cut by the frame keeps its cells there.
    """
    side, value = 2 * passes + 1, owner.float()
    largest = F.max_pool2d(value.masked_fill(~inside, -torch.inf), side, 1, passes)
    smallest = -F.max_pool2d((-value).masked_fill(~inside, -torch.inf), side, 1, passes)
    return (largest == smallest) & inside


def cleaned_masks(owner: Tensor, targets: Targets, passes: int) -> Tensor:
    """[b, N, h, w] bool M^: eroded labels, and each target's own points. [EPLD Eq. 2]

    UNSTATED [EPLD Eq. 2]: a labelled cell leaves the target that wrongly won it.
    """
    P = targets.points
    n = torch.arange(P.shape[1], device=P.device)[:, None, None]
    kept = interior(owner, passes, targets.inside) & ~P.any(1)
    return P | ((owner[:, None] == n) & kept[:, None] & targets.present[..., None, None])


def erosion_passes(grid: tuple[int, int]) -> int:
    """3 on the grid of the paper, whose shorter side has 75 cells, fewer on coarser ones.

    UNSTATED [EPLD Sec. 4.2]: resolution of the erosion. On the grid of stride 8 three passes need
    targets of 7 cells; at 128 pixels and stride 4 most would be gone.
    """
    return max(1, min(3, round(3 * min(grid) / 75)))


def class_loss(logits: Tensor, targets: Targets) -> Tensor:
    """[...] mean over n of the focal loss of Y [..., b, N, C], mean of images. [EPLD Eq. 4]

    UNSTATED [EPLD Eq. 4]: sigmoid focal loss, gamma 2, alpha 0.25, summed over classes, as PSF's.
    """
    wanted = F.one_hot(targets.label, logits.shape[-1]).to(logits.dtype).expand_as(logits)
    loss = sigmoid_focal_loss(logits, wanted, 0.25, 2.0).sum(-1) * targets.present
    N = targets.present.sum(-1).clamp(min=1)
    return (loss.sum(-1) / N).mean(-1)


def enhanced(queries: Tensor, embedding: Tensor, label: Tensor) -> Tensor:
    """Q^ [b, N, D] = Q + E^cls[y]; embedding [C, D], label [b, N]. [EPLD Eq. 5]"""
    return queries + embedding[label]
