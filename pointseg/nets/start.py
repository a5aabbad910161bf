"""What a method starts from: random weights, the shipped backbone, a file, or the first stage of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pointseg.nets.roi_heads import DecoderTrunk
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.nets.weights import SHIPPED, load_backbone, read_backbone, read_weights
from pointseg.structures import InputError


def starting_backbone(config: ViTConfig, weights: str) -> TokenViT:
    """The ViT of a config; "shipped" takes shape and weights of the backbone in the package, "" is random."""
    if weights == "shipped":
        return read_backbone(SHIPPED, queries=config.queries, anchored=config.anchored)
    vit = TokenViT(config)
    if weights:
        print(load_backbone(vit, weights))
    return vit


def start_heads(detector: nn.Module, weights: str) -> None:
    """The decoder in an MAE file into every head made of decoder blocks, where their widths agree. [AS Sec. 4]"""
    trunks = [each for each in detector.modules() if isinstance(each, DecoderTrunk)]
    if not trunks or not Path(weights).is_file():
        return
    stored = read_weights(Path(weights))
    taken = sum(len(trunk.take(stored)) for trunk in trunks)
    print(f"{weights}: {taken} tensors of the decoder start {len(trunks)} heads")


def load_first_stage(method: nn.Module, path: Path, parts: Sequence[str]) -> None:
    """Loads the named parts of a method from a saved model; complains in one line if their widths differ."""
    stored, own = stored_weights(path), method.state_dict()
    wanted = [name for name in own if name.startswith(tuple(f"{part}." for part in parts))]
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise InputError(f"{path}: no first stage of this method, it has no {missing[0]}")
    for name in wanted:
        if stored[name].shape != own[name].shape:
            raise InputError(
                f"{path}: {name} is {list(stored[name].shape)}, this network's is {list(own[name].shape)}"
            )
    method.load_state_dict({name: stored[name] for name in wanted}, strict=False)


def stored_weights(path: Path) -> dict[str, Tensor]:
    """Weights by name of a model saved by training."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return dict(content["weights"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (
        Exception
    ) as error:  # whatever the bytes of a foreign file make the unpickler stumble over
        raise InputError(f"{path}: no saved model ({type(error).__name__})") from None
