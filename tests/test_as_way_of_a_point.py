"""The way of a point, from its file to its mask loss, held against the trace of a real step."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import test_as_method as scenes
import yaml
from support.memory_dataset import MemoryDataset

import pointseg
from pointseg.data.augment import Augment
from pointseg.data.point_file import MANUAL, ImagePoints, PointFile, read_points, write_points
from pointseg.data.supervision import PointDataset, collate
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.structures import Training
from pointseg.training.loop import Settings, Trainer


@pytest.fixture(scope="module")
def way(root):
    return yaml.safe_load((root / "book" / "way_of_a_point.yml").read_text())


def dataset_with_points(folder):
    """A dataset and the file of a point on each of its things."""
    dataset, images = MemoryDataset(2, 48), {}
    for row, image_id in enumerate(dataset.ids):
        truth = dataset.truth(row)
        truth = truth.pick(truth.is_thing & ~truth.is_crowd)
        points = replace(scenes.points_in(truth.masks, truth.label), target=truth.target)
        images[image_id] = ImagePoints(*dataset.size(row), points)
    write_points(
        folder / "points.json", PointFile(MANUAL, 1, None, None, dataset.categories, images)
    )
    return dataset, folder / "points.json"


def one_step(folder):
    """A training step, all the way from the file."""
    dataset, path = dataset_with_points(folder)
    samples = PointDataset(dataset, read_points(path), Augment())
    method = AttentionShift.build(dataset.categories, "smoke")
    trainer = Trainer(method, Settings(Training(steps=1, batch=2)), "cpu")
    trainer.advance(collate([samples[0], samples[1]]))


def calls(work):
    """Dotted names of the functions of the library in the order of their first calls."""
    library, names = Path(pointseg.__file__).parent, {}

    def noted(frame, event, _):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(str(library)):
            module = Path(path).relative_to(library.parent).with_suffix("").parts
            names.setdefault(".".join([*module, frame.f_code.co_qualname]))

    sys.setprofile(noted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return list(names)


def test_a_step_calls_the_functions_of_the_way_in_their_order(way, tmp_path):
    called = calls(lambda: one_step(tmp_path))
    stations = [station["function"] for station in way]
    assert [name for name in called if name in stations] == stations


def test_a_function_that_no_step_calls_is_noticed(way, tmp_path):
    stations = [station["function"] for station in way]
    assert "pointseg.papers.attentionshift.shift.random_seeds" not in stations
    called = calls(lambda: dataset_with_points(tmp_path))
    assert [name for name in called if name in stations] != stations


def test_the_way_is_short(way):
    """House: 35 hops through 17 files and 14 carriers once; 17 through 9 and 9 now."""
    files = {module_of(station["function"]) for station in way}
    carriers = {s["gives"] for s in way if s["gives"][0].isupper()}
    assert len(way) <= 18 and len(files) <= 9 and len(carriers) <= 9


def module_of(function):
    """The module of a dotted function or method: what stands before the first capital or the
    name."""
    parts = function.split(".")[:-1]
    return ".".join(part for part in parts if part[0].islower())
