"""Names that would be a program in a page, or lead out of runs/: shown as what they are, or
refused."""

import gzip
import io
import json
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from test_book import CHROMIUM, FLAGS

from pointseg.bookkit import forest, gains, layers, markup, measured, readme, report, run_figures
from pointseg.bookkit.cost import tables
from pointseg.bookkit.explorer.bundle import make_bundle, write_script
from pointseg.bookkit.explorer.page import embed
from pointseg.bookkit.status_page import status_page
from pointseg.cli import main
from pointseg.data.bestiary import CATEGORIES, draw
from pointseg.lab.batch.states import Standing
from pointseg.lab.run_record import Run, run_folder
from pointseg.lab.verdicts import HOLDS
from pointseg.nets.vit import TokenViT
from pointseg.structures import Category, InputError

NAME = "\"'><img src=x onerror=document.title='ran'><script>document.title='ran'</script>"


@pytest.fixture
def run(tmp_path):
    """A run whose every text is hostile, in folders that are."""
    folder = tmp_path / "runs" / "tried" / NAME.replace("/", "") / "s0"
    folder.mkdir(parents=True)
    made = Run(folder)
    stage = {"method": NAME, "config": {NAME: NAME}}
    made.write("recipe.json", {"stages": [stage], "points": {"n": 1, "kind": NAME}})
    key = {"notebook": "a.py", "parameters": {NAME: NAME}, "code": {NAME: NAME}, "data": NAME}
    ended = {"status": "ok", "metrics": {NAME: 1.0}, "finished": NAME, "kind": NAME, "key": key}
    made.write("result.json", ended)
    made.write("env.json", {"device": NAME})
    (folder / NAME.replace("/", "")).write_text("a file")
    return made


def shown(run, root):
    """HTML of everything that pages show of runs, names and classes."""
    value, name = report.Value(run.id, 0, 1.0), NAME
    held = SimpleNamespace(value=lambda row, score: [value])
    row = {"group": name, "name": name, "precision": name, "images": 1, "side": 1, "ms": 1.0,
           "median_ms": 1.0, "peak_mb": 1.0, "floor_ms": 1.0}  # fmt: skip
    run.write("result.json", {"metrics": {"machines": [{"threads": 1}]}, "finished": name})
    line = tables.source_line(run)
    run.write("result.json", {"status": "ok", "metrics": {name: 1.0}})
    return "\n".join([
        report.runs_table(root, {run.id: "stale"}), report.source_line(run), line,
        report.number([value]), report.ours_table(held, name, {name: name}, {name: name}),
        report.table(*tables.cost_table([row])), report.in_order([[value], [value]]),
        report.table([name], [[name]]), markup.filled('<p title="{}">{}</p>', name, name),
        embed([{"title": name, "name": "picture", "start": [1, 1]}],
              [{"title": name, "text": name, "state": {}}], name="box"),
    ])  # fmt: skip


@pytest.mark.browser
def test_no_name_runs_in_a_browser(run, tmp_path):
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    standing = [Standing(NAME, NAME, 1.0, NAME, NAME)]
    (tmp_path / "status.html").write_text(status_page(standing, NAME))
    page_file = tmp_path / "page.html"
    head = "<!doctype html><meta charset=utf-8><title>quiet</title>"
    page_file.write_text(head + shown(run, tmp_path / "runs"))
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = running.new_page()
        page.goto(page_file.as_uri())
        page.wait_for_timeout(500)
        assert page.title() == "quiet"
        assert page.locator("img[src=x]").count() == 0
        assert NAME in page.inner_text("body")  # shown as what it is
        page.goto((tmp_path / "status.html").as_uri())
        assert page.title() != "ran" and page.locator("img").count() == 0
        assert NAME in page.inner_text("body")
        running.close()


