"""Masked autoencoder: the encoder sees a quarter of the patches, a small decoder paints the rest.

After He et al., "Masked autoencoders are scalable vision learners", 2022. Beside pixels the decoder
may be taught the features that a slow copy of the encoder, the teacher, has of whole images.
"""

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
from pointseg.ops.processes import child, size, uniform, world_mean


@dataclass(frozen=True)
class MAEConfig:
    """Defaults of He et al. 2022 where the network's size allows; a decoder for a small encoder."""

    ratio: float = 0.75  # share of hidden patches
    painted: float = 1 / 3  # share of the hidden patches that the decoder paints in a step
    block: int = 1  # hidden patches come in squares of this many patches a side
    decoder_dim: int = 96
    decoder_depth: int = 2
    decoder_heads: int = 3
    colour: float = 0.0  # weight of a patch's mean colour, which normalised targets leave out
    latent: float = 0.0  # weight of the teacher's features; 0: there is no teacher
    slowness: float = 0.99  # of the teacher: its share of itself in a step
    masks: int = 1  # ways in which each image is hidden in a step, once the teacher is followed


@dataclass(frozen=True)
class Painted:
    """What the decoder says of k hidden patches of each image."""

    patches: Tensor  # [b, k, 3 p p] normalised pixels
    colours: Tensor  # [b, k, 3] mean colours
    decoded: Tensor  # [b, k, d]
    which: Tensor  # [b, k] indices of these patches in the grid


