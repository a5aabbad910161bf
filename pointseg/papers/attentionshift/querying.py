"""Token querying of [AS Sec. 3.1]: points matched to query tokens, and where those look.

From the points of a batch to a self-attention map A^S of every object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from pointseg.nets.attention import rollout_rows
from pointseg.nets.point_head import PointHead, TokenClassifier
from pointseg.nets.vit import TokenViT
from pointseg.ops.focal import focal_cost, focal_loss
from pointseg.ops.processes import normaliser
from pointseg.papers.attentionshift.objects import Objects, PointTargets
from pointseg.papers.attentionshift.tokens import Tokens, token_at, valid_tokens
from pointseg.structures import Batch, InputError
from pointseg.students.mask_rcnn import Features


@dataclass(frozen=True)
class PointPredictions:
    """What the query tokens predict: a point with class probabilities each."""

    logits: Tensor  # [b, q, C]
    xy: Tensor  # [b, q, 2] shares of the padded image
    extent: Tensor  # [2] its width and height

    def matched(self, points: PointTargets, place_weight: float) -> Tensor:
        """[p] the query of each point, no two alike in an image, -1 for none. [AS Sec. 3.1]"""
        query, logits = torch.full_like(points.label, -1), self.logits.detach()
        distance = torch.cdist(self.xy.detach(), (points.xy / self.extent)[None], p=1)
        costs = focal_cost(logits.flatten(0, 1), points.label).unflatten(0, logits.shape[:2])
        costs = costs + place_weight * distance  # [b, q, p]; of each point its own image counts
        for row, prices in enumerate(costs):
            here = points.image == row
            query[here] = cheapest_pairs(prices[:, here])
        return query

    def losses(self, points: PointTargets, query: Tensor) -> dict[str, Tensor]:
        """L_P = l_cls + l_L1 of the points matched to queries [p]. [AS Sec. 4]

        UNSTATED [AS Sec. 4]: both over the number of points, as in the official code.
        """
        matched, count = query >= 0, normaliser(len(query), self.logits.device)
        at = points.image[matched], query[matched]
        label = torch.full_like(self.logits[..., 0], self.logits.shape[2], dtype=torch.long)
        label[at] = points.label[matched]
        distance = (self.xy[at] - points.xy[matched] / self.extent).abs().sum()
        category = focal_loss(self.logits.flatten(0, 1), label.flatten())
        return {"point_class": category / count, "point_place": distance / count}


def cheapest_pairs(costs: Tensor) -> Tensor:
    """[m] the query of each point, no query twice, at the least total of costs [q, m]; -1 for
    points left over."""
    query = torch.full((costs.shape[1],), -1, dtype=torch.long)
    finite = costs.double().nan_to_num(1e6, 1e6, -1e6)
    row, column = linear_sum_assignment(finite.cpu().numpy())
    query[torch.from_numpy(column)] = torch.from_numpy(row)
    return query.to(costs.device)


def rollout_maps(features: Features, objects: Objects, query: Tensor, depths: int) -> Tensor:
    """[n, depths, T] self-attention maps A^S of the matched queries [p], 0 without one; an object's
    is the mean over its points. [AS Sec. 3.1]

    UNSTATED [AS Sec. 3.1]: roll-outs of the last 1 ... `depths` blocks, as in the official code.
    """
    points, vit, trace = objects.points, features.vit, features.output.trace
    rank = points.rank()
    rows = query.new_zeros(len(objects.counts), int(rank.max()) + 1 if len(rank) else 1)
    rows[points.image, rank] = query.clamp(min=0)
    rolled = rollout_rows(vit, trace, rows + trace.query_start, min(depths, vit.depth))
    maps = rolled[:, points.image, rank, trace.patches].transpose(0, 1)
    return objects.per_object(maps * (query >= 0)[:, None, None])


def point_maps(tokens: Tokens, objects: Objects) -> Tensor:
    """[n, 1, T] cosine of every token with the labelled ones: a map that needs no query."""
    directions, points = tokens.directions, objects.points
    at = token_at(points.xy, objects.grid, objects.stride)
    labelled = directions[points.image, at, None]
    return objects.per_object(labelled @ directions[points.image].transpose(1, 2))


def image_label_loss(logits: Tensor, valid: Tensor, points: PointTargets) -> Tensor:
    """Cross-entropy of the classes present in each image with the log-mean-exp of its token logits.

    DEVIATION [AS Sec. 3.1]: a warm-up from the points' classes. logits [b, T, C], valid [b, T].
    """
    pooled = logits.masked_fill(~valid[..., None], -torch.inf).logsumexp(1)
    pooled = pooled - valid.sum(1, keepdim=True).log()
    present = torch.zeros_like(pooled)
    present[points.image, points.label] = 1
    return F.binary_cross_entropy_with_logits(pooled, present)


def token_label_loss(logits: Tensor, token: Tensor, points: PointTargets) -> Tensor:
    """Mean cross-entropy of the labelled tokens [p] with their points' classes; logits [b, T, C].

    DEVIATION [AS Sec. 3.1]: the second half of the warm-up.
    """
    total = F.cross_entropy(logits[points.image, token], points.label, reduction="sum")
    return total / normaliser(len(token), logits.device)


def in_full_precision(verb: Callable) -> Callable:
    """A labeller's verb without lowered precision, whatever the student is trained with."""

    @wraps(verb)
    def run(labeller: nn.Module, *arguments: Any, **named: Any) -> Any:
        device = next(labeller.parameters()).device.type
        with torch.autocast(device, enabled=False):
            return verb(labeller, *arguments, **named)

    return run


