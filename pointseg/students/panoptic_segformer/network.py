"""Panoptic SegFormer: backbone, encoder, queries that locate things, masks of things and stuff."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor, nn

from pointseg.nets.convnet import ConvBackbone
from pointseg.nets.deformable_encoder import ConvNeck, DeformableEncoder, Memory, sine_code
from pointseg.nets.frozen_backbone import FrozenBackbone
from pointseg.nets.location_decoder import (
    CellStart,
    LearntStart,
    Located,
    LocationDecoder,
    LocationLayer,
    rows_of,
)
from pointseg.nets.mask_decoder import ClassQueries, MaskDecoder
from pointseg.nets.timm_backbone import IMAGENET, IMAGENET_NETWORK, TimmBackbone
from pointseg.structures import Classes
from pointseg.students.panoptic_segformer.merge import MergeRule


@dataclass(frozen=True)
class StudentConfig:
    """What the student is made of and how its masks are merged; the defaults are the paper's."""

    backbone: str = "resnet50"  # [PSF Sec. 4.1]; "conv" is the small one
    # of a timm backbone: "timm" (its hub's, ImageNet [PSF Sec. 4.1]), "imagenet" (the registry
    # package's), a file, or None
    weights: str | None = "timm"
    backbone_learns: bool = True  # of a timm backbone; without it maps of an image are made once
    width: int = 256  # [PSF Sec. 4.1]
    heads: int = 8  # [PSF Sec. 4.1]
    neck: Literal["deformable", "conv"] = "deformable"  # [PSF Sec. 3.2]; "conv" for a CPU
    strides: tuple[int, ...] = (8, 16, 32)  # [PSF Sec. 3.2]: C3, C4, C5
    levels: int = 4  # [PSF Sec. 4.1]
    points: int = 4  # [PSF Sec. 4.1]
    encoder_layers: int = 6  # [PSF Sec. 4.1]
    feedforward: int = 1024  # UNSTATED [PSF Sec. 4.1]: the official code
    dropout: float = 0.1  # UNSTATED [PSF Sec. 4.1]: the official code
    start: Literal["learnt", "cells"] = "learnt"  # [PSF Sec. 3.3]; "cells" see CellStart
    queries: int = 300  # [PSF Sec. 4.1]
    location_layers: int = 6  # [PSF Tab. 10]
    mask_levels: int = 3  # UNSTATED [PSF Sec. 3.4]: strides 8, 16, 32 in the official code
    thing_layers: int = 4  # UNSTATED [PSF Sec. 3.4]: the official code
    stuff_layers: int = 6  # [PSF Sec. 3.4]
    merge: MergeRule = field(default_factory=MergeRule)


# DEVIATION [PSF Alg. 1]: a confidence below the official code's 0.25. A student trained for minutes
# finds things long before its focal class scores grow; at 0.25 most of them would be thrown away.
SMALL = StudentConfig(
    backbone="conv", width=64, neck="conv", strides=(4, 8, 16), levels=3, encoder_layers=0,
    feedforward=128, dropout=0.0, start="cells", queries=30, location_layers=2, thing_layers=2,
    stuff_layers=2, merge=MergeRule(confidence=0.15, candidates=20),
)  # fmt: skip
SMOKE = replace(
    SMALL, width=32, heads=4, queries=12, location_layers=1, thing_layers=1, stuff_layers=1,
    merge=MergeRule(confidence=0.15, candidates=12),
)  # fmt: skip
# DEVIATION [PSF Sec. 4.1]: EfficientNet-Lite0, whose ImageNet weights a registry package holds
PHOTOS = replace(SMALL, backbone=IMAGENET_NETWORK, weights=IMAGENET)
STUDENTS = {"smoke": SMOKE, "small": SMALL, "photos": PHOTOS, "paper": StudentConfig()}


@dataclass(frozen=True)
class Outputs:
    """What the network predicts for a batch, masks of things apart: see `thing_masks`."""

    memory: Memory
    located: Located | None  # None: no thing classes
    stuff_presence: Tensor | None  # [l, b, S]
    stuff_masks: Tensor | None  # [l, b, S, h, w]


