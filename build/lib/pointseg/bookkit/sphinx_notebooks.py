"""A Sphinx extension for chapters that are notebooks.

A page is read again when something that its execution read has changed. Beside each chapter's .py
stands the same as .ipynb, behind the page's download button, and beside the pages the runs.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pointseg.bookkit import executed


def outdated(app: Any, env: Any, added: set, changed: set, removed: set) -> list[str]:
    """Chapters whose kept execution is no longer that of today's sources."""
    return [page for page in env.found_docs if is_chapter(app, page) and not is_fresh(app, page)]


def is_fresh(app: Any, page: str) -> bool:
    return executed.fresh(Path(app.env.doc2path(page)).read_text(), app.srcdir) is not None


def whole(app: Any, env: Any, names: list[str]) -> None:
    """Where one page is read all are written: titles and links of one stand on the others."""
    if names:
        app.connect("env-updated", lambda app, env: list(env.found_docs))


def offer(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Tells the theme that the page has a notebook file."""
    if is_chapter(app, page):
        context["ipynb_source"] = f"{page}.ipynb"


def write(app: Any, error: Exception | None) -> None:
    """Writes the notebooks to where the theme's button points."""
    import jupytext

    if error or app.builder.format != "html":
        return
    for page in filter(lambda name: is_chapter(app, name), app.env.found_docs):
        target = Path(app.outdir) / "_sources" / f"{page}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        jupytext.write(jupytext.read(app.env.doc2path(page), fmt="py:percent"), target)


def copy_runs(app: Any, error: Exception | None) -> None:
    """Copies the records of runs beside the pages, where the page of runs links to them."""
    runs = Path(app.srcdir).parent / "runs"
    if not error and app.builder.format == "html" and runs.is_dir():
        shutil.copytree(runs, Path(app.outdir) / "runs", dirs_exist_ok=True)


def is_chapter(app: Any, page: str) -> bool:
    return page in app.env.found_docs and str(app.env.doc2path(page)).endswith(".py")


def setup(app: Any) -> dict[str, bool]:
    app.connect("env-get-outdated", outdated)
    app.connect("env-before-read-docs", whole)
    app.connect("html-page-context", offer, priority=100)  # before the theme gathers its buttons
    app.connect("build-finished", write)
    app.connect("build-finished", copy_runs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
