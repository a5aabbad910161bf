"""Panoptic SegFormer: a backbone, an encoder, queries that locate things, and masks of things and stuff."""

from __future__ import annotations

from dataclasses import dataclass, replace

import timm
import torch
from torch import Tensor, nn

from pointseg.nets.convnet import ConvBackbone
from pointseg.nets.deformable_encoder import ConvNeck, DeformableEncoder, Memory, sine_code
from pointseg.nets.location_decoder import (
    CellStart,
    LearntStart,
    Located,
    LocationDecoder,
    LocationLayer,
)
from pointseg.nets.mask_decoder import ClassQueries, MaskDecoder
from pointseg.nets.vit import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class Architecture:
    """Sizes of the student; the defaults are the paper's."""

    backbone: str = "resnet50"  # [PSF Sec. 4.1]; "conv" is the small one
    width: int = 256  # [PSF Sec. 4.1]
    heads: int = 8  # [PSF Sec. 4.1]
    neck: str = "deformable"  # [PSF Sec. 3.2]; "conv" is the switch for a CPU
    strides: tuple[int, ...] = (8, 16, 32)  # [PSF Sec. 3.2]: C3, C4, C5
    levels: int = 4  # [PSF Sec. 4.1]
    points: int = 4  # [PSF Sec. 4.1]
    encoder_layers: int = 6  # [PSF Sec. 4.1]
    feedforward: int = 1024  # UNSTATED [PSF Sec. 4.1]: the official code
    dropout: float = 0.1  # UNSTATED [PSF Sec. 4.1]: the official code
    start: str = "learnt"  # [PSF Sec. 3.3]; "cells" proposes from the memory
    queries: int = 300  # [PSF Sec. 4.1]
    location_layers: int = 6  # [PSF Tab. 10]
    mask_levels: int = 3  # UNSTATED [PSF Sec. 3.4]: strides 8, 16, 32 in the official code
    thing_layers: int = 4  # UNSTATED [PSF Sec. 3.4]: the official code
    stuff_layers: int = 6  # [PSF Sec. 3.4]


SMALL = Architecture(backbone="conv", width=64, heads=8, neck="conv", strides=(4, 8, 16), levels=3, points=4,
                     encoder_layers=0, feedforward=128, dropout=0.0, start="cells", queries=30, location_layers=2,
                     mask_levels=3, thing_layers=2, stuff_layers=2)  # fmt: skip
SMOKE = replace(
    SMALL, width=32, heads=4, queries=12, location_layers=1, thing_layers=1, stuff_layers=1
)
ARCHITECTURES = {"smoke": SMOKE, "small": SMALL, "paper": Architecture()}


def architecture_of(
    scale: str, backbone: str = "", neck: str = "", queries: int = 0
) -> Architecture:
    """The scale's architecture; what is given and not empty replaces its part."""
    given = {"backbone": backbone, "neck": neck, "queries": queries}
    return replace(ARCHITECTURES[scale], **{name: value for name, value in given.items() if value})


class TimmBackbone(nn.Module):
    """Any timm backbone with feature maps; batch norms and the first stage stay as pretrained. [PSF Sec. 4.1]"""

    def __init__(self, name: str, strides: tuple[int, ...], pretrained: bool):
        super().__init__()
        any_size = {"strict_img_size": False} if name.startswith("swin") else {}
        self.body = timm.create_model(name, features_only=True, pretrained=pretrained, **any_size)
        every = self.body.feature_info.reduction()
        self.rows = [every.index(s) for s in strides]
        self.channels = [self.body.feature_info.channels()[row] for row in self.rows]
        early = [
            p
            for n, p in self.body.named_parameters()
            if n.startswith(("conv1", "bn1", "layer1", "patch_embed"))
        ]
        for parameter in early:
            parameter.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer(
            "deviation", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False
        )

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        every = self.body((images - self.mean) / self.deviation)
        maps = [every[row] for row in self.rows]
        channels_last = maps[0].shape[1] != self.channels[0]  # Swin's way
        return [m.permute(0, 3, 1, 2) if channels_last else m for m in maps]


