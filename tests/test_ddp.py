"""Two processes with half a batch each learn what one learns from the whole batch."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from support import distributed_steps

from pointseg.ops.processes import world_mean
from pointseg.structures import InputError
from pointseg.training.checkpoint import Checkpointer
from pointseg.training.distributed import torchrun
from pointseg.training.loader import Feed

PROGRAM = Path(__file__).with_name("support") / "distributed_steps.py"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    place = tmp_path_factory.mktemp("ddp")
    distributed_steps.main(place / "one.json")
    assert torchrun([str(PROGRAM), str(place / "two.json")], processes=2) == 0
    return place, *(json.loads((place / f"{name}.json").read_text()) for name in ("one", "two"))


def test_two_processes_see_the_losses_of_one(done):
    _, one, two = done
    assert len(one["losses"]) == 8 and one["losses"][0] != pytest.approx(
        one["losses"][-1], rel=1e-3
    )
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5, abs=1e-5)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-5, abs=1e-5)


def test_both_count_the_whole_batch(done):
    assert done[1]["images"] == done[2]["images"] == list(range(4, 36, 4))


def test_only_the_first_process_writes_checkpoints(done):
    names = [path.name[:12] for path in Checkpointer(done[0] / "two").paths()]
    assert names == ["step00000008", "step00000006"]


def test_a_failing_process_fails_the_launch(tmp_path):
    (tmp_path / "failing.py").write_text("raise SystemExit(3)")
    assert torchrun([str(tmp_path / "failing.py")], processes=1) != 0


@pytest.fixture
def lonely_world(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_normaliser_is_its_own_mean_in_a_world_of_one(lonely_world):
    assert world_mean(torch.tensor(3.0)).item() == 3.0


def test_a_batch_that_cannot_be_shared_equally_is_refused(monkeypatch):
    for name, value in [("is_initialized", True), ("get_world_size", 3), ("get_rank", 0)]:
        monkeypatch.setattr(dist, name, lambda value=value: value)
    with pytest.raises(InputError, match="4 images cannot be shared equally by 3 processes"):
        Feed([1], list, 4, 0)
