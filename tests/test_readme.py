"""The README says what is so: its table is computed, its code runs, its files exist."""

import re

import pytest

from pointseg.bookkit import readme


@pytest.fixture
def text(root) -> str:
    return (root / "README.md").read_text()


def test_the_table_of_claims_is_that_of_the_runs(root, text):
    table = readme.claims_table(root / "book" / "claims.yml", root / "runs")
    assert readme.renewed(text, table) == text


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
