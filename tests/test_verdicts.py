"""Verdicts of the label bench: intervals with the coverage they promise, words that follow."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pointseg.bookkit import forest, intervals, report
from pointseg.lab.claims import read_claims
from pointseg.lab.evaluation import Scored, write_by_image
from pointseg.lab.plan import beds
from pointseg.lab.row_names import difference
from pointseg.lab.run_record import Run
from pointseg.lab.verdicts import (
    CONTRADICTED,
    HOLDS,
    NOT_RUN,
    OUTSIDE,
    UNDECIDED,
    Step,
    beside,
    claim_of,
    judge,
    judge_statement,
    judge_students,
    on_bench,
    seeds_needed,
    spread_of,
    spread_on,
    two_way,
    word_of,
)
from pointseg.structures import InputError

CLAIMS = Path(__file__).parent.parent / "book" / "claims.yml"
CLAIM = {
    "id": "X",
    "says": "b above a",
    "score": "iou",
    "rows": ["a", "b"],
    "printed": [40.0, 42.4],
}


def simulated(rng, effect=0.0, seeds=5, images=100, by_seed=1.0, by_image=3.0, noise=6.0):
    """Differences [seeds, images] with crossed random effects."""
    return (
        effect + by_seed * rng.normal(size=(seeds, 1)) + by_image * rng.normal(size=(1, images))
        + noise * rng.normal(size=(seeds, images))
    )  # fmt: skip


@pytest.mark.parametrize(("seeds", "by_seed"), [(5, 0.0), (5, 1.0), (3, 0.3)])
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, by_seed):
    rng, counts = np.random.default_rng(0), np.ones(100)
    effects = [two_way(simulated(rng, 1.5, seeds, by_seed=by_seed), counts) for _ in range(1000)]
    covered = np.mean([e.low < 1.5 < e.high for e in effects])
    assert 0.93 <= covered <= 0.975


def test_by_hand_two_seeds_and_two_images_of_unequal_counts():
    """Three objects, one of image 0 and two of image 1: their mean, not that of the images."""
    effect = two_way(np.array([[3.0, 0.0], [3.0, 0.0]]), np.array([1, 2]))
    assert effect.mean == pytest.approx(1.0) and effect.objects == 3


def test_an_effect_that_is_there_gets_its_word_and_one_that_is_not_gets_none():
    rng, counts = np.random.default_rng(1), np.ones(100)
    words = {
        effect: [word_of(two_way(simulated(rng, effect, by_seed=0.3), counts)) for _ in range(300)]
        for effect in (-4.0, 0.0, 4.0)
    }
    assert words[4.0].count(HOLDS) > 290 and words[-4.0].count(CONTRADICTED) > 290
    assert words[0.0].count(UNDECIDED) > 270


def test_one_seed_decides_nothing():
    assert word_of(two_way(np.full((1, 50), 9.0), np.ones(50))) == UNDECIDED


def test_more_seeds_are_named_where_they_would_decide():
    rng = np.random.default_rng(2)
    table = simulated(rng, 0.0, seeds=4, images=400, by_seed=2.0, by_image=0.1, noise=1.0)
    table += 1.0 - table.mean()
    needed = seeds_needed(table, np.ones(400))
    assert word_of(two_way(table, np.ones(400))) == UNDECIDED and 4 < needed < 100
    wide = simulated(rng, 0.0, seeds=4, images=30, by_seed=0.01, by_image=30.0, noise=0.1)
    wide += 0.5 - wide.mean()
    assert seeds_needed(wide, np.ones(30)) is None


def kept(runs, row, seed, iou, **scores):
    """A record of the bench with one thing in each of many images, and one piece of stuff."""
    folder = runs / "bench-bed" / row / f"s{seed}"
    folder.mkdir(parents=True)
    lines = ["image,target,contact,iou", "0,9,stuff,0.5"]
    lines += [f"{i},1,apart,{value:.3f}" for i, value in enumerate(iou)]
    (folder / "objects.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    result = {"status": "ok", "metrics": {"bench": scores}}
    (folder / "result.json").write_text(json.dumps(result))


def bench(runs, gain, seeds=4, rows=("a", "b"), **scores):
    rng = np.random.default_rng(3)
    for seed in range(seeds):
        base = rng.uniform(0.2, 0.6, 60)
        for k, row in enumerate(rows):
            kept(runs, row, seed, base + k * gain + 0.02 * rng.normal(size=60), **scores)


@pytest.mark.parametrize(("gain", "word"), [(0.1, HOLDS), (-0.1, CONTRADICTED), (0, UNDECIDED)])
def test_records_become_a_word_and_an_effect_beside_the_papers(tmp_path, gain, word):
    bench(tmp_path, gain)
    verdict = judge(CLAIM, "bed", tmp_path)
    assert verdict.word == word and verdict.steps[0].effect.objects == 60
    assert verdict.steps[0].effect.mean == pytest.approx(100 * gain, abs=1.0)
    assert "paper +2.4" in str(verdict)


def test_a_row_that_was_not_run_never_hides_one_that_contradicts(tmp_path):
    bench(tmp_path, -0.1)
    claim = {**CLAIM, "rows": ["a", "b", "c"], "printed": [1.0, 2.0, 3.0]}
    assert judge(claim, "bed", tmp_path).word == CONTRADICTED
    assert judge({**claim, "rows": ["b", "a", "c"]}, "bed", tmp_path).word == NOT_RUN


def test_students_go_through_the_same_interval(tmp_path):
    rng, runs = np.random.default_rng(4), {"a": [], "b": []}
    for seed in range(3):
        base = 40 + 9 * rng.normal(size=80)
        for row, gain in (("a", 0), ("b", -5)):
            run = Run(tmp_path / row / f"s{seed}")
            run.folder.mkdir(parents=True)
            values = base + gain + rng.normal(size=80)
            write_by_image(run, {"val": Scored({}, {"PQ": values})})
            runs[row].append(run)
    claim = {**CLAIM, "of_students": "val/PQ"}
    verdict = judge_students(claim, runs)
    assert verdict.word == CONTRADICTED and verdict.steps[0].effect.mean == pytest.approx(-5, abs=1)
    longer = {**claim, "rows": ["a", "b", "c"], "printed": [1.0, 2.0, 3.0]}
    assert judge_students(longer, runs).word == CONTRADICTED
    assert judge_students({**claim, "of_students": "val/AP"}, runs).word == UNDECIDED


def test_a_claimed_level_holds_between_its_limits_and_not_beyond(tmp_path):
    bench(tmp_path, 0.0)  # means of .2 to .6
    statement = {"id": "L", "says": "about 33", "row": "a", "score": "iou", "value": 33}
    words = {(20, 60): HOLDS, (60, 90): CONTRADICTED, (0, 40): UNDECIDED}
    for (low, high), word in words.items():
        verdict = judge_statement(statement | {"at_least": low, "at_most": high}, "bed", tmp_path)
        assert verdict.word == word and "paper 33.0" in str(verdict)
    assert forest.figure([verdict]) is None  # a level is no difference
    elsewhere = judge_statement(statement | {"at_least": 0, "at_most": 9}, "other", tmp_path)
    assert elsewhere.word == NOT_RUN


def test_one_seed_of_a_level_is_undecided(tmp_path):
    bench(tmp_path, 0.0, seeds=1)
    limits = {"at_least": 0, "at_most": 100}
    statement = {"id": "L", "says": "", "row": "a", "score": "iou", "value": 33, **limits}
    assert judge_statement(statement, "bed", tmp_path).word == UNDECIDED


def test_a_bed_that_misses_a_gate_is_outside_and_says_which(tmp_path):
    bench(tmp_path, 0.1, map_precision=58.6)
    gate = {"name": "precision", "row": "a", "score": "map_precision", "at_least": 70}
    verdict = judge({**CLAIM, "gates": [gate]}, "bed", tmp_path)
    assert verdict.word == OUTSIDE and "precision 58.6, at least 70 is needed" in str(verdict)
    for score in ("absent", ["absent", "part_recall"]):
        verdict = judge({**CLAIM, "gates": [{**gate, "score": score}]}, "bed", tmp_path)
        assert verdict.word == OUTSIDE and "precision was not measured" in str(verdict)
    second = {"name": "precision", "row": "a", "score": ["absent", "map_precision"], "at_least": 50}
    assert judge({**CLAIM, "gates": [second]}, "bed", tmp_path).word == HOLDS


def test_gates_are_printed_whatever_comes_out(tmp_path):
    bench(tmp_path, 0.1, map_precision=58.6)
    gate = {"name": "precision", "row": "a", "score": "map_precision"}
    gates = [{**gate, "at_least": 70}, {**gate, "at_most": 60}, {**gate, "row": "z", "at_most": 1}]
    shown = report.gates_table({"gates": {"AS": gates}}, "AS", ["bed", "none"], tmp_path)
    cells = [line.split("<td>")[2:] for line in shown.split("<tr>")[2:]]
    words = [[cell.split("<")[0] for cell in line] for line in cells]
    assert words == [
        ["at least 70", "58.6, missed"],
        ["at most 60", "58.6, met"],
        ["at most 1", "-"],
    ]
    assert "none" not in shown


def test_spreads_over_seeds_and_over_images_by_hand(tmp_path):
    """Two seeds two points apart, three images ten points apart."""
    table = np.array([[10.0, 20.0, 30.0], [12.0, 22.0, 32.0]])
    spread = spread_of(table, np.ones(3))
    assert (spread.mean, spread.by_seed, spread.by_image) == pytest.approx(
        (21, 2**0.5, 10 / 3**0.5)
    )
    assert spread_of(table[:1], np.ones(3)).by_seed is None
    bench(tmp_path, 0.1)
    known = spread_on("bed", "a", "iou", tmp_path)
    assert 0 < known.by_seed and 0 < known.by_image and 20 < known.mean < 60
    assert spread_on("bed", "absent", "iou", tmp_path) is None
    ours = {"ours": ("bed", "a"), "other": ("bed", "z")}
    shown = report.spread_table(ours, "iou", tmp_path)
    assert f"<td>{known.by_seed:.1f}</td>" in shown and "not run yet: other" in shown
    drawn = {bed: report.seeds_draw(bed) for bed in ("as-photos", "as-bestiary", "p2m-photos")}
    assert drawn == {"as-photos": "points"} | dict.fromkeys(
        ("as-bestiary", "p2m-photos"), "points and training"
    )


def test_rows_that_were_scored_on_other_images_are_refused(tmp_path):
    bench(tmp_path, 0.1, seeds=2)
    kept(tmp_path, "a", 2, np.full(50, 0.5))
    kept(tmp_path, "b", 2, np.full(50, 0.6))
    with pytest.raises(InputError, match="scored on other images"):
        judge(CLAIM, "bed", tmp_path)
    kept(tmp_path, "a", 3, np.full(60, 0.5))
    kept(tmp_path, "b", 3, np.full(50, 0.6))
    with pytest.raises(InputError, match="scored other objects"):
        judge(CLAIM, "bed", tmp_path)


def test_the_forest_draws_a_line_for_each_effect(tmp_path):
    bench(tmp_path, 0.1)
    axis = forest.figure([judge(CLAIM, "bed", tmp_path)]).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["X on bed: b over a"]
    (ours,) = axis.containers
    assert ours.lines[0].get_xdata()[0] == pytest.approx(10, abs=1)
    assert forest.figure([]) is None


def test_the_claims_of_the_book_name_rows_beds_and_gates_that_are_there():
    claims = yaml.safe_load(CLAIMS.read_text())
    verdicts = on_bench(claims, Path("nowhere"))
    assert verdicts and {v.bed for v in verdicts} <= set(beds())
    for verdict in verdicts:
        named = {row for step in verdict.steps for row in (step.below, step.above) if row}
        assert named <= set(beds()[verdict.bed].rows)
        assert verdict.word == NOT_RUN and not verdict.missed


def test_rules_that_forget_seeds_or_images_hold_the_truth_less_often():
    rng = np.random.default_rng(5)
    few, many = intervals.coverage(rng, 300, 5, 0.3), intervals.coverage(rng, 300, 5, 2.0)
    by_rule = dict(zip(intervals.RULES, zip(few, many)))
    assert min(by_rule["seeds and images crossed"]) > 89
    assert by_rule["t over seeds"][0] < 92 and by_rule["images within seeds"][0] < 88
    assert by_rule["images"][1] < 70


def test_each_seed_says_what_it_would_alone(tmp_path):
    bench(tmp_path, 0.1, seeds=3)
    (tmp_path / "bench-bed" / "a").rename(tmp_path / "bench-bed" / "x")
    (tmp_path / "bench-bed" / "b").rename(tmp_path / "bench-bed" / "y")
    rows = [{"v": 1.0}, {"v": 2.0}]
    claims = {
        "papers": {"P": {"tables": [{"id": "1", "rows": rows}]}},
        "measured": [{"paper": "P", "table": "1", "row": k, "ours": ours, "scores": {"v": "val/PQ"}}
                     for k, ours in enumerate("xy")],
        "orders": [{"id": "P-1", "paper": "P", "table": "1", "column": "v", "rows": [0, 1],
                    "says": "", "beds": ["bed"]}],
    }  # fmt: skip
    [(name, effect, each)] = intervals.seed_by_seed(claims, tmp_path, "bed")
    assert name == "y over x" and len(each) == 3 and np.mean(each) == pytest.approx(effect.mean)
    assert intervals.agreeing(each) == 3 and intervals.agreeing([1.0, 2.0, -1.0]) == 2
    assert not list(intervals.seed_by_seed(claims, tmp_path, "other"))


def printed(*values):
    return dict(zip(("method", "label", "E_cls", "warmup_epochs", "fusion", "PQ"), values))


NAMED = {
    "units": {"PQ": "percent", "warmup_epochs": "epochs"},
    "rows": [
        printed("PSPS", None, True, 0, ["F1"], 1.0),
        printed("EPLD", "P1", True, 0, ["F1"], 2.0),
        printed("EPLD", "M", False, 0, ["F1"], 2.0),
        printed("EPLD", "M", False, 8, ["F1", "F2"]),
    ],
}


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        ((1, 0), "EPLD over PSPS"),  # an empty cell tells nothing apart, nor do scores
        ((2, 1), "M, E_cls no over P1, yes"),
        ((3, 2), "warmup epochs 8, fusion F1+F2 over 0, F1"),
        ((1, 1), ""),  # the plan's names stand then
    ],
)
def test_two_printed_rows_are_called_by_what_differs(pair, name):
    assert difference(NAMED, *pair) == name


def test_a_step_is_called_as_the_paper_s_rows_are():
    claims = read_claims(CLAIMS)
    order = next(order for order in claims["orders"] if order["id"] == "EPLD-one-layer")
    step = Step("a", "b", UNDECIDED, **beside(claim_of(order, claims), 0))
    assert str(step) == "layers 6 over 1: -; paper +53.1"


def test_a_part_in_the_place_of_another_is_called_by_both():
    claims = read_claims(CLAIMS)
    order = next(order for order in claims["orders"] if order["id"] == "AS-modules")
    called = claim_of(order, claims)["called"]
    assert called[:2] == ["attention map generation over baseline", "key point shift yes over no"]
