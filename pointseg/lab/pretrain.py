"""`pointseg pretrain mae`: a recorded pretraining, its probes, and the file that is shipped."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pointseg.data.bestiary import EDITION_NAMED, draw
from pointseg.data.files import read_bytes
from pointseg.data.supervision import LEAST_SIDE
from pointseg.lab.batch.locks import held
from pointseg.lab.progress import Progress, cut, read_log
from pointseg.lab.run_record import RUNS, Run, write_text
from pointseg.lab.settings import check_values
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.nets.weights import SHIPPED, save_backbone
from pointseg.ops.processes import in_world, rank
from pointseg.structures import InputError
from pointseg.training.checkpoint import Checkpointer
from pointseg.training.distributed import joined
from pointseg.training.loop import Record
from pointseg.training.pretraining.images import files_below, stored_squares
from pointseg.training.pretraining.mae import MAEConfig
from pointseg.training.pretraining.pretraining import (
    MaskedPretraining,
    Pretraining,
    new_method,
    pretraining,
)
from pointseg.training.pretraining.probe import ProbeImage, portrait, probe

PORTRAITS = 6  # held-out images whose feature maps are kept to look at
# fields of Pretraining that a command may name
OPTIONS = (
    "source", "views", "alone", "batch", "seed", "images", "size", "view", "start", "precision",
)  # fmt: skip
IMAGES = "images.npy"
HELD_OUT = 1_000_000  # images of Bestiary's split "pretrain" from here on are for probing only


def pretrain(kind: str = "mae", out: Path | str = "work/pretrain", **settings: Any) -> Path:
    """The backbone's safetensors file, after `views` views; goes on with what lies in `out`.

    `settings` are fields of Pretraining. `out` receives logs, images, checkpoints and snapshots.
    """
    if kind != "mae":
        raise InputError(f"{kind}: unknown kind of pretraining; known is mae")
    check_values("pretrain", Pretraining, settings)
    config, run = Pretraining(**settings), Run(Path(out))
    _refuse_sizes(config)
    _refuse_source(config, run)
    with joined():
        if rank():
            _trained(config, run)
        else:
            alone = held(run.folder / "lock", f"{run.folder}: is running")
            with alone, run.recording(kind=f"pretrain {kind}"):
                _keep_recipe(config, run)
                run.write("metrics.json", _trained(config, run))
    return run.folder / "backbone.safetensors"


def _refuse_sizes(config: Pretraining) -> None:
    """A view is cut into tokens, and its sides are at least a network's own."""
    stride = TokenViT(config.vit).stride
    for name in ("size", "view"):
        side = getattr(config, name)
        if side is not None and (side < LEAST_SIDE or side % stride):
            wanted = f"a multiple of {stride} of at least {LEAST_SIDE}"
            raise InputError(f"pretrain: {name}: expected {wanted}, got {side}")


def _refuse_source(config: Pretraining, run: Run) -> None:
    """A folder without images is refused before a record begins."""
    if config.source not in EDITION_NAMED and not (run.folder / IMAGES).exists():
        files_below(Path(config.source))


def _keep_recipe(config: Pretraining, run: Run) -> None:
    path, text = run.folder / "recipe.json", json.dumps(asdict(config), indent=1) + "\n"
    if path.exists() and read_bytes(path) != text.encode():
        raise InputError(f"{path}: is another pretraining's; give another folder or the same one's")
    write_text(path, text)


def _trained(config: Pretraining, run: Run) -> dict[str, float]:
    """The last probe's scores."""
    images, method = _shared_images(config, run), new_method(config)
    records, look = pretraining(method, images, run.folder / "checkpoints"), Look(method, run)
    progress = Progress(config.steps, run.folder)
    for record in records:
        try:
            if rank() == 0:
                progress(record)
            look.when_due(record)
        except BaseException as problem:  # no state is kept of a step without its lines
            records.throw(problem)
    if rank():
        return {}
    save_backbone(method.model.vit, run.folder / "backbone.safetensors")
    return look(config.steps - 1, config.views_at(config.steps))


def _shared_images(config: Pretraining, run: Run) -> np.ndarray:
    """The first process makes what is not yet there; the others wait for it."""
    arguments = (run.folder / IMAGES, config.source, config.images, config.size, config.seed)
    if rank() == 0:
        stored_squares(*arguments)
    if in_world():
        torch.distributed.barrier()
    return stored_squares(*arguments)


