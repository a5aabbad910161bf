"""Object crops: square views, each around one object, that know image, target and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST_MARGIN = 1.2  # of the half side, in training; UNSTATED [MAL]: the release
FIXED_MARGIN = 0.3  # of the half side, when labelling; UNSTATED [MAL]: the release


@dataclass(frozen=True)
class Crops:
    """n views of s x s pixels; a window may reach beyond its image."""

    window: Tensor  # [n, 4] xyxy in pixels of the image
    box: Tensor  # [n, 4] xyxy of the object in pixels of the crop
    image: Tensor  # [n] row of the batch
    target: Tensor  # [n] row of the objects that the crops were asked for
    side: int

    def __len__(self) -> int:
        return len(self.window)

    def to_crop(self, xy: Tensor) -> Tensor:
        """[n, k, 2] image coordinates in pixels of the crop."""
        low, span = self.window[:, None, :2], self.window[:, None, 2:] - self.window[:, None, :2]
        return (xy - low) / span * self.side

    def to_image(self, xy: Tensor) -> Tensor:
        """[n, k, 2] crop coordinates in pixels of the image: the way back."""
        low, span = self.window[:, None, :2], self.window[:, None, 2:] - self.window[:, None, :2]
        return xy / self.side * span + low

    def box_map(self, size: int) -> Tensor:
        """[n, size, size] bool: cells whose centre lies in the object's box."""
        centre = (torch.arange(size, device=self.box.device) + 0.5) * (self.side / size)
        low, high = self.box[:, None, :2], self.box[:, None, 2:]
        within = (centre[:, None] >= low) & (centre[:, None] < high)  # [n, size, (x, y)]
        return within[:, :, None, 1] & within[:, None, :, 0]


def crops_of(boxes: Tensor, image: Tensor, margins: Tensor, side: int) -> Crops:
    """Crops around boxes [n, 4], grown by margins [n, 4] of the half side.

    Margins are (left, top, right, bottom). A box thinner than a pixel grows to one pixel.
    UNSTATED [EXITS Sec. A]: the shape is not kept, as in MAL's release.
    """
    low, high = boxes[:, :2], torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    half = (high - low) / 2
    window = torch.cat([low - margins[:, :2] * half, high + margins[:, 2:] * half], 1)
    scale = side / (window[:, 2:] - window[:, :2])
    inner = torch.cat([(low - window[:, :2]) * scale, (high - window[:, :2]) * scale], 1)
    return Crops(window, inner, image, torch.arange(len(boxes), device=boxes.device), side)


def fixed_margins(boxes: Tensor) -> Tensor:
    """[n, 4] the margins of labelling for boxes [n, 4]."""
    return torch.full_like(boxes, FIXED_MARGIN)


def random_margins(uniform: Tensor) -> Tensor:
    """[n, 4] margins of training from numbers [n, 6] drawn evenly from 0..1.

    A gate an axis shares the growth between its two sides. UNSTATED [MAL]: the release; the paper
    tells of four independent factors.
    """
    gate = torch.cat([uniform[:, 4:], 1 - uniform[:, 4:]], 1)
    return LARGEST_MARGIN * uniform[:, :4] * gate


def crop_images(
    crops: Crops, images: Tensor, sizes: list[tuple[int, int]], samples: int = 2
) -> Tensor:
    """[n, c, s, s] views of images [b, c, H, W], each pixel the mean of `samples` reads a side.

    Beyond the border stands what lies at the opposite side of the image: a flat margin would
    mislead the colour terms. UNSTATED [MAL]: the release.
    """
    size = torch.tensor(sizes, device=images.device)[crops.image].flip(1)  # [n, (w, h)]
    step = (torch.arange(crops.side * samples, device=images.device) + 0.5) / samples
    xy = crops.to_image(step[None, :, None].expand(len(crops), -1, 2)) - 0.5
    first = xy.floor().long()
    share = (xy - first).to(images.dtype)
    columns, rows = (torch.stack([first, first + 1]) % size[:, None]).unbind(-1)
    channels_last, row = images.permute(0, 2, 3, 1), crops.image[:, None, None]
    wy, wx = share[:, :, None, 1:], share[:, None, :, :1]
    upper, lower = (
        torch.lerp(*(channels_last[row, y[:, :, None], x[:, None]] for x in columns), wx)
        for y in rows
    )
    return F.avg_pool2d(torch.lerp(upper, lower, wy).permute(0, 3, 1, 2), samples)


def paste_crops(prob: Tensor, crops: Crops, size: tuple[int, int]) -> Tensor:
    """[n, h, w] probabilities of crops [n, s, s] at the pixels of images of one size.

    They are 0 beyond a crop's window.
    """
    h, w = size
    low, span = crops.window[:, :2], crops.window[:, 2:] - crops.window[:, :2]
    axes = [torch.arange(n, device=prob.device) + 0.5 for n in (w, h)]
    x, y = (((a - low[:, k, None]) / span[:, k, None]) * 2 - 1 for k, a in enumerate(axes))
    grid = torch.stack([x[:, None].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)], -1)
    read = F.grid_sample(prob[:, None], grid, align_corners=False, padding_mode="border")[:, 0]
    inside = (grid.abs() <= 1).all(-1)
    return read * inside
