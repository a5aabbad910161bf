"""Testing on several views of an image, as AttentionShift's release does: flipped, resized, boxes
pooled."""

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
MOST = 100  # instances kept of an image


def unflipped(mirrored: Instances, width: int) -> Instances:
    """Instances of a mirrored image in the coordinates of the image."""
    left, top, right, bottom = mirrored.boxes.unbind(1)
    boxes = torch.stack([width - right, top, width - left, bottom], 1)
    return Instances(mirrored.masks.flip(-1), mirrored.scores, mirrored.label, boxes)


def pooled(views: Sequence[Instances]) -> Instances:
    """The best instances of all views, each object once."""
    joined = {name: torch.cat([getattr(v, name) for v in views]) for name in vars(views[0])}
    kept = batched_nms(joined["boxes"], joined["scores"], joined["label"], OVERLAP)[:MOST]
    return Instances(**{name: values[kept] for name, values in joined.items()})


def predictions_of_views(
    method: Method,
    images: Tensor,
    sizes: list[tuple[int, int]],
    scales: Sequence[float],
    flips: Sequence[bool],
) -> list[Instances]:
    """The pooled instances of each image; the images must fill their canvas."""
    by_image: list[list[Instances]] = [[] for _ in sizes]
    for scale, flip in product(scales, flips):
        view = images
        if scale != 1:
            view = F.interpolate(images, scale_factor=scale, mode="bilinear", antialias=True)
        height, width = view.shape[-2:]
        view = view.flip(-1) if flip else view
        predictions = method.predict(view, [(height, width)] * len(sizes))
        for prediction, size, views in zip(predictions, sizes, by_image):
            instances = prediction.instances
            views.append(resized(unflipped(instances, width) if flip else instances, size))
    return [pooled(views) for views in by_image]


@torch.inference_mode()
def view_scores(
    method: Method, corpus: Corpus, scales: Sequence[float], flips: Sequence[bool]
) -> dict[str, float]:
    """The scores of `evaluation.score_val`, from pooled instances."""
    method.eval()
    predictions: Iterator[Instances] = (
        instances
        for batch in batches(corpus.unmarked(), 20)
        for instances in predictions_of_views(method, batch.images, batch.sizes, scales, flips)
    )
    truths = (corpus.scored.truth(i) for i in range(len(corpus.scored)))
    return instance_scores(truths, predictions, corpus.categories)
