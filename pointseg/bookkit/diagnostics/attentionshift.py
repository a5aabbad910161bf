"""What a trained AttentionShift sees.

Its label path held against the true masks and parts of training pictures.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pointseg.lab.key_points import (
    HALF,
    ShiftStudy,
    covers_half,
    mask_shares,
    share_on_object,
    token_truth,
)
from pointseg.lab.labels import batches
from pointseg.lab.run_data import Corpus
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.structures import Batch, Truth


def pictured(corpus: Corpus, count: int, size: int) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """The first training pictures with points, in batches; of every thing pointed at its true mask
    and the parts of its picture, both [n, H, W]. The pictures must be seen at their own size."""
    marked = corpus.marked()
    marked.indices = marked.indices[:count]
    rows = iter(marked.indices)
    for batch in batches(marked, size):
        targets = [points.things().target for points in batch.points]
        pairs = [truths_of(corpus.train.truth(row), each) for each, row in zip(targets, rows)]
        masks, parts = zip(*pairs)
        yield batch, torch.cat(masks), torch.cat(parts)


def truths_of(truth: Truth, target: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of the targets, and the picture's parts for each of them.

    Each target counts once, and they keep their order.
    """
    rows = [truth.target.tolist().index(one) for one in dict.fromkeys(target.tolist())]
    return truth.masks[rows], truth.parts.long().expand(len(rows), -1, -1)


@torch.no_grad()
def label_path_study(
    method: AttentionShift, corpus: Corpus, count: int, size: int = 20
) -> dict[str, float]:
    """Means over objects in percent, along the label path. [AS Sec. 1, 3.2]

    Coverage by the maps, at every depth of roll-out; recall and purity of the parts before the
    shift and after every iteration.
    """
    study, depths = ShiftStudy(), defaultdict(list)
    method.eval()
    for batch, masks, parts in pictured(corpus, count, size):
        evidence, labels = method.explain(batch)
        study.add(labels, evidence.tokens, masks, parts)
        share, _ = token_truth(masks, parts, labels.attention.shape[1])
        for depth, rows in enumerate(evidence.maps.unbind(1), start=1):
            depths[depth].append(covers_half(rows >= HALF, share))
    covered = {
        f"A^S of {depth} blocks covers half": 100 * float(torch.cat(v).mean())
        for depth, v in depths.items()
    }
    return study.scores() | covered


@torch.no_grad()
def keypoint_study(
    method: AttentionShift,
    corpus: Corpus,
    cases: Mapping[str, Mapping[str, Any]],
    count: int,
    size: int = 20,
) -> dict[str, dict[str, float]]:
    """What would teach the mask head if the label path were set otherwise.

    By case of changed settings, the percentage of key-points on their object, a mean over
    objects, and how many key-points an object has.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    methods = {name: reset(method.eval(), changes) for name, changes in cases.items()}
    for batch, masks, parts in pictured(corpus, count, size):
        for name, changed in methods.items():
            _, labels = changed.explain(batch)
            share, _ = token_truth(masks, parts, labels.attention.shape[1])
            keypoints, many = labels.keypoints, labels.keypoints.valid.sum(1)
            on = share_on_object(keypoints.token, keypoints.valid, share)
            values[name].append(torch.stack([100 * on, many.float()], -1))
    means = {name: torch.cat(rows).nanmean(0).tolist() for name, rows in values.items()}
    return {name: {"on the object": on, "an object": many} for name, (on, many) in means.items()}


@torch.no_grad()
def mask_study(
    method: AttentionShift, corpus: Corpus, count: int, size: int = 20
) -> dict[str, dict[str, float]]:
    """How pseudo masks, and the detector's masks of the same objects, lie on them.

    Means over objects in percent.
    """
    values: dict[str, list[Tensor]] = defaultdict(list)
    method.eval()
    for batch, masks, _ in pictured(corpus, count, size):
        labels = {
            "pseudo mask": method.pseudo_labels(batch),
            "detector's mask": method.student_labels(batch),
        }
        for name, masks_of in labels.items():
            values[name].append(mask_shares(torch.cat([each.masks for each in masks_of]), masks))
    means = {name: (100 * torch.cat(rows)).nanmean(0).tolist() for name, rows in values.items()}
    return {
        name: dict(zip(("of the object covered", "of the mask on it", "IoU"), row))
        for name, row in means.items()
    }


def reset(method: AttentionShift, changes: Mapping[str, Any]) -> AttentionShift:
    """The same networks with other settings of the label path."""
    other, labeller = copy.copy(method), copy.copy(method.labeller)
    other.config = labeller.config = replace(method.config, **changes)
    other._modules = method._modules | {"labeller": labeller}
    return other
