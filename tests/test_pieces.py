"""A batch that memory does not hold is taken in pieces: the same losses, and the record says so."""

import pytest
import torch
from support import tiny_method as tiny

from pointseg.lab.chain import totals
from pointseg.lab.progress import Progress, read_log
from pointseg.structures import InputError
from pointseg.training.loop import fit
from pointseg.training.pieces import finer


class Greedy(tiny.Tiny):
    """Holds so many images at once; its teacher follows before each step."""

    def __init__(self, most):
        torch.manual_seed(0)
        super().__init__(dropout=0.0, norm=False)
        self.most = most
        self.register_buffer("follower", torch.zeros(()))

    def losses(self, batch, step):
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory: planted")
        self.follower.add_(1.0)
        outputs = self.net(batch.images).flatten(1)
        return {"fit": (outputs - self.follower).pow(2).mean()}


def trained(most, folder=None, batch=4):
    chosen, method = tiny.settings(steps=6, batch=batch), Greedy(most)
    return method, list(fit(method, tiny.feed(chosen), chosen, folder, device="cpu"))


def test_a_step_that_memory_does_not_hold_is_repeated_in_halves_with_the_same_losses():
    (whole, one), (cut, parts) = trained(4), trained(1)
    assert [record.pieces for record in one] == [1] * 6
    assert [record.pieces for record in parts] == [4] * 6
    assert [r.total for r in parts] == pytest.approx([r.total for r in one], rel=1e-5)
    assert [r.images for r in parts] == [r.images for r in one] == list(range(4, 28, 4))
    for a, b in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert cut.follower == whole.follower == 6


def test_another_fault_is_no_lack_of_memory(monkeypatch):
    method, chosen = Greedy(4), tiny.settings(steps=1, batch=4)
    monkeypatch.setattr(method, "losses", lambda batch, step: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        list(fit(method, tiny.feed(chosen), chosen, device="cpu"))


def test_the_record_of_a_stage_says_in_how_many_pieces(tmp_path):
    _, records = trained(2)
    progress = Progress(6, tmp_path)
    for record in records:
        progress(record)
    assert totals(read_log(tmp_path / "speed.jsonl"))["pieces"] == 2
    assert all("pieces" not in line for line in read_log(tmp_path / "log.jsonl"))
    assert "pieces" not in totals([{"step": 0, "seconds": 1.0, "images": 4, "data_wait": 0.0,
                                    "mem_gb": 0.0, "pieces": 1}])  # fmt: skip


def test_pieces_double_and_divide_the_batch_until_one_image_is_too_much():
    assert [finer(1, 16), finer(2, 16), finer(1, 3), finer(2, 6)] == [2, 4, 3, 6]
    with pytest.raises(InputError, match="memory does not hold a step of one image"):
        trained(0)
