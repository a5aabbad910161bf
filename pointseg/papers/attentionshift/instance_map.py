"""Instance attention map of AttentionShift: a self-attention map cleaned by how object and ground look."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def unit_range(maps: Tensor, allowed: Tensor) -> Tensor:
    """[n, T] maps stretched to 0..1 over the allowed tokens [n, T], 0 elsewhere; a constant map becomes 0."""
    low = maps.masked_fill(~allowed, torch.inf).amin(1, keepdim=True)
    high = maps.masked_fill(~allowed, -torch.inf).amax(1, keepdim=True)
    stretched = (maps - low) / (high - low).clamp(min=1e-12)
    return stretched.where(allowed & (high > low), torch.zeros_like(maps))


def token_sets(
    attention: Tensor,
    allowed: Tensor,
    seed: Tensor,
    foreground: float = 0.2,
    background: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Sure foreground Phi+ and background Phi- [n, T] of attention maps in 0..1. [AS Sec. 3.1]

    UNSTATED [AS Sec. 3.1]: thresholds of the official code. Phi+ always holds the labelled token `seed` [n].
    """
    labelled = F.one_hot(seed, attention.shape[1]).bool()
    plus = (attention >= foreground) & allowed | labelled
    return plus, (attention < background) & allowed & ~labelled


def mean_token(weights: Tensor, tokens: Tensor) -> Tensor:
    """[n, D] weighted mean of tokens [n, T, D]; psi+ and psi- of [AS Eq. 1] with weights [n, T] of a token set."""
    weights = weights.to(tokens.dtype)
    total = weights.sum(1, keepdim=True).clamp(min=1e-12)
    return ((weights / total)[:, None] @ tokens)[:, 0]


def cosine_to(prototype: Tensor, directions: Tensor) -> Tensor:
    """[n, T] cosine of one prototype [n, D] an instance with its unit tokens [n, T, D]."""
    return (F.normalize(prototype, dim=-1)[:, None] @ directions.transpose(1, 2))[:, 0]


def instance_map_printed(like: Tensor, unlike: Tensor, plus: Tensor, minus: Tensor) -> Tensor:
    """[n, T] A^I as printed: each similarity over its sum in its own token set. [AS Eq. 1]"""
    own = like / (like * plus).sum(1, keepdim=True).clamp(min=1e-6)
    other = unlike / (unlike * minus).sum(1, keepdim=True).clamp(min=1e-6)
    return own * (1 - other)


def instance_map_released(like: Tensor, unlike: Tensor, allowed: Tensor) -> Tensor:
    """[n, T] A^I as the official code has it: cos+ (1 - cos-), over its largest value. [AS Eq. 1]

    DEVIATION [AS Eq. 1]: without the sum over Phi- the second factor really suppresses; as printed it is close to 1.
    """
    product = (like * (1 - unlike)).clamp(min=0) * allowed
    return product / product.amax(1, keepdim=True).clamp(min=1e-12)


def ground_released(like: Tensor, unlike: Tensor, allowed: Tensor) -> Tensor:
    """[n, T] 1 + (cos- - cos+) / 2, both over their largest value, over its own largest value.

    Not in the paper; the official code draws background points where this map is high, not where A^I is low.
    """
    own, other = (
        m * allowed / (m * allowed).amax(1, keepdim=True).clamp(min=1e-12) for m in (like, unlike)
    )
    ground = (1 + (other - own) / 2) * allowed
    return ground / ground.amax(1, keepdim=True).clamp(min=1e-12)


def refined_similarity(
    prototype: Tensor, directions: Tensor, allowed: Tensor, rounds: int, share: float
) -> Tensor:
    """[n, T] cosine map after `rounds` of taking the mean of the tokens above `share` of the map's maximum.

    Not in the paper; the official code does two rounds at 0.9.
    """
    similarity = cosine_to(prototype, directions) * allowed
    for _ in range(rounds):
        strong = similarity * (similarity >= share * similarity.amax(1, keepdim=True)) * allowed
        similarity = cosine_to(mean_token(strong.clamp(min=0), directions), directions) * allowed
    return similarity


def mean_over_image(attention: Tensor, image: Tensor) -> Tensor:
    """[n, T] mean of the maps [n, T] of all instances of one's image [n]; the common background is where it is low."""
    same = (image[:, None] == image).to(attention.dtype)
    return same @ attention / same.sum(1, keepdim=True)


def strongest_only(similarity: Tensor, image: Tensor, common: Tensor) -> Tensor:
    """[n, T] similarity kept where its instance beats every other of its image [n] and the common background [n, T].

    Not in the paper; the official code lets instances compete for tokens.
    """
    rivals = similarity.masked_fill(similarity.isnan(), -torch.inf)
    count = int(image.max()) + 1 if len(image) else 0
    best = similarity.new_full((count, similarity.shape[1]), -torch.inf)
    best = best.scatter_reduce(0, image[:, None].expand_as(rivals), rivals, "amax")
    return similarity * ((similarity >= best[image]) & (similarity >= common))
