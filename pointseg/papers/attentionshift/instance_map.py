"""Instance attention map of [AS Sec. 3.1]: A^S cleaned by how object and background look."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.tokens import Tokens


@dataclass(frozen=True)
class InstanceMaps:
    """The two maps of n objects that boxes, seeds and mask points are taken from."""

    foreground: Tensor  # [n, T] A^I in 0..1
    background: Tensor  # [n, T] the official code's map of the background, in 0..1


def token_sets(
    attention: Tensor,
    valid: Tensor,
    seed: Tensor,
    foreground: float = 0.2,
    background: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """Sure foreground Phi+ and background Phi- [n, T] of attention maps in 0..1. [AS Sec. 3.1]

    UNSTATED [AS Sec. 3.1]: thresholds of the official code. Phi+ always holds the labelled token
    `seed` [n].
    """
    labelled = F.one_hot(seed, attention.shape[1]).bool()
    plus = (attention >= foreground) & valid | labelled
    return plus, (attention < background) & valid & ~labelled


def cosines_with_mean(weights: Tensor, tokens: Tokens) -> Tensor:
    """[n, T] d(phi, psi) with the mean psi of tokens weighted by [n, T]. psi+ and psi- of
    [AS Eq. 1]

    One normalisation and two products an image, however many objects it has.
    """
    weights = weights.to(tokens.lengths.dtype)
    share = weights / weights.sum(1, keepdim=True).clamp(min=1e-12)
    return tokens.cosines(tokens.sums(share[:, None]))[:, 0]


def instance_map_printed(
    similarity_fg: Tensor, similarity_bg: Tensor, plus: Tensor, minus: Tensor
) -> Tensor:
    """[n, T] A^I as printed: each similarity over its sum in its own token set. [AS Eq. 1]

    similarity_fg is d(phi, psi+), similarity_bg is d(phi, psi-), both [n, T].
    """
    foreground = similarity_fg / (similarity_fg * plus).sum(1, keepdim=True).clamp(min=1e-6)
    background = similarity_bg / (similarity_bg * minus).sum(1, keepdim=True).clamp(min=1e-6)
    return foreground * (1 - background)


def instance_map_released(similarity_fg: Tensor, similarity_bg: Tensor, valid: Tensor) -> Tensor:
    """[n, T] A^I as the official code has it: cos+ (1 - cos-), over its largest value. [AS Eq. 1]

    DEVIATION [AS Eq. 1]: without the sum over Phi- the second factor really suppresses; as printed
    it is close to 1.
    """
    product = (similarity_fg * (1 - similarity_bg)).clamp(min=0) * valid
    return product / product.amax(1, keepdim=True).clamp(min=1e-12)


def unit_range(maps: Tensor, valid: Tensor) -> Tensor:
    """[n, T] maps stretched to 0..1 over the valid tokens, 0 elsewhere; a constant map is 0."""
    low = maps.masked_fill(~valid, torch.inf).amin(1, keepdim=True)
    high = maps.masked_fill(~valid, -torch.inf).amax(1, keepdim=True)
    stretched = (maps - low) / (high - low).clamp(min=1e-12)
    return stretched.where(valid & (high > low), torch.zeros_like(maps))


def instance_maps(
    tokens: Tokens, objects: Objects, attention: Tensor, config: Config
) -> InstanceMaps:
    """A^I of A^S [n, T] by the rule of the config, and the map of the background. [AS Eq. 1]"""
    if config.instance_map == "none":
        return InstanceMaps(attention, 1 - attention)
    valid = objects.valid
    plus, minus = token_sets(attention, valid, objects.seed, config.foreground, config.background)
    similarity_fg = refined(
        cosines_with_mean(plus, tokens), tokens, valid, config.refine_rounds, config.refine_share
    )
    similarity_bg = cosines_with_mean(minus, tokens)
    if config.compete:
        low = (mean_over_image(attention, objects.image) < config.background) & valid
        similarity_fg = strongest_only(similarity_fg, objects.image, cosines_with_mean(low, tokens))
    background = background_released(similarity_fg, similarity_bg, valid)
    if config.instance_map == "printed":
        printed = instance_map_printed(similarity_fg, similarity_bg, plus, minus)
        return InstanceMaps(unit_range(printed, valid), background)
    return InstanceMaps(instance_map_released(similarity_fg, similarity_bg, valid), background)


def background_released(similarity_fg: Tensor, similarity_bg: Tensor, valid: Tensor) -> Tensor:
    """[n, T] 1 + (cos- - cos+) / 2, both over their largest value, over its own largest value.

    Not in the paper; the official code draws background points where this map is high, not where
    A^I is low.
    """
    foreground, background = (
        m * valid / (m * valid).amax(1, keepdim=True).clamp(min=1e-12)
        for m in (similarity_fg, similarity_bg)
    )
    likely = (1 + (background - foreground) / 2) * valid
    return likely / likely.amax(1, keepdim=True).clamp(min=1e-12)


def refined(similarity: Tensor, tokens: Tokens, valid: Tensor, rounds: int, share: float) -> Tensor:
    """[n, T] cosine map after `rounds` of taking the mean direction of the tokens that are above
    `share` of the map's maximum, weighted by it.

    Not in the paper; the official code does two rounds at 0.9.
    """
    directions = Tokens(tokens.directions, torch.ones_like(tokens.lengths), tokens.sharing)
    similarity = similarity * valid
    for _ in range(rounds):
        strong = similarity * (similarity >= share * similarity.amax(1, keepdim=True)) * valid
        similarity = cosines_with_mean(strong.clamp(min=0), directions) * valid
    return similarity


def mean_over_image(attention: Tensor, image: Tensor) -> Tensor:
    """[n, T] mean of the maps [n, T] of all objects of an image [n]; low where nothing is
    looked at."""
    same = (image[:, None] == image).to(attention.dtype)
    return same @ attention / same.sum(1, keepdim=True)


def strongest_only(similarity: Tensor, image: Tensor, common: Tensor) -> Tensor:
    """[n, T] similarity kept where an object beats the others of its image and the background [n,
    T].

    Not in the paper; the official code lets instances compete for tokens.
    """
    scores = similarity.masked_fill(similarity.isnan(), -torch.inf)
    count = int(image.max()) + 1 if len(image) else 0
    best = similarity.new_full((count, similarity.shape[1]), -torch.inf)
    best = best.scatter_reduce(0, image[:, None].expand_as(scores), scores, "amax")
    return similarity * ((similarity >= best[image]) & (similarity >= common))
