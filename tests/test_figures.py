"""Figures stay small, and what they show is where it should be."""

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from PIL import Image

from pointseg.bookkit import figures


def test_a_noisy_figure_is_kept_under_the_limit(tmp_path):
    figure, axes = figures.multiples(["noise"] * 12, columns=4)
    for axis in axes:
        figures.show(axis, np.random.default_rng(0).random((200, 200, 3)))
    path = figures.save(figure, tmp_path / "deep" / "noise.png")
    assert path.stat().st_size <= figures.LARGEST_FIGURE
    with Image.open(path) as kept:
        assert kept.size[0] > 300


def test_bytes_and_floats_and_both_orders_show_the_same_picture():
    byte = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    same = torch.from_numpy(byte).permute(2, 0, 1).float() / 255
    np.testing.assert_allclose(figures.as_picture(byte), figures.as_picture(same), atol=1e-6)


def test_colours_of_neighbours_differ_for_fourteen_things():
    tints = [tuple(np.round(figures.colour(i), 3)) for i in range(14)]
    assert len(set(tints)) == 14
