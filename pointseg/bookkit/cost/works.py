"""What is measured: backbones, steps of every labeller, and the heavy functions of their labels.

Each function gives pieces of work that belong together; `measured` turns them into rows of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.bookkit.cost.clock import (
    CPU,
    Counts,
    Machine,
    Patience,
    Work,
    counted,
    interleaved,
    measure_machine,
    peak_bytes,
)
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.data.bestiary.draw import LARGEST
from pointseg.data.points import extreme
from pointseg.lab.recipe import make
from pointseg.nets.attention import rollout_rows
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import TokenViT, unfuse
from pointseg.nets.weights import to_be_replaced
from pointseg.ops.components import tokens_in_boxes
from pointseg.ops.mean_field import HIGH, LOW, SMALL, mean_field
from pointseg.ops.tree import spanning_forest, tree_filter
from pointseg.papers.attentionshift.shift import shift
from pointseg.papers.attentionshift.tokens import Region, Tokens
from pointseg.papers.exits.walk import (
    doubly_stochastic,
    doubly_stochastic_fast,
    propagated,
    similarity,
)
from pointseg.structures import Batch, Category, Points
from pointseg.students.mask_rcnn import CONFIGS
from pointseg.training.loop import Trainer, uses_bf16

METHODS = ("attentionshift", "psps", "point2mask", "epld")  # whose steps are measured
COCO = tuple(
    Category(k + 1, str(k), k < 80) for k in range(133)
)  # as many classes as COCO panoptic
BRANCH = "branch and its losses, both ways"
PAPER_SIDE = 1032  # of a square image of as many pixels as one of 800 x 1333
# A step reads every weight forward and backward, writes and reads its gradient, reads and writes
# the optimiser's two moments and the weight itself: ten times four bytes a weight.
PASSES_OF_A_STEP = 10


@dataclass(frozen=True)
class Extent:
    """How much is measured; `smoke` proves that it runs, `steps` measures training steps alone."""

    matrix: int  # side of the product that tells the matrix rate
    megabytes: int  # of the copy that tells the bandwidth
    small: tuple[int, ...]  # sides of images for the small backbone
    vit_s: tuple[int, ...]  # sides of images for ViT-S/16
    batch: int  # images of a training step at scale small
    side: int  # of those images
    grid: int  # side of the token grid of the shift
    tree: tuple[int, int]  # of the tree filter
    map: int  # side of the mask of a crop
    walk: int  # side of a crop's token grid
    held: str  # scale of the steps whose memory is counted
    held_side: int  # of their images


EXTENTS = {
    "smoke": Extent(128, 4, (64,), (32,), 2, 64, 8, (8, 12), 16, 6, "smoke", 64),
    "small": Extent(2048, 400, (64, 128, 256, 512), (224, 384, 512), 12, 128, 64, (75, 100),
                    128, 32, "paper", PAPER_SIDE),
    "steps": Extent(1024, 100, (128,), (), 12, 128, 32, (75, 100), 32, 16, "smoke", 64),
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One thing to be measured. `moved`: bytes that cross the memory however it is computed."""

    group: str
    name: str
    images: int
    side: int
    work: Work
    moved: int | None = None  # None: it has no floor
    precision: str = "float32"
    weights: int = 0  # bytes of the parameters, where memory is asked for


def measured(pieces: Sequence[Piece], machine: Machine, patience: Patience, device=CPU):
    """One row a piece: milliseconds, peak memory, operations and the floor."""
    counts = [counted(piece.work) for piece in pieces]
    peaks = [peak_bytes(piece.work, device) for piece in pieces]
    seconds = interleaved({piece.name: piece.work for piece in pieces}, patience, device)
    return [
        row_of(piece, seconds[piece.name], count, peak, machine)
        for piece, count, peak in zip(pieces, counts, peaks)
    ]


