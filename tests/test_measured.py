"""What has been measured is counted from the folders of runs alone."""

import json

from pointseg.bookkit import measured, report
from pointseg.lab.plan import beds


def ended(runs, name, status="ok"):
    folder = runs / name
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps({"status": status, "kind": "bench"}))
    (folder / "recipe.json").write_text("{}")


def test_beds_are_counted_with_the_seeds_of_their_rows(tmp_path):
    for name in ("bench-a/x/s0", "bench-a/x/s1", "bench-a/y/s0", "bench-b/x/s0", "other/x/s0"):
        ended(tmp_path, name)
    ended(tmp_path, "bench-b/y/s0", "crashed")
    held = report.Trial({}, [])
    assert measured.sentence(tmp_path, held) == (
        "Labels scored so far, rows × seeds: a 2 × 1-2, b 1 × 1. "
        "Rows of students trained so far: 0."
    )


def test_every_bed_of_the_plan_says_what_it_is_made_of(root, monkeypatch):
    monkeypatch.chdir(root)
    described = {name: (measured.images_of(bed), measured.trained_for(bed))
            for name, bed in beds().items()}  # fmt: skip
    assert described["as-people"] == ("Penn-Fudan's people", "nothing")
    assert described["exits-even-nuclei"] == ("nuclei of DSB2018", "nothing")
    assert described["exits-even-photos"][0] == "photographs of VOC 2012"
    assert described["epld-bestiary"][1].startswith("each row's labeller, ")
    assert described["p2m-photos"][1] == "a first stage"
