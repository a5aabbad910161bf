"""Two processes with half a batch each lose and learn what one with all of it does, and so does one
that takes both halves in turn: all methods."""

import functools
import json
import os
import socket
from pathlib import Path

import pytest
from support import imported, two_processes

PROGRAM = Path(two_processes.__file__)
METHODS = [*two_processes.MODULES, "pretraining"]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Of all methods at once, since processes take seconds to start; in the environment that
    torchrun makes, which test_ddp starts."""
    path = tmp_path_factory.mktemp("two") / "losses.json"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    world = [os.environ | meeting | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
             for rank in "01"]  # fmt: skip
    both = [imported.Program([PROGRAM, path, *METHODS], env=env) for env in world]
    assert [each.wait() for each in both] == [0, 0], both[0].stderr + both[1].stderr
    return json.loads(path.read_text())


one_alone = functools.cache(two_processes.losses_of)


@pytest.mark.parametrize("title", two_processes.BATCHES)
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_have_the_losses_of_one(name, title, two):
    """Of two steps, in float32, and the size of the weights after each."""
    one = one_alone(name, two_processes.BATCHES[title])
    assert len(one) == 2 and one[0] != one[1]
    for alone, shared in zip(one, two[f"{name}, {title}"], strict=True):
        assert shared == pytest.approx(alone, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("name", two_processes.MODULES)
def test_two_pieces_have_the_losses_of_the_whole(name):
    """Not of the pretraining, which standardises what it has centred: two counts, one of them of
    the other."""
    things = two_processes.BATCHES["things in one share"]
    for alone, cut in zip(one_alone(name, things), two_processes.losses_of(name, things, 2)):
        assert cut == pytest.approx(alone, rel=1e-5, abs=1e-5)
