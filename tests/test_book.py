"""The book builds without a warning, needs nothing from outside, types no numbers of its own."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jupytext
import nbformat
import pytest
import yaml

from pointseg.bookkit import figures

CHROMIUM = shutil.which("chromium")
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run "
         "--disable-background-networking --disable-component-update --disable-sync "
         "--allow-file-access-from-files").split()  # fmt: skip
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def html(tmp_path_factory) -> Path:
    """The book, built afresh; chapters that nothing changed are taken as they were executed."""
    root, out = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("book")
    jb = Path(sys.executable).with_name("jupyter-book")
    command = [
        jb,
        "build",
        "book",
        "--config",
        "_config.yml",
        "--path-output",
        out,
        "-W",
        "-n",
        "--keep-going",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, "\n".join((done.stdout + done.stderr).splitlines()[-60:])
    return out / "_build" / "html"


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
def served(html):
    handler = functools.partial(QuietHandler, directory=str(html))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Tests print nothing."""


def pages(html: Path) -> list[str]:
    return sorted(
        str(p.relative_to(html))
        for p in html.glob("*.html")
        if p.stem not in ("genindex", "search")
    )


HIDDEN = """() => {
    // of every number of ours:
    // is it what a reader sees at its place, once its table is scrolled there?
    const ours = [...document.querySelectorAll("table.claims a[href], table.claims .verdict")];
    const covered = e => { const {left, right, top, bottom} = e.getBoundingClientRect();
        const [x, y] = [(left + right) / 2, (top + bottom) / 2];
        const frame = e.closest(".table-scroll")?.getBoundingClientRect() ??
            {left: 0, right: innerWidth};
        if (x < Math.max(0, frame.left) || y < 0 || x >= Math.min(innerWidth, frame.right)
            || y >= innerHeight) return false;  // out of sight: scrolled there next
        const upper = document.elementFromPoint(x, y);
        return upper && !e.contains(upper) && !upper.contains(e); };
    const at_rest = e => { e.closest(".table-scroll")?.scrollTo(0, 0);
        e.scrollIntoView({block: "center", inline: "nearest", behavior: "instant"});
        e.closest(".table-scroll")?.scrollTo(0, 0); return covered(e); };
    const scrolled = e => {
        e.scrollIntoView({block: "center", inline: "center", behavior: "instant"});
        return covered(e); };
    const shown = ours.filter(e => e.checkVisibility());
    return [shown.length, shown.filter(e => at_rest(e) || scrolled(e)).map(e => e.innerText)];
}"""
CUT_CODE = """() => {
    const blocks = [...document.querySelectorAll("div.highlight pre")]
        .filter(e => e.checkVisibility());
    const cut = blocks.filter(e => e.scrollWidth > e.clientWidth + 1);
    return [blocks.length, cut.map(e => e.innerText.slice(0, 60))];
}"""


FAINT = """() => {
    document.documentElement.dataset.theme = "dark";
    const numbers = c => c.match(/[\\d.]+/g).map(Number), clear = c => numbers(c)[3] === 0;
    const linear = v => v <= 10 ? v / 3294 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    const light = c => { const [r, g, b] = numbers(c).map(linear);
                         return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const ground = e => e && clear(getComputedStyle(e).backgroundColor) ?
        ground(e.parentElement) : e;
    const of = (e, what) => light(getComputedStyle(e)[what]);
    const contrast = e => { const [a, b] = [of(e, "color"),
                                            of(ground(e) ?? document.body, "backgroundColor")];
                            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
    const told = [...document.querySelectorAll(".cell_output .text_html :is(p, a, th, td)")];
    return [told.length, told.filter(e => contrast(e) < 4.5).map(e => e.innerText.slice(0, 30))];
}"""


