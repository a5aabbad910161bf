"""Masked autoencoder: the encoder sees a quarter of the patches, a small decoder paints the rest."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import interpolate, layer_norm

from pointseg.nets.stem import sine_grid
from pointseg.nets.vit import TokenViT


@dataclass(frozen=True)
class MAEConfig:
    """Defaults of He et al. 2022 where the network's size allows; the decoder is scaled to a small encoder."""

    ratio: float = 0.75  # share of hidden patches
    painted: float = (
        1 / 3
    )  # share of the hidden patches that the decoder paints in a step; the rest cost nothing
    block: int = 1  # hidden patches come in squares of this many patches a side
    decoder_dim: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 3
    colour: float = (
        0.0  # weight of each hidden patch's mean colour, which normalised targets leave out
    )
    latent: float = 0.0  # weight of what a slow copy of the encoder, shown the whole picture, thinks of a hidden patch
    slowness: float = 0.99  # of that copy: its share of itself in a step
    masks: int = 1  # ways in which each picture is hidden in one step


@dataclass(frozen=True)
class Painted:
    loss: Tensor
    patches: Tensor  # [b, k, 3 p p] prediction for k hidden patches, normalised pixels
    colours: Tensor  # [b, k, 3] predicted mean colour
    which: Tensor  # [b, k] indices of these patches in the grid


