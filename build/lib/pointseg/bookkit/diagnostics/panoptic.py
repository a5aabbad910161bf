"""What trained panoptic methods made of their points.

How good their pseudo labels are, and their learnt boundaries.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pointseg.lab.labels import label_train
from pointseg.lab.run_data import Corpus
from pointseg.metrics.scores import panoptic_scores
from pointseg.papers.method import PointSupervised
from pointseg.papers.point2mask import Point2Mask
from pointseg.structures import Batch


def pseudo_panoptic_quality(
    method: PointSupervised, corpus: Corpus, count: int
) -> dict[str, float]:
    """PQ of the pseudo labels of the first training pictures with points.

    Held against their true segments.
    """
    labelled = label_train(method, corpus, count)
    truths = (corpus.train.truth(row) for row in labelled.rows)
    labels = (labelled.labels(i) for i in range(len(labelled)))
    return panoptic_scores(truths, labels, corpus.categories)


def quality_by_solver(
    method: Point2Mask, corpus: Corpus, count: int
) -> dict[str, dict[str, float]]:
    """The same network's pseudo labels, by solver.

    By the nearest point, by the paper's rounds, and at the optimum of transport.
    """
    labeller, quality = method.labeller, {}
    config = labeller.config
    for solver in ("none", "sinkhorn", "converged"):
        labeller.config = replace(config, solver=solver)
        quality[solver] = pseudo_panoptic_quality(method, corpus, count)
    labeller.config = config
    return quality


@torch.no_grad()
def boundary_maps(method: PointSupervised, batch: Batch) -> Tensor:
    """[b, h, w] the learnt boundary of every picture, in 0..1."""
    features = method.eval().student.features(batch.images, batch.sizes)
    return method.labeller.evidence(features, batch).maps.boundary[:, 0]
