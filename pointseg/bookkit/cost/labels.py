"""The label paths' share: key-point shift, roll-out, pseudo labels by paths and transport, tree filter, counting.

Each function returns named works that compute the same thing in several ways, or the parts of one way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.bookkit.cost.clock import Work
from pointseg.nets.attention import CHUNK, attention_rows, rollout_rows
from pointseg.nets.label_heads import ImageMaps
from pointseg.nets.vit import TokenViT, Trace
from pointseg.ops.components import tokens_in_boxes
from pointseg.ops.point_labels import resized
from pointseg.ops.tree import spanning_forest, tree_filter
from pointseg.papers import point2mask, psps
from pointseg.papers.attentionshift.shift import shift
from pointseg.papers.attentionshift.tokens import Region, Tokens
from pointseg.structures import Category, Classes, Points
from pointseg.students.panoptic_segformer.network import STUDENTS
from pointseg.students.panoptic_segformer.student import PanopticStudent


@dataclass(frozen=True)
class ShiftSize:
    """The problem that the official function was timed on; the defaults are that measurement's."""

    instances: int = 10
    keypoints: int = 20
    iterations: int = 10
    dim: int = 384
    side: int = 64
    box: float = 0.5  # share of the grid's side that a box takes


def shift_works(size: ShiftSize) -> dict[str, Work]:
    """The whole shift, gathering included, and the matrix products that no formulation does without."""
    torch.manual_seed(0)
    image = torch.randn(1, size.side**2, size.dim) + 1
    low = torch.rand(size.instances, 2) * size.side * (1 - size.box)
    boxes = torch.cat([low, low + size.side * size.box], 1)
    region = Region.of(tokens_in_boxes(boxes, (size.side, size.side), 1.0))
    tokens = image[torch.zeros(size.instances, 1, dtype=torch.long), region.index]
    seeds = tokens[:, : size.keypoints].clone()

    def whole() -> Tensor:
        held, inside = region.of_tokens(Tokens.of(image, [size.instances])), region.inside
        return shift(seeds, held, inside, inside, iterations=size.iterations).features

    def bare() -> Tensor:
        points, across = seeds, tokens.transpose(1, 2)
        for _ in range(size.iterations):
            points = points @ across @ tokens
        return points @ across

    return {"whole": whole, "bare products": bare}


def rollout_works(
    tokens: int, rows: int, depth: int, name: str = "vit_small_patch16_224"
) -> dict[str, Work]:
    """Roll-out of the asked rows, and the two steps of the dense one for a single block."""
    torch.manual_seed(0)
    vit = TokenViT(name).eval()
    inputs = tuple(torch.randn(1, tokens, vit.dim) for _ in range(vit.depth))
    trace, asked = Trace(inputs, 1, (tokens - 1, 1)), torch.arange(tokens - rows, tokens)
    matrix = head_mean(vit, trace, vit.depth - 1)
    chain = matrix[asked]
    return {
        "rows, all of it": lambda: rollout_rows(vit, trace, asked, depth),
        "one dense product": lambda: matrix @ matrix,
        "one product of rows": lambda: chain @ matrix,
        "one matrix formed": lambda: head_mean(vit, trace, vit.depth - 1),
    }


def head_mean(vit: TokenViT, trace: Trace, block: int) -> Tensor:
    """[T, T]: the head mean of a block's attention plus identity, rows summing to one."""
    tokens = trace.inputs[0].shape[1]
    mean = torch.empty(tokens, tokens)
    for rows in torch.arange(tokens).split(CHUNK):
        mean[rows] = attention_rows(vit, trace, block, rows)[0].mean(0)
    return mean.add_(torch.eye(tokens)).div_(2)


@dataclass(frozen=True)
class LabelProblem:
    """What a label branch says of one picture, and the points on it."""

    maps: ImageMaps
    image: Tensor  # [3, H, W]
    points: Points
    categories: tuple[Category, ...]


