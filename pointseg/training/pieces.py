"""A step whose batch memory does not hold: taken in pieces, whose gradients add up to its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from pointseg.ops.processes import Turns, mean_of
from pointseg.structures import Batch, InputError

Losses = Callable[[Batch], dict[str, Tensor]]


def out_of_memory(problem: RuntimeError) -> bool:
    """Whether an accelerator, or a processor that says so, had no memory left."""
    words = "can't allocate memory"
    return isinstance(problem, torch.OutOfMemoryError) or words in str(problem)


def finer(pieces: int, images: int) -> int:
    """Twice as many pieces, or the next number that divides the batch."""
    if pieces >= images:
        raise InputError("memory does not hold a step of one image: choose a smaller image_size")
    return next(n for n in range(2 * pieces, images + 1) if images % n == 0)


def free(method: nn.Module, device: torch.device) -> None:
    """Lets go what a step that failed has left."""
    method.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def pieces_of(batch: Batch, count: int) -> list[Batch]:
    """Blocks of equally many rows, padded as the whole batch is."""
    rows = len(batch) // count
    return [rows_of(batch, slice(k * rows, (k + 1) * rows)) for k in range(count)]


def rows_of(batch: Batch, rows: slice) -> Batch:
    parts = {name: value[rows] for name, value in vars(batch).items() if value is not None}
    return replace(batch, **parts)


def in_turn(
    losses: Losses, seeds: Callable[[], None], batch: Batch, count: int, method: nn.Module
) -> dict[str, Tensor]:
    """Mean losses of the pieces, gradients left in the weights. What a method changes by itself
    (a teacher that follows) is the same before each piece; dropout and batch statistics are those
    of pieces."""
    turns, before = Turns(count), unlearnt(method)

    def taken(learning: bool) -> list[dict[str, Tensor]]:
        seeds()
        rows = []
        for piece in pieces_of(batch, count):
            restore(before)
            with turns.piece(), torch.set_grad_enabled(learning):
                each = losses(piece)
            if learning:
                (sum(each.values()) / count).backward()
            rows.append({name: value.detach() for name, value in each.items()})
        return rows

    taken(learning=False)
    turns.know()
    rows = taken(learning=True)
    return {name: mean_of([row[name] for row in rows]) for name in rows[0]}


def unlearnt(method: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Tensors that no gradient changes, with copies of them."""
    fixed = [p for p in method.parameters() if not p.requires_grad]
    return [(t, t.detach().clone()) for t in [*fixed, *method.buffers()]]


@torch.no_grad()
def restore(before: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, copy in before:
        tensor.copy_(copy)
