"""One mask a crop: pixel features times the whole crop's feature, and a stem for small patches."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class MaskHeads(nn.Module):
    """A pixel head of four convolutions and a prototype head of two layers. [EXITS Sec. A]"""

    def __init__(self, width: int, inner: int, upscale_after: int = 2):
        """`upscale_after`: 2 as in the supplement; 3 is UNSTATED [MAL]: the release."""
        super().__init__()
        widths = [width, inner, inner, inner]
        self.convolutions = nn.ModuleList(nn.Conv2d(w, inner, 3, padding=1) for w in widths)
        self.prototype = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, inner))
        self.upscale_after = upscale_after

    def forward(self, features: Tensor) -> Tensor:
        """[n, 2h, 2w] logits F_pixel . F_proto of features [n, D, h, w]. [EXITS Eq. a1]

        UNSTATED [EXITS Sec. A]: no ReLU after either head's last layer.
        """
        prototype = self.prototype(features.mean((2, 3)))
        return (self.pixels(features) * prototype[:, :, None, None]).sum(1)

    def pixels(self, features: Tensor) -> Tensor:
        """[n, inner, 2h, 2w] F_pixel."""
        for index, convolution in enumerate(self.convolutions):
            if index == self.upscale_after:
                features = F.interpolate(features, scale_factor=2, mode="bilinear")
            features = convolution(features if index == 0 else features.relu())
        return features


class ConvStem(nn.Sequential):
    """Patches of 16 pixels by four convolutions of stride two and one that mixes channels.

    UNSTATED [EXITS Sec. A]: MAL's release; only with it the generator has the table's 93 million
    parameters.
    """

    def __init__(self, width: int, channels: int = 3):
        inner = [channels, width // 8, width // 4, width // 2, width]
        layers: list[nn.Module] = []
        for inward, outward in pairwise(inner):
            convolution = nn.Conv2d(inward, outward, 3, stride=2, padding=1, bias=False)
            layers += [convolution, nn.GroupNorm(1, outward), nn.GELU()]
        super().__init__(*layers, nn.Conv2d(width, width, 1))
