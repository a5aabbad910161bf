"""A plain ViT that carries extra query tokens and remembers what is needed to show its
attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from pointseg.nets.stem import ConvStem, sine_grid, sine_positions
from pointseg.structures import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
KEPT_TOKENS = 768  # up to which a trace keeps attention: of more it would hold too much


@dataclass(frozen=True)
class ViTConfig:
    """`name` is "small" for the network described by the other fields, or the name of any plain
    timm ViT."""

    name: str = "small"
    dim: int = 192
    depth: int = 6
    heads: int = 3
    patch: int = 8
    stem: str = "conv"  # conv | patch | features
    stem_network: str | None = None  # of timm, whose maps are the features
    stem_weights: str | None = None  # its weights, see TimmBackbone
    position: str = "sine"  # sine (fixed) | learned
    image_size: int = (
        128  # the grid that learned positions are kept for; any size may be given later
    )
    queries: int = 0  # 100 in AttentionShift [AS Sec. 5.1]
    anchored: bool = False  # query positions start as those of a regular grid
    drop_path: float = 0.0
    checkpoint: bool = False  # recompute blocks in the backward pass to save memory


@dataclass(frozen=True)
class Trace:
    """What each block was given; token order is [prefix | patches | queries]."""

    inputs: tuple[Tensor, ...]  # per block [b, T, D], detached
    prefix: int
    grid: tuple[int, int]
    rope: Tensor | None = None
    # per block [b, heads, T, T], detached; None where the forward pass formed none in float32
    attention: tuple[Tensor | None, ...] = ()

    @property
    def patches(self) -> slice:
        return slice(self.prefix, self.prefix + math.prod(self.grid))

    @property
    def query_start(self) -> int:
        """Row of the first query token."""
        return self.patches.stop


@dataclass(frozen=True)
class ViTOutput:
    tokens: Tensor  # [b, N, D] patch tokens after the last block, not normalised
    grid: tuple[int, int]  # N = h * w
    queries: Tensor  # [b, q, D]
    features: dict[int, Tensor] = field(default_factory=dict)  # block index -> [b, D, h, w]
    trace: Trace | None = None

    def map(self) -> Tensor:
        """[b, D, h, w]"""
        return self.tokens.transpose(1, 2).unflatten(2, self.grid)


class TokenViT(nn.Module):
    """Images 0..1 -> patch and query tokens. The body is timm's; only the query tokens are
    added."""

    def __init__(self, config: ViTConfig | str = "small", **overrides):
        super().__init__()
        named = {"name": config} if isinstance(config, str) else vars(config)
        self.config = config = ViTConfig(**{**named, **overrides})
        self.body = _small_body(config) if config.name == "small" else _timm_body(config)
        self.dim, self.depth = self.body.embed_dim, len(self.body.blocks)
        self.stride = int(self.body.patch_embed.feat_ratio())
        settings = getattr(self.body, "pretrained_cfg", None) or {}
        for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            values = torch.tensor(settings.get(name) or default).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self._add_queries(config)

    def _add_queries(self, config: ViTConfig) -> None:
        # learned token and position vectors, trunc-normal 0.02: UNSTATED [AS Sec. 3.1], as the
        # release
        coordinates = grid_coordinates(config.queries)
        self.register_buffer("anchors", coordinates, persistent=False)  # [q, 2] xy in 0..1
        self.query_tokens = nn.Parameter(torch.empty(config.queries, self.dim))
        self.query_positions = nn.Parameter(torch.empty(config.queries, self.dim))
        if not config.queries:  # empty: nothing to learn
            self.query_tokens.requires_grad_(False)
            self.query_positions.requires_grad_(False)
        else:
            nn.init.trunc_normal_(self.query_tokens, std=0.02)
            nn.init.trunc_normal_(self.query_positions, std=0.02)
        if config.anchored:
            side = config.image_size / self.stride
            self.query_positions.data.copy_(sine_positions(coordinates * side - 0.5, self.dim))

    @property
    def blocks(self) -> nn.Sequential:
        return self.body.blocks

    def normalise(self, images: Tensor) -> Tensor:
        """Zero mean and unit deviation, then zeros (the mean colour) right and below up to the
        stride."""
        h, w = images.shape[-2:]
        return pad((images - self.mean) / self.std, (0, -w % self.stride, 0, -h % self.stride))

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor | None, tuple[int, int]]:
        """Normalised pixels [b, 3, H, W] -> prefix and patch tokens [b, p + N, D], rotary
        table, grid."""
        patches = self.body.patch_embed(pixels)
        grid = tuple(patches.shape[1:3])
        # timm's own method: it knows class and register tokens and resamples learned positions to
        # the grid
        placed = self.body._pos_embed(patches)
        tokens, rope = placed if isinstance(placed, tuple) else (placed, None)
        return tokens, rope, grid

    def forward(
        self, images: Tensor, features: Sequence[int] = (), trace: bool = False
    ) -> ViTOutput:
        """Images [b, 3, H, W] in 0..1. `features`: blocks (0-based) whose maps are wanted."""
        tokens, rope, grid = self.embed(self.normalise(images))
        queries = (self.query_tokens + self.query_positions).expand(len(images), -1, -1)
        tokens = self.body.norm_pre(torch.cat([tokens, queries.to(tokens.dtype)], 1))
        rope = None if rope is None else still_rotations(rope, len(self.query_tokens))
        patches = slice(self.body.num_prefix_tokens, self.body.num_prefix_tokens + math.prod(grid))
        inputs, formed, maps = [], [], {}
        for index, block in enumerate(self.blocks):
            inputs += [tokens.detach()] if trace else []
            with attention_of(block, tokens, formed) if trace else nullcontext():
                tokens = self._run(block, tokens, rope)
            if index in features:
                maps[index] = tokens[:, patches].transpose(1, 2).unflatten(2, grid)
        kept = Trace(tuple(inputs), patches.start, grid, rope, tuple(formed)) if trace else None
        return ViTOutput(tokens[:, patches], grid, tokens[:, patches.stop :], maps, kept)

    def _run(self, block: nn.Module, tokens: Tensor, rope: Tensor | None) -> Tensor:
        call = block if rope is None else partial(block, rope=rope)
        if self.config.checkpoint and self.training:
            return checkpoint(call, tokens, use_reentrant=False)
        return call(tokens)


@contextmanager
def attention_of(block: nn.Module, tokens: Tensor, formed: list[Tensor | None]) -> Iterator[None]:
    """Appends to `formed` the attention of the block's run inside, which an unfused block forms
    anyway; None where it is formed fused, compiled, in lowered precision, or of many tokens."""
    watched = getattr(getattr(block, "attn", None), "attn_drop", None)
    lowered = torch.is_autocast_enabled(tokens.device.type) or tokens.shape[1] > KEPT_TOKENS
    inside: list[Tensor] = []
    if watched is None or lowered or block._compiled_call_impl is not None:
        hook = nullcontext()
    else:
        hook = watched.register_forward_pre_hook(lambda _, given: inside.append(given[0].detach()))
    with hook:
        yield
    formed.append(inside[0] if inside else None)


def grid_coordinates(count: int) -> Tensor:
    """[count, 2] xy in 0..1: centres of the cells of the squarest grid that holds `count`
    cells."""
    columns = max(math.ceil(math.sqrt(count)), 1)
    rows = max(math.ceil(count / columns), 1)
    index = torch.arange(count)
    return torch.stack([(index % columns + 0.5) / columns, (index // columns + 0.5) / rows], -1)


def still_rotations(rope: Tensor, count: int) -> Tensor:
    """Rotary table [N, 2d] (sines, cosines) -> [N + count, 2d]: query tokens have no place, so
    no rotation."""
    sine = torch.zeros(count, rope.shape[-1] // 2, device=rope.device, dtype=rope.dtype)
    return torch.cat([rope, torch.cat([sine, torch.ones_like(sine)], -1)])


def _small_body(config: ViTConfig) -> VisionTransformer:
    embed = _patch_embedding(config)
    body = VisionTransformer(
        img_size=config.image_size, patch_size=config.patch, embed_dim=config.dim,
        depth=config.depth, num_heads=config.heads, num_classes=0, global_pool="",
        class_token=False, final_norm=False, pos_embed="none" if config.position == "sine" else
        "learn", dynamic_img_size=True, drop_path_rate=config.drop_path, embed_layer=embed,
    )  # fmt: skip
    return body


def _patch_embedding(config: ViTConfig) -> Callable[..., nn.Module]:
    if config.stem == "features":
        from pointseg.nets.feature_stem import feature_stem  # which stands on this module

        return feature_stem(config.stem_network, config.stem_weights)
    if config.stem == "conv":
        return partial(ConvStem, positions=config.position)
    return SinePatches if config.position == "sine" else PatchEmbed


def unfuse(model: torch.nn.Module) -> None:
    """On a CPU the backward pass of fused attention over few tokens costs more than the
    matrices it saves."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