class PanopticSegFormer(nn.Module):
    """images -> Outputs; `thing_masks` then decodes chosen queries only. [PSF Fig. 2]"""

    def __init__(self, classes: Classes, config: StudentConfig):
        super().__init__()
        a = self.config = config
        self.things, self.stuff = classes.things, classes.stuff
        self.backbone, channels = _backbone(a)
        if a.neck == "conv":
            self.encoder = ConvNeck(channels, a.width, a.levels)
        else:
            self.encoder = DeformableEncoder(
                channels, a.width, a.levels, a.heads, a.points, a.encoder_layers, a.feedforward,
                a.dropout,
            )  # fmt: skip
        self.location = _location(a, classes.things) if classes.things else None
        self.thing_decoder = self.mask_decoder(a.thing_layers, self_attention=False)
        self.box_code = nn.Linear(a.width, a.width) if a.neck == "conv" else None
        self.stuff_queries = self.class_queries(self.stuff) if self.stuff else None

    def mask_decoder(self, layers: int, self_attention: bool) -> MaskDecoder:
        """A decoder that fits this memory."""
        a = self.config
        placed = a.neck == "conv"
        return MaskDecoder(a.width, a.heads, a.mask_levels, layers, self_attention, placed)

    def class_queries(self, classes: int) -> ClassQueries:
        """A query a class that fits this memory; the labellers of weak methods ask for some too."""
        decoder = self.mask_decoder(self.config.stuff_layers, self_attention=True)
        return ClassQueries(classes, self.config.width, decoder)

    def encode(self, images: Tensor, padding: Tensor | None = None) -> Memory:
        return self.encoder(self.backbone(images), padding)

    def forward(self, memory: Memory) -> Outputs:
        presence, masks = self.stuff_queries(memory) if self.stuff else (None, None)
        return Outputs(memory, self.location(memory) if self.things else None, presence, masks)

    def param_groups(
        self, lr: float, weight_decay: float, beside: Iterable[nn.Parameter] = ()
    ) -> list[dict]:
        """Pretrained parts, offsets and first boxes learn at a tenth of the rate of all others.

        UNSTATED [PSF Sec. 4.1]: the official code.
        """
        slow = ("backbone", "offsets", "reference") if self.config.backbone != "conv" else ()
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        slower = [p for name, p in named if any(part in name for part in slow)]
        usual = [p for name, p in named if not any(part in name for part in slow)] + list(beside)
        groups = ((usual, lr), (slower, 0.1 * lr))
        return [{"params": p, "lr": rate, "weight_decay": weight_decay} for p, rate in groups if p]

    def thing_masks(self, outputs: Outputs, chosen: Tensor) -> Tensor:
        """[l, b, k, h, w] masks of the queries chosen [b, k] of each image."""
        located, position = outputs.located, None
        queries = rows_of(located.queries, chosen)
        if self.box_code is not None:  # keys that carry positions need queries that know theirs
            boxes = rows_of(located.boxes[-1], chosen).detach()
            code = sine_code(boxes, queries.shape[-1], outputs.memory.waves)
            position = self.box_code(code.to(queries.dtype))
        return self.thing_decoder.masks(queries, outputs.memory, position)


def _backbone(a: StudentConfig) -> tuple[nn.Module, list[int]]:
    if a.backbone == "conv":
        return ConvBackbone(a.width, a.strides), [a.width] * len(a.strides)
    network = TimmBackbone if a.backbone_learns else FrozenBackbone
    backbone = network(a.backbone, a.strides, a.weights)
    return backbone, backbone.channels


def _location(a: StudentConfig, things: int) -> LocationDecoder:
    if a.start == "cells":
        start = CellStart(a.width, a.queries, things, skip=a.levels - 2)
    else:
        start = LearntStart(a.width, a.queries)
    layers = [LocationLayer(a.width, a.heads, a.levels, a.points, a.feedforward, a.dropout)
              for _ in range(a.location_layers)]  # fmt: skip
    return LocationDecoder(start, layers, a.width, things)
