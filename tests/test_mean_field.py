"""Mean field, multiple instances and Dice, against double loops and cases by hand."""

import math

import pytest
import torch

from pointseg.bookkit.cost.works import mean_field_unfolded
from pointseg.ops.box_losses import dice_loss, mil_loss
from pointseg.ops.mean_field import HIGH, LOW, SMALL, mean_field


def loops(prob, images, inside, zeta, rounds, radius=1):
    """The same in plain loops, by products instead of sums of logarithms."""
    b, h, w = prob.shape
    x = prob.clamp(LOW, HIGH).tolist()
    for _ in range(rounds):
        new = [[[0.0] * w for _ in range(h)] for _ in range(b)]
        for n in range(b):
            for i in range(h):
                for j in range(w):
                    fg = bg = 1.0
                    for k in range(max(0, i - radius), min(h, i + radius + 1)):
                        for m in range(max(0, j - radius), min(w, j + radius + 1)):
                            gap = (images[n, :, i, j] - images[n, :, k, m]).square().sum()
                            weight = math.exp(-float(gap) / (2 * zeta**2))
                            fg *= x[n][k][m] ** weight
                            bg *= (1 - x[n][k][m]) ** weight
                    fg *= float(inside[n, i, j])
                    new[n][i][j] = min(max(fg / (fg + bg + SMALL), LOW), HIGH)
        x = new
    return torch.tensor(x) > 0.5


def problem(contrast, seed=0):
    rng = torch.Generator().manual_seed(seed)
    prob = torch.rand(2, 6, 7, generator=rng, dtype=torch.float64)
    images = contrast * torch.rand(2, 3, 6, 7, generator=rng, dtype=torch.float64)
    inside = torch.zeros(2, 6, 7, dtype=torch.bool)
    inside[:, 1:, 1:6] = True
    return prob, images, inside


@pytest.mark.parametrize("contrast", [0.0, 0.05, 0.2, 2.0])
@pytest.mark.parametrize("rounds", [1, 2, 7])
def test_mean_field_is_the_double_loop(contrast, rounds):
    prob, images, inside = problem(contrast)
    assert torch.equal(
        mean_field(prob, images, inside, 0.1, rounds), loops(prob, images, inside, 0.1, rounds)
    )


@pytest.mark.parametrize("contrast", [0.0, 0.2, 2.0])
def test_unfolded_windows_give_the_same_masks(contrast):
    """What the cost chapter measures against."""
    prob, images, inside = problem(contrast)
    for rounds in (1, 20):
        plain = mean_field_unfolded(prob, images, inside, 0.1, rounds)
        assert torch.equal(plain, mean_field(prob, images, inside, 0.1, rounds))


def test_strongly_mixed_windows_feel_the_floor_of_the_denominator():
    """A chessboard of 0.1 and 0.9 on one colour: both products near 1e-5, the exact form counts."""
    board = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    prob = torch.where(board == 1, HIGH, LOW)[None].double()
    images, inside = torch.zeros(1, 3, 6, 6).double(), torch.ones(1, 6, 6, dtype=torch.bool)
    for rounds in (1, 2, 3):
        expected = loops(prob, images, inside, 0.1, rounds)
        assert torch.equal(mean_field(prob, images, inside, 0.1, rounds), expected)


def test_nothing_is_foreground_outside_the_box():
    prob, images, inside = problem(0.1)
    assert not (mean_field(torch.ones_like(prob), images, inside) & ~inside).any()


def test_without_likeness_each_pixel_keeps_its_side():
    prob, images, inside = problem(1e4)
    assert torch.equal(mean_field(prob, images, inside, rounds=5), (prob > 0.5) & inside)


def test_an_image_on_its_side_gives_the_mask_on_its_side():
    prob, images, inside = problem(0.1)
    turned = mean_field(prob.mT, images.mT, inside.mT, rounds=5)
    assert torch.equal(turned.mT, mean_field(prob, images, inside, rounds=5))


def test_dice_by_hand():
    prob, target = torch.tensor([[[0.5, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    assert dice_loss(prob, target).item() == pytest.approx(1 - 2 * 0.5 / (1.25 + 1 + 0.002))


def test_multiple_instances_ask_for_one_pixel_a_row_and_column():
    box = torch.zeros(1, 8, 8)
    box[:, 2:6, 2:6] = 1
    cross = torch.zeros(1, 8, 8)
    cross[0, range(2, 6), range(2, 6)] = 1  # a diagonal touches every row and column of the box
    assert mil_loss(cross, box).item() < 1e-3 and mil_loss(box, box).item() < 1e-3
    assert mil_loss(torch.ones(1, 8, 8), box).item() > 0.3 and mil_loss(0 * box, box).item() > 1.9
