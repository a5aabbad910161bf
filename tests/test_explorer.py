"""The explorer in a page from disk.

Its numbers are the library's, its controls work, and it asks for nothing.
"""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from playwright.sync_api import expect

from pointseg.bookkit.explorer import widget
from pointseg.bookkit.explorer.bundle import (
    make_bundle,
    picture_url,
    quantised,
    read_numbers,
    runs,
    write_script,
)
from pointseg.bookkit.explorer.failures import KINDS, deepest_pixel, find_cases, presets
from pointseg.bookkit.explorer.module import module_text
from pointseg.bookkit.explorer.page import embed
from pointseg.bookkit.explorer.state import STATE
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.data.point_file import read_points
from pointseg.lab import recipe
from pointseg.lab.models import save_model
from pointseg.metrics.pseudo import iou_by_target, part_recall_of_masks
from pointseg.nets import attention
from pointseg.nets.vit import TokenViT
from pointseg.papers.attentionshift.config import Config
from pointseg.papers.attentionshift.instance_map import unit_range
from pointseg.papers.attentionshift.labeller import label_path
from pointseg.papers.attentionshift.objects import Objects
from pointseg.papers.attentionshift.shift import spread_seeds
from pointseg.papers.attentionshift.tokens import Tokens
from pointseg.structures import InputError, Points

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run "
         "--disable-background-networking --disable-component-update --disable-sync "
         "--allow-file-access-from-files").split()  # fmt: skip
NAME = "key-point-explorer"
CASES = [
    {"point": [60.5, 52.5]},
    {"point": [20.5, 100.5], "alpha": 0.1, "keypoints": 7, "depth": 1},
    {"point": [100.5, 30.5], "alpha": math.inf, "rounds": 4, "filter_threshold": 0.5,
     "merge_threshold": 0.95},
    {"point": [70.5, 90.5], "map_kind": "attention", "layer": 0, "head": 1,
     "instance_map": "printed"},
    {"point": [33.5, 41.5], "map_kind": "similarity", "instance_map": "none",
     "seed_threshold": 0.6, "keypoints": 40},
    {"point": [5.5, 5.5], "map_kind": "attention", "foreground": 0.5, "background": 0.3,
     "box_threshold": 0.7},
    {"point": [90.5, 75.5], "seed_threshold": 1.0, "box_threshold": 1.0, "filter_threshold": 1.0},
]  # fmt: skip


@pytest.fixture(scope="module")
def scenes():
    return [draw(0, "val", index, 128) for index in range(2)]


@pytest.fixture(scope="module")
def records(scenes):
    """One picture of our own ViT, one of a ViT with a class token and larger patches.

    Weights are drawn.
    """
    torch.manual_seed(3)
    networks = [TokenViT("small", dim=48, depth=3, heads=3), TokenViT("vit_tiny_patch16_224")]
    return [
        make_bundle(v, s.image, f"picture {i}", s.truth, CATEGORIES)
        for i, (v, s) in enumerate(zip(networks, scenes))
    ]


