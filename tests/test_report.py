"""Verdicts follow from runs alone: each word can be had, and none without what it needs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.finished_runs import finish

from pointseg.bookkit import report
from pointseg.lab.evaluation import Scored, write_by_image
from pointseg.lab.plan import rows
from pointseg.lab.recipe import PointChoice
from pointseg.lab.run_record import Run
from pointseg.lab.verdicts import Step, Verdict
from pointseg.structures import InputError

BASE, FULL = "as-tab3-baseline", "as-full"
CLAIMS = {
    "tolerance": 1.0,
    "papers": {
        "AS": {
            "tables": [
                {
                    "id": "3",
                    "columns": ["name", "mAP"],
                    "units": {"mAP": "percent"},
                    "rows": [
                        {"name": "base", "mAP": 38.0},
                        {"name": "full", "mAP": 53.2},
                        {"name": "x", "mAP": None},
                    ],
                }
            ]
        }
    },
    "measured": [
        {"paper": "AS", "table": "3", "row": k, "ours": name, "scores": {"mAP": "val/AP50"}}
        for k, name in enumerate((BASE, FULL))
    ],
    "orders": [
        {
            "id": "AS-3",
            "paper": "AS",
            "table": "3",
            "column": "mAP",
            "rows": [0, 1],
            "says": "modules help",
        }
    ],
}


@pytest.fixture(autouse=True)
def _plan(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture
def add(tmp_path):
    def write(row, score, seed=0, by_image=True, **more):
        run = finish(tmp_path, row, {"val": {"AP50": score}}, seed, **more)
        values = score + 5 * np.random.default_rng(seed).normal(size=40)
        if by_image:
            one = Scored({}, {"AP50": values - values.mean() + score})
            write_by_image(run, {"val": one})
        return run

    return write


def words(tmp_path, **changes):
    return [c.verdict for c in trial(tmp_path, **changes).cells()]


def trial(tmp_path, **changes):
    return report.Trial(CLAIMS | changes, report.finished(tmp_path / "runs"))


def seeds(add, row, scores):
    for seed, score in enumerate(scores):
        add(row, score, seed)


def run_of(row, seed, **scores):
    return report.Finished(Run(Path("runs") / "p" / row / f"s{seed}"), row, {"seed": seed}, scores)


def test_without_runs_nothing_is_decided(tmp_path):
    assert words(tmp_path) == [report.NOT_RUN, report.NOT_RUN]


def test_an_interval_above_zero_holds(tmp_path, add):
    seeds(add, BASE, [30, 31, 29])
    seeds(add, FULL, [35, 36.5, 34])
    assert words(tmp_path) == [report.HOLDS, report.HOLDS]
    step = trial(tmp_path).verdicts["AS-3"].steps[0]
    assert step.effect.mean == pytest.approx(31 / 6, abs=0.05) and step.printed == 15.2


def test_an_interval_below_zero_contradicts(tmp_path, add):
    seeds(add, BASE, [30, 31, 29])
    seeds(add, FULL, [25, 26.5, 24])
    assert words(tmp_path) == [report.CONTRADICTED, report.CONTRADICTED]


def test_a_mean_that_lies_above_decides_nothing_where_seeds_scatter(tmp_path, add):
    seeds(add, BASE, [30, 31, 29])
    seeds(add, FULL, [35, 30, 40])
    assert words(tmp_path) == [report.UNDECIDED, report.UNDECIDED]
    assert trial(tmp_path).verdicts["AS-3"].steps[0].needed > 3


def test_one_seed_is_undecided_and_so_are_runs_without_scores_by_image(tmp_path, add):
    add(BASE, 30)
    add(FULL, 90)
    assert words(tmp_path) == [report.UNDECIDED, report.UNDECIDED]
    assert "one seed" in str(trial(tmp_path).verdicts["AS-3"])
    for seed in (1, 2):
        add(BASE, 30, seed, by_image=False)
        add(FULL, 90, seed, by_image=False)
    assert trial(tmp_path).verdicts["AS-3"].steps[0].effect.seeds == 1


def test_what_would_decide_is_said_of_runs_that_keep_no_scores_by_image(tmp_path, add):
    seeds(add, BASE, [30])
    add(FULL, 90, by_image=False)
    verdict = trial(tmp_path).verdicts["AS-3"]
    assert verdict.word == report.UNDECIDED and "scores by image would decide" in str(verdict)
    assert "scores by image would decide" in report.orders_table(trial(tmp_path))


def test_rows_scored_on_other_images_are_refused(tmp_path, add):
    for row, images in ((BASE, "one"), (FULL, "other")):
        add(row, 30).write("data.json", {"scored": {"sha256": images}})
    with pytest.raises(InputError, match="scored on other images"):
        words(tmp_path)


def test_rows_are_compared_on_the_seeds_they_share(tmp_path, add):
    """The full row is ahead by far on seeds that the base row lacks, behind on the shared one."""
    seeds(add, FULL, [30, 90, 90])
    add(BASE, 35)
    row = trial(tmp_path).order_rows()[0]
    assert row["verdict"].steps[0].effect.mean == pytest.approx(-5, abs=0.05)
    assert [[v.score for v in side] for side in row["values"]] == [[35], [30]]


def test_a_cell_of_which_no_order_is_claimed_says_so(tmp_path, add):
    add(BASE, 30)
    assert words(tmp_path, orders=[]) == [report.NO_ORDER, report.NOT_RUN]


def with_stage(row, **changes):
    """The stages of a row, the last one changed."""
    *before, last = rows()[row].recipe.stages
    return (*before, replace(last, **changes))


def foreign():
    """A change to the full row's recipe, by what it makes different."""
    recipe = rows()[FULL].recipe
    longer = replace(recipe.stage.training, steps=4000)
    return {
        "training": {"stages": with_stage(FULL, training=longer)},
        "settings": {"stages": with_stage(FULL, config=(("alpha", 0.3),))},
        "start": {"stages": with_stage(FULL, starts_from=None)},
        "images": {"images": 500},
        "precision": {"precision": "float32"},
        "points": {"points": PointChoice("centre", n=5)},
        "data": {"data": "data/dsb2018"},
        "split": {"scored_on": "tune"},
        "size": {"image_size": 128},
    }


