"""A backbone that learns nothing, and so looks at an image once."""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

from pointseg.nets.timm_backbone import TimmBackbone

MOST = 8192  # images whose maps are kept in this process; half a gigabyte at scale photos
_kept: dict[tuple, list[Tensor]] = {}  # (weights, image, its shape) -> its maps


class FrozenBackbone(TimmBackbone):
    """Maps of a timm network as it starts; all networks of equal weights keep them together."""

    def __init__(self, name: str, strides: tuple[int, ...], weights: str | None = None):
        super().__init__(name, strides, weights)
        self.requires_grad_(False)
        self._versions, self._digest = [], b""
        self.train()

    def train(self, mode: bool = True) -> FrozenBackbone:
        """It stays as it is judged: no norm counts, nothing is dropped."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """One map [b, C, h, w] a stride of images [b, 3, H, W] in 0..1.

        One by one, so that an image's maps do not depend on its batch.
        """
        of_weights = self.digest()
        each = [self._maps(image, of_weights) for image in images]
        return [torch.cat(of_stride).to(images.device) for of_stride in zip(*each)]

    def _maps(self, image: Tensor, of_weights: bytes) -> list[Tensor]:
        pixels = image.cpu().contiguous().numpy()
        key = of_weights, blake2b(pixels.data).digest(), pixels.shape
        if key in _kept:
            return _kept[key]
        maps = [m.contiguous().cpu() for m in super().forward(image[None])]
        if len(_kept) < MOST:
            _kept[key] = maps
        return maps

    def digest(self) -> bytes:
        """Of the weights and of the maps that are read, made again where a weight was written."""
        state = self.body.state_dict().values()
        versions = [value._version for value in state]
        if versions != self._versions:
            digest = blake2b(repr(self.body.feature_info.module_name()).encode())
            for value in state:
                digest.update(value.cpu().contiguous().numpy().data)
            self._versions, self._digest = versions, digest.digest()
        return self._digest