def visit(context, base: str, name: str) -> dict:
    """What a reader's browser met on one page."""
    page = context.new_page()
    met = {"outside": [], "errors": [], "missing": []}
    inside = ("data:", "blob:", base)
    page.on("request", lambda r: None if r.url.startswith(inside) else met["outside"].append(r.url))
    page.on("pageerror", lambda e: met["errors"].append(str(e)[:200]))
    page.on("requestfailed", lambda r: met["missing"].append(r.url))
    page.on("response", lambda r: met["missing"].append(r.url) if r.status >= 400 else None)
    page.goto(f"{base}/{name}", wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    met["broken"] = page.evaluate(
        "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src)"
    )
    met["mute"] = page.evaluate(
        "() => [...document.images].filter(i => !i.alt.trim()).map(i => i.src.slice(-80))"
    )
    met["wide"] = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
    (met["numbers"], met["covered"]), (met["blocks"], met["cut"]) = map(
        page.evaluate, (HIDDEN, CUT_CODE)
    )
    page.emulate_media(color_scheme="dark")
    page.add_style_tag(content="* { transition: none !important }")
    met["texts"], met["faint"] = page.evaluate(FAINT)
    page.close()
    return met


FAULTS = ("outside", "errors", "missing", "broken", "mute", "covered", "cut", "faint")


@pytest.mark.browser
def test_every_page_is_whole_over_http_and_can_be_read_in_the_dark(html, served, browser):
    desk = browser.new_context(viewport=DESK)
    met = {name: visit(desk, served, name) for name in pages(html)}
    assert {name: {f: one[f] for f in FAULTS if one[f]} for name, one in met.items()} == {
        name: {} for name in met
    }
    assert sum(one["blocks"] for one in met.values()) > 60  # the very blocks were looked at,
    # and the very texts, on two pages whose tables stand there without a run
    assert met["results.html"]["texts"] > 1000 and met["attentionshift.html"]["texts"] > 500


@pytest.mark.browser
def test_every_page_is_whole_from_disk_and_on_a_phone(html, browser):
    phone = browser.new_context(viewport=PHONE)
    for name in pages(html):
        met = visit(phone, html.as_uri(), name)
        fonts = (".woff2", ".woff", ".ttf")  # the theme's own, that it can do without
        met["missing"] = [u for u in met["missing"] if not u.endswith(fonts)]
        assert not any(met[fault] for fault in FAULTS), (name, met)
        assert met["wide"] <= 0, f"{name} is {met['wide']} px wider than a phone"


@pytest.mark.browser
def test_pale_text_on_a_pale_ground_is_seen(tmp_path, browser):
    body = (
        '<body style="background: #111; color: #eee"><div class="cell_output">'
        '<div class="text_html">{}</div></div>'
    )
    cells = '<p>on dark</p><p style="background: #cdd"><a style="color: #5af">on pale</a></p>'
    (tmp_path / "dark.html").write_text(body.format(cells))
    met = visit(browser, tmp_path.as_uri(), "dark.html")
    assert (met["texts"], met["faint"]) == (3, ["on pale", "on pale"])


@pytest.mark.browser
def test_a_faulty_page_is_seen(tmp_path, browser):
    text = (
        '<img src="gone.png"><script src="http://192.0.2.1/x.js"></script>'
        '<script>throw new Error("no")</script>'
    )
    (tmp_path / "bad.html").write_text(text)
    met = visit(browser, tmp_path.as_uri(), "bad.html")
    assert all(met[fault] for fault in ("outside", "errors", "missing", "broken", "mute"))


WIDE = """<div class="table-scroll" style="overflow-x: auto; width: 300px"><table class="claims"
style="width: 900px"><tr><td>row</td><td><a href="#">53.2</a></td>
<td{}><b class="verdict">not run</b></td></tr>
</table></div>"""
STICKY = ' style="position: sticky; right: 0; padding: 0 99px; background: white"'


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_number_under_a_sticky_verdict_is_seen(tmp_path, browser, width):
    (tmp_path / "sticky.html").write_text(WIDE.format(STICKY))
    (tmp_path / "plain.html").write_text(WIDE.format(""))
    context = browser.new_context(viewport={"width": width, "height": 800})
    met = visit(context, tmp_path.as_uri(), "sticky.html")
    assert (met["numbers"], met["covered"]) == (2, ["53.2"])
    assert visit(context, tmp_path.as_uri(), "plain.html")["covered"] == []


@pytest.mark.browser
def test_a_line_of_code_that_is_cut_is_seen(tmp_path, browser):
    block = (
        '<div class="highlight"><pre style="overflow: auto; {}">' + "x = 1; " * 60 + "</pre></div>"
    )
    text = block.format("") + block.format("white-space: pre-wrap")
    (tmp_path / "code.html").write_text(text)
    met = visit(browser, tmp_path.as_uri(), "code.html")
    assert (met["blocks"], len(met["cut"])) == (2, 1)


@pytest.mark.browser
def test_no_picture_of_a_page_is_larger_than_its_limit(html):
    images = [p for s in ("png", "jpg", "webp", "svg") for p in (html / "_images").glob(f"*.{s}")]
    assert images
    assert [p.name for p in images if p.stat().st_size > figures.LARGEST_FIGURE] == []


@pytest.mark.browser
def test_every_chapter_can_be_downloaded_as_source_and_as_notebook(html, root):
    sources = [path for path in chapters(root) if path.suffix == ".py"]
    assert len(sources) > 8
    for path in sources:
        page = (html / f"{path.stem}.html").read_text()
        assert all(f'href="_sources/{path.stem}{kind}"' in page for kind in (".ipynb", ".py")), (
            path.name
        )
        notebook = nbformat.read(html / "_sources" / f"{path.stem}.ipynb", 4)
        nbformat.validate(notebook)
        assert len(notebook.cells) == len(jupytext.read(path).cells)


def chapters(root: Path) -> list[Path]:
    toc = yaml.safe_load((root / "book" / "_toc.yml").read_text())
    names = [toc["root"]] + [c["file"] for c in toc["chapters"]]
    return [
        next(p for s in (".py", ".md") if (p := root / "book" / f"{n}{s}").exists()) for n in names
    ]


def prose(path: Path) -> str:
    """What a reader reads as running text: no code, no formulas, no directives, no tables."""
    text = path.read_text()
    if path.suffix == ".py":
        cells = re.split(r"^# %%", text, flags=re.M)
        text = "\n".join(
            c.split("\n", 1)[1] for c in cells if c.lstrip().startswith("[markdown]") and "\n" in c
        )
        text = re.sub(r"^# ?", "", text, flags=re.M)
    text = re.sub(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", " ", text, flags=re.S)
    return "\n".join(line for line in text.splitlines() if not line.startswith("|"))


TYPED_SCORE = re.compile(
    r"\b\d+\.\d+\s*(?:%|points?\b|PQ|AP|mAP|IoU)|\b(?:PQ|m?AP\d*|IoU) (?:of|is|=) \d"
)


def test_no_score_is_typed_in_prose(root):
    for path in chapters(root):
        assert not TYPED_SCORE.findall(prose(path)), (path.name, TYPED_SCORE.findall(prose(path)))


@pytest.mark.parametrize(
    "sentence", ["reaches 53.2 mAP here", "a PQ of 60", "an IoU of 0.71", "rises by 2.4 points"]
)
def test_a_typed_score_is_seen(sentence):
    assert TYPED_SCORE.search(sentence)


def test_no_notebook_file_stands_in_the_book(root):
    assert not list((root / "book").rglob("*.ipynb"))