@dataclass(frozen=True)
class Queried:
    """What the point branch finds in a batch."""

    objects: Objects
    predictions: PointPredictions
    query: Tensor  # [p] the matched query of each point, -1 for none
    token_logits: Tensor | None  # [b, T, C] of the warm-up


class Unlabelled:
    """No labels: a first stage teaches no student."""

    def targets(self, batch: Batch) -> None:
        return None


class PointBranch(nn.Module):
    """Query tokens that predict the points, and patch tokens that know their class. [AS Sec. 3.1]

    A labeller of its own in the first stage, and the lower half of AttentionShift's.
    """

    def __init__(self, vit: TokenViT, classes: int, place_weight: float, warmup: bool):
        super().__init__()
        self.classes, self.place_weight, self.stride = classes, place_weight, vit.stride
        self.points = PointHead(vit.dim, classes)
        self.classifier = TokenClassifier(vit.dim, classes) if warmup else None
        self.register_buffer("anchors", vit.anchors if vit.config.anchored else None, False)

    @in_full_precision
    def evidence(self, features: Features, batch: Batch) -> Queried:
        """Predictions of the query tokens, and the query that each point is matched to."""
        features = features.output
        objects = Objects.of(batch.points, batch.sizes, features.grid, self.stride)
        self._check(objects)
        # UNSTATED [AS Sec. 3.1]: coordinates are shares of the padded image
        extent = batch.images.new_tensor([batch.images.shape[-1], batch.images.shape[-2]])
        answers = PointPredictions(*self.points(features.queries.float(), self.anchors), extent)
        query = answers.matched(objects.points, self.place_weight)
        logits = self.classifier(features.tokens.float()) if self.classifier else None
        return Queried(objects, answers, query, logits)

    def assign(self, evidence: Queried, batch: Batch) -> Unlabelled:
        return Unlabelled()

    @in_full_precision
    def losses(self, evidence: Queried, labels: Any, batch: Batch) -> dict[str, Tensor]:
        """L_P of [AS Sec. 4], and the warm-up's two losses."""
        losses = evidence.predictions.losses(evidence.objects.points, evidence.query)
        return losses | self.warmup_losses(evidence, batch)

    def warmup_losses(self, evidence: Queried, batch: Batch) -> dict[str, Tensor]:
        objects, logits = evidence.objects, evidence.token_logits
        if logits is None:
            return {}
        valid = valid_tokens(batch.sizes, objects.grid, objects.stride, logits.device)
        token = token_at(objects.points.xy, objects.grid, objects.stride)
        return {
            "warm_image": image_label_loss(logits, valid, objects.points),
            "warm_token": token_label_loss(logits, token, objects.points),
        }

    def _check(self, objects: Objects) -> None:
        highest = int(objects.points.label.max()) if len(objects) else 0
        if highest >= self.classes:
            raise InputError(
                f"points: class index {highest} is out of range, "
                f"there are {self.classes} thing classes"
            )
