"""Queries that attend to the memory, and masks read off their scores. [PSF Sec. 3.4]"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory


def mask_logits(scores: Tensor, memory: Memory, mix: nn.ModuleList, join: nn.Linear) -> Tensor:
    """[b, q, h, w] of the finest level from scores [b, heads, q, N]: heads mixed, levels joined.

    Joining all heads of all levels is a sum, so each level is summed before it is enlarged: one
    plane, not eight.
    """
    b, heads, q, _ = scores.shape
    grid, joined = memory.shapes[0], join.bias
    levels = scores.split(memory.areas, dim=-1)
    for layer, weight, part, shape in zip(mix, join.weight[0].split(heads), levels, memory.shapes):
        mixed = F.relu(layer.weight @ part.reshape(b, heads, -1) + layer.bias[:, None])
        plane = (weight @ mixed).reshape(b, q, *shape)
        if shape != grid:
            plane = F.interpolate(plane, size=grid, mode="bilinear", align_corners=False)
        joined = joined + plane
    return joined


class MaskAttention(nn.Module):
    """Cross-attention whose scaled scores, heads mixed and levels joined, are the mask."""

    def __init__(self, width: int, heads: int, levels: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.mix = nn.ModuleList(nn.Linear(heads, heads) for _ in range(levels))
        self.join = nn.Linear(heads * levels, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        # UNSTATED [PSF Sec. 3.4]: the join starts positive; of mixed signs it can start, and stay,
        # dead behind its ReLU
        with torch.no_grad():
            self.join.weight.abs_()

    def forward(self, queries: Tensor, memory: Memory, keyed: Tensor) -> tuple[Tensor, Tensor]:
        """([b, q, D], masks [b, q, h, w]) of queries [b, q, D] and keyed [b, N, D].

        `keyed` is the memory with or without its positions.
        """
        scores, visible = self.scores(queries, keyed), None
        if memory.padding is not None:
            visible = scores.masked_fill(memory.padding[:, None, None], -torch.inf)
        weights = (scores if visible is None else visible).softmax(-1)
        attended = (weights @ self._heads(self.value, memory.tokens)).transpose(1, 2).flatten(2)
        return self.out(attended), self.masks(scores, memory)

    def scores(self, queries: Tensor, keyed: Tensor) -> Tensor:
        """[b, heads, q, N]."""
        q, k = self._heads(self.query, queries), self._heads(self.key, keyed)
        return q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])

    def _heads(self, layer: nn.Linear, x: Tensor) -> Tensor:
        """[b, heads, n, d] of [b, n, D]."""
        return layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def masks(self, scores: Tensor, memory: Memory) -> Tensor:
        """[b, heads, q, N] scores -> [b, q, h, w], never negative, no sigmoid. [PSF Sec. 3.4]"""
        if memory.padding is not None:
            scores = scores.masked_fill(memory.padding[:, None, None], 0)
        return F.relu(mask_logits(scores, memory, self.mix, self.join))


class MaskLayer(nn.Module):
    """[Self-attention,] mask attention and a two-layer net, each with its residual and norm."""

    def __init__(self, width: int, heads: int, levels: int, self_attention: bool):
        super().__init__()
        self.self_attention, count = None, 2
        if self_attention:
            self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
            count = 3
        self.attention = MaskAttention(width, heads, levels)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(count))

    def forward(self, queries: Tensor, memory: Memory, keyed: Tensor) -> tuple[Tensor, Tensor]:
        queries = self.mixed(queries)
        attended, masks = self.attention(queries, memory, keyed)
        queries = self.norms[-2](queries + attended)
        return self.norms[-1](queries + self.ffn(queries)), masks

    def masks(self, queries: Tensor, memory: Memory, keyed: Tensor) -> Tensor:
        """The same masks alone, for a layer behind which nobody asks for queries."""
        return self.attention.masks(self.attention.scores(self.mixed(queries), keyed), memory)

    def mixed(self, queries: Tensor) -> Tensor:
        """Queries after their self-attention, where the layer has one."""
        if self.self_attention is None:
            return queries
        mixed = self.self_attention(queries, queries, queries, need_weights=False)[0]
        return self.norms[0](queries + mixed)


class MaskDecoder(nn.Module):
    """Layers whose every mask is supervised; the last one counts.

    placed: keys carry their sine position, which a memory without deformable layers lacks.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        levels: int,
        layers: int,
        self_attention: bool,
        placed: bool = False,
    ):
        super().__init__()
        self.levels, self.placed = levels, placed
        self.layers = nn.ModuleList(
            MaskLayer(width, heads, levels, self_attention) for _ in range(layers)
        )

    def forward(
        self, queries: Tensor, memory: Memory, position: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(queries after each layer [l, b, q, D], masks [l, b, q, h, w]) of queries [b, q, D]."""
        memory, states, masks = memory.first(self.levels), [], []
        keyed = self.keyed(memory)
        for layer in self.layers:
            queries, mask = layer(_placed(queries, position), memory, keyed)
            states.append(queries)
            masks.append(mask)
        return torch.stack(states), torch.stack(masks)

    def masks(self, queries: Tensor, memory: Memory, position: Tensor | None = None) -> Tensor:
        """The masks alone: the last layer computes nothing else."""
        memory, masks = memory.first(self.levels), []
        keyed = self.keyed(memory)
        for layer in self.layers[:-1]:
            queries, mask = layer(_placed(queries, position), memory, keyed)
            masks.append(mask)
        last = self.layers[-1].masks(_placed(queries, position), memory, keyed)
        return torch.stack([*masks, last])

    def keyed(self, memory: Memory) -> Tensor:
        """[b, N, D]."""
        return memory.tokens + memory.position if self.placed else memory.tokens


def _placed(queries: Tensor, position: Tensor | None) -> Tensor:
    """Queries whose position joins at each layer. UNSTATED [PSF Sec. 3.4]: the official code."""
    return queries if position is None else queries + position


class ClassQueries(nn.Module):
    """A learnt query a class, decoded to a mask and a presence score. [PSF Sec. 3.4]"""

    def __init__(self, classes: int, width: int, decoder: MaskDecoder):
        super().__init__()
        self.content, self.position = (nn.Parameter(torch.randn(classes, width)) for _ in range(2))
        self.decoder = decoder
        self.presence = nn.ModuleList(nn.Linear(width, 1) for _ in decoder.layers)

    def forward(self, memory: Memory) -> tuple[Tensor, Tensor]:
        """(presence logits [l, b, C], masks [l, b, C, h, w])."""
        size = (len(memory.tokens), -1, -1)
        states, masks = self.decoder(self.content.expand(size), memory, self.position.expand(size))
        return torch.stack([head(s)[..., 0] for head, s in zip(self.presence, states)]), masks