class MaskedAutoencoder(nn.Module):
    """Hidden pixels are set to the mean colour before the stem, so that overlapping convolutions leak nothing."""

    def __init__(self, vit: TokenViT, config: MAEConfig | None = None):
        super().__init__()
        self.vit, self.config = vit, (config := config or MAEConfig())
        self.norm = nn.LayerNorm(vit.dim)
        self.shrink = nn.Linear(vit.dim, config.decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(config.decoder_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        width, heads = config.decoder_dim, config.decoder_heads
        self.decoder = nn.Sequential(
            *(Block(width, heads, qkv_bias=True) for _ in range(config.decoder_depth)),
            nn.LayerNorm(width),
        )
        self.paint = nn.Linear(width, 3 * vit.stride**2 + 3)
        self.listens = bool(
            config.latent
        )  # whether the slow copy is asked; a training may turn this on later
        if config.latent:
            self.teacher = deepcopy(vit).eval().requires_grad_(False)
            self.imagine = nn.Linear(width, vit.dim)

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> Painted:
        """Images [b, 3, H, W] in 0..1, sides a multiple of the stride."""
        pixels = self.vit.normalise(images)
        grid = tuple(side // self.vit.stride for side in pixels.shape[-2:])
        ways = self.config.masks if self.listens or not self.config.latent else 1
        thought = self.thoughts(pixels).repeat(ways, 1, 1) if self.listens else None
        pixels = pixels.repeat(ways, 1, 1, 1)
        if hidden is None:
            hidden = random_hidden(
                len(pixels), grid, self.config.ratio, self.config.block, images.device
            )
        visible, painted = self._choose(hidden)
        seen = self.encode(pixels, hidden, visible)
        decoded = self.decode(seen, visible, painted, grid)
        answer = self.paint(decoded).float()
        patches, colours = answer[..., :-3], answer[..., -3:]
        target = take(to_patches(pixels, self.vit.stride), painted.unsqueeze(-1))
        loss = self._loss(target, patches, colours)
        if thought is not None:
            guess = self.imagine(decoded).float()
            loss = (
                loss
                + self.config.latent
                * (guess - take(thought, painted.unsqueeze(-1))).square().mean()
            )
        return Painted(loss, patches, colours, painted)

    @torch.no_grad()
    def thoughts(self, pixels: Tensor) -> Tensor:
        """[b, N, D]: the slow copy's features of whole pictures, each channel standardised over the pictures at each
        place. So a place says nothing, and a copy that told all pictures the same would have nothing to teach."""
        for slow, fast in zip(self.teacher.parameters(), self.vit.parameters()):
            if self.training:
                slow.lerp_(fast, 1 - self.config.slowness)
        tokens, rope, _ = self.teacher.embed(pixels)
        tokens, kept = self.teacher.body.norm_pre(tokens), []
        for block in self.teacher.blocks:
            tokens = block(tokens) if rope is None else block(tokens, rope=rope)
            kept.append(tokens[:, self.teacher.body.num_prefix_tokens :].float())
        features = sum(layer_norm(x, x.shape[-1:]) for x in kept[-3:]) / 3
        spread, mean = torch.var_mean(features, 0, keepdim=True)
        return (features - mean) / (spread + 1e-4).sqrt()

    def _choose(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [b, N] -> indices of visible patches [b, n] and of the hidden ones to paint [b, k], at random."""
        count = int(hidden[0].sum())
        shuffled = (hidden + 0.5 * torch.rand(hidden.shape, device=hidden.device)).argsort(1)
        visible, covered = (
            shuffled[:, : hidden.shape[1] - count],
            shuffled[:, hidden.shape[1] - count :],
        )
        return visible, covered[:, : max(round(self.config.painted * count), 1)]

    def encode(self, pixels: Tensor, hidden: Tensor, visible: Tensor) -> Tensor:
        """Normalised pixels, hidden [b, N], visible indices [b, n] -> [b, n, D]; hidden pixels change nothing."""
        tokens, rope, _ = self.vit.embed(hide_pixels(pixels, hidden, self.vit.stride))
        prefix = self.vit.body.num_prefix_tokens
        index = visible.unsqueeze(-1)
        tokens = torch.cat([tokens[:, :prefix], take(tokens[:, prefix:], index)], 1)
        tokens = self.vit.body.norm_pre(tokens)
        if rope is not None:
            rope = take(rope.expand(len(pixels), -1, -1), index).unsqueeze(
                1
            )  # one table an image, for all heads
        for block in self.vit.blocks:
            tokens = block(tokens) if rope is None else block(tokens, rope=rope)
        return tokens[:, prefix:]

    def decode(
        self, seen: Tensor, visible: Tensor, painted: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """[b, n, D] of the visible patches -> [b, k, d] for the `painted` ones."""
        small = self.shrink(self.norm(seen))
        blanks = self.mask_token.to(small.dtype).expand(len(small), painted.shape[1], -1)
        places = sine_grid(*grid, small.shape[-1], small.device).flatten(0, 1)
        tokens = torch.cat([small, blanks], 1) + places[torch.cat([visible, painted], 1)]
        return self.decoder(tokens)[:, visible.shape[1] :]

    def _loss(self, target: Tensor, patches: Tensor, colours: Tensor) -> Tensor:
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        loss = ((patches - (target - mean) / (var + 1e-4).sqrt()) ** 2).mean()
        if self.config.colour:
            loss = loss + self.config.colour * ((colours - mean_colours(target)) ** 2).mean()
        return loss


def random_hidden(
    images: int, grid: tuple[int, int], ratio: float, block: int = 1, device=None
) -> Tensor:
    """[b, N] bool with exactly round(ratio * N) hidden patches, drawn in squares of `block` patches a side."""
    coarse = torch.rand(images, 1, *(math.ceil(side / block) for side in grid), device=device)
    fine = interpolate(coarse, scale_factor=block, mode="nearest")[
        :, 0, : grid[0], : grid[1]
    ].flatten(1)
    rank = fine.argsort(dim=1, stable=True).argsort(1)
    return rank < round(ratio * fine.shape[1])


def hide_pixels(pixels: Tensor, hidden: Tensor, stride: int) -> Tensor:
    """Pixels [b, 3, H, W] with those of hidden patches [b, N] set to zero, the mean colour."""
    grid = [side // stride for side in pixels.shape[-2:]]
    visible = (~hidden).to(pixels.dtype).view(-1, 1, *grid)
    return pixels * interpolate(visible, scale_factor=stride, mode="nearest")


def to_patches(pixels: Tensor, stride: int) -> Tensor:
    """[b, 3, H, W] -> [b, N, 3 p p], channels first within a patch."""
    blocks = pixels.unflatten(3, (-1, stride)).unflatten(2, (-1, stride))  # [b, 3, h, p, w, p]
    return blocks.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def mean_colours(patches: Tensor) -> Tensor:
    """[b, N, 3 p p] -> [b, N, 3]"""
    return patches.unflatten(-1, (3, -1)).mean(-1)


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """Tokens [b, N, D] at index [b, n, 1]."""
    return tokens.gather(1, index.expand(-1, -1, tokens.shape[-1]))
