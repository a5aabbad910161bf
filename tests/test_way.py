"""The way of a point that the book draws is the one that a point takes."""

import sys
from pathlib import Path

import pytest

from pointseg.bookkit import way
from pointseg.data.bestiary import make
from pointseg.data.layouts import open_dataset
from pointseg.data.points import read_points, sample_points, write_points
from pointseg.data.supervision import PointDataset, collate
from pointseg.papers.attentionshift.method import AttentionShift


@pytest.fixture(scope="module")
def called(tmp_path_factory) -> list[str]:
    """Every function of the library that one step from a file of points called, in order."""
    folder = tmp_path_factory.mktemp("way")
    make(folder / "bestiary", "coco", images=2, size=64, val=1, progress=False)
    dataset = open_dataset(folder / "bestiary", "train2017", "coco")
    write_points(folder / "points.json", sample_points(dataset, "centre", 1, 0))
    method, names = AttentionShift.build(dataset.categories, "smoke"), []

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and "pointseg" in path.parts:
            parts = path.with_suffix("").parts
            module = parts[len(parts) - parts[::-1].index("pointseg") :]
            names.append(".".join((*module, frame.f_code.co_qualname)))

    sys.setprofile(note)
    try:
        points = PointDataset(dataset, read_points(folder / "points.json"))
        method.losses(collate([points[0], points[1]]), 0)
    finally:
        sys.setprofile(None)
    return names


def in_order(names, calls) -> bool:
    left = iter(calls)
    return all(name in left for name in names)


def test_the_way_is_the_order_in_which_a_step_calls(called):
    assert in_order(way.WAY, called)


def test_a_way_with_two_steps_exchanged_is_seen(called):
    first, second, *rest = way.WAY
    assert not in_order([second, first, *rest], called)


def test_every_step_says_what_it_does_and_the_way_is_short():
    rows = way.way_rows()
    assert all(row[3] for row in rows)
    assert len(rows) <= 22 and way.files() <= 12  # the first edition: about 35 in 17 files
