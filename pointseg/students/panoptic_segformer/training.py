"""How the panoptic student is trained on targets, wherever they come from, and how its answers are read."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.structures import IGNORE, Batch, Panoptic, Prediction, Truth
from pointseg.students.panoptic_segformer.losses import (
    PanopticTarget,
    balanced,
    centred_boxes,
    enlarged,
    location_losses,
    matched,
    reduced,
    stuff_losses,
    stuff_planes,
    thing_dice,
)
from pointseg.students.panoptic_segformer.merge import MergeRule, merged
from pointseg.students.panoptic_segformer.network import PanopticSegFormer, Seen

FINER = 1  # DEVIATION [PSF Sec. 3.5]: masks are compared on their own grid, with the share of a cell that is covered
PROPOSAL_ROUNDS = (
    3  # cells that start queries serve each thing thrice; UNSTATED [PSF]: our choice, see CellStart
)


def student_losses(
    student: PanopticSegFormer, seen: Seen, targets: list[PanopticTarget], image_ids
) -> dict[str, Tensor]:
    """All losses of the table, weighted and balanced between things and stuff. [PSF Sec. 3.5]"""
    losses: dict[str, Tensor] = {}
    if seen.located is not None:
        losses |= _thing_losses(student, seen, targets, image_ids)
    if seen.stuff_masks is not None:
        finer = enlarged(seen.stuff_masks, FINER)
        grid = finer.shape[-2:]
        wanted = stuff_planes(torch.stack([t.stuff for t in targets]), student.stuff, grid)
        losses |= stuff_losses(seen.stuff_presence, finer, wanted, _known(targets, grid))
    return balanced(losses, targets)


def _thing_losses(
    student: PanopticSegFormer, seen: Seen, targets: list[PanopticTarget], image_ids
) -> dict[str, Tensor]:
    located, layers = seen.located, []
    if located.cells is not None:
        pairs = matched(*located.cells, targets, image_ids, PROPOSAL_ROUNDS)
        layers.append(location_losses(*located.cells, targets, pairs))
    for logits, boxes in zip(located.logits, located.boxes):
        pairs = matched(logits, boxes, targets, image_ids)
        layers.append(location_losses(logits, boxes, targets, pairs))
    losses = {name: sum(layer[name] for layer in layers) for name in layers[0]}
    image, query, target = pairs  # of the last layer
    losses["thing_dice"] = _mask_loss(student, seen, targets, image, query, target)
    return losses


def _mask_loss(student: PanopticSegFormer, seen: Seen, targets: list[PanopticTarget], image: Tensor, query: Tensor,
               target: Tensor) -> Tensor:  # fmt: skip
    """Dice of the matched queries alone; no other query is decoded. [PSPS]"""
    if not len(image):
        return sum(p.sum() for p in student.thing_decoder.parameters()) * 0.0
    rank = torch.cat([torch.arange(n) for n in image.bincount(minlength=len(targets)).tolist()]).to(
        image.device
    )
    chosen = image.new_zeros(len(targets), int(rank.max()) + 1)
    chosen[image, rank] = query
    finer = enlarged(student.thing_masks(seen, chosen), FINER)
    grid = finer.shape[-2:]
    wanted = finer.new_zeros(*chosen.shape, *grid, dtype=torch.float32)
    wanted[image, rank] = torch.cat([reduced(t.things, grid) for t in targets])[
        _row(targets, image, target)
    ]
    present = torch.zeros_like(chosen, dtype=torch.bool).index_put_(
        (image, rank), torch.ones_like(image).bool()
    )
    return thing_dice(finer, wanted, _known(targets, grid), present)


def _row(targets: list[PanopticTarget], image: Tensor, target: Tensor) -> Tensor:
    """Row of each target in the batch's concatenated targets."""
    counts = torch.tensor([0] + [len(t.thing_label) for t in targets[:-1]], device=image.device)
    return counts.cumsum(0)[image] + target


