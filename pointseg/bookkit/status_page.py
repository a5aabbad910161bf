"""runs/status.html: how a batch stands, as a page that needs no server and loads itself anew."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from pointseg.bookkit.markup import Html, filled, joined
from pointseg.data.files import write_text
from pointseg.lab.batch.states import Standing, counted
from pointseg.lab.progress import clock

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="refresh" content="10"><title>{}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; }}
table {{ border-collapse: collapse; }} td {{ padding: .1rem .9rem .1rem 0; }}
.done {{ color: #1a7f37; }} .running {{ font-weight: 600; }}
.failed, .killed, .blocked, .interrupted {{ color: #b3261e; }}
</style></head><body><h1>{}</h1><p>{}</p><table>{}</table></body></html>
"""
ROW = '<tr class="{}"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>'


def status_page(standing: Sequence[Standing], now: str) -> Html:
    """The page; what a log says is anybody's text, and is escaped."""
    rows = [
        filled(ROW, each.state, each.state, each.name,
               "" if each.seconds is None else clock(each.seconds), each.gpus or "", each.line)
        for each in standing
    ]  # fmt: skip
    words = counted(standing)
    return filled(PAGE, words, words, f"as of {now}", joined("\n", rows))


class Page:
    """Writes the page again when something has changed, and at most every few seconds."""

    def __init__(self, path: Path, every: float = 5.0):
        self.path, self.every = path, every
        self.written, self.shown = 0.0, ()

    def __call__(self, standing: Sequence[Standing]) -> None:
        states = tuple(each.state for each in standing)
        if states == self.shown and time.monotonic() - self.written < self.every:
            return
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        write_text(self.path, status_page(standing, now))
        self.written, self.shown = time.monotonic(), states
