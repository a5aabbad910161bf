"""What no photograph can tell.

How key-points and part maps stand to an object's true parts, iteration by iteration.
"""

from __future__ import annotations

from collections import defaultdict

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.papers.attentionshift.labeller import KeyPoints, Labels
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.shift import cells_of
from pointseg.papers.attentionshift.tokens import Region, Tokens, token_at

SAME = 1e-4  # difference of cosines below which two directions are one
HALF = 0.5  # share of a map's largest value above which a token counts as found


class ShiftStudy:
    """Means over objects, in percent.

    Objects whose true parts are not known count in the first two alone.
    """

    def __init__(self):
        self.values: dict[str, list[Tensor]] = defaultdict(list)

    def add(self, labels: Labels, tokens: Tokens, masks: Tensor, part_maps: Tensor) -> None:
        """Adds n objects.

        Masks [n, H, W], true parts [n, H, W] (0 = none), and all tokens of their images.
        """
        share, part = token_truth(masks, part_maps, labels.attention.shape[1])
        self.values["A^S covers half"].append(covers_half(labels.attention >= HALF, share))
        self.values["A^I covers half"].append(covers_half(labels.instance_map >= HALF, share))
        keypoints, region = labels.keypoints, labels.region
        self.values["key-points on the object"].append(
            share_on_object(keypoints.token, keypoints.valid, share)
        )
        if keypoints.shifted is not None:
            self._add_turns(keypoints, region, part, region.of_tokens(tokens))

    def _add_turns(self, keypoints: KeyPoints, region: Region, part: Tensor, held: Tokens) -> None:
        """Adds what each iteration does to objects whose parts [n, T] are known."""
        true, known = part.gather(1, region.index), (part > 0).any(1)
        shifted = keypoints.shifted
        for turn, (points, owner) in enumerate(zip(shifted.path, shifted.owners)):
            reached, count = part.gather(1, keypoints.turns[turn]), points.shape[1]
            rows = {
                "part recall": part_recall(reached, part),
                "purity": purity(owner, count, true),
                "one-token cells": lonely(owner, count),
                "frozen key-points": frozen_share(points, held, region.inside),
            }
            for name, values in rows.items():
                self.values[f"{name}, iteration {turn}"].append(values[known])

    def scores(self) -> dict[str, float]:
        joined = {name: torch.cat(rows) for name, rows in self.values.items()}
        return {name: 100 * float(rows.nanmean()) for name, rows in joined.items()}


def token_truth(masks: Tensor, part_maps: Tensor | None, tokens: int) -> tuple[Tensor, Tensor]:
    """Share of every token that is object [n, T], and a part for every token [n, T].

    It is the part that most of its object's pixels show, 0 = none, as everywhere without parts.
    """
    stride = int((masks[0].numel() / tokens) ** 0.5)
    if part_maps is None:
        part_maps = torch.zeros_like(masks, dtype=torch.long)
    inside_parts = part_maps * masks
    kinds = F.one_hot(inside_parts.long(), int(inside_parts.max()) + 1).permute(0, 3, 1, 2).float()
    shares = F.avg_pool2d(kinds, stride).flatten(2)[:, 1:]
    best = shares.max(1) if shares.shape[1] else None
    part = (
        inside_parts.new_zeros(len(inside_parts), tokens)
        if best is None
        else (best.indices + 1) * (best.values > 0)
    )
    return F.avg_pool2d(masks.float(), stride).flatten(1), part


def covers_half(area: Tensor, share: Tensor) -> Tensor:
    """[n] 1 where an area [n, T] holds more than half of the object, by token. [AS Sec. 1]"""
    return ((area * share).sum(1) > 0.5 * share.sum(1)).float()


def share_on_object(token: Tensor, valid: Tensor, share: Tensor) -> Tensor:
    """[n] how much of the tokens [n, K] of the valid key-points is object.

    From the share of every token [n, T].
    """
    return (share.gather(1, token) * valid).sum(1) / valid.sum(1)


def part_recall(reached: Tensor, part_map: Tensor) -> Tensor:
    """[n] share of an object's parts (values > 0 of part_map [n, T]) among those reached [n, K]."""
    count = int(part_map.max()) + 1 if part_map.numel() else 1
    there = presence(part_map, count)
    return (presence(reached, count) & there).sum(1) / there.sum(1)


