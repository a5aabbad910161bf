"""Time, memory, operations, and the floor under them. Nothing else in the library measures.

One thread on a CPU: CPU seconds of this process, which a busy machine disturbs least; on a GPU seconds by the wall.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Work = Callable[[], Any]


@dataclass(frozen=True)
class Spent:
    """Seconds a call, over so many repeats."""

    cpu_min_s: float
    cpu_median_s: float
    wall_min_s: float
    wall_median_s: float
    repeats: int

    def least(self, device: torch.device) -> float:
        """The number that ratios and floors are held against."""
        return self.wall_min_s if device.type == "cuda" else self.cpu_min_s


def interleaved(
    works: dict[str, Work], repeats: int = 5, budget_s: float = math.inf, warm: bool = True
):
    """Name -> Spent. All works in turn, round after round, so that what disturbs the machine disturbs all alike.

    No round begins after `budget_s`; the first one always does. `warm` calls each once before.
    """
    for work in works.values() if warm else ():
        work()
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    began = time.perf_counter()
    for _ in range(repeats):
        for name, work in works.items():
            rounds[name].append(_once(work))
        if time.perf_counter() - began > budget_s:
            break
    return {name: _spent(*zip(*pairs)) for name, pairs in rounds.items()}


def _once(work: Work) -> tuple[float, float]:
    _settle()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    _settle()
    return time.process_time() - cpu, time.perf_counter() - wall


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _spent(cpu: tuple[float, ...], wall: tuple[float, ...]) -> Spent:
    return Spent(min(cpu), statistics.median(cpu), min(wall), statistics.median(wall), len(cpu))


# timm's fused attention on a CPU has an operation of its own, which torch's counter does not know
FUSED_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: (
        sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda g, q, k, v, *_, **__: (
        sdpa_backward_flop_count(g, q, k, v)
    ),
}


def operations(work: Work) -> int:
    """Multiplications and additions of the matrix products, convolutions and attentions inside one call."""
    with FlopCounterMode(display=False, custom_mapping=FUSED_ON_CPU) as counter:
        work()
    return counter.get_total_flops()


def peak_bytes(work: Work, device: torch.device) -> int:
    """The most memory that tensors made during one call held at one time."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        kept = work()
    del kept
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return highest([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])


def highest(changes: list[int]) -> int:
    """The largest running sum of a list of changes, never below 0."""
    level = top = 0
    for change in changes:
        level += change
        top = max(top, level)
    return top


@dataclass(frozen=True)
class Machine:
    """What the device does at best, as measured: operations a second by precision, bytes a second."""

    device: str
    threads: int
    float32: float
    bf16: float
    bytes: float

    def floor_s(self, operations: int, moved: int, precision: str = "float32") -> float:
        """No implementation needs less time: products at the matrix rate, or traffic at the bandwidth."""
        return max(operations / getattr(self, precision), moved / self.bytes)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure_machine(device: torch.device, side: int, megabytes: int, repeats: int = 5) -> Machine:
    """One large product in each precision, and one large copy, which reads and writes every byte."""
    source = torch.ones(megabytes * 250_000, device=device)
    target = torch.empty_like(source)
    works = {
        "float32": _product(torch.randn(side, side, device=device)),
        "bf16": _product(torch.randn(side, side, device=device).bfloat16()),
        "copy": lambda: target.copy_(source),
    }
    spent = {name: one.least(device) for name, one in interleaved(works, repeats).items()}
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    rates = {precision: 2 * side**3 / spent[precision] for precision in ("float32", "bf16")}
    return Machine(name, torch.get_num_threads(), bytes=2 * source.nbytes / spent["copy"], **rates)


def _product(matrix: Tensor) -> Work:
    return lambda: matrix @ matrix