class Look:
    """Probes the features as they are, and keeps weights and maps of how they grow."""

    def __init__(self, method: MaskedPretraining, run: Run):
        self.config, self.vit, self.run = method.config, method.model.vit, run
        self.images = probe_images(self.config)
        if not Checkpointer(run.folder / "checkpoints").paths() and 0 in self.config.probes:
            self(-1, 0)

    def when_due(self, record: Record) -> None:
        before, views = map(self.config.views_at, (record.step, record.step + 1))
        if any(before < due <= views for due in self.config.probes):
            self(record.step, views)

    def __call__(self, step: int, views: int) -> dict[str, float]:
        if rank():
            return {}
        training, folder, name = self.vit.training, self.run.folder, f"views{views:08d}"
        scores = probed(self.vit.eval(), self.images)
        keep_portrait(self.vit, self.images, folder / "looks" / f"{name}.npz")
        save_backbone(self.vit, folder / "snapshots" / f"{name}.safetensors")
        self.vit.train(training)
        cut(folder / "probes.jsonl", step)
        with (folder / "probes.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "views": views, "probe": scores}) + "\n")
        return scores


def keep_portrait(vit: TokenViT, images: list[ProbeImage], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    maps = portrait(vit, [image for image in images if len(image.points)], PORTRAITS)
    np.savez_compressed(path, **{name: values.cpu().numpy() for name, values in maps.items()})


def probed(vit: TokenViT, images: list[ProbeImage]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in probe(vit, images).items()}


def probe_images(config: Pretraining) -> list[ProbeImage]:
    return [probe_image(config, index) for index in range(config.probe_images)]


def probe_image(config: Pretraining, index: int) -> ProbeImage:
    """A held-out image; each thing's point is one of its pixels, drawn by (seed, index)."""
    edition = EDITION_NAMED.get(config.source, 1)  # photographs have no part truth to probe on
    scene = draw(config.seed, "pretrain", HELD_OUT + index, config.size, edition)
    truth = scene.truth.pick(scene.truth.is_thing & ~scene.truth.is_crowd)
    rng = np.random.default_rng((config.seed, index))
    points = []
    for mask in truth.masks:
        rows, columns = mask.nonzero(as_tuple=True)
        chosen = rng.integers(len(rows))
        points.append((columns[chosen] + 0.5, rows[chosen] + 0.5))
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    points = torch.tensor(points).view(-1, 2)
    return ProbeImage(image, truth.masks, truth.parts.long(), points, truth.label)


def ship(
    out: Path | str,
    weights: Path = SHIPPED,
    runs: Path = RUNS,
    name: str = "pretraining/bestiary-mae/s0",
    note: str | None = None,
) -> Run:
    """The run's folder where the book looks, without what is large, after its weights have gone
    where the library looks, with their record."""
    done, kept = Run(Path(out)), Run(Path(runs) / name)
    shutil.copytree(done.folder / "looks", kept.folder / "looks", dirs_exist_ok=True)
    for part in ("recipe.json", "env.json", "log.jsonl"):
        shutil.copy2(done.folder / part, kept.folder / part)
    probes = {row["views"]: row["probe"] for row in read_log(done.folder / "probes.jsonl")}
    kept.write("probes.json", probes)
    ends = {"trained": probes[max(probes)]} | _beginnings(done, probes[min(probes)])
    kept.write("result.json", done.result | {"metrics": ends})
    shutil.copy2(done.folder / "backbone.safetensors", weights)
    record = _record(done, weights) | ends | ({"note": note} if note else {})
    write_text(weights.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return kept


def _beginnings(done: Run, first: dict[str, float]) -> dict[str, dict[str, float]]:
    """What an untrained network scores, and what the weights did that the run began with."""
    config = recorded(done)
    if not config.start:
        return {"untrained": first}
    random = new_method(replace(config, start=None)).model.vit
    return {"start": first, "untrained": probed(random, probe_images(config))}


def recorded(run: Run) -> Pretraining:
    """The settings of a run that was kept."""
    recipe = run.read("recipe.json")
    known = {each.name for each in fields(Pretraining)} & set(recipe)
    nets = {"vit": ViTConfig(**recipe["vit"]), "mae": MAEConfig(**recipe["mae"])}
    return Pretraining(**{name: recipe[name] for name in known} | nets)


def _record(done: Run, weights: Path) -> dict[str, Any]:
    env, recipe = done.read("env.json"), done.read("recipe.json")
    return {
        "command": _command(recipe, env["processes"]),
        "views": recipe["views"],
        "images": f"{recipe['images']} of {recipe['source']}, {recipe['size']} px",
        "device": env["device"],
        "seconds": round(sum(row["seconds"] for row in read_log(done.folder / "speed.jsonl"))),
        "git": env["git"],
        "sha256": _sha256(weights),
        "recipe_sha256": _sha256(done.folder / "recipe.json"),
    }


def _command(recipe: dict[str, Any], processes: int) -> str:
    given = {name: recipe[name] for name in OPTIONS if recipe[name] is not None}
    options = " ".join(f"--{name} {value}" for name, value in given.items())
    launch = f"torchrun --standalone --nproc-per-node={processes} -m pointseg.cli"
    return f"{launch} pretrain mae --out work/pretrain {options}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