@pytest.mark.parametrize("what", ["training", "settings", "start", "images", "precision",
                                  "points", "data", "split", "size"])  # fmt: skip
def test_a_run_of_another_recipe_joins_no_row(tmp_path, add, what):
    """Also where somebody has put its folder among the row's own."""
    stranger = add(FULL, 99, **foreign()[what])
    place = tmp_path / "runs" / "attentionshift" / FULL / "s1"
    place.parent.mkdir(parents=True, exist_ok=True)
    stranger.folder.rename(place)
    assert [each.row for each in report.finished(tmp_path / "runs")] == [None]
    add(FULL, 50)
    held = report.finished(tmp_path / "runs")
    assert [v.score for v in report.values_of(FULL, "val/AP50", held)] == [50]


def test_an_infinite_setting_finds_its_run(tmp_path, add):
    """A recipe is written as JSON, which knows no infinity."""
    run = add("as-tab4-alphainf", 50)
    assert dict(rows()["as-tab4-alphainf"].recipe.stage.config) == {"alpha": float("inf")}
    assert run.read("recipe.json")["stages"][1]["config"]["alpha"] == "inf"
    runs = report.finished(tmp_path / "runs")
    assert [v.score for v in report.values_of("as-tab4-alphainf", "val/AP50", runs)] == [50]


ON_BED = CLAIMS | {"orders": [CLAIMS["orders"][0] | {"sweep": True, "beds": ["a", "b"]}]}


def on_bed(row, seed, iou, bed="a"):
    folder = Path("runs") / f"bench-{bed}" / row / f"s{seed}"
    return report.Finished(Run(folder), None, {"seed": seed}, {"bench/iou": iou})


def judged_by_beds(tmp_path, runs, *words):
    """A trial whose beds "a" and "b" are given their words, as if they had been computed."""
    held = report.Trial(ON_BED, runs, tmp_path)
    held.on_bench = [
        Verdict("AS-3", "", bed, word, (Step(BASE, FULL, word),), missed)
        for bed, (word, *missed) in zip("ab", words)
    ]
    return held


def test_a_sweep_shows_its_range_on_each_bed_beside_the_spread_over_seeds(tmp_path):
    runs = [on_bed(FULL, seed, iou) for seed, iou in enumerate((30, 33, 36))]
    page = report.sweeps_table(report.Trial(ON_BED, runs, tmp_path), "AS")
    assert "<td>15.2</td><td>a</td><td>-</td><td>3.0</td>" in page
    assert "<td>b</td>" not in page
    page = report.sweeps_table(report.Trial(ON_BED, [*runs, on_bed(BASE, 0, 35)], tmp_path), "AS")
    assert "<td>15.2</td><td>a</td><td>5.0</td><td>3.0</td>" in page