@pytest.fixture(scope="module")
def html(records, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    for i, record in enumerate(records):
        write_script(record, folder / "bundles", f"p{i}")
    entries = [
        {"name": f"p{i}", "title": r["title"], "start": [60.5, 52.5]} for i, r in enumerate(records)
    ]
    preset = {
        "title": "ground",
        "text": "Look at the ground.",
        "state": {"picture": 1, "point": [10.5, 12.5], "alpha": 2},
    }
    body = embed(entries, [preset], "bundles/")
    (folder / "page.html").write_text(
        f"<!doctype html><meta charset=utf-8><title>explorer</title><body>{body}</body>"
    )
    return folder / "page.html"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def opened(browser, html):
    page = open_page(browser, html.as_uri())
    page.first_scripts = scripts(page)
    yield page
    page.close()


@pytest.fixture
def page(opened):
    """One page for all, as a reader finds it."""
    start = STATE | {"point": [60.5, 52.5]}
    opened.evaluate(
        "(all) => Object.entries(all).forEach("
        f"([k, v]) => window.pointsegModels['{NAME}'].set(k, v))",
        start,
    )
    settled(opened)
    yield opened
    assert not opened.met, opened.met


def open_page(browser, address: str):
    page = browser.new_page(viewport={"width": 1000, "height": 1200}, accept_downloads=True)
    page.met = []  # what must not happen
    page.on("pageerror", lambda error: page.met.append(str(error)))
    page.on("requestfailed", lambda request: page.met.append(request.url))
    outside = ("file:", "blob:", "data:")
    page.on("request", lambda r: None if r.url.startswith(outside) else page.met.append(r.url))
    page.goto(address)
    page.wait_for_function("() => document.querySelector('.pointseg-explorer')?.dataset.drawn")
    return page


def model(page, name: str):
    return page.evaluate(f"(name) => window.pointsegModels['{NAME}'].get(name)", name)


def scripts(page) -> list[str]:
    return page.evaluate(
        "() => [...document.head.querySelectorAll('script')].map((s) => s.src.split('/').pop())"
    )


def settled(page) -> None:
    page.evaluate(
        "() => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)))"
    )


def library(record: dict, scene, settings: dict, monkeypatch) -> dict:
    """What the Python library makes of a bundle's numbers, in float64."""
    numbers, state = read_numbers(record), STATE | settings
    config = Config(
        keypoints=state["keypoints"], iterations=state["rounds"],
        **{k: state[k] for k in ("instance_map", "foreground", "background", "seed_threshold",
                                 "box_threshold", "alpha", "filter_threshold",
                                 "merge_threshold")},
    )  # fmt: skip
    one = torch.zeros(1, dtype=torch.long)
    size, points = (record["height"], record["width"]), torch.tensor([state["point"]])
    place = Objects.of([Points(points, one, one, one == 0)], [size], numbers.grid, numbers.stride)
    matches = library_map(numbers, state, int(place.seed), monkeypatch)
    attention = unit_range(matches[None], place.valid)
    parts = label_path(Tokens.of(numbers.tokens[None]), place, attention, config, one, True)
    seeds = spread_seeds(parts.foreground, config.keypoints, place.seed)
    keypoints, region = parts.keypoints, parts.region
    path = keypoints.shifted.path
    coarse = parts.masks().unflatten(1, place.grid)[:, None].float()
    pixels = F.interpolate(coarse, scale_factor=numbers.stride, mode="bilinear")[0] > 0.5
    x, y = (int(v) for v in state["point"])
    mine = scene.truth.pick(scene.truth.masks[:, y, x] & ~scene.truth.is_crowd)
    score = (
        (iou_by_target(mine, pixels)[0], part_recall_of_masks(mine, pixels)[0])
        if len(mine)
        else (np.nan, np.nan)
    )
    there, valid = region.inside[0], keypoints.valid[0]
    return {
        "attention": parts.attention[0], "instance": parts.instance_map[0], "seeds": seeds[0],
        "box": parts.boxes[0], "index": region.index[0][there],
        "path": torch.stack(path)[:, 0], "owner": keypoints.shifted.owner[0][there],
        "groups": [r.nonzero()[:, 0].tolist() for r in keypoints.filtered.members[0] if r.any()],
        "features": keypoints.filtered.features[0][valid], "tokens": keypoints.token[0][valid],
        "mask": parts.masks()[0], "iou": score[0], "recall": score[1],
    }  # fmt: skip


def library_map(numbers, state: dict, seed: int, monkeypatch) -> torch.Tensor:
    """[T] raw map from the bundle's queries and keys, by pointseg.nets.attention."""
    if state["map_kind"] == "similarity":
        return F.normalize(numbers.tokens, dim=-1) @ F.normalize(numbers.tokens[seed], dim=-1)
    pair = lambda _vit, _trace, block: (  # noqa: E731
        numbers.queries[block][None],
        numbers.keys[block][None],
    )
    monkeypatch.setattr(attention, "block_queries_keys", pair)
    depth = len(numbers.queries)
    vit, trace = (
        SimpleNamespace(depth=depth),
        SimpleNamespace(inputs=[numbers.tokens], attention=None),
    )
    row = torch.tensor([numbers.prefix + seed])
    if state["map_kind"] == "rollout":
        return attention.rollout_rows(vit, trace, row, min(state["depth"], depth))[
            -1, 0, 0, numbers.prefix :
        ]
    heads = attention.attention_rows(vit, trace, state["layer"] % depth, row)[
        0, :, 0, numbers.prefix :
    ]
    return heads.mean(0) if state["head"] < 0 else heads[state["head"]]


IN_PAGE = """async ([name, index, settings]) => {
  const model = window.pointsegModels[name], raw = await model.load(index);
  const url = URL.createObjectURL(new Blob([window.moduleText], { type: "text/javascript" }));
  const m = await import(url), picture = m.decoded(raw);
  const state = { ...m.STATE, ...settings,
    alpha: settings.alpha === null ? Infinity : settings.alpha ?? 1 };
  const found = m.shifted(picture, state), end = m.finished(picture, state, found),
    list = (v) => Array.from(v);
  return { attention: list(found.attention), instance: list(found.instance.values),
    seeds: found.seeds, box: found.box,
    index: found.index, path: found.path.map((r) => list(r.points)),
    owner: list(found.path.at(-1).owner),
    groups: end.groups.map((g) => g.members), features: end.groups.map((g) => list(g.feature)),
    tokens: end.groups.map((g) => g.token), mask: end.mask.map(Number), iou: end.iou,
    recall: end.recall };
}"""


@pytest.mark.browser
@pytest.mark.parametrize("which", [0, 1])
def test_numbers_equal_the_library(page, records, scenes, monkeypatch, which):
    page.evaluate("(text) => { window.moduleText = text; }", module_text())
    for settings in CASES:
        sent = {k: None if v == math.inf else v for k, v in settings.items()}
        theirs = page.evaluate(IN_PAGE, [NAME, which, sent])
        for name, ours in library(records[which], scenes[which], settings, monkeypatch).items():
            if name == "groups":
                assert theirs[name] == ours, (settings, name)
                continue
            value = np.nan if theirs[name] is None else np.array(theirs[name], dtype=float)
            ours = np.asarray(ours, dtype=float)
            np.testing.assert_allclose(
                np.reshape(value, ours.shape), ours, atol=1e-3, err_msg=f"{settings} {name}"
            )


@pytest.mark.browser
def test_the_cases_reach_every_branch(records, scenes, monkeypatch):
    """Filtering, merging and the empty mask all happen somewhere above.

    Or the comparison would prove little.
    """
    matches = [library(records[0], scenes[0], settings, monkeypatch) for settings in CASES]
    assert any(len(group) > 1 for one in matches for group in one["groups"])
    assert any(sum(map(len, one["groups"])) < len(one["seeds"]) for one in matches)
    assert any(0 < one["iou"] < 1 for one in matches)


@pytest.mark.browser
def test_a_point_moves_by_click_and_key_and_the_numbers_follow(page):
    page.evaluate(f"""() => {{ const m = window.pointsegModels['{NAME}'];
        m.set('map_kind', 'similarity'); m.set('instance_map', 'none');
        m.set('box_threshold', 0.8); }}""")
    settled(page)
    before = model(page, "key_points"), model(page, "box")
    canvas = page.locator("canvas.ps-picture")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] * 0.25, "y": box["height"] * 0.75})
    settled(page)
    assert [abs(v - w) <= 1 for v, w in zip(model(page, "point"), (32.5, 96.5))] == [True, True]
    assert (model(page, "key_points"), model(page, "box")) != before
    x, y = model(page, "point")
    for key in ("ArrowRight", "ArrowUp", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert model(page, "point") == [x + 7, y - 8]
    page.wait_for_function(
        "() => document.querySelector('[role=status]').textContent.startsWith('Point at')"
    )
    for key in ["ArrowDown"] * 30:
        page.keyboard.press(key)
    assert model(page, "point")[1] == 127.5, "the point stays in the picture"


@pytest.mark.browser
def test_sliders_stages_presets_and_reset(page):
    slider = page.locator("input[data-name=filter_threshold]")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert model(page, "filter_threshold") == pytest.approx(0.82)
    page.locator("button[data-stage=mask]").click()
    expect(page.locator("button[data-stage=mask]")).to_have_attribute("aria-pressed", "true")
    page.locator("input[data-name=keypoints]").fill("5")
    expect(page.locator(".ps-table tbody tr")).to_have_count(6)
    assert model(page, "keypoints") == 6
    page.locator("select[data-name=map_kind]").select_option("attention")
    expect(page.locator("input[data-name=head]")).to_be_visible()
    expect(page.locator("input[data-name=depth]")).to_be_hidden()
    page.locator("select[data-name=preset]").select_option("0")
    page.wait_for_function("() => document.querySelector('.ps-scores').textContent.length > 0")
    assert (
        model(page, "point") == [10.5, 12.5]
        and model(page, "picture") == 1
        and model(page, "alpha") == 2
    )
    page.get_by_role("button", name="Reset").click()
    assert (
        model(page, "alpha") == 1
        and model(page, "picture") == 1
        and model(page, "point") == [60.5, 52.5]
    )


@pytest.mark.browser
def test_play_runs_through_the_rounds_and_pauses(page):
    play = page.locator("button.ps-play")
    play.click()
    expect(play).to_have_attribute("aria-pressed", "true")
    page.wait_for_function(f"() => window.pointsegModels['{NAME}'].get('step') > 0")
    play.click()
    expect(play).to_have_attribute("aria-pressed", "false")
    assert 0 < model(page, "step") < STATE["rounds"]
    page.locator("input[data-name=rounds]").fill("1")
    play.click()
    page.wait_for_function(
        "() => document.querySelector('.ps-play').getAttribute('aria-pressed') === 'false'"
    )
    assert model(page, "step") == -1


@pytest.mark.browser
def test_a_link_brings_the_state_back(page, browser, html):
    page.evaluate(f"""() => {{ const m = window.pointsegModels['{NAME}'];
        m.set('alpha', Infinity); m.set('point', [20.5, 30.5]);
        m.set('show_truth', false); m.set('map_kind', 'similarity'); }}""")
    page.wait_for_function("() => location.hash.includes('alpha')")
    other = open_page(browser, page.url)
    for name in ("point", "show_truth", "map_kind", "key_points", "box", "mask"):
        assert model(other, name) == model(page, name), name
    assert other.evaluate(f"() => window.pointsegModels['{NAME}'].get('alpha') === Infinity")
    other.close()
    spoilt = open_page(
        browser, html.as_uri() + "#explore?alpha=%3Cb%3E&point=a,b&nonsense=1&keypoints=12"
    )
    assert (model(spoilt, "alpha"), model(spoilt, "point"), model(spoilt, "keypoints")) == (
        1,
        STATE["point"],
        12,
    )
    spoilt.close()


@pytest.mark.browser
def test_what_is_saved_can_be_read(page):
    saved = {}
    for kind in ("PNG", "SVG", "JSON"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=kind, exact=True).click()
        assert waiting.value.suggested_filename.endswith(kind.lower())
        saved[kind] = Path(waiting.value.path()).read_bytes()
    record = json.loads(saved["JSON"])
    assert (
        record["key_points"] == model(page, "key_points")
        and record["state"]["keypoints"] == STATE["keypoints"]
    )
    assert (
        saved["PNG"][:4] == b"\x89PNG"
        and b"<circle" in saved["SVG"]
        and b"data:image/webp" in saved["SVG"]
    )


@pytest.mark.browser
def test_only_the_chosen_picture_is_loaded(page):
    assert page.first_scripts == ["p0.js"]
    page.locator("select[data-name=picture]").select_option("1")
    page.wait_for_function("() => document.head.querySelectorAll('script').length === 2")
    assert sorted(scripts(page)) == ["p0.js", "p1.js"]


@pytest.mark.browser
def test_a_missing_picture_is_said(browser, html, tmp_path):
    text = html.read_text().replace("bundles/", "gone/")
    (tmp_path / "page.html").write_text(text)
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function(
        "() => document.querySelector('[role=status]')?.textContent.includes('is not here')"
    )
    page.close()


def test_settings_have_the_same_names_and_defaults_in_both_languages():
    text = module_text()
    for name, value in STATE.items():
        if name == "point":
            continue
        shown = f"{value:g}" if isinstance(value, float) else json.dumps(value)
        assert f"{name}: {shown}" in text, name


def test_bytes_and_scales_come_back_close():
    # scales are 16-bit floats: below a hundredth they lose digits, which no attention would notice
    values = (
        torch.randn(3, 5, 2, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.1, 1.0])[:, None]
    )
    record = quantised(values)
    entry = {"blocks": 3, "heads": 2, "size": 8, "dim": 1, "prefix": 0, "grid": [1, 1], "stride": 1,
             "features": "AAA=", "queries": record}  # fmt: skip
    back = read_numbers(entry).queries.transpose(1, 2)
    limit = values.abs().amax(-1, keepdim=True) / 127 + 1e-6
    assert ((back - values).abs() <= 0.51 * limit + 127 * limit * 1e-3).all()


