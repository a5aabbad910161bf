"""Heads on regions of interest: the light ones of scale small, and those made of MAE decoder
blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads
from torchvision.ops import roi_align


def fixed_positions(side: int, width: int) -> Tensor:
    """[side * side, width] fixed sine and cosine code of the cells of a square grid, row by
    row."""
    quarter = width // 4
    speed = 1 / 10000 ** (torch.arange(quarter) / quarter)
    at = torch.arange(side)[:, None] * speed
    line = torch.cat([at.sin(), at.cos()], 1)
    rows = line[:, None].expand(side, side, -1)
    return torch.cat([line[None].expand(side, side, -1), rows], -1).flatten(0, 1)


class DecoderTrunk(nn.Module):
    """The MAE decoder as a head on regions: norm, linear, fixed positions, blocks, norm.

    [AS Sec. 4], imTED's design.

    UNSTATED [AS Sec. 4]: 4 blocks of width 256 with 8 heads, those of the official code's MAE
    decoder.
    """

    def __init__(self, channels: int, width: int = 256, depth: int = 4, heads: int = 8):
        super().__init__()
        self.norm, self.embed = nn.LayerNorm(channels), nn.Linear(channels, width)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.last_norm, self.width = nn.LayerNorm(width), width

    def forward(self, regions: Tensor, first: Tensor | None = None) -> Tensor:
        """Regions [r, channels, s, s] to tokens [r, (1 +) s * s, width]; `first` [width] is put
        in front."""
        tokens = self.embed(self.norm(regions.flatten(2).transpose(1, 2)))
        tokens = tokens + fixed_positions(regions.shape[-1], self.width).to(tokens)
        if first is not None:
            tokens = torch.cat([first.to(tokens.dtype).expand(len(tokens), 1, -1), tokens], 1)
        return self.last_norm(self.blocks(tokens))

    def take(self, weights: dict[str, Tensor]) -> list[str]:
        """Starts from the decoder in an MAE file, where the shapes are the same; the names that
        were taken."""
        ours = self.state_dict()
        named = {name: weights.get(_mae_name(name)) for name in ours}
        fitting = {
            name: w.float()
            for name, w in named.items()
            if w is not None and w.shape == ours[name].shape
        }
        self.load_state_dict(fitting, strict=False)
        return list(fitting)


def _mae_name(name: str) -> str:
    """A name of the trunk as facebookresearch/mae calls it; the first norm is the encoder's
    last."""
    return name if name.startswith("norm.") else f"decoder_{name.removeprefix('last_')}"


class DecoderBoxHead(nn.Module):
    """One vector a region: the detection token after the decoder. [AS Sec. 4]"""

    def __init__(self, channels: int, width: int = 256):
        super().__init__()
        self.trunk, self.token = (
            DecoderTrunk(channels, width),
            nn.Parameter(torch.randn(width) * 0.02),
        )

    def forward(self, regions: Tensor) -> Tensor:
        return self.trunk(regions, self.token)[:, 0]


class DecoderMaskHead(nn.Module):
    """Mask logits [r, C, 2s, 2s]: decoder tokens, enlarged twice, one linear map. [AS Sec. 4]"""

    def __init__(self, channels: int, classes: int, width: int = 256):
        super().__init__()
        self.trunk, self.out = DecoderTrunk(channels, width), nn.Conv2d(width, classes, 1)

    def forward(self, regions: Tensor) -> Tensor:
        tokens = self.trunk(regions).transpose(1, 2).unflatten(2, regions.shape[-2:])
        larger = nn.functional.interpolate(
            tokens, scale_factor=2, mode="bicubic", align_corners=True
        )
        return self.out(larger)


class RegionPool(nn.Module):
    """Features of regions, each read from the level of its size.

    Level k is read by regions of about `side` / 16 times its stride (FPN's Eq. 1 has side 224), the
    finest and the coarsest also by smaller and larger ones. Pixel centres lie where the maps'
    cells have theirs: without `aligned` all would be read half a cell off.
    """

    def __init__(self, strides: Sequence[float], side: float, samples: int, size: int):
        super().__init__()
        self.strides, self.side, self.samples, self.size = tuple(strides), side, samples, size

    def level(self, boxes: Tensor) -> Tensor:
        """[r] level of regions [r, 4]."""
        side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        step = (16 * side / self.side / self.strides[0]).clamp(min=1).log2()
        return (step + 1e-6).long().clamp(max=len(self.strides) - 1)

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], sizes: object) -> Tensor:
        """[r, C, size, size] of the regions [., 4] of each image. `sizes` is torchvision's wish."""
        image = [torch.full_like(each[:, :1], i) for i, each in enumerate(boxes)]
        regions = torch.cat([torch.cat(image), torch.cat(boxes)], 1)
        level, first = self.level(regions[:, 1:]), next(iter(maps.values()))
        pooled = first.new_zeros(len(regions), first.shape[1], self.size, self.size)
        for k, (features, stride) in enumerate(zip(maps.values(), self.strides)):
            here = (level == k).nonzero()[:, 0]
            read = roi_align(
                features, regions[here], self.size, 1 / stride, self.samples, aligned=True
            )
            pooled[here] = read.to(pooled.dtype)
        return pooled


def box_head(kind: str, channels: int, size: int, width: int) -> nn.Module:
    """Regions [r, channels, size, size] to vectors [r, width]; "light": two linear layers,
    "decoder": MAE blocks."""
    return (
        TwoMLPHead(channels * size**2, width)
        if kind == "light"
        else DecoderBoxHead(channels, width)
    )


def mask_head(kind: str, channels: int, width: int, classes: int) -> nn.Module:
    """Regions [r, channels, s, s] to mask logits [r, classes, 2s, 2s]; "light": two convolutions.

    The light head enlarges its logits, not its features: the backward pass of a transposed
    convolution over 192 channels took a tenth of a training step on a CPU.
    """
    if kind == "decoder":
        return DecoderMaskHead(channels, classes, width)
    return nn.Sequential(
        MaskRCNNHeads(channels, (width, width), 1), nn.Conv2d(width, 4 * classes, 1), Unshuffled()
    )


class Unshuffled(nn.Module):
    """[r, 4 C, s, s] to [r, C, 2s, 2s]. torch's PixelShuffle has no gradient where there is no
    region."""

    def forward(self, x: Tensor) -> Tensor:
        cells = x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return cells.flatten(4, 5).flatten(2, 3)


def box_predictor(width: int, classes: int) -> nn.Module:
    """Vectors to class logits [r, 1 + C], 0 being no object, and box offsets [r, 4 (1 + C)]."""
    return FastRCNNPredictor(width, classes + 1)


class DepthChooser(nn.Module):
    """Multiple-instance head of the official code: which of an instance's boxes looks most like
    its class?"""

    def __init__(self, channels: int, classes: int, width: int, size: int = 7):
        super().__init__()
        self.size = size
        self.trunk = TwoMLPHead(channels * size**2, width)
        self.category, self.proposal = nn.Linear(width, classes), nn.Linear(width, classes)

    def forward(self, maps: Tensor, stride: float, boxes: Tensor, image: Tensor) -> Tensor:
        """[n, p, C] share of each of the boxes [n, p, 4] in saying that instance n is of class C;
        image [n].

        Its gradient stops at the maps: whether it reaches the backbone is UNSTATED [AS Sec. 3.1].
        """
        regions = torch.cat(
            [image.repeat_interleave(boxes.shape[1])[:, None].to(boxes), boxes.flatten(0, 1)], 1
        )
        pooled = roi_align(maps.detach().float(), regions, self.size, 1 / stride, 1, aligned=True)
        outputs = self.trunk(pooled).unflatten(0, boxes.shape[:2])
        return self.category(outputs).float().softmax(-1) * self.proposal(outputs).float().softmax(
            1
        )
