"""Weights of backbones: read from timm's hub at the user's site or from a local file, written as safetensors."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.structures import InputError

SHIPPED = Path(__file__).parent.parent / "weights" / "bestiary_mae_vit.safetensors"
OURS = ("query_tokens", "query_positions")  # never part of a pretrained file
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class LoadReport:
    """Which keys found each other. `decoder` holds what an MAE file has beside its encoder."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    decoder: Weights

    def __str__(self) -> str:
        lists = [
            ("loaded", self.loaded),
            ("missing", self.missing),
            ("unexpected", self.unexpected),
        ]
        named = [
            f"{len(keys)} {name}{_first(keys) if name != 'loaded' else ''}" for name, keys in lists
        ]
        return f"{self.source}: {', '.join(named)}, {len(self.decoder)} of a decoder"


def _first(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
    return f" ({shown})" if keys else ""


def load_backbone(vit: TokenViT, source: str | Path) -> LoadReport:
    """Loads a .safetensors or .pth file, or with source "timm" (or timm's name of a model) pretrained weights.

    A ViT-S MAE, which AttentionShift-S starts from [AS Sec. 5.1], is in no public hub: pretrain one
    (`pointseg pretrain mae`) or give a local file.
    """
    source = str(source)
    if source == "timm" or (
        source.split(".")[0] in timm.list_models() and not Path(source).exists()
    ):
        name = vit.config.name if source == "timm" else source
        weights = _hub_weights(name)
    else:
        weights = read_weights(Path(source))
    return fit_weights(vit, weights, source)


def _hub_weights(name: str) -> Weights:
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except (RuntimeError, OSError) as error:  # no such tag, no network
        raise InputError(
            f"{name}: timm has no pretrained weights to give ({_cause(error)})"
        ) from None


def read_weights(path: Path) -> Weights:
    """Tensors of a file by name; nothing in it is ever executed."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise InputError(f"{path}: not readable as weights ({_cause(error)})") from None
    for name in ("model", "state_dict"):  # facebookresearch/mae wraps its weights in "model"
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not any(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise InputError(f"{path}: holds no table of tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _cause(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def fit_weights(vit: TokenViT, weights: Weights, source: str) -> LoadReport:
    """Maps names (bare as facebookresearch/mae and timm, or ours), resamples positions, checks shapes, loads."""
    decoder = {
        name: value
        for name, value in weights.items()
        if name.startswith(("decoder_", "mask_token"))
    }
    named = {_our_name(name): value for name, value in weights.items() if name not in decoder}
    own = vit.state_dict()
    _match_positions(vit, named)
    for name in sorted(named.keys() & own.keys()):
        if named[name].shape != own[name].shape:
            found, wanted = (list(t.shape) for t in (named[name], own[name]))
            raise InputError(
                f"{source}: {name} is {found} in the file and {wanted} in {vit.config.name}"
            )
    loaded = sorted(named.keys() & own.keys())
    if not loaded:
        raise InputError(f"{source}: no key fits {vit.config.name}")
    vit.load_state_dict({name: named[name].float() for name in loaded}, strict=False)
    missing = tuple(sorted(own.keys() - named.keys() - set(OURS)))
    return LoadReport(
        source, tuple(loaded), missing, tuple(sorted(named.keys() - own.keys())), decoder
    )


def _our_name(name: str) -> str:
    name = name.removeprefix("module.").removeprefix("backbone.").removeprefix("encoder.")
    return name if name.startswith(("body.", *OURS)) else f"body.{name}"


def _match_positions(vit: TokenViT, named: Weights) -> None:
    """Learned positions of another grid, with or without those of prefix tokens, are resampled to ours."""
    positions, own = named.get("body.pos_embed"), getattr(vit.body, "pos_embed", None)
    if (
        positions is None
        or own is None
        or positions.shape == own.shape
        or positions.shape[-1] != own.shape[-1]
    ):
        return
    prefix = 0 if vit.body.no_embed_class else vit.body.num_prefix_tokens
    side = round((positions.shape[1] - prefix) ** 0.5)
    if side * side == positions.shape[1] - prefix:
        named["body.pos_embed"] = resample_abs_pos_embed(
            positions.float(),
            vit.body.patch_embed.grid_size,
            (side, side),
            num_prefix_tokens=prefix,
        )


def save_backbone(vit: TokenViT, path: Path) -> Path:
    """Half-precision safetensors with the network's description; query tokens stay out."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        k: v.detach().cpu().half().contiguous()
        for k, v in vit.state_dict().items()
        if k not in OURS
    }
    described = asdict(replace(vit.config, queries=0, anchored=False))
    part = path.with_suffix(".part")
    save_file(weights, part, metadata={"vit": json.dumps(described)})
    part.chmod(0o644)
    part.replace(path)
    return path


def read_backbone(path: Path = SHIPPED, **overrides) -> TokenViT:
    """The network a file written by `save_backbone` describes, with its weights; `overrides` as queries=12."""
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {})["vit"])
        vit = TokenViT(ViTConfig(**described), **overrides)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a backbone of ours ({_cause(error)})") from None
    load_backbone(vit, path)
    return vit
