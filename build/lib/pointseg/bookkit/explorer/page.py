"""The explorer in a page without a kernel.

Module, style and state in the page, each picture in a script of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from pointseg.bookkit.explorer.module import module_text, style_text
from pointseg.bookkit.explorer.state import STATE

# A model for anywidget's `render`, and a loader that works from disk:
# a script may be read from there, a file not.
_START = """const el = document.getElementById(ID), values = STATE, heard = {}, arrived = {};
window.pointsegReceive = (name, record) => arrived[name]?.(record);
const load = (index) => values.entries[index].record ??= new Promise((resolve, reject) => {
  const script = document.createElement("script"), name = values.entries[index].name;
  arrived[name] = resolve;
  script.onerror = () => reject(new Error(`${FOLDER}${name}.js is not here`));
  script.src = FOLDER + name + ".js";
  document.head.append(script);
});
const model = {
  load, get: (name) => values[name], save_changes() {}, off() {},
  on: (event, listener) => (heard[event] ??= []).push(listener),
  set(name, value) {
    values[name] = value;
    (heard["change:" + name] ?? []).forEach((listener) => listener());
  },
};
window.pointsegModels = { ...window.pointsegModels, [ID]: model };
const url = URL.createObjectURL(new Blob([MODULE], { type: "text/javascript" }));
(await import(url)).default.render({ model, el });
"""


def embed(
    entries: Sequence[dict[str, Any]],
    presets: Sequence[dict[str, Any]] = (),
    folder: str = "_static/explorer/",
    name: str = "key-point-explorer",
    start: dict[str, Any] | None = None,
    module: str | None = None,
) -> str:
    """HTML for a page that has the entries' scripts (`write_script`) in `folder`.

    The folder is relative to the page. A picture is {"name": of its script, "title",
    "start": [x, y]}; a preset is {"title", "text", "state"}. `start` and `module` are the state
    and the text of another explorer made of the same parts.
    """
    state = (STATE if start is None else start) | {
        "entries": list(entries), "presets": list(presets), "links": True, "kept": [], "preset": "",
    }  # fmt: skip
    if entries and "start" in entries[0]:
        state["point"] = entries[0]["start"]
    literal = _literal([name, state, folder, module or module_text()])
    script = f"(async () => {{\nconst [ID, STATE, FOLDER, MODULE] = {literal};\n{_START}}})();"
    silent = "<noscript>The explorer computes in this page and needs JavaScript for it.</noscript>"
    return (
        f'<div id="{escape(name)}">{silent}</div>\n'
        f"<style>{style_text()}</style>\n<script>{script}</script>"
    )


def _literal(value: Any) -> str:
    """A JavaScript literal that can stand inside a script element."""
    return json.dumps(value, allow_nan=False).replace("</", "<\\/").replace("<!--", "<\\!--")
