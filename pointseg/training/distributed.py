"""Starting the processes of one training with torchrun, and joining them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as dist

from pointseg.ops.processes import in_world, rank

# How long processes wait for each other: while the first one labels all training images, the others
# have nothing to do. That one died, torchrun sees by itself.
PATIENCE = timedelta(hours=12)


def torchrun(words: list[str], processes: int) -> int:
    """Exit code of `torchrun --standalone` over a script or `-m module` and its arguments.

    Interrupted, it asks the processes to end and waits until they have saved what they do.
    """
    options = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with subprocess.Popen([sys.executable, "-m", *options, *words]) as launcher:
        try:
            return launcher.wait()
        except KeyboardInterrupt:
            launcher.terminate()
            launcher.wait()
            raise


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Inside torchrun: the process group, and this process's own accelerator. Elsewhere nothing."""
    if "WORLD_SIZE" not in os.environ:
        yield
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield
    finally:
        if in_world():
            dist.destroy_process_group()


def first_goes_on() -> bool:
    """Ends the world; true in its first process, which goes on alone: what follows waits for
    nobody."""
    if not in_world():
        return True
    first = rank() == 0
    dist.barrier()
    dist.destroy_process_group()
    return first
