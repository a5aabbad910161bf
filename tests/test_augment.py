"""Augmentation moves image, points and ground truth together, and needs its generator alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.memory_dataset import MemoryDataset

from pointseg.data.augment import Augment, flip, recolour, resize
from pointseg.data.points import sample_points
from pointseg.structures import Points, Sample, Truth

laws = settings(max_examples=60, deadline=None)
sides = st.integers(1, 15)  # 15 x 15 pixels can still be numbered in one byte


def numbered(height, width, xy):
    """A sample whose `parts` number the pixels: the one under a point tells where it came from."""
    parts = torch.arange(height * width, dtype=torch.uint8).reshape(height, width)
    count = len(xy)
    points = Points(
        torch.tensor(xy).reshape(count, 2), *(torch.arange(count),) * 2, torch.ones(count) > 0
    )
    image = torch.arange(3 * height * width).reshape(3, height, width).to(torch.uint8)
    truth = Truth(
        parts[None] % 2 == 0, *(torch.zeros(1).long(),) * 2, torch.ones(1) > 0, torch.ones(1) < 0,
        parts == 0, parts,
    )  # fmt: skip
    return Sample(1, image, points, truth)


@st.composite
def samples(draw, centred=False):
    height, width = draw(sides), draw(sides)
    if centred:
        place = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
        xy = [(x + 0.5, y + 0.5) for x, y in draw(st.lists(place, min_size=1, max_size=4))]
    else:
        inside = [st.floats(0, side, exclude_max=True, width=32) for side in (width, height)]
        xy = draw(st.lists(st.tuples(*inside), min_size=1, max_size=4))
    return numbered(height, width, xy)


def under(sample):
    """[m]: the number of the original pixel below each point."""
    x, y = sample.points.xy.floor().long().unbind(1)
    return sample.truth.parts[y, x].long()


def tensors(value):
    return [t for t in vars(value).values() if isinstance(t, torch.Tensor)]


def inside(sample):
    height, width = sample.size
    return bool(
        ((sample.points.xy >= 0) & (sample.points.xy < torch.tensor([width, height]))).all()
    )


@laws
@given(samples())
def test_flipped_points_stay_on_their_pixel(sample):
    turned = flip(sample)
    assert inside(turned) and torch.equal(under(turned), under(sample))
    assert torch.equal(turned.truth.void, sample.truth.void.flip(-1))


@laws
@given(samples())
def test_flipping_twice_changes_nothing(sample):
    twice = flip(flip(sample))
    assert torch.equal(twice.image, sample.image)
    assert all(map(torch.equal, tensors(twice.truth), tensors(sample.truth)))
    torch.testing.assert_close(twice.points.xy, sample.points.xy, rtol=0, atol=1e-5)


@laws
@given(samples(centred=True))
def test_flipping_pixel_centres_twice_is_exact(sample):
    assert torch.equal(flip(flip(sample)).points.xy, sample.points.xy)


@laws
@given(samples(centred=True), st.floats(1, 4))
def test_enlarged_pixel_centres_stay_on_their_pixel(sample, factor):
    size = tuple(round(side * factor) for side in sample.size)
    larger = resize(sample, size)
    assert larger.size == size == larger.truth.masks.shape[-2:] == larger.truth.void.shape
    assert inside(larger) and torch.equal(under(larger), under(sample))


@laws
@given(samples(), sides, sides)
def test_no_point_is_lost_and_none_moves_further_than_a_pixel(sample, height, width):
    changed = resize(sample, (height, width))
    assert len(changed.points) == len(sample.points) and inside(changed)
    # the map's pixel under the point shows an original pixel at most one (new or old) pixel away
    columns = sample.size[1]
    moved = torch.stack([under(changed) % columns, under(changed) // columns], 1) + 0.5
    old, new = torch.tensor(sample.size[::-1]), torch.tensor([width, height])
    away = (moved - sample.points.xy).abs()
    assert (away <= 0.5 + 0.5 * old / new + 1e-3).all()


@laws
@given(samples(), st.integers(1, 3))
def test_whole_enlargements_go_back_exactly(sample, times):
    larger = resize(sample, tuple(side * times for side in sample.size))
    back = resize(larger, sample.size)
    assert all(map(torch.equal, tensors(back.truth), tensors(sample.truth)))
    torch.testing.assert_close(back.points.xy, sample.points.xy, rtol=1e-6, atol=1e-5)


def test_ten_points_survive_the_smallest_image():
    dataset = MemoryDataset(1)
    points = sample_points(dataset, "uniform", 10).for_image(0)
    sample = Sample(
        0, torch.from_numpy(dataset.image(0)).permute(2, 0, 1), points, dataset.truth(0)
    )
    tiny = Augment(flip=1.0, short_sides=(2,))(sample, np.random.default_rng(0))
    assert tiny.size == (2, 2) and len(tiny.points) == len(points) and inside(tiny)
    for name in ("label", "target", "is_thing"):
        assert torch.equal(getattr(tiny.points, name), getattr(points, name))


def test_an_image_without_objects_passes():
    sample = numbered(6, 8, [])
    empty = replace(sample, truth=sample.truth.pick(torch.zeros(1) > 0))
    assert resize(flip(empty), (9, 12)).truth.masks.shape == (0, 9, 12)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (10, 300)])
def test_short_side_is_drawn_and_long_side_capped(size):
    augment = Augment(short_sides=(24, 32, 96), long_side=100)
    sizes = set()
    for draw in np.linspace(0, 0.999, 50):
        new = augment.new_size(size, float(draw))
        assert max(new) <= 100
        assert min(new) in (24, 32, 96) or max(new) == 100
        assert new[0] / new[1] == pytest.approx(size[0] / size[1], rel=0.2)
        sizes.add(new)
    assert len(sizes) == (1 if size == (10, 300) else 3)


def test_equal_generators_give_equal_samples_and_all_effects_happen():
    sample = numbered(12, 14, [(3.5, 4.5)])
    augment = Augment(short_sides=(8, 12, 20), brightness=0.4, contrast=0.4, saturation=0.4)
    results = [
        [augment(sample, np.random.default_rng(seed)) for seed in range(40)] for _ in range(2)
    ]
    for first, second in zip(*results):
        assert torch.equal(first.image, second.image) and torch.equal(
            first.points.xy, second.points.xy
        )
    assert {min(s.size) for s in results[0]} == {8, 12, 20}
    sides = {bool(s.points.xy[0, 0] < s.size[1] / 2) for s in results[0]}
    assert sides == {True, False}


def test_colour_does_not_touch_geometry():
    sample = numbered(12, 14, [(3.5, 4.5)])
    plain, coloured = Augment(short_sides=(8, 20)), Augment(short_sides=(8, 20), brightness=0.5)
    for seed in range(10):
        first, second = (a(sample, np.random.default_rng(seed)) for a in (plain, coloured))
        assert torch.equal(first.points.xy, second.points.xy)
        assert torch.equal(first.truth.masks, second.truth.masks)


def test_colour_factors_by_hand():
    image = torch.tensor([[[100]], [[50]], [[20]]], dtype=torch.uint8)
    sample = Sample(0, image)
    assert recolour(sample, [1, 1, 1]).image is image
    assert recolour(sample, [0.5, 1, 1]).image.flatten().tolist() == [50, 25, 10]
    grey = recolour(sample, [1, 1, 0]).image.flatten()
    assert (grey.max() - grey.min() <= 1) and abs(
        int(grey[0]) - (0.299 * 100 + 0.587 * 50 + 0.114 * 20)
    ) <= 1


def test_the_image_follows_the_points():
    """A bright dot under a point is still under it after flip and resize."""
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 18:23, 10:15] = 255
    sample = Sample(0, image, points=numbered(1, 1, [(12.5, 20.5)]).points)
    for seed in range(20):
        changed = Augment(short_sides=(20, 40, 73))(sample, np.random.default_rng(seed))
        x, y = changed.points.xy[0].floor().int().tolist()
        assert changed.image[0, y, x] == changed.image.max() > 200
