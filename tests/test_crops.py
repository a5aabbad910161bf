"""Object crops: the way there and back, margins, what stands beyond the border."""

import pytest
import torch

from pointseg.ops.crops import (
    crop_images,
    crops_of,
    fixed_margins,
    paste_crops,
    random_margins,
)

BOXES = torch.tensor([[4.0, 6.0, 20.0, 14.0], [0.0, 0.0, 32.0, 24.0]])


def crops(margins=None, side=16):
    margins = fixed_margins(BOXES) if margins is None else margins
    return crops_of(BOXES, torch.tensor([0, 0]), margins, side)


def test_coordinates_go_there_and_back():
    xy = torch.rand(2, 5, 2) * 30
    assert torch.allclose(crops().to_image(crops().to_crop(xy)), xy, atol=1e-4)


def test_the_box_lies_where_its_corners_go():
    corners = BOXES.view(2, 2, 2)
    assert torch.allclose(crops().to_crop(corners).flatten(1), crops().box, atol=1e-5)


def test_the_fixed_margin_makes_a_window_of_thirteen_tenths():
    window = crops().window
    assert torch.allclose(window[:, 2:] - window[:, :2], 1.3 * (BOXES[:, 2:] - BOXES[:, :2]))


def test_random_windows_are_one_to_sixteen_tenths_of_the_box():
    margins = random_margins(torch.rand(500, 6))
    grown = 1 + (margins[:, :2] + margins[:, 2:]) / 2
    assert (grown >= 1).all() and (grown <= 1.6).all()
    assert grown.mean() == pytest.approx(1.3, abs=0.03)


def test_a_box_of_no_pixels_grows_to_one():
    thin = crops_of(torch.tensor([[5.0, 5.0, 5.0, 9.0]]), torch.tensor([0]), torch.zeros(1, 4), 8)
    assert torch.equal(thin.window, torch.tensor([[5.0, 5.0, 6.0, 9.0]]))


def test_a_whole_image_at_its_own_size_is_itself():
    images = torch.rand(1, 3, 16, 16)
    whole = crops_of(
        torch.tensor([[0.0, 0.0, 16.0, 16.0]]), torch.tensor([0]), torch.zeros(1, 4), 16
    )
    assert torch.allclose(crop_images(whole, images, [(16, 16)], samples=1), images, atol=1e-5)


def test_each_pixel_is_read_as_a_double_loop_reads_it():
    rng = torch.Generator().manual_seed(2)
    images, sizes = torch.rand(1, 2, 24, 32, generator=rng).double(), [(22, 30)]
    some = crops_of(BOXES.double(), torch.tensor([0, 0]), fixed_margins(BOXES.double()), 5)
    read = crop_images(some, images, sizes, samples=1)
    for n in range(2):
        left, top, right, bottom = some.window[n].tolist()
        for i in range(5):
            for j in range(5):
                x = left + (j + 0.5) / 5 * (right - left) - 0.5
                y = top + (i + 0.5) / 5 * (bottom - top) - 0.5
                x0, y0 = int(x // 1), int(y // 1)
                value = sum(
                    (1 - abs(x - u)) * (1 - abs(y - v)) * images[0, :, v % 22, u % 30]
                    for u in (x0, x0 + 1)
                    for v in (y0, y0 + 1)
                )
                assert torch.allclose(read[n, :, i, j], value, atol=1e-9)


def test_beyond_the_border_stands_the_opposite_side():
    images = torch.arange(8.0).expand(1, 1, 8, 8)
    wide = crops_of(torch.tensor([[0.0, 0.0, 8.0, 8.0]]), torch.tensor([0]), torch.ones(1, 4), 16)
    row = crop_images(wide, images, [(8, 8)], samples=1)[0, 0, 8]
    assert torch.allclose(row, torch.arange(-4.0, 12.0) % 8)


def test_the_box_map_marks_cells_by_their_centre():
    box = crops().box_map(16)[0]
    rows, columns = box.any(1), box.any(0)
    assert torch.equal(box, rows[:, None] & columns) and 0.7 < rows.float().mean() / (1 / 1.3) < 1.2


def test_a_pasted_box_covers_its_box():
    some = crops(side=64)
    pasted = paste_crops(some.box_map(64).float(), some, (24, 32)) > 0.5
    for mask, (left, top, right, bottom) in zip(pasted, BOXES.long().tolist()):
        expected = torch.zeros(24, 32, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(mask, expected)
