"""A distance branch that labels, a Panoptic SegFormer that learns. [EPLD Sec. 3.4-3.5]"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate as enlarged

from pointseg.nets.deformable_encoder import Memory
from pointseg.ops.colour import rgb_to_lab, shrunken, window
from pointseg.ownership import NOBODY
from pointseg.papers.epld.branch import DistanceBranch, Estimate, layer_notes
from pointseg.papers.epld.crossings import CROSSINGS, path_costs, transport_prices
from pointseg.papers.epld.distance import (
    affinities,
    colour_prior_loss_fast,
    distance_map,
    partial_loss,
    pseudo_label,
    self_training_loss,
)
from pointseg.papers.epld.queries import Targets, class_loss, targets_on_grid
from pointseg.papers.method import Losses, PointSupervised
from pointseg.papers.panoptic_labels import STUDENT_PARTS, PanopticAnswer
from pointseg.structures import (
    IGNORE,
    Batch,
    Classes,
    Loss,
    Panoptic,
    Training,
)
from pointseg.students.panoptic_segformer.losses import LOSSES as STUDENT_LOSSES
from pointseg.students.panoptic_segformer.losses import (
    PanopticTarget,
    PanopticTargets,
    centred_boxes,
)
from pointseg.students.panoptic_segformer.network import STUDENTS, StudentConfig
from pointseg.students.panoptic_segformer.student import PanopticStudent


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
    cost: Literal["learnt", "path"] = "learnt"  # of the student's labels; see crossings.py
    price: Literal["none", "transport"] = "none"  # the same
    heads: int | None = None  # of the decoder layers; None: as many as the student's
    # UNSTATED [EPLD Sec. 3.5]: L_pan grows from 0 over the first epoch, as in PSPS's official code;
    # VOC's 10,582 images make 662 steps of 16
    warmup_steps: int = 662
    student: StudentConfig = field(default_factory=StudentConfig)


# DEVIATION [EPLD Sec. 4.2]: on a CPU the branch has half the heads and PSPS's 1 x 1 fusion kernels
SMALL = Config(fusion_kernel=1, heads=4, warmup_steps=100, student=STUDENTS["small"])
CONFIGS = {
    "smoke": replace(SMALL, layers=3, warmup_steps=2, student=STUDENTS["smoke"]),
    "small": SMALL,
    "photos": replace(SMALL, erosion=1, student=STUDENTS["photos"]),
    "paper": Config(erosion=3),  # [EPLD Sec. 4.2]
}


@dataclass(frozen=True)
class Evidence:
    """The targets of a batch and what each layer says of them."""

    targets: Targets
    estimate: Estimate  # of all layers

    def up_to(self, layers: int) -> Evidence:
        """What the first layers say: the last of them labels."""
        parts = {name: value[:layers] for name, value in vars(self.estimate).items()}
        return replace(self, estimate=Estimate(**parts))


@dataclass(frozen=True)
class EstimatedLabels:
    """M^L at image size: the owner of every pixel."""

    table: Targets
    owner: Tensor  # [b, H, W] row of the table, NOBODY in the padding and without targets
    sizes: list[tuple[int, int]]
    things: int  # thing classes, which come before stuff

    def targets(self, batch: Batch) -> PanopticTargets:
        """Masks, boxes and stuff of each image; a thing without pixels takes no part."""
        return PanopticTargets([self._target(row) for row in range(len(self.owner))])

    def _target(self, image: int) -> PanopticTarget:
        owner, label = self.owner[image], self.table.label[image]
        rows = self.table.is_thing[image].nonzero()[:, 0]
        masks = owner == rows[:, None, None]
        held = masks.flatten(1).any(1)
        rows, masks, known = rows[held], masks[held], owner != NOBODY
        stuff = torch.where(self.table.is_thing[image], IGNORE, label - self.things)
        stuff = torch.where(known, stuff[owner.clamp(min=0)], IGNORE)
        return PanopticTarget(masks, label[rows], centred_boxes(masks), stuff, known)

    def pseudo_labels(self) -> list[Panoptic]:
        """One map an image, one row a target: things, then stuff."""
        counts = self.table.present.sum(1).tolist()
        cut = zip(self.owner, self.table.label, counts, self.sizes)
        return [Panoptic(owner[:h, :w] + 1, label[:n]) for owner, label, n, (h, w) in cut]


class Distance(nn.Module):
    """The labeller: a learnt distance, and the label that follows from it."""

    ASSIGNING: ClassVar[tuple[str, ...]] = ("cost", "price")

    def __init__(self, student: PanopticStudent, config: Config):
        super().__init__()
        network, self.things, self.config = student.network.config, student.classes.things, config
        heads, placed = config.heads or network.heads, network.neck == "conv"
        self.notes: dict[str, Tensor] = {}
        self.branch = DistanceBranch(network.width, heads, len(student.classes), placed, config)

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
        X, u = self.net_cost(evidence, batch)
        owner = pseudo_label(enlarged(X, canvas, mode="bilinear", align_corners=False), u)
        claimed = torch.where(targets.labelled, targets.points.int().argmax(1), NOBODY)
        claimed = enlarged(claimed[:, None].float(), canvas)[:, 0].long()
        owner = torch.where(claimed == NOBODY, owner, claimed)
        outside = batch.padding() | ~targets.present.any(1)[:, None, None]
        return EstimatedLabels(
            targets, owner.masked_fill(outside, NOBODY), batch.sizes, self.things
        )

    def net_cost(self, evidence: Evidence, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Cost [b, N, h, w] on the grid and price [b, N] of the student's labels."""
        M = evidence.estimate.log_prob[-1].exp()
        paths = self.config.cost == "path"
        X = path_costs(M, evidence.targets, batch.images) if paths else distance_map(M)
        priced = self.config.price == "transport"
        return X, transport_prices(X, M, evidence.targets) if priced else None

    def losses(self, evidence: Evidence, labels: EstimatedLabels, batch: Batch) -> Losses:
        """L_distance: four terms, each a sum over layers. [EPLD Eq. 11]

        UNSTATED [EPLD Eq. 11]: nothing is detached, so backbone and encoder learn from it too.
        """
        t, e, c = evidence.targets, evidence.estimate, self.config
        self.notes = layer_notes(e, t)
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


