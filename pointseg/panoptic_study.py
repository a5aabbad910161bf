"""What trained panoptic methods made of their points: how good their pseudo labels are, and their learnt boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.corpus import Corpus
from pointseg.evaluation import label_train
from pointseg.methods.panoptic_ground import LabellingMethod
from pointseg.metrics.scores import panoptic_scores
from pointseg.recipe import Recipe
from pointseg.structures import Batch


def pseudo_panoptic_quality(method: LabellingMethod, recipe: Recipe, corpus: Corpus, count: int) -> dict[str, float]:
    """PQ of the pseudo labels of the first training pictures with points, held against their true segments."""
    labelled = label_train(method, recipe, corpus, count)
    truths = (corpus.train.truth(row) for row in labelled.dataset.rows)
    return panoptic_scores(truths, labelled.labels, corpus.categories)


@torch.no_grad()
def boundary_maps(method: LabellingMethod, batch: Batch) -> Tensor:
    """[b, h, w] the learnt boundary of every picture, in 0..1."""
    return method.eval().net.read(batch).maps.boundary[:, 0]
