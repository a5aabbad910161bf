"""The transport explorer: its numbers are the library's.

They follow pixel and units, also by keyboard.
"""

import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch

from pointseg.bookkit.diagnostics.labels import has_touching_likes, maps_of_truth, one_point_each
from pointseg.bookkit.explorer.bundle import _read_halves, write_script
from pointseg.bookkit.explorer.page import embed
from pointseg.bookkit.explorer.transport import (
    STATE,
    half_planes,
    start_of,
    transport_module,
    transport_record,
)
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.ops.paths import boundary_step, cheapest_path, shortest_paths, undirected_steps
from pointseg.ops.transport import sinkhorn
from pointseg.ownership import owner

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run "
         "--disable-background-networking").split()  # fmt: skip
NAME = "transport-explorer"


@pytest.fixture(scope="module")
def record():
    scene = next(
        s
        for s in (draw(0, "val", i, 64, edition=1) for i in range(400))
        if int(s.truth.is_thing.sum()) == 3 and has_touching_likes(s.truth, 3)
    )
    truth = scene.truth.pick(~scene.truth.is_crowd)
    points = one_point_each(truth, torch.Generator().manual_seed(0))
    maps = maps_of_truth(truth, len(CATEGORIES), (16, 16))
    return transport_record(maps, scene.image, points, truth, CATEGORIES, "three creatures")


def priced(record, beta):
    """[8, h, w] from a record's numbers, as the page makes them."""
    parts = {
        k: torch.from_numpy(_read_halves(v)).view(4, *record["grid"])
        for k, v in record["steps"].items()
    }
    whole = (
        parts["semantic"] + beta * parts["boundary"] + record["manifold_weight"] * parts["manifold"]
    )
    prices = torch.full((8, *record["grid"]), torch.inf, dtype=torch.float64)
    h, w = record["grid"]
    for k, (dr, dc) in enumerate(((0, 1), (1, 0), (1, 1), (1, -1))):
        rows, columns = slice(0, h - dr), slice(max(-dc, 0), w - max(dc, 0))
        prices[k, rows, columns] = whole[k, rows, columns]
        prices[k + 4, dr:, max(dc, 0) : w - max(-dc, 0)] = whole[k, rows, columns]
    return prices


def test_kept_apart_and_joined_again_the_prices_are_the_methods():
    plane = torch.rand(1, 5, 6)
    whole = undirected_steps((boundary_step, plane, 1.0))
    kept = half_planes(boundary_step, plane)
    inside = whole[:4].isfinite()
    assert torch.equal(kept[inside], whole[:4][inside]) and (kept[~inside] == 0).all()


@pytest.fixture(scope="module")
def page(record, tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("transport")
    write_script(record, folder / "bundles", "t0")
    body = embed([{"name": "t0", "title": "three", "start": start_of(record)}], (), "bundles/",
                 NAME, STATE, transport_module())  # fmt: skip
    (folder / "page.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>t</title><body>{body}</body>"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1000, "height": 1200})
        opened.met = []
        opened.on("pageerror", lambda error: opened.met.append(str(error)))
        opened.on("requestfailed", lambda request: opened.met.append(request.url))
        opened.goto((folder / "page.html").as_uri())
        opened.wait_for_function(
            "() => document.querySelector('.pointseg-explorer')?.dataset.drawn"
        )
        yield opened
        assert not opened.met, opened.met
        browser.close()


IN_PAGE = """async ([text, settings]) => {
  const model = window.pointsegModels["transport-explorer"], raw = await model.load(0);
  const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const picture = m.read(raw), found = m.solved(picture, { ...m.STATE, ...settings }),
    list = (v) => Array.from(v);
  return { cost: found.cost.map(list), units: found.units, potentials: found.potentials,
    owner: list(found.owner),
    path: m.pathTo(found.paths[1], 37), cell: m.cellAt(picture, [35.5, 9.5]) };
}"""


@pytest.mark.browser
@pytest.mark.parametrize("settings", [{}, {"beta": 1.0, "rounds": 10},
                                      {"thing": 1, "factor": 3.0, "epsilon": 0.01},
                                      {"solver": "none", "beta": 0.0}])  # fmt: skip
def test_costs_potentials_and_owners_are_the_librarys(page, record, settings):
    matches, state = page.evaluate(IN_PAGE, [transport_module(), settings]), STATE | settings
    prices = priced(record, state["beta"])
    cells = torch.tensor([t["cell"] for t in record["things"]])
    cost = shortest_paths(prices, cells).flatten(1)
    np.testing.assert_allclose(matches["cost"], cost, atol=1e-9)
    demand = torch.from_numpy(_read_halves(record["demand"]))
    units = torch.tensor([t["units"] * (state["factor"] if k == state["thing"] else 1)
                          for k, t in enumerate(record["things"])],
                         dtype=torch.float64)  # fmt: skip
    units = units * demand.sum() / units.sum()
    np.testing.assert_allclose(matches["units"], units, rtol=1e-12)
    u = torch.zeros(len(cells), dtype=torch.float64)
    if state["solver"] != "none":
        u = sinkhorn(
            cost[:, demand > 0], units, demand[demand > 0], state["epsilon"], state["rounds"]
        )
    np.testing.assert_allclose(matches["potentials"], u, atol=1e-9)
    best = (cost - u[:, None]).sort(0).values
    sure = (demand > 0) & (best[1] - best[0] > 1e-9)
    assert np.array_equal(np.array(matches["owner"])[sure], owner(cost, u)[sure])
    assert all(o == -1 for o, d in zip(matches["owner"], demand) if d == 0)
    way = cheapest_path(prices + 1e-12, int(cells[1]), 37).tolist()
    length = lambda path: sum(step_price(prices, a, b) for a, b in pairwise(path))  # noqa: E731
    assert matches["path"][0] == way[0] and matches["path"][-1] == 37
    assert abs(length(matches["path"]) - length(way)) < 1e-9
    assert matches["cell"] == (9 // 4) * 16 + 35 // 4


def step_price(prices, a, b):
    w = prices.shape[-1]
    step = (b // w - a // w, b % w - a % w)
    steps = [(0, 1), (1, 0), (1, 1), (1, -1), (0, -1), (-1, 0), (-1, -1), (-1, 1)]
    return float(prices[steps.index(step), a // w, a % w])


def owned(page, row):
    return float(page.locator(".ps-table tbody tr").nth(row).locator("td").last.inner_text())


@pytest.mark.browser
def test_more_units_move_the_border_and_the_keyboard_moves_the_pixel(page):
    model = "window.pointsegModels['transport-explorer']"
    before = [owned(page, row) for row in range(3)]
    slider = page.locator("input[data-name=factor]")
    slider.focus()
    drawn = page.evaluate("() => document.querySelector('.pointseg-explorer').dataset.drawn")
    slider.press("End")
    page.wait_for_function(
        f"() => document.querySelector('.pointseg-explorer').dataset.drawn > {drawn}"
    )
    assert page.evaluate(f"() => {model}.get('factor')") == 10
    after = [owned(page, row) for row in range(3)]
    assert (
        after != before
        and after[0] >= before[0]
        and sum(after) == pytest.approx(sum(before), abs=2)
    )
    at = page.evaluate(f"() => {model}.get('point')")
    page.locator("canvas.ps-picture").press("ArrowDown")
    assert page.evaluate(f"() => {model}.get('point')") == [at[0], at[1] + 4]
    messages = page.locator(".ps-status").inner_text()
    assert "belongs to point" in messages or "ground" in messages
