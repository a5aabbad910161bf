"""What features know before any label is shown: does a point find its object, do parts fall into
clusters?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from pointseg.nets.vit import TokenViT

SCORES = ("point_iou", "point_auc", "part_purity", "largest_part")


@dataclass(frozen=True)
class ProbeImage:
    """One image with its truth, which a probe may look at and no training does."""

    image: Tensor  # [3, H, W] float 0..1
    masks: Tensor  # [n, H, W] bool, things only
    parts: Tensor  # [H, W] int, 0 = no part
    points: Tensor  # [n, 2] xy in pixels, one on each thing
    label: Tensor  # [n] int, class of each thing


@torch.no_grad()
def probe(vit: TokenViT, images: list[ProbeImage], batch: int = 32) -> dict[str, float]:
    """Mean scores over all things; `centred`: less each position's mean over the images."""
    training = vit.training
    vit.eval()
    maps = feature_maps(vit, images, batch)
    vit.train(training)
    plain = [score_image(f, image, vit.stride) for f, image in zip(maps, images)]
    offset = maps - maps.mean(0)
    centred = [score_image(f, image, vit.stride) for f, image in zip(offset, images)]
    scores = {name: mean_of(plain, name) for name in SCORES}
    scores |= {f"{name}_centred": mean_of(centred, name) for name in SCORES[:3]}
    return scores | {"token_class": token_class(maps, images, vit.stride)}


@torch.no_grad()
def portrait(vit: TokenViT, images: list[ProbeImage], shown: int) -> dict[str, Tensor]:
    """Small maps of the first images to look at, bytes: `pca` [shown, h, w, 3], three main
    directions common to them, as colours; `similarity` [shown, h, w], of each token to the one
    under the image's last point; and both `_centred`, with each position's mean taken off."""
    maps = feature_maps(vit, images)
    looks = {}
    for suffix, features in (("", maps[:shown]), ("_centred", (maps - maps.mean(0))[:shown])):
        similar = [
            point_similarity(m, image.points[-1], vit.stride) for m, image in zip(features, images)
        ]
        looks[f"pca{suffix}"] = to_bytes(main_directions(features))
        looks[f"similarity{suffix}"] = to_bytes(torch.stack(similar), per_map=True)
    return looks


def feature_maps(vit: TokenViT, images: list[ProbeImage], batch: int = 1) -> Tensor:
    """[k, D, h, w] on the CPU."""
    device = next(vit.parameters()).device
    stacked = torch.stack([each.image for each in images]).to(device)
    return torch.cat([vit(part).map().float() for part in stacked.split(batch)]).cpu()


def main_directions(maps: Tensor, count: int = 3) -> Tensor:
    """[k, h, w, count] of the unit features of [k, D, h, w]; the longer tail is the bright end."""
    unit = normalize(maps, dim=1).permute(0, 2, 3, 1)
    flat = unit.flatten(0, 2) - unit.flatten(0, 2).mean(0)
    values = flat @ torch.linalg.svd(flat.T @ flat)[0][:, :count]
    return (values * (values**3).sum(0).sign()).unflatten(0, unit.shape[:3])


def to_bytes(maps: Tensor, per_map: bool = False) -> Tensor:
    """uint8: the 2nd to 98th percentile becomes 0..255, of each channel or of each map."""
    flat = maps.flatten(1).T if per_map else maps.flatten(0, -2)
    low, high = torch.quantile(flat, torch.tensor([0.02, 0.98]), dim=0)
    scaled = ((flat - low) / (high - low).clamp(min=1e-9)).clamp(0, 1) * 255
    return (scaled.T if per_map else scaled).reshape(maps.shape).round().to(torch.uint8)


def mean_of(rows: list[dict[str, list[float]]], name: str) -> float:
    values = [value for row in rows for value in row[name]]
    return sum(values) / max(len(values), 1)


def score_image(features: Tensor, image: ProbeImage, stride: int) -> dict[str, list[float]]:
    """One list entry a thing; features [D, h, w]."""
    size = image.masks.shape[-2:]
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    for mask, point in zip(image.masks, image.points):
        similar = point_similarity(features, point, stride)
        scores["point_iou"].append(best_threshold_iou(upsample(similar, stride, size), mask))
        scores["point_auc"].append(same_object_auc(similar, mask, stride))
        purity = part_purity(features, mask, image.parts, stride)
        if purity:
            scores["part_purity"].append(purity[0])
            scores["largest_part"].append(purity[1])
    return scores


def point_similarity(features: Tensor, point: Tensor, stride: int) -> Tensor:
    """Cosine of every token of [D, h, w] with the token under a point (x, y) in pixels: [h, w]."""
    column, row = (point / stride).long().tolist()
    unit = normalize(features, dim=0)
    return torch.einsum("dhw,d->hw", unit, unit[:, row, column])


