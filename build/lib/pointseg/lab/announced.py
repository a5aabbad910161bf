"""What `train` says while the library loads: the row as it stands in the plan, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml


def announced(name: str, given: Mapping[str, Any], plan: Path) -> str:
    """One line on a row of the plan, or on a method's usual chain."""
    row = next((rows[name] for rows in plan_of(plan).values() if name in rows), None)
    stated = {} if row is None else {k: v for k, v in row.items() if k not in ("tier", "seeds")}
    where = "a method's usual chain" if row is None else f"a row of {plan}"
    both = {**stated, **{key: value for key, value in given.items() if key != "method"}}
    words = ", ".join(f"{key}={worded(value)}" for key, value in both.items())
    return f"train {name}: {where}" + (f"; {words}" if words else "")


def plan_of(plan: Path) -> dict[str, dict[str, Any]]:
    try:
        return yaml.safe_load(plan.read_text())["rows"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):  # the training itself will say so
        return {}


def worded(value: Any) -> str:
    """A value of the plan; a chain by the names of its stages."""
    if isinstance(value, list) and all(isinstance(each, Mapping) for each in value):
        return " > ".join(str(each.get("method")) for each in value)
    return str(value)
