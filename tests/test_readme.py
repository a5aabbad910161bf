"""The README says what is so: its table is computed, its code runs, its files exist."""

import re
from types import SimpleNamespace

import pytest

from pointseg.bookkit import readme
from pointseg.lab.verdicts import CONTRADICTED, HOLDS, NOT_RUN, OUTSIDE, Step, Verdict


@pytest.fixture
def text(root) -> str:
    return (root / "README.md").read_text()


def test_the_table_of_claims_is_that_of_the_runs(root, text):
    table = readme.claims_table(root / "book" / "claims.yml", root / "runs")
    assert readme.renewed(text, table) == text


def verdict(claim, word, bed, *why, missed=()):
    return Verdict(claim, f"what {claim} says", bed, word, tuple(why), tuple(missed))


def test_a_claim_has_one_line_whatever_its_beds_say():
    low, high = Step("a", "b", CONTRADICTED, called="two over one"), Step("b", "c", HOLDS)
    held = SimpleNamespace(
        on_bench=[
            verdict("A", OUTSIDE, "x", low, missed=["too few"]),
            verdict("B", OUTSIDE, "x", high, missed=["too few"]),
            verdict("C", CONTRADICTED, "x", high, low), verdict("C", NOT_RUN, "y"),
            verdict("C", HOLDS, "z", high),
        ],
        verdicts={"C": verdict("C", HOLDS, None, high)},
    )  # fmt: skip
    both, alone = readme.claim_lines(held)
    assert (both.claim, both.says) == ("A, B", "2 orders of rows")
    assert both.marked("*{}*") == "*outside* on x (too few)"
    assert alone.marked("*{}*") == (
        "*contradicted* on x (two over one: -); *holds* on z (c over b: -), students (c over b: -)"
    )


def test_a_table_that_differs_is_replaced_between_its_markers():
    old = "a\n<!-- claims -->\nold\n<!-- end of claims -->\nb\n"
    assert readme.renewed(old, "new") == "a\n<!-- claims -->\nnew\n<!-- end of claims -->\nb\n"
    assert readme.renewed("no markers", "new") == "no markers"


def test_the_python_of_the_readme_runs_from_points_to_masks(text):
    [block] = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    masks, points = names["masks"], names["points"]
    assert masks.shape == (2, 128, 128) and len([line for line in block.splitlines() if line]) <= 12
    assert all(mask[int(y), int(x)] for mask, (x, y) in zip(masks, points.xy))


def test_the_readme_is_short_and_its_files_are_there(root, text):
    written = readme.renewed(text, "")  # the table grows with the runs
    assert len(written.splitlines()) <= 75
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert links and all((root / link).exists() for link in links)
    assert (root / readme.PICTURE).stat().st_size <= 120_000
