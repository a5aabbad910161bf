"""A small convolutional backbone with a feature pyramid, for dense maps at small scale."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from pointseg.nets.vit import IMAGENET_MEAN, IMAGENET_STD


class ConvBackbone(nn.Module):
    """Images 0..1 -> maps of one width at some of the strides 4, 8, 16 and 32, finest first."""

    def __init__(self, width: int = 64, strides: Sequence[int] = (8, 16, 32), blocks: int = 2):
        super().__init__()
        self.strides, self.width = tuple(strides), width
        levels = {4: width // 2, 8: width, 16: 2 * width, 32: 2 * width}
        deepest = max(self.strides)
        inward = [width // 2, *(levels[s] for s in levels if s < deepest)]
        outward = [levels[s] for s in levels if s <= deepest]
        self.stem = _convolve(3, width // 2, stride=2)
        self.stages = nn.ModuleList(_stage(a, b, blocks) for a, b in zip(inward, outward))
        self.lateral = nn.ModuleList(nn.Conv2d(b, width, 1) for b in outward)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in outward)

    def forward(self, images: Tensor) -> list[Tensor]:
        """[b, 3, H, W] -> [b, width, ceil(H / s), ceil(W / s)] for each stride s."""
        h, w = images.shape[-2:]
        mean, std = (images.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        maps, x = [], self.stem(pad((images - mean) / std, (0, -w % 32, 0, -h % 32)))
        for stage in self.stages:
            maps.append(x := stage(x))
        maps = self._top_down([lateral(m) for lateral, m in zip(self.lateral, maps)])
        every = {4 << level: smooth(m) for level, (smooth, m) in enumerate(zip(self.smooth, maps))}
        return [every[s][..., : -(-h // s), : -(-w // s)] for s in self.strides]

    def _top_down(self, maps: list[Tensor]) -> list[Tensor]:
        for level in range(len(maps) - 2, -1, -1):
            coarser = interpolate(maps[level + 1], scale_factor=2.0, mode="nearest")
            maps[level] = maps[level] + coarser
        return maps


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _convolve(width, width)
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(8, width)
        )
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.second(self.first(x)))


def _convolve(inward: int, outward: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inward, outward, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(8, outward), nn.GELU())


def _stage(inward: int, outward: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        _convolve(inward, outward, stride=2), *(Residual(outward) for _ in range(blocks - 1))
    )
