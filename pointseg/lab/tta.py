"""Testing on several views of a picture, as AttentionShift's release does: flipped and resized, found boxes pooled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import batched_nms

from pointseg.lab.labels import batches, resized
from pointseg.lab.run_data import Corpus
from pointseg.metrics.scores import instance_scores
from pointseg.papers.method import Method
from pointseg.structures import Instances

OVERLAP = 0.5  # boxes of one class that overlap more are one object
MOST = 100  # instances kept of a picture


def unflipped(found: Instances, width: int) -> Instances:
    """What was found in a mirrored picture, in the picture's own places."""
    left, top, right, bottom = found.boxes.unbind(1)
    boxes = torch.stack([width - right, top, width - left, bottom], 1)
    return Instances(found.masks.flip(-1), found.scores, found.label, boxes)


def pooled(views: Sequence[Instances]) -> Instances:
    """The surest of all views' instances, each object once."""
    masks, scores, label, boxes = (torch.cat([getattr(v, name) for v in views])
                                   for name in ("masks", "scores", "label", "boxes"))  # fmt: skip
    kept = batched_nms(boxes, scores, label, OVERLAP)[:MOST]
    return Instances(masks[kept], scores[kept], label[kept], boxes[kept])


def answers_of_views(
    method: Method,
    images: Tensor,
    sizes: list[tuple[int, int]],
    scales: Sequence[float],
    flips: Sequence[bool],
) -> list[Instances]:
    """One pooled answer a picture; the pictures must fill their canvas."""
    seen: list[list[Instances]] = [[] for _ in sizes]
    for scale, flip in product(scales, flips):
        view = (
            images
            if scale == 1
            else F.interpolate(images, scale_factor=scale, mode="bilinear", antialias=True)
        )
        view = view.flip(-1) if flip else view
        shape = tuple(view.shape[-2:])
        for found, size, own in zip(method.predict(view, [shape] * len(sizes)), sizes, seen):
            instances = unflipped(found.instances, shape[1]) if flip else found.instances
            own.append(resized(instances, size))
    return [pooled(own) for own in seen]


@torch.inference_mode()
def view_scores(
    method: Method, corpus: Corpus, scales: Sequence[float], flips: Sequence[bool]
) -> dict[str, float]:
    """The scores of `evaluation.score_val`, from pooled answers."""
    method.eval()
    found: Iterator[Instances] = (
        answer
        for batch in batches(corpus.unmarked(), 20)
        for answer in answers_of_views(method, batch.images, batch.sizes, scales, flips)
    )
    truths = (corpus.scored.truth(i) for i in range(len(corpus.scored)))
    return instance_scores(truths, found, corpus.categories)
