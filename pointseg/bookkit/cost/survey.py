"""What is measured at which scale, as rows of plain numbers for a run's record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pointseg.bookkit.cost.clock import Machine, Work, interleaved, measure_machine, peak_bytes
from pointseg.bookkit.cost.counting import counting_works, drawn_maps, real_maps
from pointseg.bookkit.cost.feeding import feed_recipes, feed_works, waits
from pointseg.bookkit.cost.labels import (
    ShiftSize,
    agreement,
    label_problem,
    label_works,
    rollout_works,
    shift_works,
    tree_works,
)
from pointseg.bookkit.cost.network import (
    Piece,
    blots,
    creatures,
    label_path,
    measured,
    step_piece,
    vit_pieces,
)
from pointseg.data.bestiary import CATEGORIES
from pointseg.lab.methods import method_class
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import TokenViT
from pointseg.nets.weights import SHIPPED
from pointseg.structures import Category
from pointseg.students.mask_rcnn import SCALES

CPU = torch.device("cpu")
COCO = tuple(
    Category(k + 1, str(k), k < 80) for k in range(133)
)  # as many things and stuff as COCO panoptic has
PAPER_SIZE = (800, 1333)
PROCESSES = (1, 4, 8)  # that make batches beside the loop
STEPS = (
    ("attentionshift", {}),
    ("point2mask", {"student": {"pretrained": False}}),
)  # the methods whose whole step is measured


@dataclass(frozen=True)
class Extent:
    """How much is measured; `small` is what the issue of speed asks for, `smoke` proves that it runs."""

    matrix: int  # side of the product that tells the matrix rate
    megabytes: int  # of the copy that tells the bandwidth
    small: tuple[int, ...]  # sides of pictures for the small network
    vit_s: tuple[int, ...]  # sides of pictures for ViT-S/16
    step: tuple[int, ...]  # sides of pictures for the training step of two pictures
    batch: int  # pictures of the step whose label path is set apart
    side: int  # of the picture in that step
    tokens: int  # of the roll-out that is held against the dense one
    shift_side: int  # of the token grid of the shift
    picture: tuple[int, int]  # of the panoptic pseudo label
    counted: tuple[
        int, int
    ]  # side of drawn pictures and number of all pictures for panoptic quality
    held: tuple[str, tuple[int, int]]  # scale and picture of the steps whose memory is counted
    fed: tuple[str, int]  # scale and number of the pictures whose batches are made
    waited: tuple[int, int]  # steps whose waiting is told, and those before
    rows: int = 10  # whose attention is asked for
    depth: int = 7  # blocks of the roll-out


EXTENTS = {
    "smoke": Extent(128, 4, (64,), (32,), (64,), 2, 64, 65, 8, (64, 96), (64, 2),
                    ("smoke", (64, 96)), ("smoke", 8), (2, 1)),
    "small": Extent(2048, 400, (64, 128, 192, 256, 384, 512), (224, 384, 512), (64, 128, 192, 256), 12, 128,
                    4301, 64, (600, 800), (512, 20), ("paper", PAPER_SIZE), ("small", 256), (40, 10)),
}  # fmt: skip


@dataclass(frozen=True)
class Patience:
    """Rounds of each group, and the seconds after which no further round begins."""

    repeats: int
    budget_s: float


def cpu_machine(extent: Extent) -> Machine:
    return measure_machine(CPU, extent.matrix, extent.megabytes)


def weights() -> str:
    """The shipped backbone where there is one; cost does not depend on what the weights say."""
    return "shipped" if SHIPPED.exists() else ""


def pieces_by_size(extent: Extent) -> Iterable[list[Piece]]:
    """Groups that are measured together, one a picture size."""
    small = SCALES["small"].backbone
    for side in extent.small:
        yield vit_pieces(
            starting_backbone(small, weights()), "small", (side, side), extent.rows, CPU
        )
    for side in extent.vit_s:
        vit = TokenViT("vit_small_patch16_224", queries=100)
        yield vit_pieces(vit, "ViT-S/16", (side, side), extent.rows, CPU)
    for side in extent.step:
        yield [
            step_piece(
                "attentionshift", "small", creatures(side, 2), CATEGORIES, CPU, weights=weights()
            )
        ]


def network_rows(extent: Extent, machine: Machine, patience: Patience) -> list[dict[str, Any]]:
    groups = pieces_by_size(extent)
    return [
        row
        for group in groups
        for row in measured(group, machine, CPU, patience.repeats, patience.budget_s)
    ]


def gpu_rows(patience: Patience) -> tuple[Machine, list[dict[str, Any]]] | None:
    """ViT-S/16 and ViT-B/16 and the steps at scale paper in bf16; None where there is no GPU."""
    if not torch.cuda.is_available():
        return None
    device = torch.device("cuda", torch.cuda.current_device())
    machine = measure_machine(device, 8192, 4000)
    rows = []
    for network, name in (
        ("ViT-S/16", "vit_small_patch16_224"),
        ("ViT-B/16", "vit_base_patch16_224"),
    ):
        for size in ((224, 224), (512, 512), PAPER_SIZE):
            pieces = vit_pieces(TokenViT(name, queries=100), network, size, 10, device, "bf16")
            rows += measured(pieces, machine, device, patience.repeats, patience.budget_s)
    for method, config in STEPS:
        piece = step_piece(method, "paper", blots(PAPER_SIZE, 2, 10, COCO), COCO, device, **config)
        rows += measured([piece], machine, device, patience.repeats, patience.budget_s)
    return machine, rows


def memory_rows(extent: Extent) -> list[dict[str, Any]]:
    """Megabytes that a training step of one picture holds in bf16. Tensors have the same sizes on every device."""
    scale, size = extent.held
    rows = []
    for method, config in STEPS:
        piece = step_piece(
            method, scale, blots(size, 1, 10, COCO), COCO, CPU, precision="bf16", **config
        )
        rows.append({"method": method, "scale": scale, "size": size, "weights_mb": piece.weights / 1e6,
                     "peak_mb": peak_bytes(piece.work, CPU) / 1e6})  # fmt: skip
    return rows


def feeding_rows(extent: Extent, patience: Patience) -> list[dict[str, Any]]:
    """Milliseconds of one process for a batch of a first epoch, whose pictures are still to be decoded."""
    recipes = feed_recipes(*extent.fed)
    spent = interleaved(feed_works(recipes), patience.repeats, patience.budget_s)
    return [
        {"method": name, "images": recipe.stage.training.batch, "ms": 1e3 * spent[name].cpu_min_s,
         "cpu_median_ms": 1e3 * spent[name].cpu_median_s, "repeats": spent[name].repeats}
        for name, recipe in recipes.items()
    ]  # fmt: skip


def waiting_rows(extent: Extent) -> list[dict[str, Any]]:
    """What the loop waits for its batches on a GPU; nothing where there is none."""
    if not torch.cuda.is_available():
        return []
    device = torch.device("cuda", torch.cuda.current_device())
    return waits(feed_recipes(*extent.fed), (0, *PROCESSES), *extent.waited, device)


def panoptic_works(extent: Extent, annotations: Path) -> tuple[str, dict[str, Work]]:
    """On real COCO maps where they are, else on drawn ones."""
    if annotations.is_dir():
        return "panoptic quality, COCO maps", counting_works(
            *real_maps(annotations, extent.counted[1])
        )
    return "panoptic quality, Bestiary maps", counting_works(*drawn_maps(*extent.counted))


def label_groups(extent: Extent, annotations: Path) -> Iterable[tuple[str, dict[str, Work]]]:
    """Every comparison of the label paths by name."""
    for words, share in (("half the side", 0.5), ("the whole grid", 1.0)):
        yield (
            f"key-point shift, boxes of {words}",
            shift_works(ShiftSize(side=extent.shift_side, box=share)),
        )
    yield (
        f"roll-out, {extent.tokens} tokens",
        rollout_works(extent.tokens, extent.rows, extent.depth),
    )
    yield "pseudo label of one picture", label_works(label_problem(extent.picture))
    yield "tree filter", tree_works((extent.picture[0] // 8, extent.picture[1] // 8), 21)
    yield panoptic_works(extent, annotations)
    yield "training step, scale small", step_works(extent)


def step_works(extent: Extent) -> dict[str, Work]:
    """A training step of AttentionShift, and its label path alone."""
    method = method_class("attentionshift").build(CATEGORIES, "small", weights=weights())
    batch = creatures(extent.side, extent.batch)
    whole = step_piece("attentionshift", "small", batch, CATEGORIES, CPU, weights=weights()).work
    return {"whole step": whole, **label_path(method, batch)}


def label_rows(extent: Extent, patience: Patience, annotations: Path) -> list[dict[str, Any]]:
    """One row a way of each comparison; the call that tells its memory also warms it up."""
    rows = []
    for group, works in label_groups(extent, annotations):
        peaks = {name: peak_bytes(work, CPU) for name, work in works.items()}
        spent = interleaved(works, patience.repeats, patience.budget_s, warm=False)
        rows += [
            {"group": group, "way": name, "ms": 1e3 * one.cpu_min_s, "cpu_median_ms": 1e3 * one.cpu_median_s,
             "wall_median_ms": 1e3 * one.wall_median_s, "repeats": one.repeats, "peak_mb": peaks[name] / 1e6}
            for name, one in spent.items()
        ]  # fmt: skip
    return rows


def same_labels(extent: Extent, seeds: int = 2) -> list[float]:
    """Share of pixels whose pseudo label is that of the full-size solve, one a made-up picture."""
    found = []
    for seed in range(seeds):
        works = label_works(label_problem(extent.picture, seed=seed))
        found.append(agreement(works["Point2Mask"](), works["Point2Mask, solved at full size"]()))
    return found
