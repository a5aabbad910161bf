"""What each layer of EPLD's branch would label, object by object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pointseg.lab.labels import masks_of, resized
from pointseg.metrics.pseudo import iou_by_target
from pointseg.papers.epld.method import Distance, Evidence
from pointseg.structures import Batch, Truth


def layer_scores(
    labeller: Distance, evidence: Evidence, batch: Batch, objects: Sequence[Truth]
) -> dict[str, list[float]]:
    """Columns `iou_1` to `iou_L` of the objects of all images.

    Labels by paths, which would be searched anew for each layer, have none.
    """
    columns: dict[str, list[float]] = {}
    if labeller.config.cost == "path":
        return columns
    for layer in range(1, len(evidence.estimate.label) + 1):
        labels = labeller.assign(evidence.up_to(layer), batch).pseudo_labels()
        masks = [masks_of(resized(one, o.void.shape)) for one, o in zip(labels, objects)]
        overlaps = [iou_by_target(o, m, o.target) for o, m in zip(objects, masks)]
        columns[f"iou_{layer}"] = np.concatenate(overlaps).tolist()
    return columns