def label_problem(
    size: tuple[int, int], things: int = 8, classes: int = 21, width: int = 128, seed: int = 0
) -> LabelProblem:
    """Smooth maps at an eighth of the size, in which things of few classes stand close, on one stuff class."""
    torch.manual_seed(seed)
    grid = (size[0] // 8, size[1] // 8)
    categories = tuple(Category(k + 1, str(k), k < classes - 1) for k in range(classes))
    extent = torch.tensor([size[1], size[0]])
    xy = torch.cat([(0.15 + 0.7 * torch.rand(things, 2)) * extent, torch.tensor([[4.5, 4.5]])])
    label = torch.cat([torch.arange(things) % 3, torch.tensor([classes - 1])])
    points = Points(xy, label, torch.arange(things + 1), label < classes - 1)
    logits = smooth(classes, grid)
    for at, one in zip(xy[:things] / 8, label):
        logits[one] += 6 * _bump(at, grid, min(grid) / 5)
    logits[-1] += 3
    maps = ImageMaps(
        logits, F.normalize(smooth(width, grid), dim=0), (2 * smooth(1, grid) - 1).sigmoid()
    )
    return LabelProblem(maps, smooth(3, size).sigmoid(), points, categories)


def smooth(channels: int, size: tuple[int, int]) -> Tensor:
    """[channels, h, w] random and without jumps."""
    return F.interpolate(torch.randn(1, channels, 9, 12), size=size, mode="bicubic")[0]


def _bump(at: Tensor, grid: tuple[int, int], radius: float) -> Tensor:
    rows, columns = torch.arange(grid[0])[:, None] + 0.5, torch.arange(grid[1]) + 0.5
    return (-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * radius**2)).exp()


def label_works(problem: LabelProblem) -> dict[str, Work]:
    """Pseudo labels of one image with the paper's settings; the student's network has no part in them."""
    transporting = labeller_of(point2mask, problem)
    transporting.step.fill_(transporting.config.transport_from)
    nearest = labeller_of(psps, problem)
    given = (problem.maps, problem.image, problem.points)
    return {
        "Point2Mask": lambda: transporting.label_image(*given).label.things,
        "Point2Mask, solved at full size": lambda: full_size_owner(problem, transporting),
        "PSPS": lambda: nearest.label_image(*given).label.things,
    }


def labeller_of(paper: ModuleType, problem: LabelProblem):
    """The paper's labeller at paper scale, beside a small student."""
    classes = Classes.of(problem.categories)
    config = replace(paper.Config(), student=STUDENTS["smoke"])
    return paper.Labeller(PanopticStudent(classes, config.student), config)


def full_size_owner(problem: LabelProblem, labeller: point2mask.Labeller) -> Tensor:
    """[H, W] thing of each pixel, with units counted and transport solved among all pixels."""
    paths = labeller.paths(problem.maps, problem.image, problem.points)
    cost, stuff = resized(paths.distance, paths.size), paths.fine.stuff()
    units = point2mask.unit_numbers(paths, paths.fine, labeller.config)
    price = point2mask.transported(cost, units, (~stuff).to(cost.dtype), labeller.config)
    return paths.labelled(cost, price, problem.points).label.things


def agreement(one: Tensor, other: Tensor) -> float:
    """Share of pixels with the same label."""
    return float((one == other).float().mean())


def tree_works(grid: tuple[int, int], channels: int) -> dict[str, Work]:
    """Spanning tree of a picture, and tree and filter of a map on it, forward."""
    torch.manual_seed(0)
    guide = smooth(3, grid)[None].sigmoid() + 0.05 * torch.rand(1, 3, *grid)
    values = smooth(channels, grid)[None].softmax(1)
    return {
        "tree": lambda: spanning_forest(guide),
        "tree and filter": lambda: tree_filter(values, spanning_forest(guide)),
    }
