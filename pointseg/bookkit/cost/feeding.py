"""What it takes to make the next batch, so that one can tell when a step would wait for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch

from pointseg.bookkit.cost.clock import Work
from pointseg.data.supervision import collate
from pointseg.lab.recipe import Recipe, make
from pointseg.lab.run_data import open_corpus
from pointseg.training.loader import Feed
from pointseg.training.loop import fit

METHODS = (
    "attentionshift",
    "mask_rcnn",
    "psps",
    "panoptic_full",
)  # points and masks of things, of things and stuff
WAITING = 0.1  # share of a step, waiting included, that is still called fed


def feed_recipes(scale: str, pictures: int) -> dict[str, Recipe]:
    """Recipes that differ in what they ask of a picture."""
    return {
        name: make(stages=[{"method": name}], scale=scale, images=pictures, scored_images=1)
        for name in METHODS
    }


def feed_of(recipe: Recipe, processes: int = 0) -> Feed:
    dataset, batch = open_corpus(recipe).supervision(), recipe.stage.training.batch
    return Feed(dataset, collate, batch, recipe.seed, processes)


def feed_works(recipes: dict[str, Recipe]) -> dict[str, Work]:
    """Name -> making the next batch in this process; decoded pictures are kept from the first epoch on."""
    return {name: partial(next, feed_of(recipe).batches()) for name, recipe in recipes.items()}


def waits(
    recipes: dict[str, Recipe],
    processes: Sequence[int],
    steps: int,
    begun: int,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Share of time that the loop itself waits on that device, once its first `begun` steps are over."""
    rows = []
    for name, recipe in recipes.items():
        for count in processes:
            feed = feed_of(recipe, count)
            method = recipe.build(feed.dataset.categories)
            settings = recipe.loop_settings(len(feed.dataset))
            records = fit(method, feed, settings, device=device)
            seen = list(islice(records, begun, begun + steps))
            share = sum(r.data_wait for r in seen) / sum(r.seconds for r in seen)
            step_ms = 1e3 * sum(r.seconds for r in seen) / len(seen)
            rows.append({"method": name, "processes": count, "step_ms": step_ms, "waiting": share})
    return rows


def shortest_step(batch_s: float, processes: int) -> float:
    """Seconds of work from which a step waits at most WAITING of its time.

    Without processes of its own the batch is made between two steps. With n of them one comes every batch_s / n.
    """
    if not processes:
        return batch_s * (1 - WAITING) / WAITING
    return batch_s / processes * (1 - WAITING)
