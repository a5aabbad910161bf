"""Feature levels for a detector, made of the one-scale maps of a plain ViT."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import LayerNorm2d
from torch import Tensor, nn


class TokenLevels(nn.Module):
    """One level a scale: the map of a chosen block enlarged (scale 4, 2), kept (1) or shrunk (1/2,
    1/4).

    UNSTATED [AS Sec. 4]: deconvolutions and pooling on single blocks, the official code's way to a
    pyramid.
    """

    def __init__(self, width: int, channels: int, blocks: Sequence[int], scales: Sequence[float]):
        super().__init__()
        self.blocks, self.scales = tuple(blocks), tuple(scales)
        self.levels = nn.ModuleList(_level(width, channels, scale) for scale in scales)

    def forward(self, features: dict[int, Tensor]) -> list[Tensor]:
        """Maps [b, D, h, w] by block index to levels [b, channels, scale h, scale w], finest
        first."""
        return [level(features[block]) for block, level in zip(self.blocks, self.levels)]


def _level(width: int, channels: int, scale: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    if scale < 1:
        layers.append(nn.MaxPool2d(int(1 / scale)))
    while scale > 1:
        layers += [nn.ConvTranspose2d(width, channels, 2, 2), LayerNorm2d(channels), nn.GELU()]
        width, scale = channels, scale / 2
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 1), LayerNorm2d(channels),
                         nn.Conv2d(channels, channels, 3, padding=1), LayerNorm2d(channels),
                         )  # fmt: skip