CLAIMS = {
    "tolerance": 1.0,
    "papers": {NAME: {"title": NAME, "tables": [
        {"id": NAME, "columns": [NAME, f"AP{NAME}"], "units": {f"AP{NAME}": "percent"},
         "rows": [{NAME: NAME, f"AP{NAME}": 38.0}, {NAME: NAME, f"AP{NAME}": 53.2}]}]}},
    "measured": [{"paper": NAME, "table": NAME, "row": k, "ours": row,
                  "scores": {f"AP{NAME}": "val/AP50"}}
                 for k, row in enumerate(("as-tab3-baseline", "as-full"))],
    "orders": [{"id": f"{NAME}-{k}", "paper": NAME, "table": NAME, "column": f"AP{NAME}",
                "rows": [0, 1], "says": NAME, "sweep": True, "beds": beds, "gates": NAME}
               for k, beds in enumerate((["as-photos"], ["as-bestiary"], []))],
    "gates": {NAME: [{"name": NAME, "row": "as-full", "score": ["iou"], "at_least": 99}]},
}  # fmt: skip


def claimed(claims_file, runs):
    """HTML of every table that pages make of claims, whose every text is hostile, and of our own
    headings."""
    held, bed, row = report.trial(claims_file, runs), "as-photos", "as-full"
    png = io.BytesIO()
    plt.figure(figsize=(1, 1)).savefig(png)
    return [
        readme.claims_page(claims_file, runs), report.printed_table(held, NAME, NAME),
        report.paper_verdicts(held, NAME), report.orders_table(held),
        report.sweeps_table(held, NAME), report.gates_table(held.claims, NAME, [bed], runs),
        report.bench_table(held, bed, {NAME: row}, ["iou"]),
        report.students_table(held, NAME, {NAME: row}),
        report.gains_table(held, NAME, {NAME: (row, row)}, NAME),
        report.spread_table({NAME: (bed, row)}, "iou", runs),
        gains.table_of({NAME: runs / f"bench-{bed}"}, row, "as-tab3-baseline",
                       {NAME: ("iou", "all")}),
        layers.slider(png.getvalue(), 2, NAME, NAME), measured.sentence(runs, held),
    ]  # fmt: skip


@pytest.mark.browser
def test_no_name_of_a_claim_runs_in_a_browser(tmp_path, monkeypatch, root):
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    plt.switch_backend("agg")
    monkeypatch.chdir(root)
    (tmp_path / "claims.yml").write_text(json.dumps(CLAIMS))
    parts = claimed(tmp_path / "claims.yml", root / "runs")
    head = "<!doctype html><meta charset=utf-8><title>quiet</title>"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = running.new_page()
        for k, part in enumerate(parts):
            (tmp_path / "page.html").write_text(head + part)
            page.goto((tmp_path / "page.html").as_uri())
            page.wait_for_timeout(100)
            assert page.title() == "quiet" and page.locator("img[src=x]").count() == 0, k
            named = NAME in page.evaluate("document.body.textContent")
            assert named or k == len(parts) - 1, k  # the last one names beds alone
        running.close()


def explorer_page(folder):
    """A page of the explorer: the image's name and the classes of its objects are hostile."""
    scene = draw(0, "val", 0, 64)
    classes = [replace(each, name=NAME) for each in CATEGORIES]
    torch.manual_seed(0)
    network = TokenViT("small", dim=48, depth=3, heads=3)
    write_script(make_bundle(network, scene.image, NAME, scene.truth, classes), folder, "p0")
    down, right = np.argwhere(scene.truth.masks[0].numpy())[0] + 0.5
    entries = [{"name": "p0", "title": NAME, "start": [float(right), float(down)]}]
    head = "<!doctype html><meta charset=utf-8><title>quiet</title>"
    (folder / "page.html").write_text(head + f"<body>{embed(entries, (), './')}</body>")
    return folder / "page.html"


@pytest.mark.browser
def test_no_name_runs_in_the_explorer_or_in_what_it_saves(tmp_path):
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = running.new_page(accept_downloads=True)
        page.goto(explorer_page(tmp_path).as_uri())
        page.wait_for_function("() => document.querySelector('.pointseg-explorer')?.dataset.drawn")
        page.wait_for_function("() => document.querySelector('.ps-status')?.innerText")
        assert NAME in page.inner_text(".ps-status") and page.title() == "quiet"
        with page.expect_download() as waiting:
            page.get_by_role("button", name="SVG", exact=True).click()
        waiting.value.save_as(tmp_path / "saved.svg")
        assert page.locator("img[src=x]").count() == 0
        page.goto((tmp_path / "saved.svg").as_uri())
        assert NAME in page.evaluate("document.querySelector('title')?.textContent")
        assert page.evaluate("document.querySelectorAll('script, img, parsererror').length") == 0
        running.close()


