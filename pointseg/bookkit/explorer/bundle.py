"""A picture made ready for the explorer, small enough for a web page.

Features, queries and keys, truth.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pointseg.data.files import write_text
from pointseg.nets.attention import block_queries_keys
from pointseg.nets.vit import TokenViT, ViTOutput
from pointseg.structures import Category, Truth

LARGEST = 1_500_000  # bytes of one picture in a page
Record = dict[str, Any]


@torch.no_grad()
def make_bundle(
    vit: TokenViT,
    image: np.ndarray,
    title: str,
    truth: Truth | None = None,
    categories: Sequence[Category] = (),
    attention: bool = True,
) -> Record:
    """One picture uint8 [h, w, 3] as JSON; without `attention` its maps have to be asked for."""
    outputs = run(vit, image)
    height, width = image.shape[:2]
    tokens = outputs.tokens[0].float()
    record = {
        "title": title, "width": width, "height": height, "image": picture_url(image),
        "grid": list(outputs.grid), "stride": vit.stride, "dim": vit.dim,
        "prefix": outputs.trace.prefix,
        "blocks": vit.depth, "heads": vit.blocks[0].attn.num_heads,
        "features": halves(tokens), "plane": plane(tokens),
        "truth": None if truth is None else truth_record(truth, categories),
    }  # fmt: skip
    return record | (attention_record(vit, outputs) if attention else {})


def run(vit: TokenViT, image: np.ndarray) -> ViTOutput:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] / 255
    return vit.eval()(pixels.to(vit.mean.device), trace=True)


def attention_record(vit: TokenViT, outputs: ViTOutput) -> Record:
    """Queries and keys of every block, a byte a number and a scale for each head of each token."""
    pairs = [block_queries_keys(vit, outputs.trace, block) for block in range(vit.depth)]
    stacked = [torch.stack([pair[side][0].transpose(0, 1) for pair in pairs]) for side in (0, 1)]
    names = zip(("queries", "keys"), stacked)
    return {"size": stacked[0].shape[-1]} | {name: quantised(values) for name, values in names}


def quantised(values: Tensor) -> Record:
    """[..., d] to whole numbers -127..127 and one half-precision scale a row."""
    scale = (values.abs().amax(-1, keepdim=True).clamp(min=1e-4) / 127).half().float()
    whole = (values / scale).round().clamp(-127, 127).to(torch.int8)
    return {"values": text_of(whole.cpu().numpy()), "scales": halves(scale)}


def halves(values: Tensor) -> str:
    return text_of(values.detach().cpu().numpy().astype("<f2"))


def text_of(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def plane(tokens: Tensor) -> Record:
    """Mean and two main directions of tokens [N, D]: where the explorer's scatter plot lies."""
    mean = tokens.mean(0)
    axes = torch.linalg.svd((tokens - mean).double(), full_matrices=False)[2][:2]
    signs = axes.gather(
        1, axes.abs().argmax(1, keepdim=True)
    ).sign()  # a direction's sign is free: largest part > 0
    return {"mean": halves(mean), "axes": halves(axes * signs)}


def picture_url(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="WEBP", quality=92, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def truth_record(truth: Truth, categories: Sequence[Category]) -> Record:
    """Masks, parts and void as run lengths, row by row."""
    counted = (~truth.is_crowd).nonzero()[:, 0].tolist()
    objects = [
        {"label": int(truth.label[row]), "name": categories[int(truth.label[row])].name,
         "thing": bool(truth.is_thing[row]), "runs": runs(truth.masks[row])}
        for row in counted
    ]  # fmt: skip
    parts = None if truth.parts is None else runs(truth.parts)
    return {"objects": objects, "parts": parts, "void": runs(truth.void)}


def runs(values: Tensor) -> list[int]:
    """Value, length, value, length, ... of a flattened tensor of small whole numbers."""
    flat = values.cpu().numpy().astype(np.uint8).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    lengths = np.diff(np.append(starts, flat.size))
    return np.stack([flat[starts], lengths], 1).ravel().tolist()


@dataclass(frozen=True)
class Numbers:
    """What a browser reads out of a bundle, for those who want to compute the same in Python."""

    tokens: Tensor  # [N, D]
    queries: Tensor | None  # [blocks, heads, T, d]
    keys: Tensor | None
    prefix: int
    grid: tuple[int, int]
    stride: int


def read_numbers(record: Record) -> Numbers:
    def rows(entry: Record) -> Tensor:
        values = np.frombuffer(base64.b64decode(entry["values"]), np.int8).astype(np.float64)
        whole = values.reshape(record["blocks"], -1, record["heads"], record["size"])
        scales = _read_halves(entry["scales"]).reshape(*whole.shape[:3], 1)
        return torch.from_numpy(whole * scales).transpose(1, 2)

    tokens = torch.from_numpy(_read_halves(record["features"]).reshape(-1, record["dim"]))
    both = [rows(record[name]) if name in record else None for name in ("queries", "keys")]
    return Numbers(tokens, *both, record["prefix"], tuple(record["grid"]), record["stride"])


def _read_halves(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)


def write_script(record: Record, folder: Path, name: str) -> str:
    """FOLDER/NAME.js, which hands the picture to the page that asks for it.

    Pages from disk cannot fetch files.
    """
    text = f"pointsegReceive({json.dumps(name)}, {json.dumps(record, allow_nan=False)});\n"
    if len(text) > LARGEST:
        raise ValueError(
            f"{name}: {len(text)} bytes are too many for a page; take a smaller picture or network"
        )
    folder.mkdir(parents=True, exist_ok=True)
    return write_text(folder / f"{name}.js", text).name
