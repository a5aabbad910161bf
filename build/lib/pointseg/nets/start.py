"""What a method starts from: random weights, the shipped backbone, a file, or a first stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from pointseg.nets.roi_heads import DecoderTrunk
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.nets.weights import (
    SHIPPED,
    check_weights,
    load_backbone,
    read_backbone,
    read_weights,
    refuse_unsound,
)
from pointseg.structures import InputError


def starting_backbone(config: ViTConfig, weights: str | None) -> TokenViT:
    """The ViT of a config; "shipped" gives shape and weights of the backbone in the package."""
    if weights == "shipped":
        return read_backbone(SHIPPED, queries=config.queries, anchored=config.anchored)
    vit = TokenViT(config)
    if weights is not None:
        print(load_backbone(vit, weights))
    return vit


def start_heads(detector: nn.Module, weights: str) -> None:
    """The decoder in an MAE file starts every head made of decoder blocks, where their widths
    agree. [AS Sec. 4]"""
    trunks = [each for each in detector.modules() if isinstance(each, DecoderTrunk)]
    if not trunks or not Path(weights).is_file():
        return
    stored = read_weights(Path(weights))
    known = ("decoder_", "norm.")
    refuse_unsound(weights, {n: v for n, v in stored.items() if n.startswith(known)})
    count = sum(len(trunk.take(stored)) for trunk in trunks)
    print(f"{weights}: {count} tensors of the decoder start {len(trunks)} heads")


def load_first_stage(method: nn.Module, path: Path, parts: Sequence[str]) -> None:
    """Gives the named parts of a method the weights that they have in a saved model; the part ""
    is the whole."""
    stored, state = read_weights(path), method.state_dict()
    prefixes = tuple(f"{part}." if part else "" for part in parts)
    names = [name for name in state if name.startswith(prefixes)]
    missing = [name for name in names if name not in stored]
    if missing:
        raise InputError(f"{path}: no first stage of this method, it has no {missing[0]}")
    check_weights(path, stored, state, names)
    method.load_state_dict({name: stored[name] for name in names}, strict=False)
