"""Trained methods as files: weights, and what is needed to build the method again."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch

from pointseg.lab.recipe import Recipe
from pointseg.papers.method import Method
from pointseg.structures import Category, InputError


def save_model(
    path: Path, method: torch.nn.Module, recipe: Recipe, categories: Sequence[Category]
) -> None:
    """The last method of a recipe after its training: no optimiser, no counters."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    named = [[category.id, category.name, category.is_thing] for category in categories]
    weights = {name: value.cpu() for name, value in method.state_dict().items()}
    torch.save({"recipe": recipe.to_json(), "categories": named, "weights": weights}, part)
    part.replace(path)


def load_model(path: Path) -> tuple[Method, Recipe, tuple[Category, ...]]:
    """Inverse of `save_model`, on the CPU and ready to predict; never unpickles."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        recipe = Recipe.from_json(saved["recipe"])
        categories = tuple(Category(*values) for values in saved["categories"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError):
        raise InputError(f"{path}: is not a model that a run has saved") from None
    method = recipe.build(categories)
    method.load_state_dict(saved["weights"])
    return method.eval(), recipe, categories
