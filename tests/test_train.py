"""The one loop: schedule, order, clipping, average, refusals; only (seed, step) decides."""

import dataclasses
import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_method as tiny
from torch import nn

from pointseg.papers.method import targets_of
from pointseg.structures import Category, InputError, Points, Training
from pointseg.students.mask_rcnn_full import MaskRCNNFull
from pointseg.training.loader import Feed, Order, loaders
from pointseg.training.loop import Average, Trainer, fit, lr_factor, seed_all


def run(chosen, workers=0, method=None):
    torch.manual_seed(0)
    method = method or tiny.Tiny()
    return method, list(fit(method, tiny.feed(chosen, workers=workers), chosen, device="cpu"))


def facts(records):
    return [(r.step, r.epoch, r.losses, r.lr, r.images) for r in records]


# --- schedule


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_warm_up_rises_to_the_base_rate(schedule):
    training = Training(schedule=schedule, warmup=0.1)
    rising = [lr_factor(step, 200, training) for step in range(21)]
    assert np.allclose(np.diff(rising[:20]), rising[0]) and rising[0] > 0
    assert rising[20] == 1.0


def test_cosine_halves_half_way_and_ends_near_zero():
    training = Training(schedule="cosine", warmup=0.0)
    assert lr_factor(50, 100, training) == pytest.approx(0.5)
    assert lr_factor(99, 100, training) == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)


def test_step_schedule_divides_by_ten_at_its_milestones():
    training = Training(schedule="step", warmup=0.0, milestones=(0.5, 0.75))
    factors = [lr_factor(step, 100, training) for step in (0, 49, 50, 74, 75, 99)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


# --- order of the images


@given(st.integers(1, 13), st.integers(1, 8), st.integers(0, 3), st.integers(0, 20))
def test_every_image_comes_once_an_epoch(count, batch, seed, start):
    order = iter(Order(count, batch, seed))
    drawn = [key for _ in range(3 * count) for key in next(order)]
    for epoch in range(3):
        assert sorted(i for e, i in drawn if e == epoch) == list(range(count))
    late = iter(Order(count, batch, seed, start))
    assert next(late) == drawn[start * batch : (start + 1) * batch] or start * batch + batch > len(
        drawn
    )


@given(st.integers(1, 9), st.sampled_from([1, 2, 4]))
def test_processes_share_the_very_batch_of_one(count, world):
    whole = iter(Order(count, 8, 0))
    parts = [iter(Order(count, 8, 0, 0, rank, world)) for rank in range(world)]
    for _ in range(5):
        assert [key for part in parts for key in next(part)] == next(whole)


def test_epochs_and_seeds_differ_in_their_order():
    first = [next(iter(Order(50, 50, seed, start))) for seed, start in [(0, 0), (0, 1), (1, 0)]]
    assert len({tuple(i for _, i in keys) for keys in first}) == 3


@pytest.mark.parametrize(
    "wanted, device, count", [(None, "cpu", 0), (3, "cpu", 3), (0, "cuda", 0), (7, "cuda", 7)]
)
def test_loaders_are_as_many_as_wanted(wanted, device, count):
    assert loaders(wanted, torch.device(device)) == count


def test_a_gpu_has_loaders_by_default(monkeypatch):
    for processors, count in ((16, 4), (2, 2)):
        monkeypatch.setattr("os.cpu_count", lambda n=processors: n)
        assert loaders(None, torch.device("cuda")) == count


def test_workers_change_nothing():
    chosen = tiny.settings()
    assert facts(run(chosen, workers=2)[1]) == facts(run(chosen)[1])


def test_a_feed_without_images_is_refused():
    with pytest.raises(InputError, match="no image"):
        Feed(tiny.Noise(0), tiny.pile, 2, 0)


# --- the loop


def test_records_count_what_was_done():
    chosen = tiny.settings(batch=3)
    _, records = run(chosen)
    assert [r.step for r in records] == list(range(12))
    assert [r.images for r in records] == list(range(3, 39, 3))
    assert [r.epoch for r in records] == [3 * step // 7 for step in range(12)]
    for r in records:
        assert r.total == pytest.approx(sum(r.losses.values()))
        assert 0 <= r.data_wait <= r.seconds and r.images_per_s > 0


def test_it_learns():
    _, records = run(tiny.settings(steps=60))
    assert records[-1].losses["fit"] < 0.5 * records[0].losses["fit"]


def test_only_seed_and_step_decide_whatever_the_caller_draws():
    chosen = tiny.settings()
    quiet = facts(run(chosen)[1])
    torch.manual_seed(0)
    noisy = []
    for record in fit(tiny.Tiny(), tiny.feed(chosen), chosen, device="cpu"):
        noisy.append(record)
        _ = torch.rand(3), np.random.rand(3), random.random()
    assert facts(noisy) == quiet
    other = dataclasses.replace(chosen, seed=1)
    assert facts(run(other)[1]) != quiet


def test_seeds_of_neighbouring_steps_and_ranks_differ():
    drawn = set()
    for key in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)]:
        seed_all(*key)
        drawn.add((torch.rand(()).item(), np.random.rand(), random.random()))
    assert len(drawn) == 4


