"""The only training loop: `fit` is a generator of records. To log and to stop are the caller's."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pointseg.nets.vit import unfuse
from pointseg.ops.parameter_groups import decay_groups
from pointseg.ops.processes import in_world, rank, row_draws, size
from pointseg.structures import Batch, InputError, Training
from pointseg.training.checkpoint import Checkpointer
from pointseg.training.loader import Feed
from pointseg.training.pieces import finer, free, in_turn, out_of_memory


class Learner(Protocol):
    """An `nn.Module` with losses; `param_groups`, `compiled_parts` and `notes` are its choice."""

    def losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted scalars, the same names on every process; their sum is what falls."""


@dataclass(frozen=True)
class Settings:
    """All that the loop has to know; a checkpoint made with others is not resumed."""

    training: Training  # with its steps and its batch
    seed: int = 0
    precision: str = "auto"  # auto: bf16 on CUDA, float32 on a CPU
    compile: bool = False
    checkpoint_every: int = 1000  # steps


@dataclass(frozen=True)
class Record:
    """What one step did."""

    step: int  # from 0
    epoch: int
    losses: dict[str, float]  # mean over all processes
    total: float
    lr: float  # of the first parameter group
    images: int  # since the start, over all processes
    seconds: float  # of this step, waiting included
    data_wait: float  # seconds of it spent waiting for the batch
    images_per_s: float
    mem_gb: float  # peak of the accelerator's memory, 0 on a CPU
    pieces: int  # that the batch was taken in, one where memory held it
    notes: dict[str, float]  # what the method notes of itself, on this process; no losses


