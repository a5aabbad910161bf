"""Children that end with the process that started them, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PARENT_DIED = 1  # prctl's PR_SET_PDEATHSIG


def die_with(parent: int, number: int) -> None:
    """This process gets a signal when its parent ends, however that ends; at once where it has
    ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DIED, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def die_with_parent() -> None:
    """For a child between fork and exec: killed with the process that started it."""
    die_with(os.getppid(), signal.SIGKILL)