@dataclass(frozen=True)
class Seen:
    """Everything the student says of a batch before masks of things are asked for."""

    memory: Memory
    located: Located | None  # None: no thing classes
    stuff_presence: Tensor | None  # [l, b, S]
    stuff_masks: Tensor | None  # [l, b, S, h, w]


class PanopticSegFormer(nn.Module):
    """images -> Seen; `thing_masks` then decodes chosen queries only. [PSF Fig. 2]"""

    def __init__(
        self, things: int, stuff: int, architecture: Architecture, pretrained: bool = False
    ):
        super().__init__()
        a = self.architecture = architecture
        self.things, self.stuff = things, stuff
        self.backbone, channels = _backbone(a, pretrained)
        if a.neck == "conv":
            self.encoder = ConvNeck(channels, a.width, a.levels)
        else:
            self.encoder = DeformableEncoder(channels, a.width, a.levels, a.heads, a.points, a.encoder_layers,
                                             a.feedforward, a.dropout)  # fmt: skip
        self.location = _location(a, things) if things else None
        self.thing_decoder = self.mask_decoder(a.thing_layers, self_attention=False)
        self.box_code = nn.Linear(a.width, a.width) if a.neck == "conv" else None
        self.stuff_queries = self.class_queries(stuff, a.stuff_layers) if stuff else None

    def mask_decoder(self, layers: int, self_attention: bool) -> MaskDecoder:
        """A decoder that fits this memory; the label branches of weak methods ask for one too."""
        a = self.architecture
        return MaskDecoder(
            a.width, a.heads, a.mask_levels, layers, self_attention, placed=a.neck == "conv"
        )

    def class_queries(self, classes: int, layers: int) -> ClassQueries:
        return ClassQueries(
            classes, self.architecture.width, self.mask_decoder(layers, self_attention=True)
        )

    def encode(self, images: Tensor, padding: Tensor | None = None) -> Memory:
        return self.encoder(self.backbone(images), padding)

    def forward(self, memory: Memory) -> Seen:
        presence, masks = self.stuff_queries(memory) if self.stuff else (None, None)
        return Seen(memory, self.location(memory) if self.things else None, presence, masks)

    def param_groups(
        self, lr: float, weight_decay: float, others: list[nn.Parameter]
    ) -> list[dict]:
        """Pretrained parts, offsets and first places learn at a tenth. UNSTATED [PSF Sec. 4.1]: the official code."""
        slow = ("backbone", "offsets", "reference") if self.architecture.backbone != "conv" else ()
        named = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        slower = [p for name, p in named if any(part in name for part in slow)]
        usual = [p for name, p in named if not any(part in name for part in slow)] + others
        groups = ((usual, lr), (slower, 0.1 * lr))
        return [{"params": p, "lr": rate, "weight_decay": weight_decay} for p, rate in groups if p]

    def thing_masks(self, seen: Seen, chosen: Tensor) -> Tensor:
        """[l, b, k, h, w] masks of the queries chosen [b, k] of each image."""
        pick = lambda x: x.gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))  # noqa: E731
        queries, position = pick(seen.located.queries), None
        if self.box_code is not None:  # keys that carry places need queries that know theirs
            code = sine_code(
                pick(seen.located.boxes[-1]).detach(), queries.shape[-1], seen.memory.waves
            )
            position = self.box_code(code.to(queries.dtype))
        return self.thing_decoder(queries, seen.memory, position)[1]


def _backbone(a: Architecture, pretrained: bool) -> tuple[nn.Module, list[int]]:
    if a.backbone == "conv":
        return ConvBackbone(a.width, a.strides), [a.width] * len(a.strides)
    backbone = TimmBackbone(a.backbone, a.strides, pretrained)
    return backbone, backbone.channels


def _location(a: Architecture, things: int) -> LocationDecoder:
    if a.start == "cells":
        start = CellStart(a.width, a.queries, things, skip=a.levels - 2)
    else:
        start = LearntStart(a.width, a.queries)
    layers = [LocationLayer(a.width, a.heads, a.levels, a.points, a.feedforward, a.dropout)
              for _ in range(a.location_layers)]  # fmt: skip
    return LocationDecoder(start, layers, a.width, things)
