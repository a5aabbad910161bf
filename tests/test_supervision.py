"""Training sets: deterministic in (seed, epoch, index), the same with workers and cache, refusing
foreign points."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.memory_dataset import MemoryDataset
from torch.utils.data import DataLoader

from pointseg.data.augment import Augment
from pointseg.data.image_cache import ImageCache
from pointseg.data.point_file import as_points
from pointseg.data.points import sample_points
from pointseg.data.supervision import BoxDataset, MaskDataset, PointDataset, collate
from pointseg.data.truth_cache import TruthCache
from pointseg.structures import Category, InputError

AUGMENT = Augment(short_sides=(20, 32, 40), brightness=0.4)


@pytest.fixture(scope="module")
def dataset():
    return MemoryDataset(5)


@pytest.fixture(scope="module")
def points(dataset):
    return sample_points(dataset, "uniform", 2, seed=1)


def prints(training, epochs=(0, 1, 0)):
    """What each epoch shows, as bytes."""
    shown = []
    for epoch in epochs:
        training.set_epoch(epoch)
        samples = [training[i] for i in range(len(training))]
        shown.append([(s.image.numpy().tobytes(), s.points.xy.numpy().tobytes()) for s in samples])
    return shown


def test_a_sample_depends_on_seed_epoch_and_index_only(dataset, points):
    first, second, again = prints(PointDataset(dataset, points, AUGMENT, seed=3))
    assert first == again != second
    assert first == prints(PointDataset(dataset, points, AUGMENT, seed=3, cache_bytes=0), (0,))[0]
    assert first != prints(PointDataset(dataset, points, AUGMENT, seed=4), (0,))[0]


def test_without_augmentation_a_sample_is_the_file(dataset, points):
    training = PointDataset(dataset, points)
    for index in range(len(training)):
        sample = training[index]
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), dataset.image(index))
        assert sample.points is points.for_image(dataset.ids[index]) and sample.truth is None
    assert training.image_ids == dataset.ids
    with pytest.raises(IndexError):
        training[len(training)]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_show_the_same_and_hear_of_the_epoch(dataset, points, context):
    training = PointDataset(dataset, points, AUGMENT, seed=3)
    loader = DataLoader(
        training, batch_size=2, collate_fn=collate, num_workers=1, persistent_workers=True,
        multiprocessing_context=context,
    )  # fmt: skip
    for epoch in (0, 2):
        training.set_epoch(epoch)
        for batch, start in zip(loader, range(0, len(training), 2)):
            alone = collate([training[i] for i in range(start, min(start + 2, len(training)))])
            assert torch.equal(batch.images, alone.images) and batch.image_ids == alone.image_ids
            assert all(torch.equal(a.xy, b.xy) for a, b in zip(batch.points, alone.points))


class Counting(MemoryDataset):
    decoded = 0

    def image(self, i):
        self.decoded += 1
        return super().image(i)

    def truth(self, i):
        self.decoded += 1
        return MemoryDataset(len(self)).truth(i)


def test_the_cache_decodes_once_and_only_when_all_images_fit():
    dataset = Counting(3)
    need = sum(h * w * 3 for h, w in map(dataset.size, range(3)))
    for budget, times in ((need, 1), (need - 1, 2)):
        dataset.decoded, cache = 0, ImageCache(dataset, [0, 1, 2], budget)
        for _ in range(2):
            assert all(np.array_equal(cache[i], MemoryDataset(3).image(i)) for i in range(3))
        assert dataset.decoded == 3 * times


@pytest.mark.parametrize("budget, times", [(2**20, 1), (0, 2)])
def test_masks_are_decoded_once_within_the_budget_and_stay_the_same(budget, times):
    dataset = Counting(3)
    cache = TruthCache(dataset, budget)
    for _ in range(2):
        for i in range(3):
            cached, fresh = vars(cache[i]), vars(MemoryDataset(3).truth(i))
            assert all(torch.equal(cached[name], fresh[name]) for name in fresh)
            assert all(cached[name].dtype == fresh[name].dtype for name in fresh)
            cached["masks"].zero_(), cached["void"].zero_(), cached["parts"].zero_()
    assert dataset.decoded == 3 * times


def test_augmenting_does_not_change_the_cached_image(dataset, points):
    training = PointDataset(dataset, points, lambda sample, _: (sample.image.fill_(0), sample)[1])
    training[0]
    assert np.array_equal(training.images[0], dataset.image(0))


def test_masks_come_by_name_only(dataset, points):
    sample = MaskDataset(dataset, AUGMENT)[1]
    assert sample.points is None and sample.truth.masks.shape[-2:] == sample.size
    assert len(MaskDataset(dataset)) == len(dataset)
    with pytest.raises(InputError, match="no images"):
        MaskDataset(MemoryDataset(0))


def test_boxes_are_the_masks_own_and_tell_nothing_of_where_the_extremes_lie(dataset):
    training = BoxDataset(dataset, sample_points(dataset, "extreme"))
    for index in range(len(training)):
        truth, points = dataset.truth(index), training[index].points
        things = truth.pick(truth.is_thing & ~truth.is_crowd)
        assert points.is_thing.all() and points.target.view(-1, 4)[:, 0].tolist() == (
            things.target.tolist()
        )
        for mask, xy in zip(things.masks, points.xy.view(-1, 4, 2)):
            rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
            low, high = xy.amin(0).floor(), xy.amax(0).floor()
            assert low.tolist() == [columns[0], rows[0]] and high.tolist() == [
                columns[-1],
                rows[-1],
            ]
            middle = (xy.amin(0) + xy.amax(0)) / 2
            assert xy[[0, 2], 0].tolist() == [middle[0]] * 2
            assert xy[[1, 3], 1].tolist() == [middle[1]] * 2


def test_a_batch_is_padded_right_and_below(dataset, points):
    training = PointDataset(dataset, points)
    samples = [training[i] for i in (0, 4, 2)]
    batch = collate(samples)
    assert batch.images.shape == (3, 3, 40, 36) and batch.sizes == [s.size for s in samples]
    assert batch.truths is None and batch.image_ids == [s.image_id for s in samples]
    for image, sample, outside in zip(batch.images, samples, batch.padding()):
        height, width = sample.size
        torch.testing.assert_close(image[:, :height, :width], sample.image / 255)
        assert not image[:, outside].any() and int((~outside).sum()) == height * width
    masks = collate([MaskDataset(dataset)[0]])
    assert masks.points is None and len(masks.truths) == 1


def test_images_without_a_point_are_left_out(dataset, points):
    images = dict(points.images)
    del images[dataset.ids[0]]
    images[dataset.ids[3]] = replace(
        images[dataset.ids[3]], points=as_points([], points.categories)
    )
    assert PointDataset(dataset, replace(points, images=images)).image_ids == [
        dataset.ids[i] for i in (1, 2, 4)
    ]


def test_foreign_points_are_refused(dataset, points):
    one = points.images[dataset.ids[0]]
    foreign = {
        "other data": replace(points, source_hash="0" * 64),
        "other categories": replace(
            points, categories=(*points.categories[:3], Category(99, "sea", False))
        ),
        "measured image 0": replace(points, images={dataset.ids[0]: replace(one, height=33)}),
        "holds a point": replace(points, images={"elsewhere": one}),
    }
    for cause, wrong in foreign.items():
        with pytest.raises(InputError, match=cause):
            PointDataset(dataset, wrong)
    assert len(PointDataset(dataset, replace(points, source_hash=None))) == len(dataset)


def test_every_index_has_draws_of_its_own(dataset, points):
    drawn = []
    training = PointDataset(
        dataset, points, lambda sample, rng: drawn.append(rng.random()) or sample
    )
    assert [training[i].image_id for i in range(len(training))] and len(set(drawn)) == len(training)