class SinePatches(PatchEmbed):
    """Plain patches with the fixed sine positions already added."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = super().forward(images)
        return tokens + sine_grid(*tokens.shape[1:], tokens.device)


def _timm_body(config: ViTConfig) -> VisionTransformer | Eva:
    if config.name not in timm.list_models():
        raise InputError(f"{config.name}: no ViT of that name in timm {timm.__version__}")
    wanted = {
        "num_classes": 0,
        "global_pool": "",
        "dynamic_img_size": True,
        "drop_path_rate": config.drop_path,
    }
    try:
        body = timm.create_model(config.name, pretrained=False, **wanted)
    except TypeError:  # another family: it knows no dynamic image size
        body = None
    if not isinstance(body, VisionTransformer | Eva) or getattr(body, "rope_mixed", False):
        raise InputError(f"{config.name}: not a plain ViT; token branch and attention need one")
    return body


def layer_decay_groups(
    vit: TokenViT, lr: float, weight_decay: float, decay: float = 0.75
) -> list[dict]:
    """Optimiser groups: block i learns at lr * decay^(depth - i), the stem at lr * decay^(depth +
    1).

    UNSTATED [AS Sec. 5.1]: decay 0.75 and no weight decay on vectors, tokens and positions, as the
    release. A convolutional network under the blocks learns at a tenth, as the panoptic students'.
    """
    groups: dict[tuple[float, bool], dict] = {}
    for name, parameter in vit.named_parameters():
        if not parameter.requires_grad:
            continue
        below = vit.depth + 1 - _level(name, vit.depth)
        rate = 0.1 * lr if "patch_embed.backbone." in name else lr * decay**below
        shrinks = parameter.ndim > 1 and not name.endswith(
            ("_token", "_tokens", "_positions", "pos_embed")
        )
        group = groups.setdefault((rate, shrinks), {
            "params": [], "lr": rate,
            "weight_decay": weight_decay if shrinks else 0.0,
        })  # fmt: skip
        group["params"].append(parameter)
    return list(groups.values())


def _level(name: str, depth: int) -> int:
    """0 for the stem and its positions, i + 1 for block i, depth + 1 for what is added on top."""
    parts = name.split(".")
    if parts[0] != "body":
        return depth + 1
    return int(parts[2]) + 1 if parts[1] == "blocks" else 0
