"""The explorer in JupyterLab, in a real browser: what a hand moves there, Python sees."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync").split()  # fmt: skip
TOKEN = "explorer"
CELL = """
import ipywidgets, torch
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.bookkit.explorer.widget import KeyPointExplorer
from pointseg.nets.vit import TokenViT

torch.manual_seed(0)
scene = draw(0, "val", 0, 128)
net = TokenViT("small", dim=32, depth=2, heads=2)
explorer = KeyPointExplorer([scene.image], net, [scene.truth], CATEGORIES, map_kind="similarity",
                            instance_map="none", box_threshold=0.8, seed_threshold=0.6)
seen = ipywidgets.HTML()
def tell(_):
    x, y = explorer.point
    box = ", ".join(str(round(v)) for v in explorer.box)
    found = (f"{explorer.filter_threshold:.2f} | {x} {y} | {box} | "
             f"{explorer.mask_array.sum()} tokens")
    seen.value = f"<pre id='seen'>{found}</pre>"
explorer.observe(tell, ["mask", "box", "point", "filter_threshold"])
ipywidgets.VBox([seen, explorer])
"""
READY = (
    "() => window.jupyterapp?.shell.currentWidget?.context?.sessionContext.session"
    "?.kernel?.status === 'idle'"
)
TELLS = """(text) => document.querySelector('#seen')?.textContent.startsWith(text)"""


@pytest.fixture
def lab(tmp_path):
    """Address of a JupyterLab that serves a notebook with the explorer."""
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    book.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(book, tmp_path / "live.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("jupyter"), "lab", "--no-browser", "--allow-root",
               "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}",
               f"--ServerApp.root_dir={tmp_path}",
               "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
               "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]  # fmt: skip
    private = {
        f"JUPYTER_{name}_DIR": str(tmp_path / name.lower())
        for name in ("CONFIG", "DATA", "RUNTIME")
    }
    private |= {
        f"JUPYTERLAB_{name}_DIR": str(tmp_path / name.lower())
        for name in ("SETTINGS", "WORKSPACES")
    }
    root = str(Path(__file__).resolve().parents[1])
    environment = os.environ | private | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    with (
        (tmp_path / "lab.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as lab,
    ):
        try:
            wait_for(f"http://127.0.0.1:{port}/api?token={TOKEN}", lab)
            yield f"http://127.0.0.1:{port}"
        finally:
            lab.terminate()
            lab.wait(30)


def wait_for(address: str, process: subprocess.Popen) -> None:
    for _ in range(240):
        try:
            urllib.request.urlopen(address).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "JupyterLab ended"
            time.sleep(0.25)
    raise TimeoutError(address)


@pytest.mark.browser
def test_python_sees_what_the_hand_moved(lab):
    from playwright.sync_api import sync_playwright

    outside, errors = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1300, "height": 1400})
        page.set_default_timeout(120_000)
        inside = (lab, "data:", "blob:", "ws://127.0.0.1")
        page.on("request", lambda r: None if r.url.startswith(inside) else outside.append(r.url))
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(f"{lab}/lab/tree/live.ipynb?token={TOKEN}&reset")
        page.wait_for_function(READY)
        page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function(TELLS, arg="0.85")

        page.locator("input[data-name=filter_threshold]").focus()
        for _ in range(7):
            page.keyboard.press("ArrowLeft")
        page.wait_for_function(TELLS, arg="0.78")

        canvas = page.locator("canvas.ps-picture")
        canvas.scroll_into_view_if_needed()
        box = canvas.bounding_box()
        canvas.click(position={"x": box["width"] * 40.2 / 128, "y": box["height"] * 70.2 / 128})
        page.wait_for_function(TELLS, arg="0.78 | 40.5 70.5 |")
        page.wait_for_timeout(500)
        python = page.locator("#seen").inner_text().split(" | ")
        shown = dict(
            zip(
                page.locator(".ps-scores dt").all_inner_texts(),
                page.locator(".ps-scores dd").all_inner_texts(),
            )
        )
        assert python[2:] == [shown["Box"], shown["Mask"]]
        browser.close()
    assert not outside and not errors, (outside, errors)
