"""Weights of backbones: read from timm's hub or from a local file, written as safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from pointseg.data.files import refuse_special, write_bytes
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.structures import InputError

SHIPPED = Path(__file__).parent.parent / "weights" / "bestiary_mae_vit.safetensors"
OURS = ("query_tokens", "query_positions")  # never part of a pretrained file
MOST_BYTES = 2**34
UNREADABLE = "not readable as weights"
CODE = "pickled code or no tensors; nothing but plain tensors is read"
DAMAGED = "damaged, cut short or of another kind"
WRAPPERS = ("model", "state_dict", "weights")  # of facebookresearch/mae, of others, of ours
Weights = dict[str, Tensor]
_REPLACED: ContextVar[bool] = ContextVar("replaced", default=False)


@contextmanager
def to_be_replaced() -> Iterator[None]:
    """Networks built inside read no weights to start from: a saved model brings all of theirs."""
    token = _REPLACED.set(True)
    try:
        yield
    finally:
        _REPLACED.reset(token)


def wanted(source: Path | str | None) -> bool:
    """Whether a network that is being built shall read weights from a source."""
    return source is not None and not _REPLACED.get()


@dataclass(frozen=True)
class LoadReport:
    """Which names agree. `decoder` holds what an MAE file has beside its encoder."""

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    decoder: Weights

    def __str__(self) -> str:
        loaded, missing = f"{len(self.loaded)} loaded", _counted(self.missing, "missing")
        rest = f"{_counted(self.unexpected, 'unexpected')}, {len(self.decoder)} of a decoder"
        return f"{self.source}: {loaded}, {missing}, {rest}"


def _counted(names: Sequence[str], what: str) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} {what}" + (f" ({shown})" if names else "")


def load_backbone(vit: TokenViT, source: str | Path) -> LoadReport:
    """Loads a .safetensors or .pth file, or the pretrained weights of timm's hub where the source
    is "timm" or timm's name of a model.

    A ViT-S MAE, which AttentionShift-S starts from [AS Sec. 5.1], is in no public hub: pretrain one
    (`pointseg pretrain mae`) or give a local file.
    """
    source = str(source)
    known = source.split(".")[0] in timm.list_models() and not Path(source).exists()
    if source == "timm" or known:
        weights = hub_weights(vit.config.name if source == "timm" else source)
    else:
        weights = read_weights(Path(source))
    return fit_weights(vit, weights, source)


def hub_weights(name: str) -> Weights:
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except (RuntimeError, OSError) as error:  # no such tag, no network
        cause = _cause(error)
        raise InputError(f"{name}: timm has no pretrained weights to give ({cause})") from None


def read_weights(path: Path) -> Weights:
    """Tensors of a file by name; nothing in it is ever executed."""
    content = load_plain(path)
    for name in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    values = content.items() if isinstance(content, dict) else ()
    named = (each for each in values if isinstance(each[0], str))
    weights = {name: value for name, value in named if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{path}: holds no table of tensors")
    return weights


def load_plain(path: Path) -> Any:
    """What a file of torch or of safetensors holds, on the CPU: plain tensors in plain tables, of
    no more values than the file has bytes for. Nothing in it is ever executed."""
    refuse_special(path, MOST_BYTES)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _refuse_packed(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        _refuse_stretched(content, set())
    except (InputError, OSError, UnpicklingError, RuntimeError) as error:
        pickled = isinstance(error, UnpicklingError)
        raise InputError(f"{path}: {UNREADABLE} ({CODE if pickled else _cause(error)})") from None
    except Exception:  # whatever the bytes of a foreign file make a reader stumble over
        raise InputError(f"{path}: {UNREADABLE} ({DAMAGED})") from None
    return content


def _refuse_packed(path: Path) -> None:
    """A zip file whose parts are packed may unfold to anything; torch packs none."""
    if is_zipfile(path):
        with ZipFile(path) as file:
            if any(part.compress_type != ZIP_STORED for part in file.infolist()):
                raise InputError("its parts are packed")


def _refuse_stretched(content: Any, known: set[int]) -> None:
    """A tensor of a kilobyte may say that it has a million rows."""
    if isinstance(content, Tensor):
        plain = content.layout is torch.strided and content.device.type == "cpu"
        if not plain or content.untyped_storage().nbytes() < content.nbytes:
            raise InputError("a tensor of more values than the file holds")
    if isinstance(content, dict | list | tuple) and id(content) not in known:
        known.add(id(content))
        for each in content.values() if isinstance(content, dict) else content:
            _refuse_stretched(each, known)


def _cause(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def fit_weights(vit: TokenViT, weights: Weights, source: str) -> LoadReport:
    """Names may be bare, as facebookresearch/mae's and timm's, or ours; positions are resampled."""
    decoder = {k: v for k, v in weights.items() if k.startswith(("decoder_", "mask_token"))}
    named = {_our_name(name): value for name, value in weights.items() if name not in decoder}
    state = vit.state_dict()
    _match_positions(vit, named)
    loaded = sorted(named.keys() & state.keys())
    if not loaded:
        raise InputError(f"{source}: no key fits {vit.config.name}")
    check_weights(source, named, state, loaded)
    vit.load_state_dict({name: named[name].float() for name in loaded}, strict=False)
    missing = tuple(sorted(state.keys() - named.keys() - set(OURS)))
    unexpected = tuple(sorted(named.keys() - state.keys()))
    return LoadReport(source, tuple(loaded), missing, unexpected, decoder)


def check_weights(
    source: str | Path, stored: Weights, wanted: Weights, names: Sequence[str]
) -> None:
    """Refuses tensors of another shape or kind than the network's, and those that are not all
    finite: any of them would predict without a word."""
    for name in names:
        shape, ours = getattr(stored[name], "shape", "no tensor"), wanted[name].shape
        if shape != ours:
            shape = list(shape) if isinstance(shape, torch.Size) else shape
            raise InputError(f"{source}: {name} is {shape}, this network's is {list(ours)}")
    floats = [name for name in names if wanted[name].is_floating_point()]
    refuse_unsound(source, {name: stored[name] for name in floats})


def refuse_unsound(source: str | Path, weights: Weights) -> None:
    for name, value in weights.items():
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise InputError(f"{source}: {name} is {kind}, not a floating-point number")
        if not torch.isfinite(value.float()).all():
            raise InputError(f"{source}: {name} holds values that are not finite")


def _our_name(name: str) -> str:
    name = name.removeprefix("module.").removeprefix("backbone.").removeprefix("encoder.")
    return name if name.startswith(("body.", *OURS)) else f"body.{name}"


def _match_positions(vit: TokenViT, named: Weights) -> None:
    """Learned positions of another grid, with or without those of prefix tokens, are resampled."""
    positions, ours = named.get("body.pos_embed"), getattr(vit.body, "pos_embed", None)
    if positions is None or ours is None or positions.shape == ours.shape:
        return
    if positions.ndim != ours.ndim or positions.shape[-1] != ours.shape[-1]:
        return
    refuse_unsound("positions", {"pos_embed": positions})
    prefix = 0 if vit.body.no_embed_class else vit.body.num_prefix_tokens
    side = round((positions.shape[1] - prefix) ** 0.5)
    if side * side == positions.shape[1] - prefix:
        grid = vit.body.patch_embed.grid_size
        named["body.pos_embed"] = resample_abs_pos_embed(
            positions.float(), grid, (side, side), num_prefix_tokens=prefix
        )


def save_backbone(vit: TokenViT, path: Path) -> Path:
    """Half-precision safetensors with the network's description; query tokens stay out."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in vit.state_dict().items() if name not in OURS}
    weights = {name: value.detach().cpu().half().contiguous() for name, value in kept.items()}
    described = asdict(replace(vit.config, queries=0, anchored=False))
    return write_bytes(path, save(weights, {"vit": json.dumps(described)}))


def read_backbone(path: Path = SHIPPED, **overrides) -> TokenViT:
    """The network of a file written by `save_backbone`; `overrides` of its config as queries=12."""
    refuse_special(path, MOST_BYTES)
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {})["vit"])
        vit = TokenViT(ViTConfig(**described), **overrides)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a backbone of ours ({_cause(error)})") from None
    if wanted(path):
        load_backbone(vit, path)
    return vit
