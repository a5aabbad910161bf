"""A memory as an untrained encoder gives it, without images."""

import torch
import torch.nn.functional as F

from pointseg.nets.deformable_encoder import ConvNeck, Memory


def drawn_memory(seed: int, width: int, images: int = 2, side: int = 16, padding=None) -> Memory:
    """Three levels of `side`, side / 2, side / 4 cells, smooth as those of images."""
    torch.manual_seed(seed)
    coarse = torch.randn(images, width, 6, 6)
    maps = [
        F.interpolate(coarse, size=(side >> k,) * 2, mode="bilinear", align_corners=False)
        for k in range(3)
    ]
    return ConvNeck([width] * 3, width, 3)(maps, padding)
