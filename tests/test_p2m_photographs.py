"""Point2Mask on photographs of COCO: loads them, learns from ten points a target, and overfits."""

import pytest
import torch

from pointseg.data.augment import Augment
from pointseg.data.layouts import open_dataset
from pointseg.data.points import sample_points
from pointseg.data.supervision import MaskDataset, PointDataset, collate
from pointseg.metrics.scores import panoptic_scores
from pointseg.papers.point2mask import Point2Mask

SIDE, IMAGES, STEPS = 96, 3, 70


@pytest.mark.realdata
def test_training_pq_climbs_far_above_its_start(shared_data):
    torch.manual_seed(0)
    dataset = open_dataset(shared_data / "coco2017_panoptic", "val", layout="panoptic")
    smaller = Augment(flip=0.0, long_side=SIDE)
    points = sample_points(dataset, "uniform", 10, 0)
    rows = range(IMAGES)
    batch = collate([PointDataset(dataset, points, smaller)[k] for k in rows])
    truths = [MaskDataset(dataset, smaller)[k].truth for k in rows]
    model = Point2Mask.build(
        dataset.categories, "smoke", student={"queries": 40}, warmup_steps=20, transport_from=60
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def quality():
        shown = [p.panoptic for p in model.predict(batch.images, batch.sizes)]
        return panoptic_scores(truths, shown, dataset.categories)["PQ"]

    before = quality()
    for step in range(STEPS):
        optimizer.zero_grad()
        sum(model.losses(batch, step).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert quality() > before + 20
