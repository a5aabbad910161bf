"""Maps at several strides: a simple pyramid on a plain ViT's last map, and timm's hierarchical backbones."""

from __future__ import annotations

from collections.abc import Sequence

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from pointseg.nets.stem import ChannelNorm
from pointseg.nets.vit import IMAGENET_MEAN, IMAGENET_STD
from pointseg.structures import InputError


class SimplePyramid(nn.Module):
    """One map [b, D, h, w] -> maps of `width` channels at 4, 2, 1 and 1/2 times its size, finest first (ViTDet)."""

    def __init__(self, dim: int, width: int = 256, scales: Sequence[float] = (4, 2, 1, 0.5)):
        super().__init__()
        self.scales = tuple(scales)
        self.levels = nn.ModuleList(_level(dim, width, scale) for scale in scales)

    def forward(self, features: Tensor) -> list[Tensor]:
        return [level(features) for level in self.levels]


def _level(dim: int, width: int, scale: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    if scale == 0.5:
        layers = [nn.MaxPool2d(2, ceil_mode=True)]
    while scale > 1:
        layers += [nn.ConvTranspose2d(dim, dim // 2, 2, stride=2)]
        dim, scale = dim // 2, scale / 2
        layers += [ChannelNorm(dim), nn.GELU()] if scale > 1 else []
    layers += [nn.Conv2d(dim, width, 1, bias=False), ChannelNorm(width)]
    return nn.Sequential(
        *layers, nn.Conv2d(width, width, 3, padding=1, bias=False), ChannelNorm(width)
    )


class TimmPyramid(nn.Module):
    """Images 0..1 -> maps of a timm backbone (ResNet-50/101, Swin-L ...) at strides 4, 8, 16, 32; pads to 32."""

    def __init__(
        self, name: str, pretrained: bool = False, levels: Sequence[int] = (-4, -3, -2, -1)
    ):
        super().__init__()
        if name not in timm.list_models():
            raise InputError(f"{name}: no backbone of that name in timm {timm.__version__}")
        sized = (
            {"strict_img_size": False} if name.startswith("swin") else {}
        )  # windows follow the picture
        self.body = timm.create_model(name, pretrained=pretrained, features_only=True, **sized)
        self.channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith(
            "NHWC"
        )  # Swin's maps
        info = self.body.feature_info
        self.levels = [level % len(info) for level in levels]
        self.channels = [info.channels()[level] for level in self.levels]
        self.strides = [info.reduction()[level] for level in self.levels]
        settings = self.body.pretrained_cfg
        for key, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            values = torch.tensor(settings.get(key) or default).view(1, 3, 1, 1)
            self.register_buffer(key, values, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[b, 3, H, W] -> [b, C, ceil(H / s), ceil(W / s)] for each stride s."""
        h, w = images.shape[-2:]
        maps = self.body(pad((images - self.mean) / self.std, (0, -w % 32, 0, -h % 32)))
        if self.channels_last:
            maps = [features.permute(0, 3, 1, 2) for features in maps]
        picked = [maps[level] for level in self.levels]
        return [m[..., : -(-h // s), : -(-w // s)] for m, s in zip(picked, self.strides)]
