"""Two rows of a printed table by what differs between them, for the eye."""

from __future__ import annotations

from typing import Any

from pointseg.data.measures import is_number

SCORES = "percent"  # the unit of columns that are results
SYMBOL = 5  # letters of a column that is called by a symbol, such as T_m


def difference(table: dict[str, Any], above: int, below: int) -> str:
    """Such as "layers 6 over 1", or "EPLD over Point2Mask"; empty where only scores differ."""
    (first, second), units = (table["rows"][k] for k in (above, below)), table.get("units", {})
    differing = [
        name for name, value in first.items()
        if units.get(name) != SCORES and None not in (value, second.get(name))
        and value != second[name]
    ]  # fmt: skip
    above_has, below_has = ([n for n in differing if row[n] is True] for row in (first, second))
    if above_has and below_has:  # one part in the place of another
        return f"{', '.join(map(_spelt, above_has))} over {', '.join(map(_spelt, below_has))}"
    named = ", ".join(_named(name, first[name]) for name in differing)
    other = ", ".join(_value(second[name]) for name in differing)
    return f"{named} over {other}" if differing else ""


def _named(column: str, value: object) -> str:
    """A word stands for itself."""
    return _value(value) if isinstance(value, str) else f"{_spelt(column)} {_value(value)}"


def _spelt(column: str) -> str:
    return column.replace("_", " ") if len(column) > SYMBOL else column


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if is_number(value):
        return f"{value:g}"
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
