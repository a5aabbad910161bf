"""Random numbers by global row: the same for any number of processes, other ones for all else."""

from dataclasses import replace

import pytest
import torch
from support.fake_gpu import pretended_gpu

from pointseg.ops.processes import child, draws_of, rank, row_draws, size, uniform, world_mean
from pointseg.structures import Batch


def test_shares_of_a_batch_draw_what_the_whole_draws():
    whole = row_draws(3, 7, 0, 8)
    shares = [row_draws(3, 7, 4 * r, 4) for r in (0, 1)]
    assert torch.equal(torch.cat(shares), whole)
    parts = [uniform(child(share, 5), 3, 2) for share in shares]
    assert torch.equal(torch.cat(parts), uniform(child(whole, 5), 3, 2))


def test_seeds_rows_steps_objects_and_purposes_draw_different_numbers():
    draws = torch.cat([row_draws(seed, step, 0, 16) for seed in range(4) for step in range(16)])
    objects = [child(draws, index) for index in range(8)]
    words = torch.cat([draws, *objects])
    assert len(words.unique()) == len(words)
    low = (words & (2**32 - 1)).unique()  # a generator of torch reads no more of a seed
    assert len(low) >= len(words) - 2


@pytest.mark.parametrize("draws", [torch.arange(512), row_draws(0, 0, 0, 512)])
def test_numbers_are_uniform_and_know_nothing_of_each_other(draws):
    """Neighbouring seeds, the hardest case, or mixed ones; columns are the numbers of one seed."""
    numbers = uniform(draws, 512)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert torch.histc(numbers, 16, 0, 1).sub(2**14).abs().max() < 5 * 2**7  # 5 standard deviations
    standard = (numbers.double() - 0.5) * 12**0.5
    for axis in (standard, standard.T):
        alike = axis @ axis.T / 512
        off = alike - torch.diag(alike.diagonal())
        assert off.abs().max() * 512**0.5 < 6 and abs(float(off.sum())) / 512 < 5 / 512**0.5 * 2


def test_numbers_do_not_depend_on_how_many_are_drawn_nor_on_the_device():
    draws = row_draws(0, 0, 0, 3)
    assert torch.equal(uniform(draws, 4), uniform(draws, 9)[:, :4])
    with pretended_gpu() as device:
        there = uniform(child(draws.to(device), torch.arange(3, device=device)), 5).cpu()
    assert torch.equal(there, uniform(child(draws, torch.arange(3)), 5))


def test_nothing_to_draw_is_no_fault():
    assert uniform(torch.zeros(0, dtype=torch.int64), 4).shape == (0, 4)
    assert uniform(row_draws(0, 0, 0, 2), 0).shape == (2, 0)


def test_outside_a_loop_torch_seeds_the_rows():
    batch = Batch(torch.zeros(2, 3, 4, 4), [(4, 4)] * 2, [0, 1])
    torch.manual_seed(1)
    first, second = draws_of(batch), draws_of(batch)
    torch.manual_seed(1)
    assert torch.equal(draws_of(batch), first) and not torch.equal(first, second)
    given = replace(batch, draws=torch.tensor([4, 5]))
    assert torch.equal(draws_of(given.to("cpu")), given.draws)


def test_one_process_is_a_world_of_its_own():
    assert (rank(), size()) == (0, 1) and world_mean(torch.tensor(3.0)) == 3