def row_of(piece: Piece, seconds: list[float], counts: Counts, peak: int, machine: Machine):
    count = counts.operations
    row = {name: getattr(piece, name) for name in ("group", "name", "images", "side", "precision")}
    row |= {"ms": 1e3 * min(seconds), "median_ms": 1e3 * median(seconds), "rounds": len(seconds)}
    row |= {"calls": counts.calls}
    row |= {"peak_mb": peak / 1e6, "gigaops": count / 1e9, "floor_ms": None}
    if piece.moved is not None:
        row["floor_ms"] = 1e3 * machine.floor_s(count, piece.moved, piece.precision)
    return row


def survey(extent: Extent, patience: Patience) -> dict[str, Any]:
    """Everything that this machine can measure, as plain numbers for a run's record."""
    machines, rows = [measure_machine(CPU, extent.matrix, extent.megabytes)], []
    for pieces in cpu_pieces(extent, bf16=machines[0].bf16 > machines[0].float32):
        rows += measured(pieces, machines[0], patience)
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        machines.append(measure_machine(device, 8192, 4000))
        for pieces in gpu_pieces(device):
            rows += measured(pieces, machines[1], patience, device)
    return {"machines": [one.as_dict() for one in machines], "rows": rows, "memory": memory(extent)}


def cpu_pieces(extent: Extent, bf16: bool) -> Iterator[list[Piece]]:
    """Groups that are measured together; training steps in bf16 too, where it is the faster."""
    for side in extent.small:
        yield vit_pieces(starting_backbone(CONFIGS["small"].backbone, "shipped"), "small ViT", side)
    for side in extent.vit_s:
        yield vit_pieces(TokenViT("vit_small_patch16_224", queries=100), "ViT-S/16", side)
    for name in METHODS:
        batch = creatures(extent.side, extent.batch)
        pieces = step_pieces(name, "small", batch, CATEGORIES)
        if name == "epld":
            pieces.append(branch_piece(batch))
        if bf16:
            *_, step = step_pieces(name, "small", batch, CATEGORIES, precision="bf16")
            pieces.append(replace(step, name="whole step, bf16"))
        yield pieces
    yield formed_pieces(creatures(extent.side, extent.batch))
    yield together_pieces(creatures(extent.side, extent.batch))
    yield shift_pieces(extent.grid)
    yield tree_pieces(extent.tree)
    yield mean_field_pieces(extent.map)
    yield walk_pieces(extent.walk)
    yield extreme_pieces(extent.side)


def gpu_pieces(device: torch.device) -> Iterator[list[Piece]]:
    """Backbones and steps of the papers' size in bf16, two images a step."""
    for group, name in (
        ("ViT-S/16", "vit_small_patch16_224"),
        ("ViT-B/16", "vit_base_patch16_224"),
    ):
        for side in (224, 512, PAPER_SIDE):
            yield vit_pieces(TokenViT(name, queries=100), group, side, device, "bf16")
    for name in METHODS:
        yield step_pieces(name, "paper", creatures(PAPER_SIDE, 2, COCO), COCO, device, "bf16")


def memory(extent: Extent) -> list[dict[str, Any]]:
    """Megabytes that a training step of one image holds in bf16; the same on every device."""
    batch = creatures(extent.held_side, 1, COCO)
    steps = [step_pieces(name, extent.held, batch, COCO, CPU, "bf16")[-1] for name in METHODS]
    return [
        {"method": step.group, "scale": extent.held, "side": step.side,
         "weights_mb": step.weights / 1e6, "peak_mb": peak_bytes(step.work) / 1e6}
        for step in steps
    ]  # fmt: skip


def weight_bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


