"""Two processes with half a batch each lose and learn what one with all of it does: all methods."""

import json
from pathlib import Path

import pytest
from support import two_processes

from pointseg.training.distributed import torchrun

PROGRAM = Path(two_processes.__file__)
METHODS = [*two_processes.MODULES, "pretraining"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Of all methods at once, since processes take seconds to start."""
    path = tmp_path_factory.mktemp("two") / "losses.json"
    assert torchrun([str(PROGRAM), str(path), *METHODS], processes=2) == 0
    return json.loads(path.read_text())


@pytest.mark.parametrize("title", two_processes.BATCHES)
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_have_the_losses_of_one(name, title, two):
    """Of two steps, in float32, and the size of the weights after each."""
    one = two_processes.losses_of(name, two_processes.BATCHES[title])
    assert len(one) == 2 and one[0] != one[1]
    for alone, shared in zip(one, two[f"{name}, {title}"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-5, abs=1e-5)
