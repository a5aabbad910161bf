"""How good the pseudo labels of a weak method are, before any student is trained on them.

Everything is per object of the truth (crowds left out, void pixels struck from both masks), so that
it can be split: by size, by how deep in the object its point lies, by whether a neighbour of the
same class touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pointseg.metrics.coco_ap import SIZE_LIMITS
from pointseg.structures import Instances, Panoptic, Points, Truth

TYPICAL = 640 * 480  # COCO's size limits as shares of its typical image serve images of any size
DEPTHS = (1 / 3, 2 / 3)  # point-to-border distance over the greatest one of the object
TOUCH_PX = (
    2  # pixels at most this far apart touch (side by side is 1): annotators leave a seam of one
)


@dataclass(frozen=True)
class ObjectTable:
    """One row an object, over all images."""

    iou: np.ndarray  # with its pseudo label, 0 where it has none
    label: np.ndarray
    area: np.ndarray  # pixels
    share: np.ndarray  # area / image area
    depth: np.ndarray  # 0 point on the border .. 1 at the deepest place; nan without points
    touching: np.ndarray  # bool, an object of the same class is within TOUCH_PX


def pseudo_scores(
    truths: Iterable[Truth],
    pseudo: Iterable[Instances | Panoptic],
    points: Sequence[Points] | None = None,
    targets: Sequence[Tensor] | None = None,
) -> dict[str, float]:
    """mIoU of pseudo labels with the objects they stand for, whole and by group, in percent; nan =
    empty group.

    targets[i][k] is the truth's target that pseudo label k of image i stands for; without it the
    labels are taken in the order of the truth's things (a Panoptic's rows in the order of all its
    segments)."""
    return summary(object_table(truths, pseudo, points, targets))


def summary(table: ObjectTable) -> dict[str, float]:
    """The groups of an ObjectTable: mIoU, and `mIoU_<group>`."""
    groups = {
        "": np.ones(len(table.iou), dtype=bool),
        **_three(("small", "medium", "large"), table.area, SIZE_LIMITS),
        **_three(
            ("rel_small", "rel_medium", "rel_large"),
            table.share,
            [a / TYPICAL for a in SIZE_LIMITS],
        ),
        **_three(("point_border", "point_between", "point_deep"), table.depth, DEPTHS),
        "touching": table.touching,
        "apart": ~table.touching,
    }
    return {
        f"mIoU_{name}".rstrip("_"): _mean_percent(table.iou[rows]) for name, rows in groups.items()
    }


def object_table(
    truths: Iterable[Truth],
    pseudo: Iterable[Instances | Panoptic],
    points: Sequence[Points] | None = None,
    targets: Sequence[Tensor] | None = None,
) -> ObjectTable:
    columns = []
    for row, (truth, labels) in enumerate(zip(truths, pseudo, strict=True)):
        kept = truth.pick(~truth.is_crowd & (truth.is_thing | isinstance(labels, Panoptic)))
        named = None if targets is None else targets[row]
        iou = iou_by_target(kept, pseudo_masks(labels), named)
        area = kept.masks.flatten(1).sum(1).cpu().numpy()
        depth = point_depth(kept, points[row] if points is not None else None)
        share = area / truth.void.numel()
        label, touching = kept.label.cpu().numpy(), touching_same_class(kept)
        columns.append((iou, label, area, share, depth, touching))
    return ObjectTable(*(np.concatenate(column) for column in zip(*columns)))


def pseudo_masks(labels: Instances | Panoptic) -> Tensor:
    """[n, h, w] bool."""
    if isinstance(labels, Instances):
        return labels.masks
    rows = torch.arange(1, len(labels.label) + 1, device=labels.segments.device)
    return labels.segments[None] == rows[:, None, None]


def iou_by_target(truth: Truth, masks: Tensor, targets: Tensor | None = None) -> np.ndarray:
    """[n]: IoU of each true mask with its pseudo mask, both without void; several for one target
    are united."""
    if targets is None and len(masks) != len(truth):
        raise ValueError(
            f"{len(masks)} pseudo labels for {len(truth)} objects: say which stand for which"
        )
    targets = truth.target if targets is None else targets
    counted = ~truth.void
    values = np.zeros(len(truth))
    for row, (mask, target) in enumerate(zip(truth.masks, truth.target)):
        pseudo = masks[targets == target].any(0) & counted
        union = ((mask & counted) | pseudo).sum()
        values[row] = float((mask & pseudo).sum()) / max(float(union), 1.0)
    return values


def point_depth(truth: Truth, points: Points | None) -> np.ndarray:
    """[n]: distance of the object's deepest point to its border over the greatest distance there;
    the frame of the image counts as border."""
    depth = np.full(len(truth), np.nan)
    if points is None:
        return depth
    for row, (mask, target) in enumerate(zip(truth.masks.cpu().numpy(), truth.target)):
        rows, columns = pixels_of(points, int(target), mask.shape)
        if len(rows) and mask.any():
            distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
            depth[row] = distance[rows, columns].max() / distance.max()
    return depth


def pixels_of(points: Points, target: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels that hold the target's points; points off the image have
    none."""
    x, y = points.xy[points.target == target].floor().long().cpu().unbind(1)
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    return y[inside], x[inside]


