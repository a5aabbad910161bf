"""Trained methods as files: weights, and what is needed to build the method again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pointseg.data.files import is_name, is_whole, shown, write_whole
from pointseg.lab.recipe import Recipe
from pointseg.nets.weights import check_weights, load_plain, to_be_replaced
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
    saved = load_plain(path)
    try:
        recipe = Recipe.from_json(saved["recipe"])
        categories = _categories(saved["categories"])
        weights, wanted = dict(saved["weights"]), shapes_of(recipe, categories)
    except Exception as error:  # whatever the bytes of a foreign file make a reader stumble over
        cause = f": {error}" if isinstance(error, InputError) else ""
        raise InputError(f"{path}: is not a model that a run has saved{cause}") from None
    for name in wanted.keys() ^ weights.keys():
        whose = "lacks" if name in wanted else "has beside its method's"
        raise InputError(f"{path}: {whose} the weights {shown(name)}")
    check_weights(path, weights, wanted, list(wanted))
    with to_be_replaced():
        method = recipe.build(categories)
    method.load_state_dict(weights)
    return method.eval(), recipe, categories


def shapes_of(recipe: Recipe, categories: Sequence[Category]) -> dict[str, Tensor]:
    """Tensors without values, of the method that a recipe describes: it may be a stranger's, and
    of any size."""
    with torch.device("meta"), to_be_replaced():
        return recipe.build(categories).state_dict()


def _categories(every: Sequence[Sequence[object]]) -> tuple[Category, ...]:
    known = tuple(_category(values) for values in every)
    if len({c.id for c in known}) < len(known) or len({c.name for c in known}) < len(known):
        raise InputError("two categories of one id or name")
    return known


def _category(values: Sequence[object]) -> Category:
    number, name, thing = values
    if not (is_whole(number) and is_name(name) and isinstance(thing, bool)):
        raise InputError(f"category {shown(values)}")
    return Category(number, name, thing)
