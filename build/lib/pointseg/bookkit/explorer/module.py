"""The explorer's sources joined to one ECMAScript module.

The same text runs live and in the book.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
ARITHMETIC = ("core.js", "attention.js", "grid.js", "bundle.js", "labelpath.js")
INTERFACE = (
    "panel.js",
    "drawing.js",
    "shapes.js",
    "scatter.js",
    "results.js",
    "controls.js",
    "export.js",
    "view.js",
)
# `import * as core from "./core.js"` gives names behind a prefix; in one text the prefix is dropped
_PREFIX = re.compile(r'^import \* as (\w+) from "\./[\w.]+";\n', re.M)
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./[\w.]+";\n', re.M)


@cache
def module_text(names: tuple[str, ...] = ARITHMETIC + INTERFACE) -> str:
    """One module out of several files that import from one another."""
    return "\n".join(_bare((FOLDER / name).read_text()) for name in names)


def _bare(source: str) -> str:
    prefixes = _PREFIX.findall(source)
    source = _IMPORT.sub("", _PREFIX.sub("", source))
    for prefix in prefixes:
        source = re.sub(rf"(?<![\w.$]){prefix}\.(?=\w)", "", source)
    return source


@cache
def style_text() -> str:
    return (FOLDER / "explorer.css").read_text()
