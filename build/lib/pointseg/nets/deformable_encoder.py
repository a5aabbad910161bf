"""From backbone maps to a memory of several levels: deformable layers or convolutions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.ops.deformable import Shapes, cell_centres, deformable_attention


@dataclass(frozen=True)
class Memory:
    """Encoded levels of a batch, finest first. All coordinates are parts of the padded image."""

    tokens: Tensor  # [b, N, D]
    position: Tensor  # [N, D] sine code of each token's centre
    waves: Waves
    shapes: Shapes  # (h, w) of each level
    padding: Tensor | None = None  # [b, N] bool, True where no image is; None: nowhere

    @cached_property
    def areas(self) -> list[int]:
        return [h * w for h, w in self.shapes]

    @cached_property
    def parts(self) -> tuple[Tensor, ...]:
        """The tokens of each level; layers that share them share one gradient."""
        return self.tokens.split(self.areas, dim=1)

    def level(self, k: int) -> Tensor:
        """[b, D, h, w] plane k."""
        plane = self.parts[k]
        return plane.transpose(1, 2).unflatten(2, self.shapes[k])

    def padding_of(self, k: int) -> Tensor | None:
        """[b, h, w] bool of plane k."""
        return (
            None
            if self.padding is None
            else self.padding.split(self.areas, dim=1)[k].unflatten(1, self.shapes[k])
        )

    def first(self, count: int) -> Memory:
        """The finest `count` levels alone."""
        n = sum(self.areas[:count])
        padding = None if self.padding is None else self.padding[:, :n]
        tokens, position = self.tokens[:, :n], self.position[:n]
        return Memory(tokens, position, self.waves, self.shapes[:count], padding)


@dataclass(frozen=True)
class Waves:
    """Cycles across the image of the finest sine, and how many times slower the coarsest is."""

    finest: float = 1.0  # as in DETR
    range: float = 10_000.0  # as in DETR


def sine_code(coordinates: Tensor, width: int, waves: Waves) -> Tensor:
    """[..., k] coordinates in 0..1 -> [..., width]: sines and cosines of each coordinate."""
    each = width // coordinates.shape[-1] // 2
    cycles = waves.finest * waves.range ** (-torch.arange(each, device=coordinates.device) / each)
    phase = coordinates[..., None].float() * (2 * math.pi) * cycles
    return torch.cat([phase.sin(), phase.cos()], -1).flatten(-2)


class ChannelMapper(nn.Module):
    """1x1 convolutions to one width, 3x3 at stride 2 for further levels. [PSF Sec. 3.2]"""

    def __init__(self, channels: list[int], width: int, levels: int):
        super().__init__()
        groups = math.gcd(32, width)
        convolutions = [nn.Conv2d(c, width, 1) for c in channels[:levels]]
        for extra in range(levels - len(channels)):
            convolutions.append(nn.Conv2d(channels[-1] if extra == 0 else width, width, 3, 2, 1))
        self.layers = nn.ModuleList(
            nn.Sequential(c, nn.GroupNorm(groups, width)) for c in convolutions
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        out = [layer(m) for layer, m in zip(self.layers, maps)]
        last = maps[-1]
        for layer in self.layers[len(maps) :]:
            last = layer(last)
            out.append(last)
        return out


class DeformableAttention(nn.Module):
    """Queries choose `points` points on each level about their reference, after Deformable DETR."""

    def __init__(self, width: int, heads: int, levels: int, points: int):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self._start_on_rays()

    def _start_on_rays(self) -> None:
        """Heads look in eight directions, points ever farther, all with equal weight."""
        for layer in (self.value, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        ray = torch.stack([angle.cos(), angle.sin()], -1)
        ray = ray / ray.abs().amax(-1, keepdim=True)
        reach = torch.arange(1, self.points + 1).float()
        start = ray[:, None, None] * reach[None, None, :, None]
        with torch.no_grad():
            self.offsets.bias.copy_(start.expand(-1, self.levels, -1, -1).flatten())

    def forward(self, queries: Tensor, references: Tensor, memory: Memory) -> Tensor:
        """queries [b, q, D], references [b or 1, q, 2 or 4] (x, y[, w, h]) in 0..1 -> [b, q, D]."""
        b, q, _ = queries.shape
        values = self.value(memory.tokens)
        if memory.padding is not None:
            values = values.masked_fill(memory.padding[..., None], 0)
        offsets = (
            self.offsets(queries).float().reshape(b, q, self.heads, self.levels, self.points, 2)
        )
        weights = self.weights(queries).reshape(b, q, self.heads, -1).softmax(-1)
        points = self._points(offsets, references.float(), memory.shapes)
        values = values.unflatten(2, (self.heads, -1)).to(points.dtype)
        weights = weights.reshape(offsets.shape[:-1]).to(points.dtype)
        return self.out(
            deformable_attention(values, memory.shapes, points, weights).to(queries.dtype)
        )

    def _points(self, offsets: Tensor, references: Tensor, shapes: Shapes) -> Tensor:
        """[b, q, heads, levels, points, 2]; offsets count cells, or half boxes in boxes."""
        centre = references[:, :, None, None, None, :2]
        if references.shape[-1] == 4:
            return centre + offsets * references[:, :, None, None, None, 2:] * (0.5 / self.points)
        cells = offsets.new_tensor([[w, h] for h, w in shapes])[None, None, None, :, None]
        return centre + offsets / cells


class EncoderLayer(nn.Module):
    """Deformable self-attention and a two-layer net, each with its residual and norm."""

    def __init__(
        self, width: int, heads: int, levels: int, points: int, feedforward: int, dropout: float
    ):
        super().__init__()
        self.attention = DeformableAttention(width, heads, levels, points)
        self.ffn = feedforward_net(width, feedforward, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, memory: Memory, position: Tensor, references: Tensor) -> Tensor:
        x = memory.tokens
        x = self.norms[0](x + self.dropout(self.attention(x + position, references, memory)))
        return self.norms[1](x + self.ffn(x))


def feedforward_net(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(hidden, width), nn.Dropout(dropout),
    )  # fmt: skip


class DeformableEncoder(nn.Module):
    """Backbone maps -> Memory by layers of multi-scale deformable self-attention. [PSF Sec. 3.2]

    DEVIATION [PSF Sec. 3.2]: positions and references count in the padded image, not in each
    image's own part, so that one frame serves boxes, points and masks.
    """

    def __init__(
        self, channels: list[int], width: int, levels: int, heads: int, points: int, layers: int,
        feedforward: int, dropout: float,
    ):  # fmt: skip
        super().__init__()
        self.mapper = ChannelMapper(channels, width, levels)
        self.level_code = nn.Parameter(torch.randn(levels, width))
        self.layers = nn.ModuleList(EncoderLayer(width, heads, levels, points, feedforward, dropout)
                                    for _ in range(layers))  # fmt: skip

    def forward(self, maps: list[Tensor], padding: Tensor | None) -> Memory:
        memory = flattened(self.mapper(maps), padding, Waves())
        code = torch.cat([self.level_code[k].expand(n, -1) for k, n in enumerate(memory.areas)])
        references = cell_centres(memory.shapes, memory.tokens.device)[None]
        for layer in self.layers:
            tokens = layer(memory, memory.position + code, references)
            memory = replace(memory, tokens=tokens)
        return memory


class ConvNeck(nn.Module):
    """The switch for a CPU: one width, a top-down pass, one 3x3 convolution a level.

    DEVIATION [PSF Sec. 3.2]: no deformable layers, so positions reach the masks through their keys,
    and need finer waves than DETR's to tell neighbours apart.
    """

    WAVES = Waves(finest=8.0, range=16.0)

    def __init__(self, channels: list[int], width: int, levels: int):
        super().__init__()
        self.mapper = ChannelMapper(channels, width, levels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))
        self.norm = nn.LayerNorm(width)

    def forward(self, maps: list[Tensor], padding: Tensor | None) -> Memory:
        maps = self.mapper(maps)
        for k in range(len(maps) - 2, -1, -1):
            maps[k] = maps[k] + F.interpolate(maps[k + 1], size=maps[k].shape[-2:])
        maps = [m + smooth(F.relu(m)) for m, smooth in zip(maps, self.smooth)]
        memory = flattened(maps, padding, self.WAVES)
        return replace(memory, tokens=self.norm(memory.tokens))


def flattened(maps: list[Tensor], padding: Tensor | None, waves: Waves) -> Memory:
    """Maps [b, D, h, w] one after another as tokens; padding [b, H, W] is read at centres."""
    shapes = [tuple(m.shape[-2:]) for m in maps]
    tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
    position = sine_code(cell_centres(shapes, tokens.device), tokens.shape[-1], waves)
    hidden = None
    if padding is not None and padding.any():
        planes = [
            F.interpolate(padding[:, None].float(), size=s)[:, 0].flatten(1) > 0.5 for s in shapes
        ]
        hidden = torch.cat(planes, dim=1)
    return Memory(tokens, position, waves, shapes, hidden)
