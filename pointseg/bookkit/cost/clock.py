"""Time, memory, operations, and the floor under them. Nothing else in the library measures.

One thread on a CPU: CPU seconds of this process, which a busy machine disturbs least; on a GPU
seconds by the wall.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Work = Callable[[], Any]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Patience:
    """Rounds of each group of works, and the seconds after which no further round begins."""

    rounds: int = 5
    budget_s: float = math.inf


def interleaved(works: dict[str, Work], patience: Patience, device: torch.device = CPU):
    """Name -> seconds of each round. All works in turn, so that what disturbs the machine disturbs
    all alike; the first round always takes place."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    began = time.perf_counter()
    for _ in range(patience.rounds):
        for name, work in works.items():
            seconds[name].append(once(work, device))
        if time.perf_counter() - began > patience.budget_s:
            break
    return seconds


def once(work: Work, device: torch.device) -> float:
    """Seconds of one call."""
    if device.type == "cpu":
        began = time.process_time()
        work()
        return time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began


# timm's fused attention on a CPU has an operation of its own, which torch's counter does not know
ATEN = torch.ops.aten
FUSED_ON_CPU = {
    ATEN._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(
        q, k, v
    ),
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)
    ),
}


def operations(work: Work) -> int:
    """Multiplications and additions of matrix products, convolutions and attentions in one call."""
    with FlopCounterMode(display=False, custom_mapping=FUSED_ON_CPU) as counter:
        work()
    return counter.get_total_flops()


@dataclass(frozen=True)
class Counts:
    """What one call asks torch for, backward passes included."""

    operations: int  # as `operations`
    calls: int  # many small ones cost more than their arithmetic


class _Calls(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        self.count += 1
        return function(*arguments, **(named or {}))


def counted(work: Work) -> Counts:
    with _Calls() as calls:
        count = operations(work)
    return Counts(count, calls.count)


def peak_bytes(work: Work, device: torch.device = CPU) -> int:
    """The most memory that tensors made during one call held at one time."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = work()
    del kept
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return highest(e.nbytes() for e in changes)


def highest(changes: Iterable[int]) -> int:
    """The largest running sum of changes, never below 0."""
    return max(accumulate(changes, initial=0))


@dataclass(frozen=True)
class Machine:
    """What the device does at best: operations a second by precision, and bytes a second."""

    device: str
    threads: int
    float32: float
    bf16: float
    bytes: float

    def floor_s(self, operations: int, moved: int, precision: str = "float32") -> float:
        """No implementation needs less.

        Products at the matrix rate, or traffic at the bandwidth.
        """
        return max(operations / getattr(self, precision), moved / self.bytes)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_machine(device: torch.device, side: int, megabytes: int) -> Machine:
    """One large product in each precision, and one large copy.

    The copy reads and writes every byte.
    """
    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.empty_like(source)
    matrix = torch.randn(side, side, device=device)
    works = {
        "float32": product(matrix),
        "bf16": product(matrix.bfloat16()),
        "copy": lambda: target.copy_(source),
    }
    best = {name: min(s) for name, s in interleaved(works, Patience(6), device).items()}
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    rates = {precision: 2 * side**3 / best[precision] for precision in ("float32", "bf16")}
    return Machine(name, torch.get_num_threads(), bytes=2 * source.nbytes / best["copy"], **rates)


def product(matrix: Tensor) -> Work:
    return lambda: matrix @ matrix
