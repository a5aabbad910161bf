"""Kernels forked from one process that has imported what every chapter imports.

Importing torch and its neighbours takes longer than most chapters; so it happens once a build.
Only packages from outside come beforehand: what a chapter reads of the repository is read, and
heard, in its own kernel.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from functools import cache
from typing import Any

from jupyter_client import AsyncKernelManager

PACKAGES = ("ipykernel.kernelapp", "matplotlib_inline.backend_inline", "matplotlib.pyplot",
            "torchvision", "timm", "scipy.special", "scipy.ndimage", "pycocotools.mask", "hotcoco",
            "safetensors.torch", "yaml", "tqdm", "jupytext", "nbclient", "myst_nb")  # fmt: skip
BACKEND = "module://matplotlib_inline.backend_inline"


class ForkedKernels(AsyncKernelManager):
    """Kernel manager whose kernels are forks of one process that has its packages."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        words = kernel_cmd[kernel_cmd.index("-f") :]
        order = {"words": words, "folder": str(kw["cwd"]), "environment": dict(kw["env"])}
        process = Forked(forked(order))
        self.provisioner.process, self.provisioner.pgid = process, process.pid
        self._reconcile_connection_info(self.provisioner.connection_info)


class Forked:
    """A process that is no child of this one, with what the manager asks of its kernels."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid = pid

    def poll(self) -> int | None:
        """None while it lives; nobody but its parent knows the code it ended with."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return 0
        return None

    wait = poll  # is called where poll has said that it ended

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def forked(order: dict[str, Any]) -> int:
    """The process number of a new kernel."""
    process = forker(PACKAGES)
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@cache
def forker(packages: tuple[str, ...]) -> subprocess.Popen:
    """The process that forks; it ends, with its kernels, when this one does."""
    words = [sys.executable, "-P", __file__, *packages]
    environment = {"MPLBACKEND": BACKEND, **os.environ}
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env=environment, start_new_session=True)  # fmt: skip


def serve(packages: list[str]) -> None:
    """Forks a kernel for each line of standard input, until its end."""
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # where it has gone, a kernel ends
    for name in packages:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a kernel that has ended
    kernels = []
    for line in sys.stdin:
        if not (pid := os.fork()):
            become(**json.loads(line))
        kernels.append(Forked(pid))
        print(pid, flush=True)
    for kernel in (one for one in kernels if one.poll() is None):
        kernel.send_signal(signal.SIGKILL)


def become(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Goes on as a kernel, in a session of its own; never returns."""
    from ipykernel.kernelapp import launch_new_instance

    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    os.chdir(folder)
    os.environ.update(environment)
    try:
        launch_new_instance(words)
    finally:
        os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1:])