def presence(values: Tensor, count: int) -> Tensor:
    """[n, count - 1] bool: which of 1 ... count - 1 occur in each row [n, m]."""
    present = torch.zeros(len(values), count, dtype=torch.bool, device=values.device)
    return present.scatter(1, values.long(), True)[:, 1:]


def purity(owner: Tensor, count: int, true: Tensor) -> Tensor:
    """[n] share of the object's tokens [n, S] that agree with the key-point that owns them.

    Their true part is the commonest of that key-point's.
    """
    cells = cells_of(owner, count).float()
    kinds = F.one_hot(true.long())[..., 1:].float()  # [n, S, P], nothing off the object
    table = cells @ kinds
    return table.amax(2).sum(1) / table.sum((1, 2))


def lonely(owner: Tensor, count: int) -> Tensor:
    """[n] share of the key-points with tokens of their own that own just one: alpha's collapse."""
    area = cells_of(owner, count).sum(-1)
    return (area == 1).sum(1) / (area > 0).sum(1)


def frozen_share(points: Tensor, tokens: Tokens, inside: Tensor) -> Tensor:
    """[n] share of key-points [n, K, D] that point where a single token does.

    However many tokens they own.
    """
    near = tokens.cosines(points).masked_fill(~inside[:, None], -1)
    return (near.amax(-1) > 1 - SAME).float().mean(1)


def path_scores(
    labels: Labels, tokens: Tokens, masks: Tensor, parts: Tensor | None
) -> dict[str, Tensor]:
    """Score -> [n] of the label path of n objects, with their true masks [n, H, W] on the padded
    images and, where they are known, the parts [n, H, W]."""
    masks, parts = (on_whole_tokens(maps, labels.objects) for maps in (masks, parts))
    share, part = token_truth(masks, parts, labels.attention.shape[1])
    keypoints, high = labels.keypoints, labels.instance_map >= HALF
    on_object = (high * share).sum(1)
    scores = {
        "keypoints_on": share_on_object(keypoints.token, keypoints.valid, share),
        "keypoints": keypoints.valid.sum(1).double(),
        "attention_covers": covers_half(labels.attention >= HALF, share),
        "map_covers": covers_half(high, share),
        "map_precision": on_object / high.sum(1),
        "map_recall": on_object / share.sum(1),
        "proxy": mask_shares(labels.objects.on_pixels(proxy(labels, tokens)), masks)[:, 2],
    }
    if parts is not None:
        reached = part.gather(1, keypoints.token).where(keypoints.valid, 0)
        scores["keypoint_parts"] = part_recall(reached, part)
        if keypoints.shifted is not None:
            true, owner = part.gather(1, labels.region.index), keypoints.shifted.owner
            scores["purity"] = purity(owner, keypoints.shifted.features.shape[1], true)
    return scores


def on_whole_tokens(maps: Tensor | None, objects: Objects) -> Tensor | None:
    """Maps [n, H, W] on a canvas that ends where the last tokens do, 0 beyond the images."""
    if maps is None:
        return None
    h, w = (side * objects.stride for side in objects.grid)
    return F.pad(maps, (0, w - maps.shape[2], 0, h - maps.shape[1]))


def proxy(labels: Labels, tokens: Tokens) -> Tensor:
    """[n, T] bool: tokens of the box that look more like the object's points than like the
    ground's, which is what a student learns from them, without the student."""
    points, objects = labels.mask_points, labels.objects
    at = token_at(points.xy, objects.grid, objects.stride)
    alike = tokens.cosines(tokens.features_at(at))
    foreground, ground = (
        alike.masked_fill(~(points.known & kind)[..., None], -torch.inf).amax(1)
        for kind in (points.foreground, ~points.foreground)
    )
    inside = labels.region.on_grid(labels.region.inside, alike.shape[2])
    return (foreground >= ground) & inside


def mask_shares(masks: Tensor, truth: Tensor) -> Tensor:
    """[n, 3] of masks and true masks [n, H, W].

    Share of the object covered, of the mask on it (NaN if empty), IoU.
    """
    common, mask, true = ((m.flatten(1).sum(1)).float() for m in (masks & truth, masks, truth))
    return torch.stack([common / true, common / mask, common / (mask + true - common)], -1)
