"""Fusion module and distance branch: used in training only. [EPLD Sec. 3.2-3.3]"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.nets.deformable_encoder import Memory
from pointseg.papers.epld.distance import log_probability, pseudo_label
from pointseg.papers.epld.queries import (
    Targets,
    aggregated,
    cleaned_masks,
    enhanced,
    erosion_passes,
)

LEARNT_GRID = (50, 50)  # cells of E^learn, enlarged to the grid at hand; UNSTATED [EPLD Tab. 1]


class FusionModule(nn.Module):
    """F^fuse [b, D, h, w]: the levels' sum on the finest grid, through two convolutions.

    UNSTATED [EPLD Sec. 3.2]: kernels of 3 x 3, norm and ReLU between them, bilinear enlargement;
    with a kernel of 1 it is the branch of this shape in PSPS's official code, which has no norm.
    """

    def __init__(self, width: int, levels: int, kernel: int = 3):
        super().__init__()
        self.levels = levels
        first, second = (nn.Conv2d(width, width, kernel, padding="same") for _ in range(2))
        norm = nn.GroupNorm(math.gcd(32, width), width) if kernel > 1 else nn.Identity()
        self.net = nn.Sequential(first, norm, nn.ReLU(), second)

    def forward(self, memory: Memory) -> Tensor:
        planes = [memory.level(k) for k in range(self.levels)]
        return self.net(sum(on_grid(plane, memory.shapes[0]) for plane in planes))


class DecoderLayer(nn.Module):
    """Logits [b, N, h, w] read off the attention of anchor queries, before its softmax.

    UNSTATED [EPLD Sec. A.2]: after PSF's mask decoder. Queries see each other first, the only place
    where targets compete before the softmax over them. Values, output projection and feed-forward
    net are left out: the next queries come from F^fuse, so nothing would teach them. Without
    `last_relu` the logits keep their sign.
    """

    def __init__(
        self, width: int, heads: int, levels: int, self_attention: bool = True, last_relu=False
    ):
        super().__init__()
        self.heads, self.last_relu = heads, last_relu
        self.self_attention = None
        if self_attention:
            self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.mix = nn.ModuleList(nn.Linear(heads, heads) for _ in range(levels))
        self.join = nn.Linear(heads * levels, 1)
        for layer in (self.query, self.key, *self.mix, self.join):
            nn.init.xavier_uniform_(layer.weight)  # UNSTATED [EPLD Sec. A.2]: as PSF's and PSPS's
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, memory: Memory, present: Tensor) -> Tensor:
        """Queries [b, N, D] look at memory's tokens; rows that are not present are not looked at.

        Heads are mixed by a linear map and keys are one, so both move to the side of the queries:
        mix (q . (K x + k)) = (mix q K) . x + mix (q . k), one product with the tokens a level.
        """
        q = self._normed(queries, present)
        K, k = (part.unflatten(0, (self.heads, -1)) for part in (self.key.weight, self.key.bias))
        grid, logits, shift = memory.shapes[0], self.join.bias, torch.einsum("bnhd,hd->bnh", q, k)
        for level, weight in enumerate(self.join.weight[0].split(self.heads)):
            mix = self.mix[level]
            mixed_keys = torch.einsum("gh,hdc->hdgc", mix.weight, K).flatten(2).flatten(0, 1)
            looks = (q.flatten(2) @ mixed_keys).unflatten(2, (self.heads, -1))
            mixed = scores(looks, mix(shift), memory.parts[level]).relu_() @ weight
            plane = mixed.transpose(1, 2).unflatten(2, memory.shapes[level])
            if memory.padding is not None:
                plane = plane.masked_fill(memory.padding_of(level)[:, None], 0)
            logits = logits + on_grid(plane, grid)
        return F.relu(logits) if self.last_relu else logits

    def _normed(self, queries: Tensor, present: Tensor) -> Tensor:
        """[b, N, heads, d] queries that have seen each other, scaled as in attention."""
        if self.self_attention is not None:
            hidden = ~present & present.any(1, keepdim=True)
            looked = self.self_attention(queries, queries, queries, hidden, need_weights=False)[0]
            queries = queries + looked
        q = self.query(self.norm(queries)).unflatten(-1, (self.heads, -1))
        return q / math.sqrt(q.shape[-1])


def scores(looks: Tensor, shift: Tensor, tokens: Tensor) -> Tensor:
    """[b, t, N, heads] looks [b, N, heads, D] times tokens [b, t, D], plus shift [b, N, heads]."""
    flat = torch.baddbmm(shift.flatten(1)[:, None], tokens, looks.flatten(1, 2).transpose(1, 2))
    return flat.unflatten(2, shift.shape[1:])


def on_grid(plane: Tensor, grid: tuple[int, int]) -> Tensor:
    """[b, c, h, w] enlarged to a grid, bilinear."""
    if plane.shape[-2:] == grid:
        return plane
    return F.interpolate(plane, size=grid, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Estimate:
    """What one decoder layer says; stacked over layers, all of them."""

    logits: Tensor  # [b, N, h, w]
    log_prob: Tensor  # [b, N, h, w]: log M
    classes: Tensor  # [b, N, C] logits of Y
    label: Tensor  # [b, h, w] row of the target that owns a cell


class DistanceBranch(nn.Module):
    """Queries, distances and labels that improve one another, layer by layer.

    placed: position is added to the levels, for a memory whose encoder knows none.
    """

    def __init__(self, width: int, heads: int, classes: int, placed: bool, config):
        super().__init__()
        self.config, self.placed = config, placed
        self.fusion = FusionModule(width, config.fusion_levels, config.fusion_kernel)
        # UNSTATED [EPLD Eq. 4]: one FC layer for all layers, as all queries are means of F^fuse
        self.classifier = nn.Linear(width, classes)
        nn.init.constant_(self.classifier.bias, -math.log(99))  # focal prior of 0.01
        self.embedding = nn.Parameter(torch.randn(classes, width))  # E^cls: no layer index in Eq. 5
        if config.source == "learnt":
            self.learnt = nn.Parameter(torch.randn(1, width, *LEARNT_GRID))
        levels, attention = config.decoder_levels, config.self_attention
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, levels, attention, config.last_relu)
            for _ in range(config.layers)
        )

    def forward(self, memory: Memory, targets: Targets) -> Estimate:
        """Estimates of all layers, [L, ...]."""
        if self.placed:
            memory = replace(memory, tokens=memory.tokens + memory.position)
        source, memory = self.source(memory), memory.first(self.config.decoder_levels)
        passes = self.config.erosion or erosion_passes(memory.shapes[0])
        masks, layers = targets.points, []
        for layer in self.layers:
            layers.append(self.estimate(layer, aggregated(masks, source), memory, targets))
            masks = cleaned_masks(layers[-1].label, targets, passes)
        return Estimate(**{k: torch.stack([vars(e)[k] for e in layers]) for k in vars(layers[0])})

    def source(self, memory: Memory) -> Tensor:
        """[b, D, h, w] that queries are means of: F^fuse, or a row of Table 1. [EPLD Tab. 1]"""
        if self.config.source == "fused":
            return self.fusion(memory)
        b, (h, w) = len(memory.tokens), memory.shapes[0]
        if self.config.source == "learnt":
            plane = on_grid(self.learnt, (h, w))
        else:
            plane = memory.position[: h * w].T.reshape(1, -1, h, w).to(memory.tokens.dtype)
        return plane.expand(b, -1, -1, -1)

    def estimate(self, layer: DecoderLayer, queries: Tensor, memory: Memory, targets: Targets):
        """The Estimate of one layer from its queries Q [b, N, D]."""
        classes = self.classifier(queries)
        if self.config.class_embedding:
            queries = enhanced(queries, self.embedding, targets.label)
        logits = layer(queries, memory, targets.present)
        log_prob = log_probability(logits, targets.present)
        label = pseudo_label(-log_prob.detach())  # nearest by -log M is nearest by 1 - M
        return Estimate(logits, log_prob, classes, label)


@torch.no_grad()
def layer_notes(estimate: Estimate, targets: Targets) -> dict[str, Tensor]:
    """Share of positive logits and mean entropy of M by layer: a collapse shows in them at once.

    Of every fourth cell each way.
    """
    inside = targets.inside[..., ::4, ::4]
    logits, log_prob = (x[..., ::4, ::4] for x in (estimate.logits, estimate.log_prob))
    valid = inside[:, None] & targets.present[..., None, None]
    entropy = -(log_prob.exp() * log_prob * valid).sum((1, 2, 3, 4))
    positive = ((logits > 0) & valid).sum((1, 2, 3, 4))
    entropy = entropy / inside.sum().clamp(min=1)
    positive = positive / valid.sum().clamp(min=1)
    notes = {"positive": positive, "entropy": entropy}
    return {f"{name} {k + 1}": v for name, by in notes.items() for k, v in enumerate(by)}
