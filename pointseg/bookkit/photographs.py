"""Photographs that pages may show, of scikit-image's wheel, and what ImageNet's features see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pointseg.papers.attentionshift.config import CONFIGS
from pointseg.papers.attentionshift.frozen import STRIDE, FrozenLabeller
from pointseg.structures import Batch, InputError, Points

LONG_SIDE = 320


@dataclass(frozen=True)
class Photograph:
    """One of scikit-image's, and a click on what it shows."""

    name: str  # of the function in skimage.data
    shown: str
    licence: str
    click: tuple[float, float]  # x and y as shares of the width and the height

    def image(self) -> Tensor:
        """[3, h, w] in 0..1, its longer side as at scale photos."""
        from skimage import data

        array = getattr(data, self.name)()
        colour = array if array.ndim == 3 else np.repeat(array[..., None], 3, -1)
        image = torch.from_numpy(np.ascontiguousarray(colour[..., :3])).permute(2, 0, 1) / 255.0
        factor = LONG_SIDE / max(image.shape[1:])
        size = [round(side * factor) for side in image.shape[1:]]
        return torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[
            0
        ].clamp(0, 1)

    def marked(self) -> Batch:
        """A batch of the image alone, with the click as the point of one object."""
        image = self.image()
        h, w = image.shape[1:]
        xy = torch.tensor([[self.click[0] * w, self.click[1] * h]])
        one = torch.zeros(1, dtype=torch.int64)
        points = Points(xy, one, one + 1, one == 0)
        return Batch(image[None], [(h, w)], [self.name], [points])


# the wheel's motorcycle states no licence
PHOTOGRAPHS = (
    Photograph("chelsea", "Chelsea the cat", "CC0, Stefan van der Walt", (0.47, 0.33)),
    Photograph("astronaut", "Eileen Collins", "public domain, NASA", (0.43, 0.22)),
    Photograph("coffee", "a cup of coffee", "CC0, Rachel Michetti", (0.5, 0.52)),
    Photograph("rocket", "a Falcon 9", "public domain, SpaceX", (0.5, 0.55)),
    Photograph("coins", "Greek coins", "no known restrictions, Brooklyn Museum",
               (0.12, 0.2)),
    Photograph("immunohistochemistry", "stained tissue", "no known restrictions, CMM",
               (0.3, 0.3)),
)  # fmt: skip


def frozen_labeller() -> tuple[FrozenLabeller | None, str]:
    """AttentionShift's label path on ImageNet's features; without their package None and why."""
    try:
        return FrozenLabeller(CONFIGS["photos"]).eval(), ""
    except InputError as absent:
        return None, str(absent)


def feature_map(labeller: FrozenLabeller, image: Tensor) -> Tensor:
    """[h, w, D] tokens of one image [3, H, W]."""
    return labeller.tokens(image[None], [tuple(image.shape[1:])])[0]


def principal_colours(tokens: Tensor) -> np.ndarray:
    """[h, w, 3] in 0..1: the three directions in which tokens [h, w, D] differ most, as colours."""
    flat = tokens.flatten(0, 1)
    flat = flat - flat.mean(0)
    _, _, axes = torch.linalg.svd(flat, full_matrices=False)
    parts = flat @ axes[:3].T
    low, high = parts.quantile(0.02, dim=0), parts.quantile(0.98, dim=0)
    return ((parts - low) / (high - low)).clamp(0, 1).unflatten(0, tokens.shape[:2]).numpy()


def likeness(tokens: Tensor, xy: Tensor) -> Tensor:
    """[h, w] cosine of every token [h, w, D] with the one under a pixel (x, y)."""
    column, row = (xy / STRIDE).long().tolist()
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    return unit @ unit[row, column]