def touching_same_class(truth: Truth, reach: int = TOUCH_PX) -> np.ndarray:
    """[n] bool: another object of the class within `reach` pixels."""
    masks, label = truth.masks.cpu().numpy(), truth.label.cpu().numpy()
    near = np.zeros(len(masks), dtype=bool)
    for row, mask in enumerate(masks):
        others = masks[(label == label[row]) & (np.arange(len(masks)) != row)]
        if len(others) and mask.any():
            near[row] = others.any(0)[ndimage.distance_transform_edt(~mask) <= reach].any()
    return near


def part_recall_of_points(truth: Truth, points: Points) -> np.ndarray:
    """[n]: share of the object's visible parts that hold at least one of its (key-)points; nan
    without parts."""
    recall = np.full(len(truth), np.nan)
    for row, (mask, target) in enumerate(zip(truth.masks.cpu(), truth.target.cpu())):
        parts = truth.parts.cpu() * mask
        visible = torch.unique(parts[parts > 0])
        hit = parts[pixels_of(points, int(target), parts.shape)]
        if len(visible):
            recall[row] = float(torch.isin(visible, hit).float().mean())
    return recall


def part_recall_of_masks(truth: Truth, masks: Tensor) -> np.ndarray:
    """[n]: share of the object's visible parts of which the pseudo mask [n, h, w] holds more than
    half."""
    recall = np.full(len(truth), np.nan)
    for row, (mask, pseudo) in enumerate(zip(truth.masks.cpu(), masks.cpu(), strict=True)):
        parts = (truth.parts.cpu() * mask).flatten().long()
        whole = torch.bincount(parts, minlength=2)[1:]
        held = torch.bincount(parts[pseudo.flatten()], minlength=len(whole) + 1)[1:]
        if whole.any():
            recall[row] = float((2 * held > whole)[whole > 0].float().mean())
    return recall


def part_purity(parts: Tensor, labels: Tensor) -> float:
    """Share of the labelled pixels of `labels` [h, w] (0 = none) that lie in the true part their
    label covers most.

    parts [h, w] is 0 off the object; such pixels are never right. nan where nothing is labelled."""
    labelled = labels.flatten() > 0
    if not labelled.any():
        return float("nan")
    label, part = labels.flatten()[labelled].long(), parts.flatten()[labelled].long()
    width = int(part.max()) + 1
    pairs = torch.bincount(label * width + part, minlength=(int(label.max()) + 1) * width)
    common = pairs.view(-1, width)
    right = common[:, 1:].max(1).values.sum() if width > 1 else torch.zeros(())
    return float(right) / float(labelled.sum())


def _three(
    names: Sequence[str], values: np.ndarray, limits: Sequence[float]
) -> dict[str, np.ndarray]:
    """Rows below the first limit, below the second, and from the second on; nan in none."""
    low, high = limits
    return dict(zip(names, (values < low, (values >= low) & (values < high), values >= high)))


def _mean_percent(values: np.ndarray) -> float:
    return 100 * float(values.mean()) if len(values) else float("nan")