def test_an_order_that_beds_judge_is_none_of_the_students(tmp_path, add):
    seeds(add, BASE, [30, 31, 29])
    seeds(add, FULL, [35, 36.5, 34])
    held = report.Trial(ON_BED, report.finished(tmp_path / "runs"), tmp_path / "runs")
    assert held.verdicts == {} and held.order_rows() == []
    assert [verdict.place for verdict in held.on_bench] == ["a", "b"]
    assert "AS-3, a" in report.paper_verdicts(held, "AS")


def test_an_order_may_name_students_other_than_those_beside_the_printed_rows(tmp_path, add):
    seeds(add, BASE, [30, 31, 29])
    seeds(add, FULL, [35, 36.5, 34])
    [order] = CLAIMS["orders"]
    turned = CLAIMS | {"orders": [order | {"ours": [FULL, BASE]}]}
    for claims, word, first in ((CLAIMS, report.HOLDS, 30), (turned, report.CONTRADICTED, 35)):
        held = report.Trial(claims, report.finished(tmp_path / "runs"))
        assert held.verdicts[order["id"]].word == word
        assert held.order_rows()[0]["values"][0][0].score == first


def test_a_table_that_beds_judge_shows_their_labels_and_their_words(tmp_path):
    runs = [on_bed(FULL, 0, 40.0), on_bed(BASE, 0, 44.0)]
    held = judged_by_beds(tmp_path, runs, (report.CONTRADICTED,), (report.NOT_RUN,))
    page = report.printed_table(held, "AS", "3")
    assert "labels, a: IoU" in page and "labels, b" not in page and "ours, small" not in page
    assert ">44.0</a>" in page and page.count(">contradicted<") == 2
    alone = report.Trial(ON_BED | {"measured": [*CLAIMS["measured"], {
        "paper": "AS", "table": "3", "row": 2, "ours": "x", "scores": {"mAP": "val/AP50"}}]},
        [on_bed("x", 0, 40.0)], tmp_path)  # fmt: skip
    assert report.printed_table(alone, "AS", "3").count(">no order claimed<") == 1
    outside = judged_by_beds(tmp_path, runs, (report.OUTSIDE, "a gate"), (report.NOT_RUN,))
    assert report.printed_table(outside, "AS", "3").count(">outside<") == 2
    empty = judged_by_beds(tmp_path, [], (report.NOT_RUN,), (report.NOT_RUN,))
    assert {cell.verdict for cell in empty.cells()} == {report.NOT_RUN}


def test_a_sign_between_our_rows_is_printed_where_it_is_true():
    row = lambda score: [report.Value("a", 0, score)]  # noqa: E731
    text = report.in_order([row(1.0), row(3.0), row(2.0), []])
    assert text.count("&lt;") == 1 and text.count("≥") == 1 and text.endswith(", -")
    assert text.index("&lt;") < text.index("3.0") < text.index("≥") < text.index("2.0")


def test_crashed_runs_decide_nothing(tmp_path, add):
    seeds(add, BASE, [30, 31, 29])
    add(FULL, 37, 2, status="crashed")
    assert words(tmp_path) == [report.NOT_RUN, report.NOT_RUN]


def test_at_scale_paper_the_tolerance_decides(tmp_path, add):
    add(BASE, 38.9)
    add(FULL, 51.9)
    measured = [entry | {"at_paper": entry["ours"]} for entry in CLAIMS["measured"]]
    assert words(tmp_path, measured=measured) == [report.REPRODUCED, report.FAILED]


def test_ours_never_stands_in_the_printed_column(tmp_path, add):
    seeds(add, BASE, [11, 11, 11])
    held = report.Trial(CLAIMS, report.finished(tmp_path / "runs"))
    page = report.printed_table(held, "AS", "3")
    first = page.split("<tr>")[2]
    assert "</span></td><td>38.0</td><td><a" in first and "11.0 ± 0.0" in first and "n=3" in first
    assert f'href="runs.html#attentionshift/{BASE}/s0"' in first


def test_a_printed_table_without_a_run_is_the_paper_s_alone(tmp_path, add):
    page = report.printed_table(trial(tmp_path), "AS", "3")
    assert page.count("<th>") == 2 and "ours, small" not in page and page.count("not run") == 1
    add(BASE, 30)
    assert "ours, small" in report.printed_table(trial(tmp_path), "AS", "3")


def test_orders_that_wait_for_their_rows_are_folded_into_one_line(tmp_path, add):
    waiting = report.orders_table(trial(tmp_path))
    assert waiting.startswith("<details>") and waiting.count(report.NOT_RUN) == 1
    assert "modules help" in waiting and "+15.2" in waiting
    seeds(add, BASE, [30, 31])
    seeds(add, FULL, [35, 36])
    assert "<details>" not in report.orders_table(trial(tmp_path))


