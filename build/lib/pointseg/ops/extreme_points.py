"""Objects clicked at their four extremes, side by side for all images of a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pointseg.structures import Batch, InputError, Points

CLICKS = 4  # top, left, bottom, right; their order plays no part
EXTREME = {"kind": "extreme", "n": CLICKS}  # the choice of points of methods that learn from them


@dataclass(frozen=True)
class ClickedObjects:
    """n objects with four points each; those of an image stand together."""

    points: Tensor  # [n, 4, 2] pixels of the image
    box: Tensor  # [n, 4] xyxy: the hull of the pixels that were clicked
    image: Tensor  # [n] row of the batch
    label: Tensor  # [n]
    target: Tensor  # [n] id of the target in its image
    counts: list[int]  # objects of each image

    def __len__(self) -> int:
        return len(self.box)

    def pick(self, rows: Tensor) -> ClickedObjects:
        """Some of the objects, in rising order of their images."""
        image = self.image[rows]
        counts = torch.bincount(image, minlength=len(self.counts)).tolist()
        fields = (t[rows] for t in (self.points, self.box, self.image, self.label, self.target))
        return ClickedObjects(*fields, counts)


def clicked_objects(batch: Batch) -> ClickedObjects:
    """The things of a batch with their extreme points; one line where an object lacks some."""
    each = [clicks_of(p.things(), name) for p, name in zip(batch.points, batch.image_ids)]
    points = torch.cat([clicks.xy.view(-1, CLICKS, 2) for clicks in each])
    counts = [len(clicks) // CLICKS for clicks in each]
    rows = torch.arange(len(counts), device=points.device)
    image = rows.repeat_interleave(torch.tensor(counts, device=points.device))
    label = torch.cat([clicks.label[::CLICKS] for clicks in each])
    target = torch.cat([clicks.target[::CLICKS] for clicks in each])
    return ClickedObjects(points, hulls(points), image, label, target, counts)


def hulls(points: Tensor) -> Tensor:
    """[n, 4] xyxy of the pixels that hold points [n, 4, 2]."""
    return torch.cat([points.amin(1).floor(), points.amax(1).floor() + 1], 1)


def side_middles(boxes: Tensor) -> Tensor:
    """[n, 4, 2] points whose hull is the box [n, 4], in the middles of its outer pixels."""
    (left, top), (right, bottom) = (boxes[:, :2] + 0.5).unbind(1), (boxes[:, 2:] - 0.5).unbind(1)
    x, y = (left + right) / 2, (top + bottom) / 2
    return torch.stack([x, top, left, y, x, bottom, right, y], 1).view(-1, CLICKS, 2)


def boxed(points: Points, name: int | str) -> Points:
    """The things of an image, their extreme points moved to the middles of their box's sides."""
    clicks = clicks_of(points.things(), name)
    middles = side_middles(hulls(clicks.xy.view(-1, CLICKS, 2)))
    return replace(clicks, xy=middles.flatten(0, 1))


def clicks_of(points: Points, name: int | str) -> Points:
    """Points of an image, the four of a target together, targets in order of their first point."""
    first = {target: k for k, target in reversed(list(enumerate(points.target.tolist())))}
    order = sorted(range(len(points)), key=lambda k: (first[points.target[k].item()], k))
    sorted_points = points.pick(torch.tensor(order, dtype=torch.long, device=points.xy.device))
    targets, counts = sorted_points.target.unique(return_counts=True)
    for target, count in zip(targets.tolist(), counts.tolist()):
        if count != CLICKS:
            raise InputError(
                f"points: target {target} of image {name} has {count} points, expected its four "
                "extremes; `pointseg points DIR --kind extreme` makes them"
            )
    return sorted_points
