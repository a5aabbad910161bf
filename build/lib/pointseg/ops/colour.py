"""CIE LAB colours and how alike neighbouring pixels look in them. [P2M-S Eq. 4]"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# sRGB to XYZ under D65 (IEC 61966-2-1), rows divided by the white point so that white is (1, 1, 1)
SRGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE = (0.950456, 1.0, 1.088754)


def rgb_to_lab(image: Tensor) -> Tensor:
    """sRGB in 0..1 [..., 3, h, w] -> LAB, L in 0..100."""
    image = image.float()
    linear = torch.where(
        image > 0.04045, ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, image / 12.92
    )
    matrix = (
        torch.tensor(SRGB_TO_XYZ, device=image.device)
        / torch.tensor(WHITE, device=image.device)[:, None]
    )
    xyz = torch.einsum("ij,...jhw->...ihw", matrix, linear)
    root = torch.where(
        xyz > 216 / 24389, xyz.clamp(min=1e-6) ** (1 / 3), xyz * (841 / 108) + 4 / 29
    )
    x, y, z = root.unbind(-3)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def window(radius: int, dilation: int) -> list[tuple[int, int]]:
    """Half of the offsets (dr, dc) of a (2 radius + 1) square window.

    The other half are the same pairs again.
    """
    reach = range(-radius * dilation, radius * dilation + 1, dilation)
    return [(r, c) for r in reach for c in reach if (r, c) > (0, 0)]


def pairs(plane: Tensor, offset: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Views of plane [..., h, w] at both ends of all pairs `offset` apart that lie inside."""
    (dr, dc), (h, w) = offset, plane.shape[-2:]
    dr, dc = max(min(dr, h), -h), max(min(dc, w), -w)
    first = plane[..., max(-dr, 0) : h - max(dr, 0), max(-dc, 0) : w - max(dc, 0)]
    second = plane[..., max(dr, 0) : h - max(-dr, 0), max(dc, 0) : w - max(-dc, 0)]
    return first, second


def colour_similarity(first: Tensor, second: Tensor, theta: float = 2.0) -> Tensor:
    """exp(-||r_i - r_j|| / theta) of LAB colours [..., 3, h, w]. [P2M-S Eq. 4]"""
    return torch.exp(-(first - second).square().sum(-3).sqrt() / theta)


def alike(lab: Tensor, offset: tuple[int, int], tau: float = 0.3, theta: float = 2.0) -> Tensor:
    """[..., h', w'] bool: which pairs `offset` apart look alike. tau, theta: [P2M-S Eq. 5]"""
    return colour_similarity(*pairs(lab, offset), theta) >= tau


def shrunken(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """Image [b, 3, H, W] on a coarser grid, bilinear without anti-aliasing, as the releases do."""
    return F.interpolate(image.float(), size=grid, mode="bilinear", align_corners=False)


def colour_edges(image: Tensor, grid: tuple[int, int]) -> Tensor:
    """[h, w] in 0..1: squared Sobel responses in LAB of an RGB image [3, H, W], on a grid.

    UNSTATED [PSPS]: mean over channels as in the official code, with the frame repeated instead of
    zeros, so that it is no edge.
    """
    lab = rgb_to_lab(shrunken(image[None], grid))
    across = lab.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    kernels = torch.stack([across, across.T])[:, None]
    responses = F.conv2d(F.pad(lab.transpose(0, 1), (1, 1, 1, 1), mode="replicate"), kernels)
    strength = responses.square().mean(dim=(0, 1))
    return strength / strength.max().clamp(min=1e-12)
