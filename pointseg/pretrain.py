"""Pretraining on pictures alone: `pointseg pretrain mae` made the small backbone that is shipped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pointseg.checkpoint import Checkpointer
from pointseg.data import bestiary
from pointseg.ledger import Run, write_text
from pointseg.nets.mae import MAEConfig, MaskedAutoencoder
from pointseg.nets.probe import ProbePicture, probe
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.nets.weights import save_backbone
from pointseg.structures import InputError

HELD_OUT = 1_000_000  # pictures of split "pretrain" from this index on are for probing only


@dataclass(frozen=True)
class Pretraining:
    """How a backbone is pretrained. Optimiser as He et al. 2022, its rate scaled to a small network and batch."""

    views: int = 1_000_000
    batch: int = 64
    seed: int = 0
    pictures: int = 20_000
    size: int = 128
    smallest_crop: float = 0.5  # share of a picture's side
    lr: float = 8e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warm_up: int = 10_000  # views
    cool_down: float = 0.2  # the last share of the views, over which the rate falls to zero
    probes: tuple[int, ...] = (0, 16_000, 64_000, 160_000, 320_000, 640_000)  # views at which features are probed
    probe_pictures: int = 96
    start: str = ""  # a checkpoint of an earlier run, whose weights this one starts from
    vit: ViTConfig = field(default_factory=ViTConfig)
    mae: MAEConfig = field(default_factory=lambda: MAEConfig(colour=0.5))

    @property
    def steps(self) -> int:
        return math.ceil(self.views / self.batch)

    def rate(self, step: int) -> float:
        """Linear warm-up, level, linear cool-down."""
        seen = (step + 1) * self.batch
        left = (self.views - step * self.batch) / max(self.cool_down * self.views, 1)
        return self.lr * min(seen / self.warm_up, left, 1.0)


class Pretrainer:
    """Model, optimiser and step: what a checkpoint holds."""

    def __init__(self, config: Pretraining, device: torch.device):
        torch.manual_seed(config.seed)
        self.config, self.device, self.step = config, device, 0
        self.model = MaskedAutoencoder(TokenViT(config.vit), config.mae).to(device)
        if device.type == "cpu":
            unfuse(self.model)
        if config.start:
            self.model.load_state_dict(torch.load(config.start, weights_only=True)["model"])
        self.optimiser = torch.optim.AdamW(
            decayed(self.model, config.weight_decay), lr=config.lr, betas=config.betas, fused=True
        )

    def advance(self, pictures: np.ndarray) -> float:
        """One step; all that is drawn at random depends on (seed, step) alone."""
        images = draw_views(pictures, self.config, self.step).to(self.device)
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.model(images).loss
        if not torch.isfinite(loss):
            raise RuntimeError(f"loss is {loss.item()} at step {self.step}")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def state(self) -> dict[str, Any]:
        return {"recipe": json.dumps(asdict(self.config)), "step": self.step, "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict()}  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])


def pretrain(kind: str = "mae", out: Path | str = "work/pretrain", minutes: float = 0.0, **settings: Any) -> Path:
    """Trains until `views` are seen, resuming what is in `out`; returns the backbone's safetensors file.

    `settings` are fields of Pretraining. `out` gets log.jsonl, the pictures, checkpoints and snapshots.
    """
    if kind != "mae":
        raise InputError(f"{kind}: unknown kind of pretraining; known is mae")
    config, run = Pretraining(**settings), Run(Path(out))
    with run.recording(kind="pretrain mae", command=f"pointseg pretrain mae --out OUT --views {config.views}"):
        write_text(run.folder / "recipe.json", json.dumps(asdict(config), indent=1) + "\n")
        pictures = stored_pictures(run.folder / "pictures.npy", config)
        trainer = Pretrainer(config, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        scores = _train(trainer, pictures, run)
        path = save_backbone(trainer.model.vit, run.folder / "backbone.safetensors")
        run.write("metrics.json", scores)
    return path


def _train(trainer: Pretrainer, pictures: np.ndarray, run: Run) -> dict[str, float]:
    config, keeper = trainer.config, Checkpointer(run.folder / "checkpoints")
    keeper.restore(trainer)
    held_out = [probe_picture(config, i) for i in range(config.probe_pictures)]
    due = {math.ceil(views / config.batch): views for views in (*config.probes, config.views)}
    scores, losses, began, saved = {}, [], time.perf_counter(), time.perf_counter()
    for _ in _steps(trainer):
        if trainer.step in due:
            scores = _look(trainer, held_out, run)
        losses.append(trainer.advance(pictures))
        if trainer.step % 100 == 0:
            pace = len(losses) * config.batch / (time.perf_counter() - began)
            _log(run, views=trainer.step * config.batch, loss=sum(losses) / len(losses), views_per_s=round(pace, 1))
            losses, began = [], time.perf_counter()
        if time.perf_counter() - saved > 180:
            keeper.save(trainer)
            saved = time.perf_counter()
    keeper.save(trainer)
    return _look(trainer, held_out, run) if trainer.step in due or not scores else scores


def _steps(trainer: Pretrainer) -> Iterator[None]:
    while trainer.step < trainer.config.steps:
        yield


def _look(trainer: Pretrainer, held_out: list[ProbePicture], run: Run) -> dict[str, float]:
    """Probes the features, and keeps the weights as they are now for pictures of how features grow."""
    views = trainer.step * trainer.config.batch
    scores = {name: round(value, 4) for name, value in probe(trainer.model.vit, held_out).items()}
    _log(run, views=views, probe=scores)
    save_backbone(trainer.model.vit, run.folder / "snapshots" / f"views{views:08d}.safetensors")
    return scores


def _log(run: Run, **facts: Any) -> None:
    line = json.dumps(facts)
    print(line, flush=True)
    with (run.folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def decayed(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Matrices shrink; vectors and tokens do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    return [{"params": matrices, "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip


def unfuse(model: torch.nn.Module) -> None:
    """On a CPU the backward pass of fused attention over few tokens costs more than the matrices it saves."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def stored_pictures(path: Path, config: Pretraining, workers: int = 2) -> np.ndarray:
    """[n, size, size, 3] uint8 of Bestiary's split "pretrain", drawn once and then read from disk."""
    if not path.exists():
        part = path.with_suffix(".part")
        pictures = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.uint8, shape=(config.pictures, config.size, config.size, 3)
        )
        with ProcessPoolExecutor(workers) as pool:
            jobs = pool.map(_draw, *zip(*((config.seed, i, config.size) for i in range(config.pictures))), chunksize=64)
            for index, picture in enumerate(jobs):
                pictures[index] = picture
        pictures.flush()
        part.rename(path)
    stored = np.load(path, mmap_mode="r")
    if stored.shape[1:] != (config.size, config.size, 3):
        raise InputError(f"{path}: holds pictures of shape {stored.shape[1:]}, not of size {config.size}")
    return stored


def _draw(seed: int, index: int, size: int) -> np.ndarray:
    return bestiary.draw(seed, "pretrain", index, size).image


def draw_views(pictures: np.ndarray, config: Pretraining, step: int) -> Tensor:
    """A batch [b, 3, size, size] in 0..1: random pictures, square crops and flips of (seed, step)."""
    rng = np.random.default_rng((config.seed, step))
    rows = rng.integers(0, len(pictures), config.batch)
    images = torch.from_numpy(pictures[np.sort(rows)]).permute(0, 3, 1, 2).float() / 255
    scale = rng.uniform(config.smallest_crop, 1.0, config.batch)
    shift = rng.uniform(-1, 1, (config.batch, 2)) * (1 - scale[:, None])
    theta = torch.zeros(config.batch, 2, 3)
    theta[:, 0, 0] = torch.from_numpy(scale * rng.choice([-1, 1], config.batch))
    theta[:, 1, 1] = torch.from_numpy(scale)
    theta[:, :, 2] = torch.from_numpy(shift)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def probe_picture(config: Pretraining, index: int) -> ProbePicture:
    """A held-out picture; each thing's point is one of its pixels, drawn by (seed, index)."""
    scene = bestiary.draw(config.seed, "pretrain", HELD_OUT + index, config.size)
    truth = scene.truth.pick(scene.truth.is_thing & ~scene.truth.is_crowd)
    rng = np.random.default_rng((config.seed, index))
    points = []
    for mask in truth.masks:
        rows, columns = mask.nonzero(as_tuple=True)
        chosen = rng.integers(len(rows))
        points.append((columns[chosen] + 0.5, rows[chosen] + 0.5))
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    return ProbePicture(image, truth.masks, truth.parts.long(), torch.tensor(points).view(-1, 2))
