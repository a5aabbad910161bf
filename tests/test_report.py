"""Verdicts follow from runs alone: each word of the four can be had, and none without what it needs."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pointseg.bookkit import report
from pointseg.lab.run_record import Run

CLAIMS = {
    "tolerance": 1.0,
    "seeds_for_a_verdict": 3,
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
    "selectors": [
        {
            "paper": "AS",
            "table": "3",
            "row": 0,
            "method": "as",
            "config": {"maps": "self"},
            "scores": {"mAP": "val/AP50"},
        },
        {
            "paper": "AS",
            "table": "3",
            "row": 1,
            "method": "as",
            "config": {},
            "scores": {"mAP": "val/AP50"},
        },
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


@pytest.fixture
def add(tmp_path):
    def write(name, score, seed=0, scale="small", status="ok", **config):
        run = Run(tmp_path / "runs" / name)
        run.folder.mkdir(parents=True)
        recipe = {
            "method": "as",
            "scale": scale,
            "seed": seed,
            "config": config,
            "points": {"kind": "centre"},
        }
        run.write("recipe.json", recipe)
        run.write("result.json", {"status": status, "metrics": {"val": {"AP50": score}}})

    return write


def words(tmp_path):
    held = report.Trial(CLAIMS, report.finished(tmp_path / "runs"))
    return [c.verdict for c in held.cells()]


def test_without_runs_nothing_is_decided(tmp_path):
    assert words(tmp_path) == [report.NOT_RUN, report.NOT_RUN]


def seeds(add, name, scores, **settings):
    for seed, score in enumerate(scores):
        add(f"{name}{seed}", score, seed, **settings)


def test_three_seeds_in_order_give_direction_holds(tmp_path, add):
    seeds(add, "base", [30, 31, 29], maps="self")
    seeds(add, "full", [35, 30, 40])
    assert words(tmp_path) == [report.DIRECTION, report.DIRECTION]


def test_the_wrong_order_is_not_reproduced(tmp_path, add):
    seeds(add, "base", [30, 31, 29], maps="self")
    seeds(add, "full", [25, 30, 20])
    assert words(tmp_path) == [report.FAILED, report.FAILED]


def test_rows_are_compared_on_the_seeds_they_share(tmp_path, add):
    """The full row is ahead by far on seeds that the base row was never run with, and behind on the shared one."""
    seeds(add, "full", [30, 90, 90])
    add("base0", 35, 0, maps="self")
    sweep = CLAIMS | {"orders": [CLAIMS["orders"][0] | {"seeds": 1}]}
    assert words(tmp_path) == [report.NOT_RUN, report.NOT_RUN]
    held = report.Trial(sweep, report.finished(tmp_path / "runs"))
    assert [c.verdict for c in held.cells()] == [report.FAILED, report.FAILED]
    row = held.order_rows()[0]
    assert row["verdict"] == report.FAILED and [
        [v.score for v in side] for side in row["values"]
    ] == [[35], [30]]


def test_an_infinite_setting_finds_its_run(tmp_path, add):
    """A recipe is written as JSON, which knows no infinity."""
    add("vanilla", 50, 0, alpha="inf")
    selector = yaml.safe_load("{method: as, config: {alpha: .inf}}")
    runs = report.finished(tmp_path / "runs")
    assert [v.score for v in report.values_of(selector, "val/AP50", runs, "small")] == [50]


def test_a_sweep_shows_its_range_beside_the_spread_over_seeds(tmp_path, add):
    sweep = CLAIMS | {"orders": [CLAIMS["orders"][0] | {"seeds": 1}]}

    def line():
        return report.sweeps_table(report.Trial(sweep, report.finished(tmp_path / "runs")), "AS")

    add("full0", 30, 0)
    assert "<td>15.2</td><td>-</td><td>-</td>" in line()
    add("full1", 33, 1)
    add("full2", 36, 2)
    assert "<td>15.2</td><td>-</td><td>3.0</td>" in line()
    add("base0", 35, 0, maps="self")
    assert "<td>15.2</td><td>5.0</td><td>3.0</td>" in line()


def test_other_data_stand_beside_no_printed_row():
    nuclei = {"method": "as", "layout": "coco", "data": "data/dsb2018"}
    assert not report.fits({"method": "as", "layout": "coco"}, nuclei)
    assert report.fits({"method": "as", "layout": "coco"}, nuclei | {"data": "bestiary"})
    assert report.fits({"method": "as", "data": "data/dsb2018"}, nuclei)


def test_the_same_seed_twice_is_one_seed(tmp_path, add):
    for k in range(3):
        add(f"base{k}", 30 + k, 0, maps="self")
        add(f"full{k}", 50 + k, 0)
    assert words(tmp_path) == [report.NOT_RUN, report.NOT_RUN]


def test_two_seeds_smoke_runs_and_crashed_runs_decide_nothing(tmp_path, add):
    seeds(add, "base", [30, 31, 29], maps="self")
    seeds(add, "full", [35, 36])
    add("full2", 37, 2, status="crashed")
    add("full3", 37, 3, scale="smoke")
    add("other", 37, 4, alpha=0.1)
    assert words(tmp_path) == [report.NOT_RUN, report.NOT_RUN]


def test_at_scale_paper_the_tolerance_decides(tmp_path, add):
    add("a", 38.9, scale="paper", maps="self")
    add("b", 51.9, scale="paper")
    assert words(tmp_path) == [report.REPRODUCED, report.FAILED]


def test_ours_never_stands_in_the_printed_column(tmp_path, add):
    seeds(add, "base", [11, 11, 11], maps="self")
    held = report.Trial(CLAIMS, report.finished(tmp_path / "runs"))
    page = report.printed_table(held, "AS", "3")
    first = page.split("<tr>")[2]
    assert "</span></td><td>38.0</td><td><a" in first and "11.0 ± 0.0" in first and "n=3" in first
    assert 'href="runs.html#base0"' in first


def test_a_sign_between_our_rows_is_printed_where_it_is_true():
    row = lambda score: [report.Value("a", 0, score)]  # noqa: E731
    text = report.in_order([row(1.0), row(3.0), row(2.0), []])
    assert text.count("&lt;") == 1 and text.count("&ge;") == 1 and text.endswith(", -")
    assert text.index("&lt;") < text.index("3.0") < text.index("&ge;") < text.index("2.0")


def test_a_students_labels_are_those_of_its_own_model():
    def student(name, seed, pq):
        recipe = {"method": "psps", "scale": "small", "seed": seed}
        return report.Finished(
            Run(Path(name)), recipe, {f"val/{kind}": pq for kind in ("PQ", "PQ_th", "PQ_st")}
        )

    held = report.Trial(CLAIMS, [student("a", 0, 60.0), student("b", 1, 62.0)])
    quality = {
        "b": {"PQ": 70.0, "PQ_th": 71.0, "PQ_st": 72.0},
        "another": {"PQ": 1.0, "PQ_th": 1.0, "PQ_st": 1.0},
    }
    page = report.taught_table(
        held, "taught by", {"PSPS": {"method": "psps"}, "no run": {"method": "x"}}, quality
    )
    shown = re.findall(r"<td[^>]*>(.*?)</td>", page)
    text = [re.sub(r"<[^>]+>|&nbsp;", "", cell) for cell in shown]
    assert text[:2] == ["PSPS", "61.0 ± 1.4 n=2"] and text[4:7] == [
        "70.0 n=1",
        "71.0 n=1",
        "72.0 n=1",
    ]
    assert text[7:] == ["no run", *"------"]


def test_gains_are_taken_seed_by_seed_where_both_rows_have_the_seed():
    def run(method, seed, pq):
        return report.Finished(
            Run(Path(method)), {"method": method, "scale": "small", "seed": seed}, {"val/PQ": pq}
        )

    runs = [
        run("a", 0, 60.0),
        run("a", 1, 61.0),
        run("a", 3, 90.0),
        run("b", 1, 63.0),
        run("b", 0, 58.0),
        run("b", 0, 60.0),
    ]
    pairs = {
        "a over b": ({"method": "a"}, {"method": "b"}),
        "a over c": ({"method": "a"}, {"method": "c"}),
    }
    page = report.gains_table(report.Trial(CLAIMS, runs), "gain", pairs, "val/PQ")
    assert re.findall(r"<td[^>]*>(.*?)</td>", page) == [
        "a over b",
        "-0.5",
        "+1.0, -2.0",
        "a over c",
        "-",
        "-",
    ]


def test_the_command_prints_orders_and_counts(tmp_path, add, capsys):
    import yaml

    (tmp_path / "claims.yml").write_text(yaml.safe_dump(json.loads(json.dumps(CLAIMS))))
    lines = report.verdict_lines(tmp_path / "claims.yml", tmp_path / "runs")
    assert (
        lines[0].startswith("not run")
        and "modules help" in lines[0]
        and "    2 printed cells not run" in lines
    )


def test_every_selector_and_order_of_the_book_names_a_printed_row(root):
    claims = report.read_claims(root / "book" / "claims.yml")
    size = {(p, t["id"]): len(t["rows"]) for p, c in claims["papers"].items() for t in c["tables"]}
    columns = {(p, t["id"]): t["columns"] for p, c in claims["papers"].items() for t in c["tables"]}
    for entry in claims["selectors"]:
        assert entry["row"] < size[entry["paper"], entry["table"]], entry
        assert set(entry["scores"]) <= set(columns[entry["paper"], entry["table"]]), entry
    for order in claims["orders"]:
        assert max(order["rows"]) < size[order["paper"], order["table"]], order


def test_all_printed_cells_of_the_four_papers_are_listed(root):
    cells = report.trial(root / "book" / "claims.yml", root / "runs").cells()
    assert {c.paper for c in cells} == {"AS", "EXITS", "EPLD", "P2M"}
    assert any(c.printed == 53.2 and c.paper == "AS" for c in cells)


def test_a_run_shows_what_tables_ask_for_and_hides_the_rest():
    text = report.headline({"val/AP": 1.0, "val/PQ": 64.62, "speed": 3.0})
    assert text.startswith("val/PQ 64.6<details>") and "2 more" in text and "val/AP 1.0" in text
    assert report.headline({"val/PQ": 1.0}) == "val/PQ 1.0"


def test_a_long_name_may_break_and_reads_the_same():
    head = re.search("<th>(.*?)</th>", report.table(["key_point_shift"], [["a_b"]])).group(1)
    assert head.split("<wbr>") == ["key_", "point_", "shift"] and "<td>a_b</td>" in report.table(
        ["x"], [["a_b"]]
    )
