"""Pretraining on pictures alone: `pointseg pretrain mae` made the small backbone that is shipped."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pointseg.data import bestiary
from pointseg.lab.run_record import RUNS, Run, write_text
from pointseg.nets.vit import TokenViT, ViTConfig, unfuse
from pointseg.nets.weights import SHIPPED, read_backbone, save_backbone
from pointseg.ops import processes as world
from pointseg.structures import InputError
from pointseg.training.checkpoint import Checkpointer
from pointseg.training.distributed import joined
from pointseg.training.pretraining.mae import MAEConfig, MaskedAutoencoder
from pointseg.training.pretraining.probe import ProbePicture, portrait, probe

PORTRAITS = 6  # held-out pictures whose feature maps are kept to look at
CHECKPOINT_S = 180  # seconds between checkpoints
HELD_OUT = 1_000_000  # pictures of split "pretrain" from this index on are for probing only


@dataclass(frozen=True)
class Pretraining:
    """How a backbone is pretrained. Optimiser as He et al. 2022, its rate scaled to a small network and batch."""

    views: int = 1_200_000  # a picture hidden in one way is one view
    alone: int = 96_000  # of these, how many pass by before the teacher is listened to; it starts as its pupil
    batch: int = 64  # pictures a step, each hidden in one way at first and then in mae.masks ways
    seed: int = 0
    pictures: int = 30_000
    size: int = 128
    smallest_crop: float = 0.5  # share of a picture's side
    lr: float = 8e-4
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    warm_up: int = 10_000  # views
    cool_down: float = 0.2  # the last share of the views, over which the rate falls to zero
    # views after which features are probed
    probes: tuple[int, ...] = (0, 8_000, 32_000, 96_000, 160_000, 320_000, 640_000, 960_000)
    probe_pictures: int = 96
    vit: ViTConfig = field(default_factory=ViTConfig)
    mae: MAEConfig = field(
        default_factory=lambda: MAEConfig(colour=0.5, block=2, latent=1.0, masks=2)
    )

    @property
    def first_steps(self) -> int:
        """Steps of masking alone; every step, where there is no teacher."""
        return math.ceil((self.alone if self.mae.latent else self.views) / self.batch)

    def views_at(self, step: int) -> int:
        early = min(step, self.first_steps)
        return self.batch * (early + (step - early) * self.mae.masks)

    def rate(self, step: int) -> float:
        """Linear warm-up, level, linear cool-down."""
        left = (self.views - self.views_at(step)) / max(self.cool_down * self.views, 1)
        return self.lr * min(self.views_at(step + 1) / self.warm_up, left, 1.0)


class Pretrainer:
    """Model, optimiser and step: what a checkpoint holds."""

    def __init__(self, config: Pretraining, device: torch.device):
        torch.manual_seed(config.seed)
        self.config, self.device, self.step = config, device, 0
        self.model = MaskedAutoencoder(TokenViT(config.vit), config.mae).to(device)
        if device.type == "cpu":
            unfuse(self.model)
        groups = decayed(self.model, config.weight_decay)
        self.optimiser = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
        self.parallel = self.model
        if world.in_world():
            self.parallel = torch.nn.parallel.DistributedDataParallel(
                self.model, find_unused_parameters=True
            )

    @property
    def views(self) -> int:
        return self.config.views_at(self.step)

    def advance(self, pictures: np.ndarray) -> float:
        """One step; all that is drawn at random depends on (seed, step, process) alone."""
        own = slice(world.rank(), None, world.size())
        images = draw_views(pictures, self.config, self.step, own, self.device)
        torch.manual_seed((self.config.seed * 1_000_003 + self.step) * world.size() + world.rank())
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate(self.step)
        if self.config.mae.latent and self.step == self.config.first_steps:
            self.model.teacher.load_state_dict(self.model.vit.state_dict())
        self.model.listens = self.step >= self.config.first_steps
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.parallel(images).loss
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


def pretrain(kind: str = "mae", out: Path | str = "work/pretrain", **settings: Any) -> Path:
    """Trains until `views` are seen, resuming what is in `out`; returns the backbone's safetensors file.

    `settings` are fields of Pretraining. `out` gets log.jsonl, the pictures, checkpoints and snapshots.
    """
    if kind != "mae":
        raise InputError(f"{kind}: unknown kind of pretraining; known is mae")
    config, run = Pretraining(**settings), Run(Path(out))
    path = run.folder / "backbone.safetensors"
    with joined():
        if world.rank():
            _train(_prepared(config, run), run)
            return path
        with run.recording(kind=f"pretrain {kind}"):
            write_text(run.folder / "recipe.json", json.dumps(asdict(config), indent=1) + "\n")
            run.write("metrics.json", _train(_prepared(config, run), run))
    return path


def _prepared(config: Pretraining, run: Run) -> tuple[Pretrainer, np.ndarray]:
    """The first process draws what is not yet there; the others wait for it."""
    path = run.folder / "pictures.npy"
    if world.rank() == 0:
        stored_pictures(path, config)
    if world.in_world():
        torch.distributed.barrier()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Pretrainer(config, device), stored_pictures(path, config)


def _train(prepared: tuple[Pretrainer, np.ndarray], run: Run) -> dict[str, float]:
    trainer, pictures = prepared
    config, keeper = trainer.config, Checkpointer(run.folder / "checkpoints")
    if keeper.restore(trainer) and not world.rank():
        _cut_log(run, trainer.views)
    due = sorted((views for views in config.probes if views >= trainer.views), reverse=True)
    pace, saved = Pace(trainer.views), time.perf_counter()
    while trainer.views < config.views:
        if due and due[-1] <= trainer.views:
            _look(trainer, run)
            due = [views for views in due if views > trainer.views]
        pace.losses.append(trainer.advance(pictures))
        if trainer.step % 100 == 0:
            _log(run, views=trainer.views, **pace.means(trainer.views))
            pace = Pace(trainer.views)
        if time.perf_counter() - saved > CHECKPOINT_S:
            keeper.save(trainer)
            saved = time.perf_counter()
    keeper.save(trainer)
    save_backbone(trainer.model.vit, run.folder / "backbone.safetensors")
    return _look(trainer, run)


class Pace:
    """Mean loss and views a second since it was made."""

    def __init__(self, views: int) -> None:
        self.views, self.began = views, time.perf_counter()
        self.losses: list[float] = []

    def means(self, views: int) -> dict[str, float]:
        pace = (views - self.views) / (time.perf_counter() - self.began)
        return {
            "loss": round(sum(self.losses) / len(self.losses), 5),
            "views_per_s": round(pace, 1),
        }


def _look(trainer: Pretrainer, run: Run) -> dict[str, float]:
    """Probes the features, and keeps the weights as they are now for pictures of how features grow."""
    if world.rank():
        return {}
    views = trainer.views
    held_out = [
        probe_picture(trainer.config, index) for index in range(trainer.config.probe_pictures)
    ]
    scores = rounded(probe(trainer.model.vit, held_out))
    _log(run, views=views, probe=scores)
    save_backbone(trainer.model.vit, run.folder / "snapshots" / f"views{views:08d}.safetensors")
    keep_looks(trainer.model.vit, held_out, run.folder / "looks" / f"views{views:08d}.npz")
    return scores


def keep_looks(vit: TokenViT, held_out: list[ProbePicture], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    training = vit.training
    maps = portrait(vit.eval(), [picture for picture in held_out if len(picture.points)], PORTRAITS)
    vit.train(training)
    np.savez_compressed(path, **{name: values.numpy() for name, values in maps.items()})


def _log(run: Run, **facts: Any) -> None:
    if world.rank():
        return
    line = json.dumps(facts)
    print(line, flush=True)
    with (run.folder / "log.jsonl").open("a") as file:
        file.write(line + "\n")


def ship(
    out: Path | str,
    weights: Path = SHIPPED,
    runs: Path = RUNS,
    name: str = "pretrain-bestiary-mae",
    note: str = "",
) -> Run:
    """Puts a finished pretraining where the library and the book look: the weights with their record, and the run's
    folder without what is large. Every snapshot is probed once more, so that one table holds them all."""
    done, kept = Run(Path(out)), Run(Path(runs) / name)
    config = Pretraining(
        **{k: v for k, v in done.read("recipe.json").items() if k not in ("vit", "mae")}
    )
    held_out = [probe_picture(config, index) for index in range(config.probe_pictures)]
    probes = {}
    for path in sorted((done.folder / "snapshots").glob("views*.safetensors")):
        vit = read_backbone(path)
        probes[int(path.stem.removeprefix("views"))] = rounded(probe(vit, held_out))
        keep_looks(vit, held_out, kept.folder / "looks" / f"{path.stem}.npz")
    for part in ("recipe.json", "env.json", "log.jsonl"):
        shutil.copy2(done.folder / part, kept.folder / part)
    kept.write("probes.json", probes)
    trained, untrained = probes[max(probes)], probes[min(probes)]
    kept.write(
        "result.json", done.result | {"metrics": {"trained": trained, "untrained": untrained}}
    )
    shutil.copy2(done.folder / "backbone.safetensors", weights)
    write_text(
        weights.with_suffix(".json"),
        json.dumps(
            _record(done, config, weights, trained, untrained) | ({"note": note} if note else {}),
            indent=1,
        )
        + "\n",
    )
    return kept


def _record(
    done: Run, config: Pretraining, weights: Path, trained: dict, untrained: dict
) -> dict[str, Any]:
    env = done.read("env.json")
    return {
        "command": f"torchrun --standalone --nproc-per-node={env['processes']} -m pointseg.cli pretrain mae "
        f"--out work/pretrain --views {config.views} --batch {config.batch} --seed {config.seed}",
        "views": config.views,
        "pictures": f"{config.pictures} of Bestiary, split pretrain, {config.size} px",
        "device": env["device"],
        "seconds": training_seconds(done),
        "git": env["git"],
        "trained": trained,
        "untrained": untrained,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "recipe_sha256": hashlib.sha256((done.folder / "recipe.json").read_bytes()).hexdigest(),
    }


def rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


def training_seconds(run: Run) -> int:
    """Time spent in steps, told by the log; waiting, probing and interruptions are left out."""
    seconds, before = 0.0, 0
    for line in map(json.loads, (run.folder / "log.jsonl").read_text().splitlines()):
        if "views_per_s" in line:
            seconds, before = (
                seconds + (line["views"] - before) / line["views_per_s"],
                line["views"],
            )
    return round(seconds)


def _cut_log(run: Run, views: int) -> None:
    """Lines after a checkpoint are written again by the run that resumes from it."""
    lines = (run.folder / "log.jsonl").read_text().splitlines(keepends=True)
    write_text(
        run.folder / "log.jsonl",
        "".join(line for line in lines if json.loads(line)["views"] <= views),
    )


def decayed(model: torch.nn.Module, weight_decay: float) -> list[dict]:
    """Matrices shrink; vectors and tokens do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim > 1]
    return [{"params": matrices, "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}]  # fmt: skip


def stored_pictures(path: Path, config: Pretraining, workers: int = 2) -> np.ndarray:
    """[n, size, size, 3] uint8 of Bestiary's split "pretrain", drawn once and then read from disk."""
    if not path.exists():
        part = path.with_suffix(".part")
        pictures = np.lib.format.open_memmap(
            part, mode="w+", dtype=np.uint8, shape=(config.pictures, config.size, config.size, 3)
        )
        with ProcessPoolExecutor(workers) as pool:
            jobs = pool.map(
                _draw,
                *zip(*((config.seed, i, config.size) for i in range(config.pictures))),
                chunksize=64,
            )
            for index, picture in enumerate(jobs):
                pictures[index] = picture
        pictures.flush()
        part.rename(path)
    stored = np.load(path, mmap_mode="r")
    if stored.shape[1:] != (config.size, config.size, 3):
        raise InputError(
            f"{path}: holds pictures of shape {stored.shape[1:]}, not of size {config.size}"
        )
    return stored


def _draw(seed: int, index: int, size: int) -> np.ndarray:
    return bestiary.draw(seed, "pretrain", index, size, edition=1).image


def draw_views(
    pictures: np.ndarray,
    config: Pretraining,
    step: int,
    own: slice = slice(None),
    device: torch.device | str = "cpu",
) -> Tensor:
    """A batch [b, 3, size, size] in 0..1, or one's share of it: random pictures, crops and flips of (seed, step)."""
    rng = np.random.default_rng((config.seed, step))
    rows = np.sort(rng.integers(0, len(pictures), config.batch))
    scale = rng.uniform(config.smallest_crop, 1.0, config.batch)
    shift = rng.uniform(-1, 1, (config.batch, 2)) * (1 - scale[:, None])
    theta = torch.zeros(config.batch, 2, 3)
    theta[:, 0, 0] = torch.from_numpy(scale * rng.choice([-1, 1], config.batch))
    theta[:, 1, 1] = torch.from_numpy(scale)
    theta[:, :, 2] = torch.from_numpy(shift)
    images = torch.from_numpy(pictures[rows[own]]).to(device).permute(0, 3, 1, 2).float() / 255
    grid = affine_grid(theta[own].to(device), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def probe_picture(config: Pretraining, index: int) -> ProbePicture:
    """A held-out picture; each thing's point is one of its pixels, drawn by (seed, index)."""
    scene = bestiary.draw(config.seed, "pretrain", HELD_OUT + index, config.size, edition=1)
    truth = scene.truth.pick(scene.truth.is_thing & ~scene.truth.is_crowd)
    rng = np.random.default_rng((config.seed, index))
    points = []
    for mask in truth.masks:
        rows, columns = mask.nonzero(as_tuple=True)
        chosen = rng.integers(len(rows))
        points.append((columns[chosen] + 0.5, rows[chosen] + 0.5))
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    return ProbePicture(
        image, truth.masks, truth.parts.long(), torch.tensor(points).view(-1, 2), truth.label
    )
