"""A recipe is a chain of stages: resolved once, written as JSON, refused in one line if wrong."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_method as tiny

from pointseg.lab import plan
from pointseg.lab import recipe as recipes
from pointseg.lab.chain import totals
from pointseg.lab.explain import Given, explained
from pointseg.lab.progress import Progress, clock, cut, read_log, write_log
from pointseg.lab.run_record import strict
from pointseg.structures import InputError, Training
from pointseg.training.loop import fit

CHAIN = [
    {"method": "token_querying"},
    {"method": "attentionshift", "starts_from": 0},
    {"method": "mask_rcnn", "starts_from": 0, "learns_from": 1},
]


@pytest.fixture(autouse=True)
def _tiny():
    tiny.register()


def test_a_recipe_survives_json_and_its_hash_follows_every_field_but_the_seed():
    points = {"kind": "jitter", "n": 10, "jitter_px": 2.0}
    chosen = recipes.make("tiny", points=points, config={"b": [1, 2], "a": 1})
    assert recipes.Recipe.from_json(chosen.to_json()) == chosen
    assert dict(chosen.stage.config) == {"a": 1, "b": (1, 2)}
    stage = dataclasses.replace(chosen.stage, training=Training(lr=2.0, steps=4, batch=2))
    others = [
        dataclasses.replace(chosen, stages=(stage,)),
        dataclasses.replace(chosen, images=9),
        dataclasses.replace(chosen, scored_on="tune"),
    ]
    assert len({r.sha8 for r in [chosen, *others]}) == 4
    assert dataclasses.replace(chosen, seed=1).sha8 == chosen.sha8


def test_a_chain_comes_back_with_its_links():
    chosen = recipes.make(stages=CHAIN)
    assert recipes.Recipe.from_json(chosen.to_json()) == chosen
    assert [stage.learns_from for stage in chosen.stages] == ["points", "points", 1]
    assert [stage.starts_from for stage in chosen.stages] == [None, 0, 0]
    assert chosen.head(1).stage.method == "attentionshift"


def test_a_method_alone_gets_the_first_stage_of_its_task_where_the_scale_has_one():
    usual = {scale: recipes.make("psps", scale=scale).stages for scale in recipes.SCALES}
    names = {scale: [stage.method for stage in stages] for scale, stages in usual.items()}
    chain = ["point_semantics", "psps"]
    assert names == {"smoke": chain, "small": chain, "photos": ["psps"], "paper": ["psps"]}
    assert recipes.make("mask_rcnn").stages[0].method == "token_querying"
    assert [stage.method for stage in recipes.make("tiny").stages] == ["tiny"]


@pytest.mark.parametrize("wrong, complaint", [
    ({"method": "nothing"}, "method: there is no 'nothing'"),
    ({"scale": "huge"}, "scale: there is no 'huge'; there are smoke, small, photos, paper"),
    ({"training": {"learning_rate": 1}}, "stage 0: training: there is no 'learning_rate'"),
    ({"points": {"kind": "random"}}, "points kind: there is no 'random'"),
    ({"points": {"kind": "jitter"}}, "points: jitter: expected a positive number of pixels"),
    ({"points": {"kind": "centre", "n": 3}}, "points: n: kind 'centre' gives one point"),
    ({"points": {"n": 0}}, "points: n: expected an integer of at least 1, got 0"),
    ({"points": {"seed": -1}}, "points: seed: expected an integer of at least 0, got -1"),
    ({"training": {"lr": "1e-4"}}, "training: lr: expected a number of at least 0, got '1e-4'"),
    ({"training": {"lr": math.nan}}, "training: lr: expected a number"),
    ({"training": {"steps": 4.5}}, "steps: expected an integer or null of at least 0, got 4.5"),
    ({"training": {"steps": True}}, "steps: expected an integer or null"),
    ({"training": {"batch": 0}}, "batch: expected an integer or null of at least 1, got 0"),
    ({"training": {"betas": [0.9]}}, "betas: expected a list of numbers"),
    ({"training": {"schedule": "zigzag"}}, "schedule: expected one of cosine, step, constant"),
    ({"training": [1]}, "stage 0: training: expected a table, got \\[1\\]"),
    ({"seed": "0"}, "recipe: seed: expected an integer of at least 0, got '0'"),
    ({"seed": -1}, "recipe: seed: expected an integer of at least 0, got -1"),
    ({"images": 0}, "recipe: images: expected an integer or null of at least 1, got 0"),
    ({"method": "psps", "config": {"path_stride": "4"}}, "path_stride: expected an integer, got"),
    ({"method": "psps", "config": {"semantic": "x"}}, "semantic: expected one of"),
    ({"method": "psps", "config": {"student": {"width": "x"}}}, "student: width: expected an int"),
    ({"method": "points_alone", "config": {"box_share": "1"}}, "box_share: expected a number"),
    ({"method": "attentionshift", "config": {"score": "1"}}, "score: expected a number"),
    ({"method": "attentionshift", "config": {"skore": 1}}, "config: there is no 'skore'"),
    ({"precision": "fp8"}, "precision: there is no 'fp8'"),
    ({"scored_on": "test"}, "scored_on: there is no 'test'; there are tune, val"),
    ({"depth": 3}, "recipe: there is no 'depth'"),
    ({"method": "exits", "points": {"kind": "centre"}}, "similarity_warmup needs extreme points"),
    ({"compile": True}, "compile: tiny has no part to compile"),
    ({"stages": [{"training": {}}]}, "stage 0: it names no method"),
    ({"stages": [{"method": "tiny", "teacher": "x"}]}, "stage 0: there is no 'teacher'"),
    ({"stages": [{"method": "tiny", "learns_from": "masks"}]}, "tiny cannot learn from masks"),
    ({"stages": [{"method": "tiny", "starts_from": 0}]},
     "stage 0: starts_from: there is no earlier"),
    ({"stages": [CHAIN[0], {"method": "tiny", "starts_from": 0}]}, "no parts that another stage"),
    ({"stages": [CHAIN[0], {"method": "mask_rcnn", "learns_from": 0}]}, "makes no labels"),
])  # fmt: skip
def test_what_is_wrong_is_refused_in_one_line(wrong, complaint):
    with pytest.raises(InputError, match=complaint) as caught:
        recipes.make(**{"method": "tiny", **wrong})
    assert "\n" not in str(caught.value)


@given(
    st.text(max_size=80)
    | st.just("{}")
    | st.just('{"points": {}, "stages": [{"training": {"x": 1}, "config": {}}]}')
)
def test_any_text_is_a_recipe_or_an_input_error(text):
    with pytest.raises(InputError):
        recipes.Recipe.from_json(text)


def test_an_infinite_setting_comes_back_from_a_runs_folder():
    chosen = recipes.make("tiny", config={"alpha": math.inf, "beta": 0.1})
    assert dict(chosen.stage.config)["alpha"] == math.inf
    written = json.dumps(strict(json.loads(chosen.to_json())), allow_nan=False)
    assert recipes.Recipe.from_json(written) == chosen


def test_epochs_become_steps_once_the_images_are_counted():
    chosen = recipes.make("tiny", training={"epochs": 2.5, "batch": 4})
    assert chosen.stage.steps_for(10) == 7
    assert recipes.make("tiny").stage.steps_for(10) == recipes.SCALES["smoke"].steps


# --- where values come from


def origins(name, changes=None, **more):
    changes = changes or {}
    recipe = plan.recipe_for(name, **changes, **more)
    lines = [line.split(" = ", 1) for line in explained(recipe, Given(name, changes | more))]
    return {label: text.partition("<- ")[2] for label, text in lines}


def test_every_value_of_a_recipe_names_its_source(root, monkeypatch):
    monkeypatch.chdir(root)
    place = origins("as-tab3-shift", {"seed": 2, "points": {"n": 1}, "config": {"alpha": 2.0}})
    assert place["seed"] == place["points.n"] == place["1 attentionshift.config.alpha"] == "given"
    for label in ("layout", "points.kind", "1 attentionshift.config.filtering"):
        assert place[label].startswith("row as-tab3-shift, book/plan.yml:"), label
    line = int(place["layout"].rpartition(":")[2])
    assert (
        (root / "book/plan.yml").read_text().splitlines()[line - 1].strip().startswith("as-tab3-s")
    )
    assert place["image_size"].startswith("scale small, lab/recipe.py:")
    assert place["1 attentionshift.training.lr"].startswith("method, papers/")
    assert "[AS Tab. 5]" in place["1 attentionshift.config.filter_threshold"]
    recipe = plan.recipe_for("as-tab3-shift")
    assert {name for name in place if "." not in name} == {
        field.name for field in dataclasses.fields(recipe)
    } - {"stages", "points"}


def test_records_in_a_config_are_listed_setting_by_setting_and_changed_by_name():
    place = origins("exits", {"config": {"walk": {"hops": math.inf}}}, scale="small")
    assert place["1 exits.config.walk.hops"] == "given"
    assert "[EXITS Tab. a2]" in place["0 similarity_warmup.config.walk.hops"]
    assert place["1 exits.config.generator.side"].startswith("method, students/mask_generator.py:")
    assert place["points.kind"] == "the methods' own kind of points"
    chosen = plan.recipe_for("exits", config={"walk": {"hops": math.inf}})
    assert recipes.Recipe.from_json(json.dumps(strict(json.loads(chosen.to_json())))) == chosen
    assert chosen.build([]).config.walk.hops == math.inf
    with pytest.raises(InputError, match="stage 1: config: walk: there is no 'hop'"):
        plan.recipe_for("exits", config={"walk": {"hop": 2}})


def test_a_stage_of_its_own_goes_before_at_the_paper_s_size_too():
    stages = recipes.make("exits", scale="paper").stages
    assert [s.method for s in stages] == ["similarity_warmup", "exits"]
    assert [s.training.epochs for s in stages] == [8, 10]


# --- the plan


def test_every_row_of_the_plan_resolves_and_is_found_by_its_whole_recipe(root, monkeypatch):
    monkeypatch.chdir(root)
    for row in plan.rows().values():
        assert plan.row_of(dataclasses.replace(row.recipe, seed=7)) is row, row.name


def test_a_run_of_a_row_has_its_folder_and_any_other_has_its_hash(root, monkeypatch):
    monkeypatch.chdir(root)
    row = plan.recipe_for("as-tab3-shift", seed=2)
    assert str(plan.folder_of(row)) == "attentionshift/as-tab3-shift/s2"
    other = plan.recipe_for("as-tab3-shift", training={"steps": 4000})
    assert str(plan.folder_of(other)) == f"tried/attentionshift-{other.sha8}/s0"
    smoke = plan.recipe_for("psps", seed=1)
    assert str(plan.folder_of(smoke)) == f"smoke/psps-{smoke.sha8}/s1"
    with pytest.raises(InputError, match="method: there is no 'as-tab9'; the methods are"):
        plan.recipe_for("as-tab9")


# --- what a training shows of itself


def run():
    chosen = tiny.settings()
    return list(fit(tiny.Tiny(), tiny.feed(chosen), chosen, device="cpu"))


def test_progress_writes_plain_lines_and_two_logs(tmp_path, capsys):
    progress = Progress(12, tmp_path)
    records = run()
    for record in records:
        progress(record)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12 and "\r" not in "".join(lines)
    assert all(word in lines[-1] for word in ("step 12/12", "loss", "images/s", "left 0:00"))
    log, speed = (read_log(tmp_path / f"{name}.jsonl") for name in ("log", "speed"))
    assert [line["losses"] for line in log] == [r.losses for r in records]
    assert set(log[0]) == {"step", "epoch", "losses", "notes", "total", "lr", "images"}
    assert all(line["data_wait"] <= line["seconds"] for line in speed)
    sums = totals(speed)
    assert sums["steps"] == 12 and sums["images_per_s"] > 0 and 0 <= sums["data_wait_share"] <= 1


def test_a_kept_log_is_compressed_rounded_and_the_same_each_time(tmp_path):
    line = {"stage": 0, "step": 3, "losses": {"fit": 0.123456789}}
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_log(tmp_path / name, [line])
    first, second = (tmp_path / name for name in ("a.jsonl.gz", "b.jsonl.gz"))
    assert first.read_bytes() == second.read_bytes()
    assert read_log(first) == [line | {"losses": {"fit": 0.12346}}]
    assert read_log(tmp_path / "absent.jsonl") == []


def test_a_terminal_gets_one_line_that_is_overwritten(tmp_path):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    progress = Progress(12, stream=screen)
    for record in run():
        progress(record)
    assert screen.getvalue().count("\r") == 12 and screen.getvalue().count("\n") == 1


def test_a_resumed_log_drops_what_will_be_written_again_and_a_torn_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": s}) + "\n" for s in range(5)) + '{"step": 5, "to')
    cut(path, 3)
    assert [line["step"] for line in read_log(path)] == [0, 1, 2]


@pytest.mark.parametrize("seconds, shown", [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown
