"""Trained methods as files: weights, and what is needed to build the method again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from pointseg.data.files import is_name, is_whole, refuse_special, shown, write_whole
from pointseg.lab.recipe import Recipe
from pointseg.nets.weights import check_weights
from pointseg.papers.method import Method
from pointseg.structures import Category, InputError


def save_model(
    path: Path, method: torch.nn.Module, recipe: Recipe, categories: Sequence[Category]
) -> None:
    """The last method of a recipe after its training: no optimiser, no counters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = [[category.id, category.name, category.is_thing] for category in categories]
    weights = {name: value.cpu() for name, value in method.state_dict().items()}
    saved = {"recipe": recipe.to_json(), "categories": named, "weights": weights}
    write_whole(path, lambda file: torch.save(saved, file))


def load_model(path: Path) -> tuple[Method, Recipe, tuple[Category, ...]]:
    """Inverse of `save_model`, on the CPU and ready to predict; never unpickles."""
    refuse_special(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        recipe = Recipe.from_json(saved["recipe"])
        categories = tuple(_category(values) for values in saved["categories"])
        weights = dict(saved["weights"])
        method = recipe.build(categories)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # whatever the bytes of a foreign file make a reader stumble over
        cause = f": {error}" if isinstance(error, InputError) else ""
        raise InputError(f"{path}: is not a model that a run has saved{cause}") from None
    wanted = method.state_dict()
    for name in wanted.keys() ^ weights.keys():
        whose = "lacks" if name in wanted else "has beside its method's"
        raise InputError(f"{path}: {whose} the weights {shown(name)}")
    check_weights(path, weights, wanted, list(wanted))
    method.load_state_dict(weights)
    return method.eval(), recipe, categories


def _category(values: Sequence[object]) -> Category:
    number, name, thing = values
    if not (is_whole(number) and is_name(name) and isinstance(thing, bool)):
        raise InputError(f"category {shown(values)}")
    return Category(number, name, thing)
