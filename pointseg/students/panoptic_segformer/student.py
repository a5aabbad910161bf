"""Panoptic SegFormer as a student: features, losses on targets, predictions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.structures import Batch, Classes, Panoptic, Prediction, padding_mask
from pointseg.students.panoptic_segformer.losses import (
    Matches,
    PanopticTargets,
    location_losses,
    matched,
    reduced,
    stuff_losses,
    stuff_planes,
    thing_dice,
)
from pointseg.students.panoptic_segformer.merge import MergeRule, merged
from pointseg.students.panoptic_segformer.network import Outputs, PanopticSegFormer, StudentConfig

# Cells that start queries serve each thing thrice. UNSTATED [PSF Sec. 3.3]: ours, see CellStart.
PROPOSAL_ROUNDS = 3
Sizes = list[tuple[int, int]]


class PanopticStudent(nn.Module):
    """A network that learns panoptic targets, wherever they come from."""

    def __init__(self, classes: Classes, config: StudentConfig):
        super().__init__()
        self.network, self.classes = PanopticSegFormer(classes, config), classes

    def features(self, images: Tensor, sizes: Sizes) -> Memory:
        return self.network.encode(images, padding_mask(sizes, images))

    def losses(self, features: Memory, targets: PanopticTargets, batch: Batch) -> dict[str, Tensor]:
        """All losses of the student's table, without weights. [PSF Sec. 3.5]

        DEVIATION [PSF Sec. 3.5]: masks are compared on their own grid, with the share of a cell
        that is covered.
        """
        outputs, losses = self.network(features), {}
        if outputs.located is not None:
            losses |= self._thing_losses(outputs, targets, batch.image_ids)
        if outputs.stuff_masks is not None:
            grid = outputs.stuff_masks.shape[-2:]
            stuff = torch.stack([target.stuff for target in targets.images])
            planes = stuff_planes(stuff, self.classes.stuff, grid)
            losses |= stuff_losses(
                outputs.stuff_presence, outputs.stuff_masks, planes, targets.known_on(grid)
            )
        return losses

    def _thing_losses(
        self, outputs: Outputs, targets: PanopticTargets, image_ids: list
    ) -> dict[str, Tensor]:
        located, layers = outputs.located, []
        if located.cells is not None:
            matches = matched(*located.cells, targets, image_ids, PROPOSAL_ROUNDS)
            layers.append(location_losses(*located.cells, targets, matches))
        for logits, boxes in zip(located.logits, located.boxes):
            matches = matched(logits, boxes, targets, image_ids)
            layers.append(location_losses(logits, boxes, targets, matches))
        losses = {name: sum(layer[name] for layer in layers) for name in layers[0]}
        return losses | {"thing_dice": self._mask_loss(outputs, targets, matches)}

    def _mask_loss(self, outputs: Outputs, targets: PanopticTargets, matches: Matches) -> Tensor:
        """Dice of the queries matched in the last layer; no other query is decoded. [PSPS]"""
        image = matches.image
        chosen = image.new_zeros(len(targets.images), max(1, *targets.counts))
        rank = torch.cat([torch.arange(n, device=image.device) for n in targets.counts])
        chosen[image, rank] = matches.query
        masks = self.network.thing_masks(outputs, chosen)
        grid = masks.shape[-2:]
        wanted = masks.new_zeros(*chosen.shape, *grid, dtype=torch.float32)
        rows = targets.thing_rows(image, matches.target)
        wanted[image, rank] = reduced(torch.cat([t.things for t in targets.images]), grid)[rows]
        present = torch.zeros_like(chosen, dtype=torch.bool)
        present[image, rank] = True
        return thing_dice(masks, wanted, targets.known_on(grid), present)

    @torch.no_grad()
    def predict(self, images: Tensor, sizes: Sizes) -> list[Prediction]:
        """One prediction an image, the row in the batch as its id."""
        outputs = self.network(self.features(images, sizes))
        maps = self.panoptic_of(outputs, images.shape[-2:], sizes)
        return [Prediction(row, panoptic=panoptic) for row, panoptic in enumerate(maps)]

    @torch.no_grad()
    def panoptic_of(
        self, outputs: Outputs, canvas: tuple[int, int], sizes: Sizes
    ) -> list[Panoptic]:
        """One map an image: masks go to the canvas, are cropped, and compete. [PSF Alg. 1]"""
        rule = self.network.config.merge
        kinds = [self._thing_candidates(outputs, rule), self._stuff_candidates(outputs)]
        rows = (torch.cat(parts, dim=1) for parts in zip(*filter(None, kinds)))
        return [
            _merged_image(*row, size, canvas, self.classes.things, rule)
            for *row, size in zip(*rows, sizes)
        ]

    def _thing_candidates(self, outputs: Outputs, rule: MergeRule):
        """Mask values [b, k, h, w], scores and labels [b, k] of the best queries and classes."""
        if outputs.located is None:
            return None
        probability, things = outputs.located.logits[-1].sigmoid(), self.classes.things
        count = min(rule.candidates, probability[0].numel())
        best = probability.flatten(1).topk(count, dim=1)
        masks = self.network.thing_masks(outputs, best.indices // things)[-1]
        return masks, best.values, best.indices % things

    def _stuff_candidates(self, outputs: Outputs):
        """The same of all stuff queries."""
        if outputs.stuff_masks is None:
            return None
        scores = outputs.stuff_presence[-1].float().sigmoid()
        label = torch.arange(self.classes.things, len(self.classes), device=scores.device)
        return outputs.stuff_masks[-1], scores, label.expand_as(scores)

    def param_groups(
        self, lr: float, weight_decay: float, beside: Iterable[nn.Parameter] = ()
    ) -> list[dict]:
        """The network's groups; what a method trains beside it learns at the full rate."""
        return self.network.param_groups(lr, weight_decay, beside)


def _merged_image(value: Tensor, score: Tensor, label: Tensor, size: tuple[int, int],
                  canvas: tuple[int, int], things: int, rule: MergeRule) -> Panoptic:  # fmt: skip
    able = score >= rule.confidence  # the mask's mean only lowers it further unless it exceeds 1
    able |= score * value.float().flatten(1).amax(1) ** rule.power >= rule.confidence
    value, score, label = value[able], score[able], label[able]
    if not len(label):
        return Panoptic(torch.zeros(size, dtype=torch.long, device=value.device), label, score)
    full = F.interpolate(value[None].float(), size=canvas, mode="bilinear", align_corners=False)[0]
    return merged(full[:, : size[0], : size[1]], score, label, label < things, rule)
