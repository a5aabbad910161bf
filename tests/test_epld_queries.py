"""EPLD's anchor queries [EPLD Eq. 1-5]: hand-worked cases, laws, and slow loops in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion
from support.grid_targets import drawn_points, points_of, table

from pointseg.papers.epld.queries import (
    aggregated,
    class_loss,
    cleaned_masks,
    enhanced,
    erosion_passes,
    interior,
)


def test_things_come_first_each_in_the_order_of_its_first_point():
    one = points_of(
        (0, 0, 2, 7), (1, 0, 1, 9), (2, 0, 0, 3), (3, 0, 1, 9), (4, 0, 3, 8), (5, 0, 2, 6)
    )
    targets = table([one, points_of(), points_of((0, 0, 1, 5))], (1, 6))
    assert targets.label.tolist() == [[1, 0, 2, 3], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert targets.present.sum(1).tolist() == [4, 0, 1]
    assert targets.is_thing[0].tolist() == [True, True, False, False]
    P = targets.points[0, :, 0].int().tolist()
    assert P == [[0, 1, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0]]
    assert targets.inside.any((1, 2)).tolist() == [True, False, True]


def test_a_cell_of_two_targets_or_of_the_padding_is_not_labelled():
    inside = torch.tensor([[[True, True, True, False]]])
    one = points_of(
        (0.2, 0.5, 0, 1), (0.8, 0.5, 1, 2), (2, 0, 0, 1), (2.5, 0.4, 0, 1), (3, 0, 1, 3)
    )
    targets = table([one], (1, 4), inside)
    assert targets.labelled[0, 0].tolist() == [False, False, True, False]
    assert targets.points.flatten(2).any(-1).all(), "every target keeps a cell for its query"


def test_eq01_the_query_of_one_point_is_the_feature_of_its_cell():
    """[EPLD Eq. 1] And of two points of one target their mean, however many share a cell."""
    fused = torch.arange(24.0).reshape(1, 2, 3, 4)
    rows = points_of((1, 2, 0, 1), (3, 0, 1, 2), (3.5, 0.5, 1, 2), (0, 1, 1, 2))
    Q = aggregated(table([rows], (3, 4)).points, fused)
    assert Q[0].tolist() == [[9.0, 21.0], [(3 + 4) / 2, (15 + 16) / 2]]


def test_eq03_aggregation_equals_a_loop_over_pixels():
    """[EPLD Eq. 1] [EPLD Eq. 3] Masks may overlap and may be empty."""
    rng = torch.Generator().manual_seed(0)
    masks = torch.rand(2, 3, 4, 5, generator=rng) < 0.4
    masks[1, 2] = False
    fused = torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=rng)
    Q = aggregated(masks, fused)
    for b, n in itertools.product(range(2), range(3)):
        total, Z = np.zeros(6), 0
        for r, c in np.ndindex(4, 5):
            if masks[b, n, r, c]:
                total, Z = total + fused[b, :, r, c].numpy(), Z + 1
        np.testing.assert_allclose(Q[b, n].numpy(), total / max(Z, 1), atol=1e-12)


@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_eq02_the_interior_is_what_scipy_erodes_target_by_target(passes, seed):
    """[EPLD Eq. 2] 3 x 3 ones, `passes` times; frame and padding count as foreground."""
    rng = torch.Generator().manual_seed(seed)
    owner = torch.randint(0, 3, (2, 4, 5), generator=rng)
    owner = owner.repeat_interleave(4, 1).repeat_interleave(3, 2)  # blobs, not salt
    inside = torch.ones_like(owner, dtype=torch.bool)
    inside[1, 11:] = False
    result = interior(owner, passes, inside)
    for b, n in itertools.product(range(2), range(3)):
        mask = (owner[b] == n) | ~inside[b]
        eroded = binary_erosion(mask.numpy(), np.ones((3, 3)), passes, border_value=1)
        expected = eroded & (owner[b] == n).numpy() & inside[b].numpy()
        assert ((owner[b] == n) & result[b]).numpy().tolist() == expected.tolist()


def test_eq02_worked_by_hand():
    """[EPLD Eq. 2] One pass on a row of three high cells; target 1 is thin, keeps its point alone.

    owner 0 0 0 0 1 2 2 2: the inner cells of 0 are those left of column 3, of 2 those right of 5.
    """
    owner = torch.tensor([0, 0, 0, 0, 1, 2, 2, 2]).expand(1, 3, 8)
    targets = table([points_of((0, 0, 0, 1), (4, 1, 0, 2), (6, 0, 1, 3))], (3, 8))
    cleaned = cleaned_masks(owner, targets, 1)[0].int()
    assert cleaned[0].tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]] * 3
    assert cleaned[1].tolist() == [[0] * 8, [0, 0, 0, 0, 1, 0, 0, 0], [0] * 8]
    assert cleaned[2].tolist() == [[0, 0, 0, 0, 0, 0, 1, 1]] * 3


def test_eq02_a_labelled_cell_leaves_the_target_that_wrongly_won_it():
    """[EPLD Eq. 2] Everything was given to target 0; target 1 has its point back, and 0 lost it."""
    targets = table([points_of((0, 0, 0, 1), (3, 3, 1, 2))], (6, 6))
    cleaned = cleaned_masks(torch.zeros(1, 6, 6, dtype=torch.int64), targets, 1)[0]
    assert cleaned[1].sum() == 1 and cleaned[1, 3, 3] and not cleaned[0, 3, 3]
    assert cleaned[0].sum() == 35


def test_eq02_no_target_is_ever_without_cells():
    """[EPLD Eq. 2] Whatever the labels are; a target that is absent has none."""
    rng = torch.Generator().manual_seed(3)
    targets = table([drawn_points(rng, 7, 12), drawn_points(rng, 2, 12)], (12, 12))
    for _ in range(20):
        owner = torch.randint(0, 7, (2, 12, 12), generator=rng)
        cleaned = cleaned_masks(owner, targets, 3)
        assert cleaned.flatten(2).any(-1).tolist() == targets.present.tolist()


def test_passes_follow_the_grid():
    assert [erosion_passes(grid)
            for grid in ((75, 100), (100, 167), (50, 60), (32, 32), (8, 8))] == [
        3, 3, 2, 1, 1]  # fmt: skip


def focal_loop(logits, label, gamma=2.0, alpha=0.25):
    total = 0.0
    for c, z in enumerate(logits):
        p = 1 / (1 + math.exp(-z))
        if c == label:
            total += -alpha * (1 - p) ** gamma * math.log(p)
        else:
            total += -(1 - alpha) * p**gamma * math.log(1 - p)
    return total


def test_eq04_the_class_loss_equals_a_loop_over_targets():
    """[EPLD Eq. 4] 1 / N sum over n in each image, then the mean of images, one value a layer."""
    rng = torch.Generator().manual_seed(0)
    targets = table([drawn_points(rng, 3, 9), drawn_points(rng, 1, 9)], (9, 9))
    logits = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=rng)
    result = class_loss(logits, targets)
    for layer in range(2):
        of_image = []
        for b in range(2):
            n = int(targets.present[b].sum())
            rows = zip(logits[layer, b, :n].tolist(), targets.label[b, :n].tolist())
            of_image.append(sum(focal_loop(z, y) for z, y in rows) / n)
        assert result[layer].item() == pytest.approx(sum(of_image) / 2, rel=1e-9)


def test_eq04_a_sure_and_right_classifier_costs_nothing():
    """[EPLD Eq. 4] The limit of large logits."""
    targets = table([points_of((0, 0, 1, 1))], (2, 2))
    logits = torch.tensor([[[-40.0, 40.0, -40.0]]])
    assert class_loss(logits, targets) < 1e-12 < class_loss(-logits, targets)


def test_eq05_a_query_gets_its_own_class_s_embedding_in_every_layer_the_same():
    """[EPLD Eq. 5] Two targets of one class are moved alike."""
    queries, embedding = torch.zeros(1, 3, 2), torch.tensor([[1.0, 2], [3, 4]])
    moved = enhanced(queries, embedding, torch.tensor([[1, 0, 1]]))
    assert moved[0].tolist() == [[3, 4], [1, 2], [3, 4]]
