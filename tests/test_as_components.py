"""Components and boxes of many masks at once, against scipy and by hand."""

import numpy as np
import torch
from scipy import ndimage

from pointseg.ops.components import (
    centre_symmetric,
    component_labels,
    largest_components,
    tight_boxes,
    tokens_in_boxes,
)

EIGHT = np.ones((3, 3))


def spiral(side):
    """One long thin corridor, the worst case for spreading labels."""
    mask = np.zeros((side, side), bool)
    row, column, turn = 0, 0, 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    mask[0, 0] = True
    for length in [side - 1, *(side - 1 - 2 * (i // 2) for i in range(side - 1))]:
        for _ in range(max(length, 0)):
            row, column = row + steps[turn][0], column + steps[turn][1]
            mask[row, column] = True
        turn = (turn + 1) % 4
    return mask


def test_labels_part_the_masks_as_scipy_does():
    draw = np.random.default_rng(0)
    for density in (0.1, 0.4, 0.6, 0.9):
        masks = draw.random((8, 13, 17)) < density
        labels = component_labels(torch.tensor(masks)).numpy()
        for label, mask in zip(labels, masks):
            theirs, count = ndimage.label(mask, EIGHT)
            assert ((label > 0) == mask).all()
            assert len(set(zip(label[mask], theirs[mask]))) == count == len(set(label[mask]))


def test_a_spiral_is_one_component():
    mask = torch.tensor(spiral(15))
    assert set(component_labels(mask[None])[mask[None]].tolist()) == {1}


def test_largest_components_against_scipy():
    draw = np.random.default_rng(1)
    masks = draw.random((20, 11, 11)) < 0.35
    ours = largest_components(torch.tensor(masks)).numpy()
    for mine, mask in zip(ours, masks):
        label, count = ndimage.label(mask, EIGHT)
        area = ndimage.sum_labels(mask, label, range(1, count + 1))
        assert (mine == (label == area.argmax() + 1)).all()


def test_diagonal_neighbours_are_connected_and_instances_are_not():
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[1, 2, 2] = True
    assert component_labels(masks).flatten(1).tolist() == [
        [1, 0, 0, 0, 1, 0, 0, 0, 0],
        [0] * 8 + [9],
    ]


def test_map_without_component():
    empty = torch.zeros(2, 4, 4, dtype=torch.bool)
    assert not largest_components(empty).any()
    boxes, filled = tight_boxes(empty, 8)
    assert boxes.tolist() == [[0.0] * 4] * 2
    assert filled.tolist() == [False, False]
    assert largest_components(empty[:0]).shape == (0, 4, 4)


def test_tight_boxes_by_hand():
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 2, 3] = True
    assert tight_boxes(mask, 8)[0].tolist() == [[16, 8, 32, 24]]


def test_box_becomes_symmetric_about_its_point_and_stays_in_the_picture():
    box, size = torch.tensor([[10.0, 10, 30, 20]]), torch.tensor([[40.0, 40]])
    # point (15, 15): right reach 15 beats left 5; vertically already even
    assert centre_symmetric(box, torch.tensor([[15.0, 15]]), size).tolist() == [[0, 10, 30, 20]]
    assert centre_symmetric(box, torch.tensor([[25.0, 12]]), size).tolist() == [[10, 4, 40, 20]]


def test_tokens_in_boxes_are_those_whose_square_the_box_meets():
    inside = tokens_in_boxes(torch.tensor([[8.0, 0, 16, 8], [7.0, 7, 9, 9]]), (2, 3), 8.0)
    assert inside.tolist() == [
        [False, True, False, False, False, False],
        [True, True, False, True, True, False],
    ]
