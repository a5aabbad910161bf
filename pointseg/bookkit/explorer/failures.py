"""Where key-points go wrong.

The clearest case of each kind of failure among some pictures, found by the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pointseg.bookkit.explorer.bundle import run
from pointseg.bookkit.explorer.state import STATE
from pointseg.metrics.pseudo import part_recall_of_masks
from pointseg.nets.attention import rollout_rows
from pointseg.nets.vit import TokenViT
from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.instance_map import unit_range
from pointseg.papers.attentionshift.labeller import label_path
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.tokens import Tokens
from pointseg.structures import Points, Truth

KINDS = {
    "success": "A good answer: most of the object, little else.",
    "same class": "Adjacent, same class: the mask runs on into a neighbour of the same class. "
    "Try a higher seed level, or a smaller box by a higher box level.",
    "split": "Split object: something stands in front, and the part behind it stays "
    "without key-points. Try a lower box level, or a deeper roll-out.",
    "part only": "One part only: the key-points stay where they look like the labelled patch. "
    "Try more seeds, a lower seed level, or a sharper density (smaller alpha).",
    "ground": "Ground leak: key-points own ground that looks like the object. "
    "Try a higher T_f, or a higher level for sure background.",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One object, its point, and how strongly each kind of failure shows: 0..1."""

    picture: int
    point: list[float]
    strength: dict[str, float]


@torch.no_grad()
def find_cases(
    vit: TokenViT, images: Sequence[np.ndarray], truths: Sequence[Truth]
) -> dict[str, Case]:
    """The strongest case of each kind, no two in one picture while there are pictures enough."""
    cases = [case for i, pair in enumerate(zip(images, truths)) for case in cases_of(vit, i, *pair)]
    chosen: dict[str, Case] = {}
    for kind in KINDS:
        taken = {case.picture for case in chosen.values()}
        fresh = [case for case in cases if case.picture not in taken] or cases
        chosen[kind] = max(fresh, key=lambda case: case.strength[kind])
    return chosen


def presets(chosen: dict[str, Case], rows: dict[int, int]) -> list[dict[str, Any]]:
    """What the explorer offers: `rows` says where a picture stands in its list."""
    return [
        {
            "title": kind,
            "text": KINDS[kind],
            "state": {"picture": rows[case.picture], "point": case.point},
        }
        for kind, case in chosen.items()
    ]


def cases_of(vit: TokenViT, picture: int, image: np.ndarray, truth: Truth) -> list[Case]:
    things = truth.pick(truth.is_thing & ~truth.is_crowd)
    if not len(things):
        return []
    clicks = torch.tensor([deepest_pixel(mask) for mask in things.masks.numpy()])
    masks = masks_from_points(vit, image, clicks)
    unknown = np.full(len(things), np.nan)
    recall = unknown if truth.parts is None else part_recall_of_masks(things, masks)
    return [
        Case(picture, clicks[i].tolist(), strengths(truth, things, i, masks[i], float(recall[i])))
        for i in range(len(things))
    ]


def deepest_pixel(mask: np.ndarray) -> list[float]:
    """Centre (x, y) of the pixel farthest from the object's border: where a hand would click."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(distance.argmax(), mask.shape)
    return [float(x) + 0.5, float(y) + 0.5]


def masks_from_points(vit: TokenViT, image: np.ndarray, clicks: Tensor) -> Tensor:
    """[n, h, w] bool: what the explorer finds with its first settings."""
    outputs, size = run(vit, image), image.shape[:2]
    row = torch.arange(len(clicks))
    points = Points(clicks, torch.zeros_like(row), row, row >= 0)
    objects = Objects.of([points], [size], outputs.grid, vit.stride)
    depth = min(STATE["depth"], vit.depth)
    rows = objects.seed + outputs.trace.prefix
    attention = rollout_rows(vit, outputs.trace, rows, depth)[-1, 0, :, outputs.trace.patches]
    config = Config(iterations=STATE["rounds"])
    tokens = Tokens.of(outputs.tokens.float(), objects.counts)
    attention, draws = unit_range(attention, objects.valid), torch.zeros(1, dtype=torch.long)
    labels = label_path(tokens, objects, attention, config, draws)
    return labels.pseudo_labels()[0].masks


def strengths(
    truth: Truth, things: Truth, row: int, mask: Tensor, recall: float
) -> dict[str, float]:
    thing, area = things.masks[row], float(mask.sum()) or 1.0
    inside = float((mask & thing).sum())
    same = (things.label == things.label[row]) & (torch.arange(len(things)) != row)
    ground = truth.masks[~truth.is_thing].any(0)
    return {
        "success": inside / float((mask | thing).sum()),
        "same class": float((mask & things.masks[same].any(0)).sum()) / area,
        "split": missed_piece(thing.numpy(), mask.numpy()),
        # a part with nothing else: the object is mostly missed and little beside it is taken
        "part only": 0.0 if np.isnan(recall) else (1 - recall) * inside / area,
        "ground": float((mask & ground).sum()) / area,
    }


def missed_piece(thing: np.ndarray, mask: np.ndarray, least: float = 0.15) -> float:
    """Held share of an object's best held large piece minus that of its worst.

    0 for an object in one piece.
    """
    labels, count = ndimage.label(thing, np.ones((3, 3)))
    pieces = [labels == i + 1 for i in range(count)]
    large = [
        (mask & piece).sum() / piece.sum() for piece in pieces if piece.sum() >= least * thing.sum()
    ]
    return float(max(large) - min(large)) if len(large) > 1 else 0.0