def _known(targets: list[PanopticTarget], grid: tuple[int, int]) -> Tensor | None:
    """[b, h, w] share of each cell that may be asked for, where any target restricts it."""
    if all(t.known is None for t in targets):
        return None
    planes = [
        torch.ones_like(t.stuff, dtype=torch.bool) if t.known is None else t.known for t in targets
    ]
    return reduced(torch.stack(planes), grid)


@torch.no_grad()
def panoptic_of(
    student: PanopticSegFormer, seen: Seen, canvas: tuple[int, int], sizes, rule: MergeRule
) -> list[Panoptic]:
    """One merged map an image: masks go to the padded canvas, are cropped, and compete there. [PSF Alg. 1]"""
    values, scores, label = [], [], []
    if seen.located is not None:
        probability = seen.located.logits[-1].sigmoid()
        best = probability.flatten(1).topk(min(rule.candidates, probability[0].numel()), dim=1)
        values.append(student.thing_masks(seen, best.indices // student.things)[-1])
        scores.append(best.values)
        label.append(best.indices % student.things)
    if seen.stuff_masks is not None:
        values.append(seen.stuff_masks[-1])
        scores.append(seen.stuff_presence[-1].float().sigmoid())
        classes = torch.arange(student.stuff, device=scores[-1].device) + student.things
        label.append(classes.expand_as(scores[-1]))
    value, score, label = (torch.cat(parts, dim=1) for parts in (values, scores, label))
    return [
        _merged_image(*row, size, canvas, student.things, rule)
        for *row, size in zip(value, score, label, sizes)
    ]


def _merged_image(value: Tensor, score: Tensor, label: Tensor, size: tuple[int, int], canvas: tuple[int, int],
                  things: int, rule: MergeRule) -> Panoptic:  # fmt: skip
    able = score >= rule.confidence  # the mask's mean only lowers it further unless it exceeds 1
    able |= score * value.float().flatten(1).amax(1) ** rule.power >= rule.confidence
    value, score, label = value[able], score[able], label[able]
    if not len(label):
        return Panoptic(torch.zeros(size, dtype=torch.long, device=value.device), label, score)
    full = F.interpolate(value[None].float(), size=canvas, mode="bilinear", align_corners=False)[0]
    full = full[:, : size[0], : size[1]]
    return merged(full, score, label, label < things, rule)


@torch.no_grad()
def predictions(
    student: PanopticSegFormer, images: Tensor, sizes, rule: MergeRule
) -> list[Prediction]:
    """One prediction an image, the row in the batch as its id."""
    canvas = images.shape[-2:]
    padding = canvas_padding(sizes, canvas, images.device)
    maps = panoptic_of(student, student(student.encode(images, padding)), canvas, sizes, rule)
    return [Prediction(row, panoptic=panoptic) for row, panoptic in enumerate(maps)]


def canvas_padding(sizes, canvas: tuple[int, int], device) -> Tensor | None:
    """[b, H, W] bool, True where no picture is; None where all pictures fill the canvas."""
    if all(tuple(size) == tuple(canvas) for size in sizes):
        return None
    outside = torch.ones(len(sizes), *canvas, dtype=torch.bool, device=device)
    for row, (h, w) in zip(outside, sizes):
        row[:h, :w] = False
    return outside


def targets_of(batch: Batch, things: int) -> list[PanopticTarget]:
    """Ground truth as targets, for the fully supervised student; crowds and void are asked of nobody."""
    return [_target_of(truth, batch.images.shape[-2:], things) for truth in batch.truths]


def _target_of(truth: Truth, canvas: tuple[int, int], things: int) -> PanopticTarget:
    h, w = truth.masks.shape[-2:]
    grow = lambda m: F.pad(m, (0, canvas[1] - w, 0, canvas[0] - h))  # noqa: E731
    whole = truth.is_thing & ~truth.is_crowd
    masks = grow(truth.masks[whole])
    stuff = torch.full(canvas, IGNORE, device=masks.device)
    for mask, label in zip(truth.masks[~truth.is_thing], truth.label[~truth.is_thing]):
        stuff[:h, :w][mask] = label - things
    ignored = truth.void | truth.masks[truth.is_crowd].any(0)
    return PanopticTarget(masks, truth.label[whole], centred_boxes(masks), stuff, grow(~ignored))