class EPLD(PointSupervised):
    """images and points -> panoptic maps. [EPLD Sec. 3.1]

    Fusion module and distance branch, the labeller, take part in training only.
    """

    KEY: ClassVar[str] = "EPLD"
    TASK: ClassVar[str] = "panoptic"
    CONFIGS: ClassVar[dict[str, Config]] = CONFIGS
    FIRST_STAGE: ClassVar[tuple[str, ...]] = STUDENT_PARTS
    # All weights are 1 [EPLD Eq. 11-12]. UNSTATED [EPLD Eq. 12]: L_pan has the weights and shares
    # of PSF's official code; L_distance is shared by nobody.
    LOSSES: ClassVar[dict[str, Loss]] = {
        **{name: Loss() for name in ("partial", "class", "self_training", "colour_prior")},
        **{name: replace(loss, ramped=True) for name, loss in STUDENT_LOSSES.items()},
    }
    ANSWER = PanopticAnswer(
        cost="1 - softmax over targets of learnt cross-attention, six rounds",
        price="0",
        refusal="none",
        teachers="points, colour, own labels, class",
    )
    CROSSINGS: ClassVar[dict[str, dict[str, str]]] = CROSSINGS
    PROPERTIES: ClassVar[tuple[str, ...]] = (
        "points keep their own pixel",
        "no target of a point is empty",
        "labels use only the points' classes",
        "no gradient through assign",
    )
    TRAINING: ClassVar[dict[str, Training]] = {
        "small": Training(lr=2e-3, weight_decay=1e-2, steps=1500, batch=16),
        "photos": Training(lr=2e-3, weight_decay=1e-2, steps=1500, batch=16),
        # lr, weight decay and AdamW: [EPLD Sec. 4.2]. UNSTATED [EPLD Sec. B.1]: the rest is PSPS's
        # official VOC recipe; COCO: 12 epochs with a drop at 8, batch 8
        "paper": Training(
            lr=1.4e-4, weight_decay=1e-4, schedule="step", milestones=(15 / 20,), warmup=0.0,
            clip=0.1, epochs=20, batch=16,
        ),
    }  # fmt: skip

    @property
    def notes(self) -> dict[str, Tensor]:
        """Share of positive logits and entropy by layer, of the last step."""
        return self.labeller.notes

    def __init__(self, classes: Classes, config: Config):
        student = PanopticStudent(classes, config.student)
        super().__init__(Distance(student, config), student, config.warmup_steps)
