"""Python programs as forks of one process that has imported torch and its neighbours, which takes
seconds of a processor. The library itself each of them imports anew."""

import importlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
import weakref
from functools import cache
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "scipy.special", "scipy.ndimage", "pycocotools.mask",
            "hotcoco", "safetensors.torch", "matplotlib", "yaml", "tqdm")  # fmt: skip


class Program:
    """`python *words`, begun, with what is asked of a subprocess.Popen."""

    def __init__(self, words, cwd=None, env=None):
        self.words, self.place = list(map(str, words)), Path(tempfile.mkdtemp(prefix="program-"))
        weakref.finalize(self, shutil.rmtree, self.place, ignore_errors=True)
        order = {"words": self.words, "cwd": str(cwd or Path.cwd()), "place": str(self.place),
                 "env": dict(env or os.environ)}  # fmt: skip
        server = imported()
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        self.pid = int(server.stdout.readline())

    def poll(self):
        code = self.place / "code"
        return int(code.read_text()) if code.exists() else None

    def wait(self, timeout=600):
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.words, timeout)
            time.sleep(0.02)
        return code

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    stdout = property(lambda self: (self.place / "stdout").read_text())
    stderr = property(lambda self: (self.place / "stderr").read_text())


def run(words, cwd=None, env=None, timeout=600):
    """`python *words`, ended: its exit code, and what it printed."""
    program = Program(words, cwd, env)
    code = program.wait(timeout)
    return subprocess.CompletedProcess(program.words, code, program.stdout, program.stderr)


@cache
def imported():
    """The process that forks; it ends with this one."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen([sys.executable, "-P", __file__], text=True, env=environment,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip


def serve():
    for name in PACKAGES:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that keep a program
    for line in sys.stdin:
        come, go = os.pipe()
        if not os.fork():
            return keep(json.loads(line), go)
        os.close(go)
        print(os.read(come, 20).decode(), flush=True)
        os.close(come)
    return None


def keep(order, go):
    """Forks the program, says its number, waits for it and writes the code that it ended with."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if not (pid := os.fork()):
        return become(**order)
    os.write(go, str(pid).encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    part = Path(order["place"], "part")
    part.write_text(str(code))
    part.rename(part.with_name("code"))
    os._exit(0)


def become(words, cwd, place, env):
    """Goes on as `python *words`; the interpreter then ends as it always does."""
    for number, path in enumerate((os.devnull, f"{place}/stdout", f"{place}/stderr")):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    first = "" if words[0] in ("-c", "-m") else str(Path(words[0]).resolve().parent)
    sys.path[:0] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    importlib.invalidate_caches()
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(words[1], vars(main))
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    serve()