class MaskedAutoencoder(nn.Module):
    """Hidden pixels are set to the mean colour before the stem, so that overlapping convolutions
    leak nothing."""

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
        if config.latent:
            self.teacher = deepcopy(vit).eval().requires_grad_(False)
            self.imagine = nn.Linear(width, vit.dim)

    def losses(
        self, images: Tensor, draws: Tensor, with_teacher: bool = False
    ) -> dict[str, Tensor]:
        """Weighted losses on images [b, 3, H, W] in 0..1, sides a multiple of the stride.

        Draws [b] choose what is hidden; `with_teacher` adds the teacher, and the ways of hiding.
        """
        pixels = self.vit.normalise(images)
        features = self.teacher_features(pixels) if with_teacher else None
        ways = self.config.masks if with_teacher else 1
        pixels = pixels.repeat(ways, 1, 1, 1)
        draws = torch.cat([child(draws, way) for way in range(ways)])
        painted = self.painted(pixels, self.random_hidden(pixels, draws), child(draws, 2))
        losses = self.pixel_losses(painted, pixels)
        if with_teacher:
            target = take(features.repeat(ways, 1, 1), painted.which.unsqueeze(-1))
            error = self.imagine(painted.decoded).float() - target
            losses["features"] = self.config.latent * error.square().mean()
        return losses

    def painted(self, pixels: Tensor, hidden: Tensor, draws: Tensor) -> Painted:
        """Normalised pixels [b, 3, H, W] with hidden patches [b, N] -> some of these painted."""
        visible, which = self._choose(hidden, draws)
        tokens = self.encode(pixels, hidden, visible)
        decoded = self.decode(tokens, visible, which, self._grid(pixels))
        values = self.paint(decoded).float()
        return Painted(values[..., :-3], values[..., -3:], decoded, which)

    def pixel_losses(self, painted: Painted, pixels: Tensor) -> dict[str, Tensor]:
        """Mean squares over the painted patches: of normalised pixels, and of mean colours."""
        target = take(to_patches(pixels, self.vit.stride), painted.which.unsqueeze(-1))
        mean, var = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        wanted = (target - mean) / (var + 1e-4).sqrt()
        losses = {"pixels": (painted.patches - wanted).square().mean()}
        if self.config.colour:
            error = painted.colours - mean_colours(target)
            losses["colours"] = self.config.colour * error.square().mean()
        return losses

    def start_teacher(self) -> None:
        """The teacher becomes what the encoder is now."""
        self.teacher.load_state_dict(self.vit.state_dict())

    @torch.no_grad()
    def teacher_features(self, pixels: Tensor) -> Tensor:
        """[b, N, D]: the teacher's features of whole images, the mean of its last three blocks.

        Each channel is standardised over the images of all processes at each position: a position
        alone says nothing, and a teacher that told all images the same would have nothing to teach.
        """
        if self.training:
            for slow, fast in zip(self.teacher.parameters(), self.vit.parameters()):
                slow.lerp_(fast, 1 - self.config.slowness)
        layers = [layer_norm(x, x.shape[-1:]) for x in self._teacher_layers(pixels)[-3:]]
        return standardised(sum(layers) / 3)

    def _teacher_layers(self, pixels: Tensor) -> list[Tensor]:
        tokens, rope, _ = self.teacher.embed(pixels)
        tokens, layers = self.teacher.body.norm_pre(tokens), []
        for block in self.teacher.blocks:
            tokens = block(tokens) if rope is None else block(tokens, rope=rope)
            layers.append(tokens[:, self.teacher.body.num_prefix_tokens :].float())
        return layers

    def random_hidden(self, pixels: Tensor, draws: Tensor) -> Tensor:
        """[b, N] bool."""
        return random_hidden(draws, self._grid(pixels), self.config.ratio, self.config.block)

    def _grid(self, pixels: Tensor) -> tuple[int, int]:
        return tuple(side // self.vit.stride for side in pixels.shape[-2:])

    def _choose(self, hidden: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """hidden [b, N] -> indices of visible patches [b, n] and of those to paint [b, k]."""
        count = int(hidden[0].sum())
        shuffled = (hidden + 0.5 * uniform(draws, hidden.shape[1])).argsort(1)
        visible, covered = shuffled.split([hidden.shape[1] - count, count], 1)
        return visible, covered[:, : max(round(self.config.painted * count), 1)]

    def encode(self, pixels: Tensor, hidden: Tensor, visible: Tensor) -> Tensor:
        """Normalised pixels, hidden [b, N], visible indices [b, n] -> [b, n, D]; hidden pixels
        change nothing."""
        tokens, rope, _ = self.vit.embed(hide_pixels(pixels, hidden, self.vit.stride))
        prefix = self.vit.body.num_prefix_tokens
        index = visible.unsqueeze(-1)
        tokens = torch.cat([tokens[:, :prefix], take(tokens[:, prefix:], index)], 1)
        tokens = self.vit.body.norm_pre(tokens)
        if rope is not None:  # one table an image, for all heads
            rope = take(rope.expand(len(pixels), -1, -1), index).unsqueeze(1)
        for block in self.vit.blocks:
            tokens = block(tokens) if rope is None else block(tokens, rope=rope)
        return tokens[:, prefix:]

    def decode(
        self, tokens: Tensor, visible: Tensor, which: Tensor, grid: tuple[int, int]
    ) -> Tensor:
        """[b, n, D] of the visible patches -> [b, k, d] for those to paint."""
        small = self.shrink(self.norm(tokens))
        blanks = self.mask_token.to(small.dtype).expand(len(small), which.shape[1], -1)
        codes = sine_grid(*grid, small.shape[-1], small.device).flatten(0, 1)
        tokens = torch.cat([small, blanks], 1) + codes[torch.cat([visible, which], 1)]
        return self.decoder(tokens)[:, visible.shape[1] :]


def standardised(features: Tensor) -> Tensor:
    """[b, N, D] with mean 0 and variance 1 over the images of all processes."""
    images = len(features) * size()
    centred = features - world_mean(features.mean(0))
    variance = world_mean(centred.square().mean(0)) * images / max(1, images - 1)
    return centred / (variance + 1e-4).sqrt()


def random_hidden(draws: Tensor, grid: tuple[int, int], ratio: float, block: int = 1) -> Tensor:
    """[b, N] bool with exactly round(ratio * N) hidden patches, in squares of `block` a side."""
    coarse = uniform(draws, 1, *(math.ceil(side / block) for side in grid))
    fine = interpolate(coarse, scale_factor=block, mode="nearest")
    fine = fine[:, 0, : grid[0], : grid[1]].flatten(1)
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