def token_count(vit: TokenViT, side: int) -> int:
    """Class and register tokens, one token a patch (begun ones count), and queries."""
    return vit.body.num_prefix_tokens + (-(-side // vit.stride)) ** 2 + len(vit.query_tokens)


def vit_pieces(vit: TokenViT, group: str, side: int, device=CPU, precision="float32", rows=10):
    """Forward of one image; the roll-out of some tokens' attention over all blocks."""
    vit, images = vit.to(device).eval(), torch.rand(1, 3, side, side, device=device)
    lowered = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

    def forward(trace: bool = False) -> Any:
        with torch.no_grad(), lowered:
            return vit(images, trace=trace)

    trace, tokens = forward(True).trace, token_count(vit, side)
    chosen = torch.arange(tokens - rows, tokens, device=device)
    inputs = 4 * tokens * vit.dim  # bytes of one block's input
    keys = vit.depth * (
        4 * 2 * vit.dim * vit.dim + inputs
    )  # of queries' and keys' weights and input
    passed = weight_bytes(vit) + images.nbytes + inputs
    outputs = 4 * rows * tokens * vit.depth
    return [
        Piece(group, "forward", 1, side, forward, passed, precision),
        Piece(group, "roll-out", 1, side, lambda: rollout_rows(vit, trace, chosen), keys + outputs),
    ]


def step_pieces(name: str, scale: str, batch: Batch, categories: Sequence[Category], device=CPU,
                precision: str = "auto") -> list[Piece]:  # fmt: skip
    """The verbs of a method's labeller one by one, then its whole optimiser step."""
    stage = {"method": name, "training": {"batch": len(batch), "steps": 10_000}}
    recipe = make(stages=[stage], scale=scale, precision=precision)
    bare = to_be_replaced() if scale == "paper" else nullcontext()  # its weights are a download
    with bare:
        method = recipe.build(categories).to(device)
    trainer = Trainer(method, recipe.loop_settings(len(batch)), device)
    batch, labeller = batch.to(device), method.labeller
    with torch.no_grad():
        features = method.student.features(batch.images, batch.sizes)
        evidence = labeller.evidence(features, batch)
    verbs = {
        "features": lambda: method.student.features(batch.images, batch.sizes),
        "evidence": lambda: labeller.evidence(features, batch),
        "assign": lambda: labeller.assign(evidence, batch),
    }
    side, weights = batch.images.shape[-1], weight_bytes(method)
    pieces = [Piece(name, verb, len(batch), side, quiet(work)) for verb, work in verbs.items()]
    lowered = "bf16" if uses_bf16(precision, device) else "float32"
    moved = PASSES_OF_A_STEP * weights + batch.images.nbytes
    step = Piece(name, "whole step", len(batch), side, lambda: trainer.advance(batch), moved,
                 lowered, weights)  # fmt: skip
    return [*pieces, step]


def branch_piece(batch: Batch) -> Piece:
    """EPLD's part of its step: the distance branch, its losses, and both backward to the neck."""
    method = make("epld", scale="small").build(CATEGORIES)
    with torch.no_grad():
        features = method.student.features(batch.images, batch.sizes)

    def work() -> None:
        memory = replace(features, tokens=features.tokens.clone().requires_grad_())
        evidence = method.labeller.evidence(memory, batch)
        torch.stack([*method.labeller.losses(evidence, None, batch).values()]).sum().backward()

    return Piece("epld", BRANCH, len(batch), batch.images.shape[-1], work)


def formed_pieces(batch: Batch, rows: int = 10) -> list[Piece]:
    """The roll-out of a step on a CPU, whose forward pass formed the attention for its gradient."""
    vit = starting_backbone(CONFIGS["small"].backbone, "shipped")
    unfuse(vit)
    trace, side = vit(batch.images, trace=True).trace, batch.images.shape[-1]
    chosen = torch.arange(rows) + trace.query_start
    ways = {"read from the forward pass": trace, "formed again": replace(trace, attention=())}
    return [Piece("roll-out", name, len(batch), side, partial(rollout_rows, vit, way, chosen))
            for name, way in ways.items()]  # fmt: skip


def together_pieces(batch: Batch) -> list[Piece]:
    """Point2Mask's paths of a batch of images of one size at once, and of one after another."""
    method = make("point2mask", scale="small").build(CATEGORIES)
    side, points = batch.images.shape[-1], batch.points
    with torch.no_grad():
        features = method.student.features(batch.images, batch.sizes)
        maps = method.labeller.evidence(features, batch).maps
    shown = [maps.of_image(row, size, (side, side)) for row, size in enumerate(batch.sizes)]
    labeller = method.labeller
    works = {
        "all images at once": lambda: labeller.paths_of(shown, batch.images, points),
        "one after another": lambda: list(map(labeller.paths, shown, batch.images, points)),
    }
    return [Piece("paths", name, len(batch), side, work) for name, work in works.items()]


def quiet(work: Work) -> Work:
    """The work without a record for gradients."""

    def run() -> Any:
        with torch.no_grad():
            return work()

    return run


def creatures(side: int, images: int, categories: Sequence[Category] = CATEGORIES) -> Batch:
    """Bestiary images with one point a target, under other classes, enlarged to the papers' sides.

    The point is the middle one of the target's pixels.
    """
    drawn = min(side, LARGEST)
    scenes = [draw(0, "train", index, drawn) for index in range(images)]
    pixels = torch.stack([torch.from_numpy(scene.image).permute(2, 0, 1) for scene in scenes])
    pixels = F.interpolate(pixels / 255, (side, side), mode="bilinear", align_corners=False)
    points = [middle_points(scene.truth, thing_count(categories)) for scene in scenes]
    points = [replace(each, xy=each.xy * (side / drawn)) for each in points]
    return Batch(pixels, [(side, side)] * images, list(range(images)), points=points)


def thing_count(categories: Sequence[Category]) -> int:
    return sum(category.is_thing for category in categories)


def middle_points(truth: Any, things: int) -> Points:
    """One point a target; classes of stuff follow those of `things` kinds of things."""
    shown = truth.pick(truth.masks.flatten(1).any(1) & ~truth.is_crowd)
    pixels = [mask.nonzero() for mask in shown.masks]
    xy = torch.stack([each[len(each) // 2].flip(0) + 0.5 for each in pixels])
    shifted = shown.label + (things - thing_count(CATEGORIES)) * ~shown.is_thing
    return Points(xy, shifted, shown.target, shown.is_thing)


def shift_pieces(
    side: int, instances: int = 10, keypoints: int = 20, turns: int = 10, dim: int = 384
):
    """The whole key-point shift, and the matrix products that no formulation does without.

    In boxes of half the side and of the whole grid. The defaults are those of the official
    measurement.
    """
    pieces = []
    for words, share in (("half the side", 0.5), ("the whole grid", 1.0)):
        torch.manual_seed(0)
        image = torch.randn(1, side**2, dim) + 1
        low = torch.rand(instances, 2) * side * (1 - share)
        boxes = torch.cat([low, low + side * share], 1)
        region = Region.of(tokens_in_boxes(boxes, (side, side), 1.0))
        tokens = image[torch.zeros(instances, 1, dtype=torch.long), region.index]
        works = shift_works(image, region, tokens, tokens[:, :keypoints].clone(), turns)
        pieces += [Piece("key-point shift", f"{way}, boxes of {words}", 1, side, work)
                   for way, work in works.items()]  # fmt: skip
    return pieces


def shift_works(image: Tensor, region: Region, tokens: Tensor, seeds: Tensor, turns: int):
    """The shift with all that it gathers, and its bare products on the same tokens, which whole
    grids share here as there."""
    sharing = region.index.shape[1] == image.shape[1]
    held, start = (image, seeds.flatten(0, 1)[None]) if sharing else (tokens, seeds)

    def whole() -> Tensor:
        gathered = region.of_tokens(Tokens.of(image, [len(tokens)]))
        return shift(seeds, gathered, region.inside, region.inside, iterations=turns).features

    def bare() -> Tensor:
        points, across = start, held.transpose(1, 2)
        for _ in range(turns):
            points = points @ across @ held
        return points @ across

    return {"whole": whole, "bare products": bare}


def tree_pieces(grid: tuple[int, int], channels: int = 21) -> list[Piece]:
    """Spanning tree of an image, and tree and filter of a map on it, forward."""
    torch.manual_seed(0)
    smooth = [
        F.interpolate(torch.randn(1, c, 9, 12), size=grid, mode="bicubic") for c in (3, channels)
    ]
    guide, values = smooth[0].sigmoid() + 0.05 * torch.rand(1, 3, *grid), smooth[1].softmax(1)
    works = {
        "tree": lambda: spanning_forest(guide),
        "tree and filter": lambda: tree_filter(values, spanning_forest(guide)),
    }
    return [Piece("tree filter", name, 1, grid[0], work) for name, work in works.items()]


def mean_field_pieces(side: int, rounds: int = 100, images: int = 4) -> list[Piece]:
    """The library's mean field, and the same by unfolding the window of every pixel each round."""
    torch.manual_seed(0)
    coarse = torch.rand(images, 4, side // 8, side // 8)
    fine = F.interpolate(coarse, size=(side, side), mode="bicubic")
    prob, colours = fine[:, 0].clamp(0, 1), fine[:, 1:] + 0.1 * torch.rand(images, 3, side, side)
    inside = torch.zeros_like(prob, dtype=torch.bool)
    inside[:, side // 8 : -side // 8, side // 8 : -side // 8] = True
    works = {
        "pairs of views": lambda: mean_field(prob, colours, inside, rounds=rounds),
        "windows unfolded": lambda: mean_field_unfolded(prob, colours, inside, rounds=rounds),
    }
    return [Piece("mean field", name, images, side, work) for name, work in works.items()]


def mean_field_unfolded(
    prob: Tensor, images: Tensor, inside: Tensor, zeta: float = 0.1, rounds: int = 100
) -> Tensor:
    """[b, h, w] bool: mean field with all nine neighbours of every pixel laid out."""
    b, _, h, w = images.shape
    # colours far from all others keep what lies beyond the border out
    far = F.pad(images + 10, (1, 1, 1, 1))
    windows = F.unfold(far, 3).view(b, 3, 9, h, w)
    gap = (windows - (images + 10)[:, :, None]).square().sum(1)
    kernel = torch.exp(gap / (-2 * zeta**2))[:, None]
    box = torch.stack([torch.ones_like(prob), inside.to(prob.dtype)], 1)
    x = torch.stack([1 - prob.clamp(LOW, HIGH), prob.clamp(LOW, HIGH)], 1)
    for _ in range(rounds):
        logs = F.unfold(x.log(), 3, padding=1).view(b, 2, 9, h, w)
        product = (kernel * logs).sum(2).exp() * box
        x = (product / (product.sum(1, keepdim=True) + SMALL)).clamp(LOW, HIGH)
    return x[:, 1] > 0.5


def walk_pieces(side: int, hops: int = 3, rounds: int = 10) -> list[Piece]:
    """Pseudo points of one crop, from the attention of a layer on."""
    torch.manual_seed(0)
    tokens = side**2
    attention = (3 * torch.randn(1, 12, tokens + 1, tokens + 1)).softmax(-1)
    matrix, seeds = similarity(attention), torch.rand(1, tokens, 2)
    works = {
        "mean over heads": lambda: similarity(attention),
        "Sinkhorn and hops": lambda: propagated(
            doubly_stochastic_fast(matrix, rounds), seeds, hops
        ),
        "Sinkhorn by divisions and powers": lambda: (
            torch.linalg.matrix_power(doubly_stochastic(matrix, rounds), hops) @ seeds
        ),
    }
    return [Piece("random walk", name, 1, side, work) for name, work in works.items()]


def extreme_pieces(side: int, count: int = 100) -> list[Piece]:
    """Extreme points of masks of Bestiary, one after another."""
    scenes = [draw(0, "train", index, side) for index in range(4)]
    masks = [
        m for scene in scenes for m in scene.truth.masks[scene.truth.is_thing].numpy() if m.any()
    ]
    chosen = [masks[k % len(masks)] for k in range(count)]
    work = lambda: [extreme(mask) for mask in chosen]  # noqa: E731
    return [Piece("extreme points", f"{count} masks", count, side, work)]