TEX = r"$\frac{$, $\foo$"  # no formula that matplotlib could draw


def texts_of(figure):
    figure.canvas.draw()
    return {text.get_text(): text.get_parse_math() for text in figure.findobj(Text)}


def test_rows_of_the_forest_plot_are_drawn_as_they_are():
    plt.switch_backend("agg")
    effect = SimpleNamespace(mean=1.0, low=0.0, high=2.0)
    step = SimpleNamespace(effect=effect, below=f"a-{TEX}", above=f"b-{TEX}", word=HOLDS, printed=2)
    verdict = SimpleNamespace(steps=[step], id=TEX, place=TEX, missed=())
    [line] = [text for text in texts_of(forest.figure([verdict])) if "$" in text and "over" in text]
    assert line == f"{TEX} on {TEX}: {TEX} over {TEX}"


def test_losses_and_classes_of_a_run_are_drawn_as_they_are(monkeypatch, tmp_path):
    plt.switch_backend("agg")
    run = Run(tmp_path / "runs" / "tried" / "row" / "s0")
    run.folder.mkdir(parents=True)
    line = {"stage": 0, "step": 0, "losses": {TEX: 1.0}}
    (run.folder / "log.jsonl.gz").write_bytes(gzip.compress(f"{json.dumps(line)}\n".encode()))
    monkeypatch.setattr(plt, "show", lambda: texts_of(plt.gcf()))
    run_figures.show_losses(run)
    method = SimpleNamespace(SCORES=("val",))
    corpus = SimpleNamespace(scored=SimpleNamespace(image=lambda i: torch.zeros(3, 4, 4)))
    predicted = SimpleNamespace(label=torch.tensor([0]))
    monkeypatch.setattr(run_figures, "load_model", lambda path: (method, None, [Category(1, TEX)]))
    monkeypatch.setattr(run_figures, "open_corpus", lambda recipe: corpus)
    monkeypatch.setattr(run_figures, "predictions", lambda *words: [predicted])
    monkeypatch.setattr(run_figures, "worth_drawing", lambda prediction: prediction)
    monkeypatch.setattr(run_figures, "masks_at", lambda *words: [np.ones((4, 4), bool)])
    run_figures.show_predictions(run)
    assert texts_of(plt.gcf())[TEX] is False


def test_what_is_not_marked_as_html_is_escaped():
    assert markup.escape("<b>") == "&lt;b&gt;" and markup.escape(markup.Html("<b>")) == "<b>"
    assert markup.filled("<i>{}</i>", "<b>") == "<i>&lt;b&gt;</i>"
    assert "<b>" not in report.table(["<b>"], [["<b>", 1.5]])


@pytest.mark.parametrize("part", ["..", ".", "", "a/b", "/etc", "a\\b", NAME, "a b", "ä", "-x",
                                  "a\n", "x" * 101, "C:"])  # fmt: skip
def test_no_run_has_a_folder_of_such_a_name(part):
    with pytest.raises(InputError, match="cannot name a run"):
        run_folder("tried", part, "s0")


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", NAME, "a\nb"])
def test_nothing_leaves_runs(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    chapter = '# %% tags=["parameters"]\nscale: str = "x"\nseed: str = "0"\n\n# %%\nprint(1)\n'
    (tmp_path / "any.py").write_text("# %% [markdown]\n# # Any\n\n" + chapter)
    assert main(["run", "any.py", "-p", f"seed={name}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["train", "--", name]) == 2
    assert not (tmp_path / "runs").exists() and not (tmp_path / "work").exists()


def test_a_plan_cannot_lead_out_either(tmp_path, monkeypatch, root, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_toc.yml").write_text("")
    (tmp_path / "book" / "experiment.py").write_text((root / "book/experiment.py").read_text())
    rows = {"../../escaped": {"row": {"stages": [{"method": "psps"}], "scale": "small"}}}
    (tmp_path / "book" / "plan.yml").write_text(json.dumps({"rows": rows}))
    assert main(["train", "row"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
