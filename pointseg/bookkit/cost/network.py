"""The network's share: ViT forward, attention of asked rows, roll-out, and a whole training step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pointseg.bookkit.cost.clock import Machine, Work, interleaved, operations, peak_bytes
from pointseg.data.bestiary import draw
from pointseg.lab.recipe import make
from pointseg.nets.attention import attention_rows, rollout_rows
from pointseg.nets.vit import TokenViT
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.papers.attentionshift.querying import rollout_maps
from pointseg.structures import Batch, Category, Points
from pointseg.training.loop import Trainer, uses_bf16

# A step reads every weight forward and backward, writes and reads its gradient, reads and writes the optimiser's
# two moments and the weight itself: ten times four bytes a weight.
PASSES_OF_A_STEP = 10


@dataclass(frozen=True)
class Piece:
    """One thing to be measured. `moved`: bytes that have to cross the memory however it is computed."""

    name: str
    network: str
    size: tuple[int, int]
    tokens: int
    images: int
    work: Work
    moved: int
    precision: str = "float32"
    weights: int = 0  # bytes of the parameters, where memory is asked for


def token_count(vit: TokenViT, size: tuple[int, int]) -> int:
    """Class and register tokens, one token a patch (begun ones count), and queries."""
    rows, columns = (-(-side // vit.stride) for side in size)
    return vit.body.num_prefix_tokens + rows * columns + len(vit.query_tokens)


def weight_bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


def vit_pieces(vit: TokenViT, network: str, size: tuple[int, int], rows: int, device: torch.device,
               precision: str = "float32") -> list[Piece]:  # fmt: skip
    """Forward of one picture; attention of `rows` tokens in every block; their roll-out over all blocks."""
    vit = vit.to(device).eval()
    images = torch.rand(1, 3, *size, device=device)
    lowered = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

    def forward(trace: bool = False) -> Any:
        with torch.no_grad(), lowered:
            return vit(images, trace=trace)

    trace, tokens = forward(True).trace, token_count(vit, size)
    asked = torch.arange(tokens - rows, tokens, device=device)
    seen = 4 * tokens * vit.dim  # bytes of one block's input
    keys = sum(
        4 * 2 * vit.dim * vit.dim + seen for _ in vit.blocks
    )  # weights of queries and keys, and their input
    told = 4 * rows * tokens * vit.depth
    heads = vit.blocks[0].attn.num_heads
    capture = lambda: [attention_rows(vit, trace, block, asked) for block in range(vit.depth)]  # noqa: E731
    known = {"network": network, "size": size, "tokens": tokens, "images": 1}
    return [
        Piece(
            "forward",
            work=forward,
            moved=weight_bytes(vit) + images.nbytes + seen,
            precision=precision,
            **known,
        ),
        Piece("attention rows", work=capture, moved=keys + heads * told, **known),
        Piece("roll-out", work=lambda: rollout_rows(vit, trace, asked), moved=keys + told, **known),
    ]


def step_piece(name: str, scale: str, batch: Batch, categories: Sequence[Category], device: torch.device,
               precision: str = "auto", **config: Any) -> Piece:  # fmt: skip
    """One optimiser step of a method at a scale: forward, labels, losses, backward, update."""
    training = {"batch": len(batch), "steps": 10_000}
    stage = {"method": name, "training": training, "config": config}
    recipe = make(stages=[stage], scale=scale, precision=precision)
    method = recipe.build(categories)
    trainer = Trainer(method, recipe.loop_settings(len(batch)), device)
    size = tuple(batch.images.shape[-2:])
    vit = getattr(getattr(method, "student", None), "vit", None)
    tokens = token_count(vit, size) if vit else 0
    weights = weight_bytes(method)
    moved = PASSES_OF_A_STEP * weights + batch.images.nbytes
    told = "bf16" if uses_bf16(precision, device) else "float32"
    return Piece(
        f"{name} step",
        scale,
        size,
        tokens,
        len(batch),
        lambda: trainer.advance(batch),
        moved,
        told,
        weights,
    )


def creatures(size: int, images: int) -> Batch:
    """Bestiary pictures with one point on each thing: the middle one of its pixels."""
    scenes = [draw(0, "train", index, size) for index in range(images)]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    points = []
    for scene in scenes:
        things = scene.truth.pick(scene.truth.is_thing & scene.truth.masks.any((1, 2)))
        places = [mask.nonzero() for mask in things.masks]
        xy = torch.stack([place[len(place) // 2].flip(0) + 0.5 for place in places])
        points.append(Points(xy, things.label, things.target, things.is_thing))
    return Batch(pixels / 255, [(size, size)] * images, list(range(images)), points=points)


def blots(
    size: tuple[int, int], images: int, objects: int, categories: Sequence[Category]
) -> Batch:
    """Coloured blots of any size with points anywhere: `objects` things, then `objects` stuff where there is any."""
    generator = torch.Generator().manual_seed(0)
    pixels = F.interpolate(
        torch.rand(images, 3, 12, 20, generator=generator), size=size, mode="bicubic"
    ).clamp(0, 1)
    things = [k for k, c in enumerate(categories) if c.is_thing]
    stuff = [k for k, c in enumerate(categories) if not c.is_thing]
    labels = [group[k % len(group)] for group in (things, stuff) if group for k in range(objects)]
    label = torch.tensor(labels)
    is_thing = torch.tensor([categories[k].is_thing for k in labels])
    extent = torch.tensor([size[1], size[0]])
    points = [
        Points(
            torch.rand(len(labels), 2, generator=generator) * extent,
            label,
            torch.arange(len(labels)),
            is_thing,
        )
        for _ in range(images)
    ]
    return Batch(pixels, [size] * images, list(range(images)), points=points)


def label_path(method: AttentionShift, batch: Batch) -> dict[str, Work]:
    """The two parts of AttentionShift's label path in a training step, on what this batch gives them."""
    labeller = method.labeller
    with torch.no_grad():
        features = method.student.features(batch.images, batch.sizes)
        evidence = labeller.evidence(features, batch)
    queried, depths = evidence.queried, method.config.depths
    return {
        "labels": lambda: labeller.assign(evidence, batch),
        "attention": lambda: rollout_maps(features, queried.objects, queried.query, depths),
    }


def measured(
    pieces: Sequence[Piece], machine: Machine, device: torch.device, repeats: int, budget_s: float
):
    """One row a piece: milliseconds, images a second, peak memory, operations and the floor."""
    counts = [(operations(piece.work), peak_bytes(piece.work, device)) for piece in pieces]
    spent = interleaved({p.name: p.work for p in pieces}, repeats, budget_s, warm=False)
    rows = []
    for piece, (count, peak) in zip(pieces, counts):
        time, floor = spent[piece.name], machine.floor_s(count, piece.moved, piece.precision)
        least = time.least(device)
        rows.append({
            "piece": piece.name, "network": piece.network, "height": piece.size[0], "width": piece.size[1],
            "tokens": piece.tokens, "images": piece.images, "precision": piece.precision,
            "ms": 1e3 * least, "cpu_median_ms": 1e3 * time.cpu_median_s, "wall_median_ms": 1e3 * time.wall_median_s,
            "repeats": time.repeats, "images_per_s": piece.images / least, "peak_mb": peak / 1e6,
            "gigaops": count / 1e9, "moved_mb": piece.moved / 1e6, "floor_ms": 1e3 * floor,
            "floor_share": floor / least,
        })  # fmt: skip
    return rows