def upsample(scores: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Token map [h, w] -> pixel map, cut to `size`."""
    fine = interpolate(
        scores[None, None], scale_factor=stride, mode="bilinear", align_corners=False
    )
    return fine[0, 0, : size[0], : size[1]]


def best_threshold_iou(scores: Tensor, mask: Tensor) -> float:
    """The IoU of {scores >= t} with the mask, at the best t, over the whole image."""
    order = scores.flatten().argsort(descending=True)
    hits = mask.flatten()[order].cumsum(0)
    taken = torch.arange(1, len(order) + 1)
    return float((hits / (taken + mask.sum() - hits)).max())


def same_object_auc(scores: Tensor, mask: Tensor, stride: int) -> float:
    """Chance that a token inside the mask scores above one outside; 1/2 knows nothing."""
    inside = token_share(mask, stride).flatten() > 0.5
    values = scores.flatten()
    if inside.all() or not inside.any():
        return 0.5
    rank = values.argsort().argsort().double() + 1
    count = inside.sum()
    return float((rank[inside].sum() - count * (count + 1) / 2) / (count * (~inside).sum()))


def part_purity(
    features: Tensor, mask: Tensor, parts: Tensor, stride: int
) -> tuple[float, float] | None:
    """k-means inside a thing, k its number of parts: share of tokens in their cluster's main part;
    and the share of the largest part, which one single cluster would reach. None where there are
    too few tokens."""
    inside = token_share(mask, stride).flatten() > 0.5
    named = [
        token_share((parts == part) & mask, stride).flatten()
        for part in parts[mask].unique()
        if part
    ]
    if len(named) < 2 or inside.sum() < 4 * len(named):
        return None
    part_of = torch.stack(named)[:, inside].argmax(0)
    cluster = k_means(normalize(features.flatten(1)[:, inside], dim=0).T, len(named))
    table = torch.zeros(len(named), len(named)).index_put_(
        (cluster, part_of), torch.ones(len(part_of)), accumulate=True
    )
    return float(table.amax(1).sum() / table.sum()), float(table.sum(0).max() / table.sum())


def token_class(maps: Tensor, images: list[ProbeImage], stride: int) -> float:
    """Balanced accuracy of a linear (ridge) classifier of single thing tokens, fitted on every
    other image and tried on the rest, both ways; the only probe that is shown labels."""
    features, labels, sides = [], [], []
    for index, (each, image) in enumerate(zip(maps, images)):
        for mask, label in zip(image.masks, image.label.tolist()):
            inside = token_share(mask, stride) > 0.5
            features.append(each[:, inside].T)
            labels += [label] * int(inside.sum())
            sides += [index % 2] * int(inside.sum())
    x, y, side = torch.cat(features).double(), torch.tensor(labels), torch.tensor(sides)
    halves = [
        _ridge_accuracy(x[side == a], y[side == a], x[side != a], y[side != a]) for a in (0, 1)
    ]
    return sum(halves) / 2


def _ridge_accuracy(x: Tensor, y: Tensor, other_x: Tensor, other_y: Tensor) -> float:
    """Mean over classes of the share of tokens named rightly; classes weigh the same in the fit."""
    if not len(y) or not len(other_y):
        return 0.0

    def scale(t):
        return torch.nn.functional.pad(
            (t - x.mean(0)) / (x.std(0, correction=0) + 1e-6), (0, 1), value=1.0
        )

    wanted = torch.nn.functional.one_hot(y, int(max(y.max(), other_y.max())) + 1).double()
    weight = (1 / wanted.sum(0).clamp(min=1))[y, None]
    a = scale(x)
    normal = a.T @ (a * weight)
    ridge = 1e-2 * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    predicted = (
        scale(other_x) @ torch.linalg.solve(normal + ridge, a.T @ (wanted * weight))
    ).argmax(1)
    shares = [(predicted[other_y == k] == k).double().mean() for k in other_y.unique()]
    return float(sum(shares) / len(shares))


def k_means(points: Tensor, k: int, rounds: int = 10) -> Tensor:
    """Cluster [n] of points [n, d]; starts from the farthest of the mean, then of those chosen."""
    centres = points[(points - points.mean(0)).norm(dim=1).argmax()][None]
    while len(centres) < k:
        centres = torch.cat([centres, points[torch.cdist(points, centres).amin(1).argmax()][None]])
    for _ in range(rounds):
        cluster = torch.cdist(points, centres).argmin(1)
        member = torch.nn.functional.one_hot(cluster, k).to(points.dtype)
        centres = torch.where(
            member.sum(0)[:, None] > 0,
            member.T @ points / member.sum(0)[:, None].clamp(min=1),
            centres,
        )
    return cluster


def token_share(mask: Tensor, stride: int) -> Tensor:
    """[H, W] bool -> [h, w] share of each token's pixels inside."""
    return torch.nn.functional.avg_pool2d(mask[None, None].float(), stride, ceil_mode=True)[0, 0]