def lr_factor(step: int, steps: int, training: Training) -> float:
    """Share of the base learning rate at a step: linear warm-up, then the schedule."""
    warm = round(training.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    progress = (step - warm) / max(1, steps - warm)
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if training.schedule == "step":
        return 0.1 ** sum(step >= share * steps for share in training.milestones)
    if training.schedule == "trapezoid":
        return min(1.0, (steps - step) / max(1.0, training.cooldown * steps))
    return 1.0


def seed_all(seed: int, step: int = 0, rank: int = 0) -> None:
    """Seeds python, numpy and torch with a mix of the three numbers.

    The loop calls it before every step, so what a step draws depends on nothing that came before
    it: neither on a resume nor on what the caller drew between two records.
    """
    words = np.random.SeedSequence((seed, step, rank)).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


class Average:
    """Exponential moving average of a module's weights; buffers that are no floats are copied."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value, 1 - self.decay)
            else:
                self.shadow[name].copy_(value)


class LossStep(nn.Module):
    """`losses` behind `forward`, which is what DistributedDataParallel knows how to wrap."""

    def __init__(self, method: Learner):
        super().__init__()
        self.method = method

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return self.method.losses(batch, step)

    def shared(self, device: torch.device) -> nn.Module:
        """Itself, or its wrapper among several processes. Which weights a loss uses depends on the
        batch (an image without things), so the wrapper looks for the unused ones."""
        if not in_world():
            return self
        devices = [device] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(self, devices, find_unused_parameters=True)


class Trainer:
    """All that changes while a method is trained; `fit` drives it, a checkpoint holds it."""

    def __init__(
        self, method: Learner, settings: Settings, device: torch.device | str | None = None
    ):
        self.method, self.settings, self.training = method, settings, settings.training
        self.device = torch.device(device or default_device())
        method.to(self.device)
        if self.device.type == "cpu":
            unfuse(method)
        if settings.compile:
            compile_parts(method)
        self.optimizer = _optimizer(method, self.training)
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]
        self.average = Average(method, self.training.ema) if self.training.ema else None
        self.step, self.pieces = 0, 1
        self._loss_step = LossStep(method).shared(self.device)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def advance(self, batch: Batch) -> tuple[dict[str, float], float]:
        """One optimiser step; its losses and learning rate."""
        factor = self._prepare()
        losses = self._learnt(self._seeded(batch))
        norm = nn.utils.clip_grad_norm_(self.parameters, self.training.clip or math.inf)
        values = self._checked(losses, norm, batch)
        self.optimizer.step()
        if self.average:
            self.average.update(self.method)
        self.step += 1
        return values, self.base_lrs[0] * factor

    def _prepare(self) -> float:
        """Share of the learning rate, set in every group; gradients are cleared."""
        factor = lr_factor(self.step, self.training.steps, self.training)
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = lr * factor
        self.method.train()
        self.optimizer.zero_grad(set_to_none=True)
        return factor

    def _seeded(self, batch: Batch) -> Batch:
        """The batch on the device, with the seeds of its global rows."""
        self._seeds()
        draws = row_draws(self.settings.seed, self.step, rank() * len(batch), len(batch))
        return replace(batch, draws=draws).to(self.device)

    def _learnt(self, batch: Batch) -> dict[str, Tensor]:
        """Losses, their gradients left in the weights; a batch that memory does not hold is taken
        again in twice as many pieces, now and in all later steps."""
        while True:
            try:
                if self.pieces > 1:
                    return in_turn(self._losses, self._seeds, batch, self.pieces, self.method)
                losses = self._losses(batch)
                sum(losses.values()).backward()
                return losses
            except RuntimeError as problem:
                if in_world() or not out_of_memory(problem):
                    raise
                self.pieces = finer(self.pieces, len(batch))
            free(self.method, self.device)

    def _seeds(self) -> None:
        seed_all(self.settings.seed, self.step, rank())

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        bf16 = uses_bf16(self.settings.precision, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return self._loss_step(batch, self.step)

    def _checked(self, losses: dict[str, Tensor], norm: Tensor, batch: Batch) -> dict[str, float]:
        """Losses as numbers, mean over processes; raises before the weights are touched when one is
        not finite."""
        values = torch.stack([*losses.values(), norm]).detach().float()
        if in_world():
            dist.all_reduce(values)
            values /= size()
        numbers = dict(zip([*losses, "gradient norm"], values.tolist()))
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(
                f"step {self.step}: {', '.join(broken)} not finite; images {list(batch.image_ids)}"
            )
        del numbers["gradient norm"]
        return numbers

    def state(self) -> dict:
        """Tensors, numbers and strings only: readable with weights_only."""
        return {
            "settings": json.dumps(asdict(self.settings)),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.shadow if self.average else {},
            "step": self.step,
        }

    def load(self, state: dict) -> None:
        """Inverse of `state`."""
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.shadow = {k: v.to(self.device) for k, v in state["average"].items()}
        self.step = state["step"]

    def finish(self) -> None:
        """Leaves the averaged weights in the method, where an average was asked for."""
        if self.average:
            self.method.load_state_dict(self.average.shadow)


def fit(
    method: Learner,
    feed: Feed,
    settings: Settings,
    folder: Path | None = None,
    resume: bool = True,
    device: torch.device | str | None = None,
) -> Iterator[Record]:
    """Trains in place, a record a step.

    With a folder, a checkpoint is kept there every `checkpoint_every` steps, at the end, and when
    the caller closes the generator; with `resume` a later call goes on from the newest whole one.
    """
    trainer = Trainer(method, settings, device)
    keeper = Checkpointer(folder) if folder else None
    if keeper and resume:
        keeper.restore(trainer)
    try:
        yield from _steps(trainer, feed, keeper)
    except GeneratorExit:  # the caller stops: the state is whole, between two steps
        if keeper:
            keeper.save(trainer)
        raise
    trainer.finish()


def _steps(trainer: Trainer, feed: Feed, keeper: Checkpointer | None) -> Iterator[Record]:
    steps, every = trainer.training.steps, trainer.settings.checkpoint_every
    batches = feed.batches(trainer.step) if trainer.step < steps else iter(())
    while trainer.step < steps:
        yield _record(trainer, feed, batches)
        # after the caller has logged the record: no line of the log is ever lost
        if keeper and (trainer.step % every == 0 or trainer.step == steps):
            keeper.save(trainer)


def _record(trainer: Trainer, feed: Feed, batches: Iterator[Batch]) -> Record:
    """One step, timed."""
    began = time.perf_counter()
    batch = next(batches)
    waited = time.perf_counter() - began
    losses, lr = trainer.advance(batch)
    seconds, images = time.perf_counter() - began, trainer.training.batch
    return Record(
        step=trainer.step - 1, epoch=feed.epoch(trainer.step - 1), losses=losses,
        total=sum(losses.values()), lr=lr, images=trainer.step * images, seconds=seconds,
        data_wait=waited, images_per_s=images / seconds, mem_gb=peak_gb(trainer.device),
        pieces=trainer.pieces, notes=noted(trainer.method),
    )  # fmt: skip


def noted(method: Learner) -> dict[str, float]:
    """The numbers that a method left in `notes` during its last step."""
    notes = getattr(method, "notes", {})
    return dict(zip(notes, torch.stack([*notes.values()]).tolist())) if notes else {}


def _optimizer(method: Learner, training: Training) -> torch.optim.Optimizer:
    """AdamW over the method's own groups, or over one with and one without weight decay."""
    if hasattr(method, "param_groups"):
        groups = method.param_groups(training.lr, training.weight_decay)
    else:
        groups = decay_groups(method.parameters(), training.lr, training.weight_decay)
    return torch.optim.AdamW(groups, betas=training.betas, fused=True)


def compile_parts(method: Learner) -> None:
    """torch.compile on what the method names as static."""
    if not hasattr(method, "compiled_parts"):
        raise InputError(f"compile: {type(method).__name__} has no part to compile")
    for part in method.compiled_parts():
        part.compile()


def uses_bf16(precision: str, device: torch.device) -> bool:
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def default_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def peak_gb(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
