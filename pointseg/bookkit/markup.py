"""The one place where text becomes HTML: what is not marked as HTML is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Any


class Html(str):
    """Text that is HTML already."""


def escape(value: Any) -> Html:
    """HTML that shows a value, which may be anybody's; HTML stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def marked(text: str) -> Html:
    """A sentence whose names stand between backticks, as docstrings have them."""
    return Html(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))


def filled(template: str, *values: Any) -> Html:
    """HTML of a template of ours with values in its braces, each escaped; quoted attributes may
    hold them too."""
    return Html(template.format(*map(escape, values)))


def joined(glue: str, values: Iterable[Any]) -> Html:
    """Values one after another, each escaped, with HTML of ours as glue."""
    return Html(glue.join(map(escape, values)))


def breaking(text: Any) -> Html:
    """A long name that may break at its underscores."""
    return Html(escape(text).replace("_", "_<wbr>"))
