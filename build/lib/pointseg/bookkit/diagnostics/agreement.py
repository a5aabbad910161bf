"""Agreement of labellers as a confidence that needs no truth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from pointseg.lab.labels import Labelled
from pointseg.lab.run_data import Corpus
from pointseg.papers.method import targets_of


def agreement(masks: Tensor) -> Tensor:
    """[n] mean IoU of each target's masks [k, n, h, w] over all pairs of k labellers.

    Two empty masks agree in nothing: 0.
    """
    flat = masks.flatten(2).float()
    pairs = [overlap(flat[i], flat[j]) for i, j in combinations(range(len(masks)), 2)]
    return torch.stack(pairs).mean(0)


def agreeing(labelled: Sequence[Labelled], corpus: Corpus) -> tuple[Tensor, Tensor]:
    """([n] agreement of labellers on each target with a point, [n] IoU of the first one's label
    with the truth), over the images that all have labelled."""
    confidence, right = [], []
    for i, row in enumerate(labelled[0].rows):
        points, truth = corpus.points.for_image(labelled[0].ids[i]), corpus.train.truth(row)
        at = {target: k for k, target in enumerate(truth.target.tolist())}
        wanted = truth.masks[[at[target] for target in targets_of(points).tolist()]]
        masks = torch.stack([each.masks(i) for each in labelled])
        confidence.append(agreement(masks))
        right.append(overlap(masks[0].flatten(1).float(), wanted.flatten(1).float()))
    return torch.cat(confidence), torch.cat(right)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """[n] IoU of flat masks [n, m] of 0 and 1, row by row."""
    both = (first * second).sum(-1)
    return both / (first + second).clamp(max=1).sum(-1).clamp(min=1)


def overlap_by_agreement(confidence: Tensor, iou: Tensor, groups: int = 3) -> np.ndarray:
    """[groups, 3] of equally many targets, the least agreed on first: mean agreement, mean IoU
    with the truth, count."""
    order = confidence.argsort(stable=True)
    parts = [part for part in order.tensor_split(groups) if len(part)]
    return np.array([(float(confidence[p].mean()), float(iou[p].mean()), len(p)) for p in parts])