class Poisoned(tiny.Tiny):
    def __init__(self, where):
        super().__init__()
        self.where = where

    def losses(self, batch, step):
        losses = super().losses(batch, step)
        if step == 2 and self.where == "loss":
            losses["fit"] = losses["fit"] * math.nan
        if step == 2 and self.where == "gradient":
            losses["fit"] = losses["fit"] + (self.net[0].weight.sum() * 0).sqrt()
        return losses


@pytest.mark.parametrize("where, named", [("loss", "fit"), ("gradient", "gradient norm")])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_weights_are_touched(where, named):
    chosen, method = tiny.settings(), Poisoned(where)
    feed = tiny.feed(chosen)
    with pytest.raises(FloatingPointError, match=rf"step 2: .*{named}.*images \[") as caught:
        for record in fit(method, feed, chosen, device="cpu"):
            before, last = [p.detach().clone() for p in method.parameters()], record.step
    assert last == 1
    assert all(torch.equal(a, b) for a, b in zip(before, method.parameters()))
    ids = [index for _, index in feed.dataset.requested[4:6]]
    assert str(ids) in str(caught.value)


def test_clipping_bounds_the_step_of_plain_gradient_norm():
    chosen = tiny.settings(clip=1e-3)
    trainer = Trainer(tiny.Tiny(), chosen, "cpu")
    trainer.advance(next(tiny.feed(chosen).batches()))
    norm = math.sqrt(sum(p.grad.pow(2).sum().item() for p in trainer.parameters))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_groups_spare_norms_and_biases_from_decay_and_a_method_may_bring_its_own():
    groups = Trainer(tiny.Tiny(), tiny.settings(), "cpu").optimizer.param_groups
    assert {g["weight_decay"] for g in groups} == {0.0, 0.05}
    assert all(p.ndim <= 1 for g in groups if g["weight_decay"] == 0 for p in g["params"])

    class Layered(tiny.Tiny):
        def param_groups(self, lr, weight_decay):
            top, stem = self.net[4].parameters(), self.net[0].parameters()
            groups = ((top, lr), (stem, lr / 2))
            return [{"params": list(p), "lr": rate, "weight_decay": 0.1} for p, rate in groups]

    trainer = Trainer(Layered(), tiny.settings(warmup=0.0), "cpu")
    trainer.advance(next(tiny.feed(tiny.settings()).batches()))
    assert [g["lr"] for g in trainer.optimizer.param_groups] == pytest.approx([1e-2, 5e-3])


def test_parts_are_compiled_where_a_method_names_any(monkeypatch):
    """What torch.compile makes of them is torch's to test; once measured, losses differ by 3e-8."""
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    chosen = dataclasses.replace(tiny.settings(), compile=True)
    with pytest.raises(InputError, match="compile: Tiny has no part to compile"):
        Trainer(tiny.Tiny(), chosen, "cpu")
    method = MaskRCNNFull.build((Category(1, "otter"),), "smoke")
    Trainer(method, chosen, "cpu")
    assert compiled == list(method.student.vit.blocks) and compiled


def test_average_is_the_weighted_sum_of_all_weights():
    line = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        line.weight.fill_(1.0)
        average = Average(line, 0.9)
        for value in (2.0, 3.0):
            line.weight.fill_(value)
            average.update(line)
    assert average.shadow["weight"].item() == pytest.approx(0.81 * 1 + 0.9 * 0.1 * 2 + 0.1 * 3)


def test_training_leaves_the_averaged_weights():
    plain, _ = run(tiny.settings())
    averaged, _ = run(tiny.settings(ema=0.9))
    assert not torch.equal(plain.net[0].weight, averaged.net[0].weight)
    assert averaged.net[1].num_batches_tracked == 12


def test_bf16_trains_on_a_cpu_close_to_float32():
    chosen = tiny.settings()
    low = run(dataclasses.replace(chosen, precision="bf16"))[1]
    high = run(chosen)[1]
    assert facts(low) != facts(high)
    assert low[0].total == pytest.approx(high[0].total, rel=0.05)


def test_targets_come_in_the_order_of_their_first_point():
    points = Points(
        torch.zeros(5, 2),
        torch.zeros(5),
        torch.tensor([7, 3, 7, 9, 3]),
        torch.ones(5, dtype=torch.bool),
    )
    assert targets_of(points).tolist() == [7, 3, 9]
