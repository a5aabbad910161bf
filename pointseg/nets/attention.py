"""Attention shown on request: only the rows and blocks asked for are recomputed, a chunk at a time.

Fused attention never keeps its matrix. A `Trace` holds what each block was given, so any row of
any matrix can be formed again from queries and keys; memory grows with (rows x tokens), never with
tokens^2 x blocks. Where the forward pass of few tokens formed the matrix itself, it is read there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

import torch
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn
from torch.nn.functional import linear

from pointseg.nets.vit import TokenViT, Trace

CHUNK = 64  # rows of a matrix that exist at one time: at 4,301 tokens they fit a cache


def exactly(function: Callable) -> Callable:
    """No gradient and no lowered precision inside, whatever the caller trains with."""

    @wraps(function)
    def run(vit: TokenViT, trace: Trace, *arguments, **named):
        with torch.no_grad(), torch.autocast(trace.inputs[0].device.type, enabled=False):
            return function(vit, trace, *arguments, **named)

    return run


@exactly
def attention_rows(
    vit: TokenViT, trace: Trace, block: int, rows: Tensor, chunk: int = CHUNK
) -> Tensor:
    """Rows [m] or [b, m] of one block's attention, per head: [b, heads, m, T]. Average dim 1
    for the head mean."""
    if (formed := formed_by(trace, block)) is not None:
        return _picked(formed, rows)
    queries, keys = block_queries_keys(vit, trace, block)
    picked = _picked(queries, rows)
    parts = [scores_to_attention(part, keys) for part in picked.split(chunk, 2)]
    return torch.cat(parts, 2) if parts else picked.new_zeros(*picked.shape[:3], keys.shape[2])


@exactly
def rollout_rows(
    vit: TokenViT, trace: Trace, rows: Tensor, depth: int | None = None, chunk: int = CHUNK
) -> Tensor:
    """Attention roll-out of rows [m] or [b, m] of the last block: [depth, b, m, T].

    Entry d is the product of the last d + 1 blocks, from the last one downwards, each (mean over
    heads + identity) with rows summing to one; entry 0 is the last block alone. The chain keeps m
    rows: r <- r A, where A exists only `chunk` rows at a time.
    UNSTATED [AS Sec. 3.2]: "self-attention map" is read as roll-outs of depth 1 to 7, as the
    release.
    """
    last, depth = vit.depth - 1, vit.depth if depth is None else depth
    attended = attention_rows(vit, trace, last, rows, chunk).mean(1)
    rows = _per_image(rows, len(attended))
    identity = torch.zeros_like(attended).scatter_(2, rows.unsqueeze(2), 1.0)
    chain = [(attended + identity) / 2]  # rows of A + I sum to two
    for block in range(last - 1, last - depth, -1):
        chain.append((rows_times_attention(vit, trace, block, chain[-1], chunk) + chain[-1]) / 2)
    return torch.stack(chain)


@exactly
def rows_times_attention(
    vit: TokenViT, trace: Trace, block: int, rows: Tensor, chunk: int = CHUNK
) -> Tensor:
    """[b, m, T] @ (head mean of the block's attention) [b, T, T] -> [b, m, T], without the
    second factor."""
    if (formed := formed_by(trace, block)) is not None:
        return rows @ formed.mean(1)
    queries, keys = block_queries_keys(vit, trace, block)
    total = torch.zeros_like(rows)
    for start in range(0, queries.shape[2], chunk):
        here = slice(start, start + chunk)
        weights = exponentials(queries[:, :, here], keys)  # [b, heads, c, T]
        # dividing m numbers a row by the row's sum is cheaper than dividing its T weights
        shares = rows[:, None, :, here] / weights.sum(-1).unsqueeze(2)
        total += _fold_heads(shares, weights)
    return total / queries.shape[1]


def _fold_heads(shares: Tensor, weights: Tensor) -> Tensor:
    """[b, heads, m, c] and [b, heads, c, T] -> [b, m, T], summed over heads and c."""
    flat = shares.transpose(1, 2).flatten(2)  # [b, m, heads * c]
    return flat @ weights.flatten(1, 2)


def exponentials(queries: Tensor, keys: Tensor) -> Tensor:
    """exp(q k / sqrt(d)) up to a factor that each row has for itself: [b, heads, c, T]."""
    scores = (queries / math.sqrt(queries.shape[-1])) @ keys.transpose(-2, -1)
    return scores.sub_(scores.amax(-1, keepdim=True)).exp_()


def scores_to_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """softmax(q k / sqrt(d)) [b, heads, c, T]."""
    weights = exponentials(queries, keys)
    return weights.div_(weights.sum(-1, keepdim=True))


def block_queries_keys(vit: TokenViT, trace: Trace, block: int) -> tuple[Tensor, Tensor]:
    """Queries and keys [b, heads, T, d] of one block, from what it was given."""
    layer = vit.blocks[block]
    given = trace.inputs[block].to(layer.attn.proj.weight.dtype)
    return queries_keys(layer.attn, layer.norm1(given), trace.rope)


def queries_keys(attn: nn.Module, x: Tensor, rope: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Normed, rotated queries and keys [b, heads, T, d] of any of timm's self-attentions, for
    input [b, T, D]."""
    queries, keys = (_heads(part, attn.head_dim) for part in _project(attn, x))
    queries, keys = attn.q_norm(queries), attn.k_norm(keys)
    if rope is not None:
        queries, keys = _rotate(attn, queries, rope), _rotate(attn, keys, rope)
    groups = queries.shape[1] // keys.shape[1]  # grouped-query attention shares keys among heads
    return queries.float(), keys.repeat_interleave(
        groups, 1
    ).float() if groups > 1 else keys.float()


def _project(attn: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    if attn.qkv is None:
        return attn.q_proj(x), attn.k_proj(x)
    width = attn.num_heads * attn.head_dim
    bias = attn.qkv.bias
    if bias is None and getattr(attn, "q_bias", None) is not None:  # EVA keeps them apart
        bias = torch.cat([attn.q_bias, attn.k_bias])
    both = linear(x, attn.qkv.weight[: 2 * width], None if bias is None else bias[: 2 * width])
    return both[..., :width], both[..., width:]


def _heads(x: Tensor, head_dim: int) -> Tensor:
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def _rotate(attn: nn.Module, x: Tensor, rope: Tensor) -> Tensor:
    still = attn.num_prefix_tokens
    turned = apply_rot_embed_cat(x[:, :, still:], rope, half=getattr(attn, "rotate_half", False))
    return torch.cat([x[:, :, :still], turned], 2)


def formed_by(trace: Trace, block: int) -> Tensor | None:
    """[b, heads, T, T] attention that a block formed in the forward pass, where that was kept."""
    return trace.attention[block] if trace.attention else None


def _picked(values: Tensor, rows: Tensor) -> Tensor:
    """[b, heads, m, d] rows [m] or [b, m] of values [b, heads, T, d]."""
    rows = _per_image(rows, len(values))
    return values.gather(2, rows[:, None, :, None].expand(-1, values.shape[1], -1, values.shape[3]))


def _per_image(rows: Tensor, images: int) -> Tensor:
    return rows.expand(images, -1) if rows.ndim == 1 else rows
