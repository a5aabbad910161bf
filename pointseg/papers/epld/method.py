"""The method: a distance branch that labels, a Panoptic SegFormer that learns. [EPLD Sec. 3.4-3.5]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate as enlarged

from pointseg.nets.deformable_encoder import Memory
from pointseg.ops.colour import rgb_to_lab, shrunken, window
from pointseg.ownership import NOBODY
from pointseg.papers.epld.branch import DistanceBranch, Estimate
from pointseg.papers.epld.distance import (
    affinities,
    colour_prior_loss_fast,
    distance_map,
    partial_loss,
    pseudo_label,
    self_training_loss,
)
from pointseg.papers.epld.queries import Targets, class_loss, targets_on_grid
from pointseg.papers.method import Losses
from pointseg.structures import IGNORE, Batch, Panoptic
from pointseg.students.panoptic_segformer.losses import (
    PanopticTarget,
    PanopticTargets,
    centred_boxes,
)


@dataclass(frozen=True)
class Config:
    layers: int = 6  # [EPLD Sec. 4.2]; 1 to 7 in [EPLD Tab. 4]
    source: Literal["fused", "learnt", "sine"] = "fused"  # of the queries [EPLD Tab. 1]
    class_embedding: bool = True  # [EPLD Tab. 2]
    class_loss: bool = True  # [EPLD Tab. 2]
    fusion_levels: int = 3  # [EPLD Tab. 3]
    fusion_kernel: int = 3  # UNSTATED [EPLD Sec. 3.2]: see FusionModule
    decoder_levels: int = 3  # [EPLD Tab. 3]
    colour_prior: bool = True  # [EPLD Tab. 5]
    self_training: bool = True  # [EPLD Tab. 5]
    erosion: int | None = None  # passes; 3 [EPLD Sec. 4.2]; None follows the grid
    self_attention: bool = True  # UNSTATED [EPLD Sec. A.2]: targets compete; see DecoderLayer
    last_relu: bool = False  # UNSTATED [EPLD Sec. A.2]: PSF's and PSPS's, which layers can die of
    colour_radius: int = 2  # UNSTATED [EPLD Eq. 9]: 5 x 5, PSPS's official code
    colour_dilation: int = 2  # UNSTATED [EPLD Eq. 9]: PSPS's official code
    colour_threshold: float = 0.3  # UNSTATED [EPLD Eq. 9]: tau of PSPS's official code


@dataclass(frozen=True)
class Evidence:
    """The targets of a batch and what each layer says of them."""

    targets: Targets
    estimate: Estimate  # of all layers


@dataclass(frozen=True)
class EstimatedLabels:
    """M^L at image size: the owner of every pixel."""

    table: Targets
    owner: Tensor  # [b, H, W] row of the table, NOBODY in the padding and without targets
    things: int  # thing classes, which come before stuff

    def targets(self, batch: Batch) -> PanopticTargets:
        """Masks, boxes and stuff of each image; a thing without pixels is no target."""
        return PanopticTargets([self._target(row) for row in range(len(self.owner))])

    def _target(self, image: int) -> PanopticTarget:
        owner, label = self.owner[image], self.table.label[image]
        rows = self.table.is_thing[image].nonzero()[:, 0]
        masks = owner == rows[:, None, None]
        held = masks.flatten(1).any(1)
        rows, masks = rows[held], masks[held]
        stuff = torch.where(self.table.is_thing[image], IGNORE, label - self.things)
        valid = owner != NOBODY
        stuff = torch.where(valid, stuff[owner.clamp(min=0)], IGNORE)
        return PanopticTarget(masks, label[rows], centred_boxes(masks), stuff, valid)

    def thing_share(self) -> float:
        """Things as a share of all targets of the batch."""
        present = self.table.present
        return int((self.table.is_thing & present).sum()) / max(1, int(present.sum()))

    def panoptic(self, batch: Batch) -> list[Panoptic]:
        """One map an image, one row a target, in the order of the table."""
        counts = self.table.present.sum(1).tolist()
        cut = zip(self.owner, self.table.label, counts, batch.sizes)
        return [Panoptic(owner[:h, :w] + 1, label[:n]) for owner, label, n, (h, w) in cut]


class Distance(nn.Module):
    """The labeller: a learnt distance, and the label that follows from it."""

    def __init__(self, branch: DistanceBranch, things: int, config: Config):
        super().__init__()
        self.branch, self.things, self.config = branch, things, config

    def evidence(self, memory: Memory, batch: Batch) -> Evidence:
        """Points enter here: they are what the first queries are means of."""
        hidden, shape = memory.padding_of(0), (len(batch), *memory.shapes[0])
        inside = torch.ones(shape, dtype=torch.bool, device=memory.tokens.device)
        inside = inside if hidden is None else ~hidden
        targets = targets_on_grid(batch.points, inside, tuple(batch.images.shape[-2:]))
        return Evidence(targets, self.branch(memory, targets))

    @torch.no_grad()
    def assign(self, evidence: Evidence, batch: Batch) -> EstimatedLabels:
        """The last layer's label on the pixels, with the points' own cells written in.

        UNSTATED [EPLD Sec. 3.4]: M^L has the grid's size; its distances are enlarged, bilinear,
        before the nearest is taken. In a cell that two targets claim the nearest stays.
        """
        targets, canvas = evidence.targets, batch.images.shape[-2:]
        X = distance_map(evidence.estimate.log_prob[-1].exp())
        owner = pseudo_label(enlarged(X, canvas, mode="bilinear", align_corners=False))
        claimed = torch.where(targets.labelled, targets.points.int().argmax(1), NOBODY)
        claimed = enlarged(claimed[:, None].float(), canvas)[:, 0].long()
        owner = torch.where(claimed == NOBODY, owner, claimed)
        outside = batch.padding() | ~targets.present.any(1)[:, None, None]
        return EstimatedLabels(targets, owner.masked_fill(outside, NOBODY), self.things)

    def losses(self, evidence: Evidence, labels: EstimatedLabels, batch: Batch) -> Losses:
        """L_distance: four terms, each a sum over layers. [EPLD Eq. 11]

        UNSTATED [EPLD Eq. 11]: nothing is detached, so backbone and encoder learn from it too.
        """
        t, e, c = evidence.targets, evidence.estimate, self.config
        terms = {"partial": partial_loss(e.log_prob, t)}
        if c.class_loss:
            terms["class"] = class_loss(e.classes.float(), t)
        if c.self_training:
            terms["self_training"] = self_training_loss(e.log_prob, e.label[-1], t)
        if c.colour_prior:
            lab = rgb_to_lab(shrunken(batch.images, e.label.shape[-2:]))
            offsets = window(c.colour_radius, c.colour_dilation)
            affinity = affinities(lab, t.inside, offsets, c.colour_threshold)
            terms["colour_prior"] = colour_prior_loss_fast(e.log_prob, affinity)
        return {name: loss.sum() for name, loss in terms.items()}
