"""What a reader can set: the same names and defaults as in labelpath.js and view.js."""

from __future__ import annotations

from typing import Any

from pointseg.papers.attentionshift.config import Config

_PAPER = Config()

# How an explorer starts.
# `layer`, `head` and `step`: -1 is the last block, the mean over heads, the last round.
STATE: dict[str, Any] = {
    "picture": 0,
    "point": [64.5, 64.5],
    "map_kind": "rollout",
    "layer": -1,
    "head": -1,
    "depth": 3,
    "instance_map": _PAPER.instance_map,
    "foreground": _PAPER.foreground,
    "background": _PAPER.background,
    "seed_threshold": _PAPER.seed_threshold,
    "box_threshold": _PAPER.box_threshold,
    "keypoints": _PAPER.keypoints,
    "rounds": _PAPER.iterations,
    "step": -1,
    "alpha": _PAPER.alpha,
    "filter_threshold": _PAPER.filter_threshold,
    "merge_threshold": _PAPER.merge_threshold,
    "stage": "parts",
    "opacity": 0.6,
    "show_paths": True,
    "show_box": True,
    "show_truth": True,
}