@pytest.mark.parametrize("values", [[0], [1, 1], [0, 0, 2, 2, 2, 1]])
def test_run_lengths(values):
    pairs = np.array(runs(torch.tensor(values))).reshape(-1, 2)
    assert np.repeat(pairs[:, 0], pairs[:, 1]).tolist() == values


@pytest.fixture
def live(scenes, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(widget, "MOST_SENT", 1000)  # so that maps have to be asked for
    net = TokenViT("small", dim=32, depth=2, heads=2)
    return widget.KeyPointExplorer([scenes[0].image], net, [scenes[0].truth], CATEGORIES)


def test_a_live_explorer_answers_for_one_token(live):
    assert "queries" not in live.bundle
    whole = read_numbers(make_bundle(live.vit, live.images[0], ""))
    rows = live.rows(37)
    exact = attention.scores_to_attention(whole.queries, whole.keys)[:, :, 37]  # [blocks, heads, T]
    assert rows.shape == (2 * 3 + 2, 256)
    torch.testing.assert_close(
        rows[[0, 1, 3, 4]], exact.flatten(0, 1).float(), atol=2e-3, rtol=0.05
    )
    torch.testing.assert_close(rows[2], rows[:2].mean(0))
    drawn = F.one_hot(torch.tensor(37), 256)
    torch.testing.assert_close(rows[6], (rows[5] + drawn) / 2)


def test_own_pictures_are_taken_or_refused_in_one_line(live, monkeypatch):
    messages = []
    monkeypatch.setattr(live, "send", messages.append)
    live.upload = picture_url(np.full((40, 600, 3), 90, np.uint8))
    assert (
        live.picture == 1 and live.images[1].shape == (34, 512, 3) and live.bundle["width"] == 512
    )
    for spoilt in ("data:image/png;base64,AAAA", "data:image/png;base64,%%%", "no picture"):
        live.upload = spoilt
    assert live.picture == 1 and [s["kind"] for s in messages] == ["refused"] * 3


def test_kept_points_become_a_points_file(live, tmp_path):
    name = CATEGORIES[3].name
    live.kept = [
        {"picture": 0, "point": [3.5, 4.5], "name": name},
        {"picture": 0, "point": [9.5, 4.5], "name": ""},
    ]
    live.save_points(tmp_path / "points.json")
    back = read_points(tmp_path / "points.json")
    points = back.for_image("picture 1")
    assert points.xy.tolist() == [[3.5, 4.5], [9.5, 4.5]]
    assert [back.categories[k].name for k in points.label.tolist()] == [name, "object"]


def test_an_alpha_without_limit_crosses_to_the_page_and_back(live):
    assert live.get_state("alpha") == {"alpha": 1.0}
    live.set_state({"alpha": None})
    assert live.alpha == math.inf and live.get_state("alpha") == {"alpha": None}


def test_a_picture_too_large_for_a_page_is_refused(tmp_path):
    with pytest.raises(ValueError, match="too many"):
        write_script({"features": "A" * 2_000_000}, tmp_path, "big")
    assert not list(tmp_path.iterdir())


def test_nothing_in_a_page_ends_its_script_early():
    page = embed([{"name": "a", "title": "</script><b>"}])
    assert page.count("</script>") == 1


def test_deepest_pixel_of_a_square():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 1:6] = True
    assert deepest_pixel(mask) == [3.5, 4.5]


def test_failures_are_found_and_become_presets(scenes):
    torch.manual_seed(0)
    vit = TokenViT("small", dim=32, depth=2, heads=2)
    matches = find_cases(vit, [s.image for s in scenes], [s.truth for s in scenes])
    assert list(matches) == list(KINDS)
    for preset in presets(matches, {0: 0, 1: 1}):
        assert set(preset["state"]) <= set(STATE)
    worst = matches["ground"]
    assert all(0 <= value <= 1 for value in worst.strength.values())


def test_the_model_of_a_run_is_looked_into_and_one_without_a_vit_is_refused(scenes, tmp_path):
    for name in ("attentionshift", "points_alone"):
        chosen = recipe.make(name)
        save_model(tmp_path / f"{name}.pt", chosen.build(CATEGORIES), chosen, CATEGORIES)
    explorer = widget.KeyPointExplorer([scenes[0].image], tmp_path / "attentionshift.pt")
    assert explorer.vit.dim == recipe.make("attentionshift").build(CATEGORIES).student.vit.dim == 32
    with pytest.raises(InputError, match="points_alone has no ViT"):
        widget.KeyPointExplorer([scenes[0].image], tmp_path / "points_alone.pt")