def test_a_table_of_ours_without_a_number_is_one_sentence():
    held = report.Trial(CLAIMS, [])
    page = report.ours_table(held, "switch", {"as it is": "a", "<b>": "x"}, {"AP": "val/AP"})
    assert "<table" not in page and "switch &ndash; not run yet: as it is; &lt;b&gt;." in page


def test_a_student_stands_beside_the_labels_that_taught_it():
    scores = {f"{part}/{kind}": 60.0 + k for part in ("val", "labels")
              for k, kind in enumerate(("PQ", "PQ_th", "PQ_st"))}  # fmt: skip
    held = report.Trial(CLAIMS, [run_of("a", seed, **scores) for seed in (0, 1)])
    page = report.students_table(held, "taught by", {"PSPS": "a", "no run": "x"})
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", page)]
    assert cells[:3] == ["PSPS", "60.0 ± 0.0 n=2", "61.0 ± 0.0 n=2"]
    assert cells[4] == "60.0 ± 0.0 n=2" and len(cells) == 7
    assert "taught by &ndash; not run yet: no run." in page


def test_gains_are_taken_seed_by_seed_where_both_rows_have_the_seed():
    scores = [("a", 0, 60.0), ("a", 1, 61.0), ("a", 3, 90.0), ("b", 1, 63.0), ("b", 0, 59.0)]
    runs = [run_of(row, seed, **{"val/PQ": pq}) for row, seed, pq in scores]
    pairs = {"a over b": ("a", "b"), "a over c": ("a", "c")}
    page = report.gains_table(report.Trial(CLAIMS, runs), "gain", pairs, "val/PQ")
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert cells == ["a over b", "-0.5", "+1.0, -2.0"]
    assert "gain &ndash; not run yet: a over c." in page


def test_the_command_prints_orders_and_counts(tmp_path, add, capsys):
    (tmp_path / "claims.yml").write_text(yaml.safe_dump(json.loads(json.dumps(CLAIMS))))
    lines = report.verdict_lines(tmp_path / "claims.yml", tmp_path / "runs")
    assert (
        lines[0].startswith("not run")
        and "modules help" in lines[0]
        and "    2 printed cells not run" in lines
    )


def test_every_measured_row_and_order_of_the_book_names_a_printed_row(root):
    claims = report.read_claims(root / "book" / "claims.yml")
    size = {(p, t["id"]): len(t["rows"]) for p, c in claims["papers"].items() for t in c["tables"]}
    columns = {(p, t["id"]): t["columns"] for p, c in claims["papers"].items() for t in c["tables"]}
    for entry in claims["measured"]:
        assert entry["row"] < size[entry["paper"], entry["table"]], entry
        assert set(entry["scores"]) <= set(columns[entry["paper"], entry["table"]]), entry
    for order in claims["orders"]:
        assert max(order["rows"]) < size[order["paper"], order["table"]], order
        assert set(order.get("ours", ())) <= set(rows()), order


def test_all_printed_cells_of_the_four_papers_are_listed(root):
    cells = report.trial(root / "book" / "claims.yml", root / "runs").cells()
    assert {c.paper for c in cells} == {"AS", "EXITS", "EPLD", "P2M"}
    assert any(c.printed == 53.2 and c.paper == "AS" for c in cells)


def test_a_bed_s_rows_stand_in_a_table_and_no_other_bed_s():
    runs = [on_bed("epld-full", *each) for each in ((0, 10.0), (1, 20.0), (0, 90.0, "ab"))]
    page = report.bench_table(report.Trial(CLAIMS, runs), "a", {"full": "epld-full"}, ["iou", "PQ"])
    assert "15.0" in page and "n=2" in page and "90" not in page and "<td>-</td>" in page


def test_a_run_shows_what_tables_ask_for_and_hides_the_rest():
    text = report.headline({"val/AP": 1.0, "val/PQ": 64.62, "speed": 3.0})
    assert text.startswith("val/PQ 64.6<details>") and "2 more" in text and "val/AP 1.0" in text
    assert report.headline({"val/PQ": 1.0}) == "val/PQ 1.0"


def test_a_long_name_may_break_and_reads_the_same():
    head = re.search("<th>(.*?)</th>", report.table(["key_point_shift"], [["a_b"]])).group(1)
    assert head.split("<wbr>") == ["key_", "point_", "shift"] and "<td>a_b</td>" in report.table(
        ["x"], [["a_b"]]
    )


def test_a_bed_s_run_shows_its_overlap_beside_what_is_folded_away():
    assert report.headline({"bench/PQ": 2.0, "bench/iou": 25.43}).startswith("bench/iou 25.4<detai")
