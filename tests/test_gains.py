"""Gains of rows over others on a bed: over all objects, over a group, along a setting."""

import gzip
import json

import pytest

from pointseg.bookkit import gains

HEAD = "image,target,contact,iou,taken,pieces"


def record(bed, row, seed, objects):
    folder = bed / row / f"s{seed}"
    folder.mkdir(parents=True)
    text = "\n".join([HEAD, *objects])
    (folder / "objects.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "result.json").write_text(json.dumps({"status": "ok", "metrics": {}}))


@pytest.fixture
def bed(tmp_path):
    """Three objects in two images: one alone, one beside its kin, one in two pieces; what the
    second row adds differs between them."""
    for seed in (0, 1):
        record(tmp_path, "x-plain", seed,
               ["0,1,apart,0.5,,1", "0,2,same,0.5,0.4,1", "1,1,other,0.5,,2"])  # fmt: skip
        record(tmp_path, "x-more", seed,
               ["0,1,apart,0.5,,1", "0,2,same,0.8,0.1,1", "1,1,other,0.6,,2"])  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("score", "group", "mean", "objects"),
    [("iou", "all", 40 / 3, 3), ("iou", "touch their own class", 30, 1),
     ("taken", "have kin in their box", -30, 1), ("iou", "in several pieces", 10, 1)],
)  # fmt: skip
def test_a_gain_is_the_mean_over_the_objects_of_a_group(bed, score, group, mean, objects):
    effect = gains.effect_of(bed, "x-more", "x-plain", score, group)
    assert effect.mean == pytest.approx(mean) and effect.objects == objects and effect.seeds == 2


def test_a_gain_over_a_row_that_was_not_run_is_none(bed):
    assert gains.effect_of(bed, "x-more", "x-absent") is None
    table = gains.table_of({"bed": bed}, "x-more", "x-absent", {"IoU": ("iou", "all")})
    assert "not run yet: bed" in table and "2 seeds" not in table


def test_a_gain_over_a_group_without_objects_is_none(tmp_path):
    for row in ("x-plain", "x-more"):
        record(tmp_path, row, 0, ["0,1,apart,0.5,,1"])
    assert gains.effect_of(tmp_path, "x-more", "x-plain") is not None
    assert gains.effect_of(tmp_path, "x-more", "x-plain", "iou", "touch their own class") is None


def test_a_sweep_draws_a_point_a_row_and_a_dash_for_what_was_not_run(bed):
    panels = {"level": (bed, {"1": "x-more", "2": "x-absent"}), "weight": (bed, {"0": "x-absent"})}
    figure = gains.sweep_figure(panels, "x-plain")
    drawn, empty = figure.axes
    points = [container.lines[0].get_ydata()[0] for container in drawn.containers]
    assert points == pytest.approx([40 / 3]) and not empty.containers
    assert [text.get_text() for text in drawn.texts] == ["–"]
    assert [text.get_text() for text in empty.texts] == ["not run"] and not len(empty.get_yticks())
    assert [tick.get_text() for tick in drawn.get_xticklabels()] == ["1", "2"]
