"""Flip, resize and colour on a whole sample. Points move as coordinates, so resizing cannot lose
one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as TF

from pointseg.structures import Points, Sample, Truth

PAPER_SHORT_SIDES = tuple(
    range(480, 801, 32)
)  # UNSTATED [AS Sec. 5.1]: the official release's list
PAPER_LONG_SIDE = 1333  # the same list; Point2Mask's release uses both on COCO, too


@dataclass(frozen=True)
class Augment:
    """Callable (sample, generator) -> sample; equal generators give equal samples."""

    flip: float = 0.5  # chance of a mirror image [AS Sec. 5.1]
    short_sides: tuple[int, ...] = ()  # one is drawn; empty: the size stays
    long_side: int | None = None  # cap on the longer side after resizing
    brightness: float = 0.0  # factors are drawn from 1 - value .. 1 + value
    contrast: float = 0.0
    saturation: float = 0.0

    def __call__(self, sample: Sample, rng: Generator) -> Sample:
        # always five draws: switching one effect on does not change the others
        mirror, scale, *colour = rng.random(5).tolist()
        if self.short_sides or self.long_side:
            sample = resize(sample, self.new_size(sample.size, scale))
        if mirror < self.flip:
            sample = flip(sample)
        spread = (self.brightness, self.contrast, self.saturation)
        return recolour(sample, [1 + s * (2 * draw - 1) for s, draw in zip(spread, colour)])

    def new_size(self, size: tuple[int, int], draw: float) -> tuple[int, int]:
        """(h, w) after resizing: drawn short side, ratio kept, long side capped."""
        short, long = min(size), max(size)
        sides = self.short_sides or (short,)
        factor = sides[int(draw * len(sides))] / short
        if self.long_side:
            factor = min(factor, self.long_side / long)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    width = sample.size[1]
    points = None if sample.points is None else _flip_points(sample.points, width)
    truth = None if sample.truth is None else _on_maps(sample.truth, lambda maps: maps.flip(-1))
    return replace(sample, image=sample.image.flip(-1), points=points, truth=truth)


def _flip_points(points: Points, width: int) -> Points:
    x, y = points.xy.unbind(1)
    # a point on a pixel's left edge would land on the next pixel's left edge: keep it inside its
    # own
    inside = _just_below(width - x.floor())
    return replace(points, xy=torch.stack([torch.minimum(width - x, inside), y], dim=1))


def resize(sample: Sample, size: tuple[int, int]) -> Sample:
    """Image bilinear with anti-aliasing, maps by the nearest pixel centre, points by the same
    scale."""
    if size == sample.size:
        return sample
    image = _bilinear(sample.image, size)
    points = None if sample.points is None else _scale_points(sample.points, sample.size, size)
    truth = (
        None if sample.truth is None else _on_maps(sample.truth, lambda maps: _nearest(maps, size))
    )
    return replace(sample, image=image, points=points, truth=truth)


def _bilinear(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, h, w] to [3, h', w'], anti-aliased."""
    if 1 in (*image.shape[-2:], *size):  # torch 2.14's kernel for bytes fails on sides of one pixel
        return (
            TF.resize(image.float(), list(size), antialias=True)
            .round()
            .clamp(0, 255)
            .to(torch.uint8)
        )
    return TF.resize(image, list(size), antialias=True)


def _scale_points(points: Points, old: tuple[int, int], new: tuple[int, int]) -> Points:
    factor = torch.tensor([new[1] / old[1], new[0] / old[0]], dtype=torch.float32)
    edge = _just_below(torch.tensor([new[1], new[0]], dtype=torch.float32))
    return replace(points, xy=torch.minimum(points.xy * factor, edge))


def _just_below(values: Tensor) -> Tensor:
    return torch.nextafter(values, torch.full_like(values, -1.0))


def _nearest(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """[n, h, w] bool or uint8 to [n, h', w']."""
    if not len(maps):
        return maps.new_zeros(0, *size)
    as_bytes = maps.to(torch.uint8)[None]
    return F.interpolate(as_bytes, size=size, mode="nearest-exact")[0].to(maps.dtype)


def _on_maps(truth: Truth, change) -> Truth:
    parts = None if truth.parts is None else change(truth.parts[None])[0]
    return replace(truth, masks=change(truth.masks), void=change(truth.void[None])[0], parts=parts)


def recolour(sample: Sample, factors: list[float]) -> Sample:
    """Brightness, contrast and saturation factors, in this order; 1 leaves the image as it is."""
    image = sample.image
    steps = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)
    for adjust, factor in zip(steps, factors):
        image = image if factor == 1 else adjust(image, factor)
    return replace(sample, image=image)
