"""Every warning is an error; of other packages a few are let through, each by package and text."""

import tomllib
import warnings

import pytest

KINDS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning)
OLD = DeprecationWarning
LET_THROUGH = [
    ("pycocotools.mask", "__array__ implementation doesn't accept a copy keyword, so", OLD),
    ("/x/site-packages/ot/datasets", "invalid escape sequence '\\d'", OLD),
    ("/x/site-packages/ot/datasets", "invalid escape sequence '\\d'", SyntaxWarning),
    ("nbclient.client", "datetime.datetime.utcnow() is deprecated", OLD),
    ("multiprocessing.popen_fork", "This process (pid=3) is multi-threaded, use of fork", OLD),
]


def warn(text, kind, module):
    warnings.warn_explicit(text, kind, "planted.py", 1, module=module)


@pytest.mark.parametrize("module", ["pointseg.data.planted", "elsewhere.planted", "tests.planted"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_warning_is_an_error_wherever_it_comes_from(kind, module):
    with pytest.raises(kind):
        warn("planted", kind, module)


@pytest.mark.parametrize("module, text, kind", LET_THROUGH)
def test_what_is_let_through_is_one_text_of_one_module(module, text, kind):
    warn(text, kind, module)
    for other in ((text, "pointseg.data.planted"), ("planted", module)):
        with pytest.raises(kind):
            warn(other[0], kind, other[1])


def test_nothing_else_is_let_through(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    first, *ignored = settings["filterwarnings"]
    assert first == "error" and len(ignored) == len(LET_THROUGH)
    assert "-W" not in settings["addopts"] and "no:" not in settings["addopts"]
