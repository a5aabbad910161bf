"""What a batch would run: every claim in it, a shared stage once, nothing that is finished."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support.finished_runs import finish

from pointseg.bookkit.report import read_claims
from pointseg.lab import plan
from pointseg.lab.batch.bill import Cost
from pointseg.lab.batch.choice import chosen
from pointseg.lab.batch.engine import Machine, memory_mb, needed
from pointseg.lab.batch.jobs import jobs_of, linked, missing, stage_is_kept
from pointseg.lab.methods import METHODS
from pointseg.lab.notebook import checked, key_of, read_notebook
from pointseg.lab.recipe import SCALES
from pointseg.structures import InputError


@pytest.fixture(scope="module")
def source(root):
    return read_notebook(root / "book" / "experiment.py")


@pytest.fixture(autouse=True)
def at_home(root, monkeypatch):
    monkeypatch.chdir(root)


def names(jobs):
    return [job.name for job in jobs]


def test_smoke_has_every_method_once(source):
    jobs = jobs_of(["smoke"], None, None, source)
    runs = [job for job in jobs if job.kind == "run"]
    assert sorted(job.words["parameters"]["method"] for job in runs) == sorted(METHODS)
    assert {job.recipes[0].scale for job in runs} == {"smoke"}


def test_one_row_is_one_job_and_exactly_the_row(source):
    [job] = jobs_of(["as-tab3-shift"], None, [0], source)
    assert job.recipes == (plan.rows()["as-tab3-shift"].recipe,)
    assert str(job.records[0]) == "attentionshift/as-tab3-shift/s0"


def test_a_sweep_is_left_to_the_bench_but_by_its_name_and_at_scale_paper():
    sweeps = chosen(["AS/4"], None)
    assert sweeps.rows == ["as-full"] and "as-tab4-n0" in sweeps.benches["as-photos"]
    assert "as-tab4-n0" not in chosen(["all"], "small").rows
    assert chosen(["as-tab4-n0"], None).rows == ["as-tab4-n0"]
    paper = chosen(["AS/4"], "paper")
    assert "as-tab4-n0" in paper.rows and not paper.benches


@pytest.mark.parametrize("bed", plan.beds(Path(__file__).parent.parent / plan.PLAN).values(),
                         ids=lambda bed: bed.name)  # fmt: skip
def test_a_bed_at_scale_smoke_takes_its_sizes_and_splits(bed):
    recipe = bed.recipe(plan.rows()[bed.rows[0]], 0, scale="smoke", data="bestiary")
    dial = SCALES["smoke"]
    assert [getattr(recipe, name) for name in plan.SIZES] == [getattr(dial, n) for n in plan.SIZES]


def test_every_row_without_a_student_is_scored_on_a_bed():
    scored = {row for bed in plan.beds().values() for row in bed.rows}
    assert {name for name, row in plan.rows().items() if row.bench_only} <= scored


def test_a_stage_that_several_rows_need_is_a_job_before_them(source):
    jobs = jobs_of(["AS/1"], "small", [0, 1], source)
    stages = [job for job in jobs if job.kind == "stage"]
    assert [job.words["k"] for job in stages] == [0, 0]
    assert names(jobs)[:2] == names(stages)
    for job in jobs[2:]:
        assert set(job.needs) & set(names(stages))


def test_a_row_whose_whole_chain_another_needs_is_no_stage_of_its_own(source):
    jobs = {job.name: job for job in jobs_of(["as-full", "as-tab1-refined"], None, [0], source)}
    assert "as-full-s0" in jobs["as-tab1-refined-s0"].needs
    assert sum(job.kind == "stage" for job in jobs.values()) == 1


@pytest.mark.parametrize("scale", [None, "paper"])
def test_all_has_every_measured_row_and_what_a_job_needs_stands_before_it(root, source, scale):
    jobs = jobs_of(["all"], scale, [0], source)
    measured = read_claims(root / "book" / "claims.yml")["measured"]
    rows = {job.words["parameters"]["method"] for job in jobs if job.kind == "run"}
    left = {name for name, row in plan.rows().items() if row.bench_only or row.tier == "paper"}
    trained = set(plan.rows()) - (set() if scale == "paper" else left)
    assert rows == trained
    scored = {each for job in jobs if job.kind == "bench" for each in job.words["rows"]}
    assert {entry["ours"] for entry in measured} <= rows | scored
    behind = set()
    for job in jobs:
        assert set(job.needs) <= behind
        behind.add(job.name)
    beds = {job.words["bed"] for job in jobs if job.kind == "bench"}
    assert beds == (set() if scale == "paper" else set(plan.beds()))
    assert len(set(names(jobs))) == len(jobs)


def test_a_row_moved_to_another_scale_keeps_chain_and_points_and_takes_its_lengths(source):
    [job] = jobs_of(["epld-tab7-ten-coco"], "smoke", None, source)
    row, moved = plan.rows()["epld-tab7-ten-coco"].recipe, job.recipes[0]
    assert moved.points == row.points and moved.layout == row.layout
    assert moved.image_size == SCALES["smoke"].image_size and moved.precision == "auto"
    stage = moved.stages[0]
    assert replace(stage, training=row.stages[0].training) == row.stages[0]
    assert stage.training.steps == SCALES["smoke"].steps


def test_a_scale_of_the_plan_chooses_among_rows_and_beds():
    photos = chosen(["all"], "photos")
    assert "photos-epld1" in photos.rows and "epld-full" not in photos.rows
    assert "as-photos" in photos.benches and "as-bestiary" not in photos.benches


def test_a_claim_brings_its_rows_and_those_of_its_beds():
    choice = chosen(["AS-filter"], None)
    assert choice.rows == ["as-full"]
    assert choice.benches["as-photos"] == ["as-full", "as-tab5-filter0.8", "as-tab5-filter0.9"]


def test_a_claim_on_other_students_brings_those_alone():
    assert chosen(["P2M-scenes-points"], None).rows == ["photos-p2m1", "photos-p2m10"]
    assert "p2m-tabA1-p2m1-voc" in chosen(["P2M"], None).rows


@pytest.mark.parametrize("words", [["nothing"], ["AS/9"], ["all", "as-tab9"]])
def test_an_unknown_name_is_refused_in_one_line(words):
    with pytest.raises(InputError, match=f"there is no '{words[-1]}'; there are all, smoke"):
        chosen(words, None)
    with pytest.raises(InputError, match="scale: there is no 'huge'"):
        chosen(["all"], "huge")


def test_a_finished_run_is_left_out_until_what_it_was_made_from_changes(source, tmp_path):
    jobs = jobs_of(["as-full", "as-tab3-shift"], None, [0], source)
    run = finish(tmp_path, "as-full", {"val": {"voc_mAP50_11pt": 50.0}}, seed=0)
    key = key_of(source, checked(source, {"method": "as-full", "seed": 0}))
    result = run.result
    run.write("result.json", {**result, "key": asdict(key)})
    runs, marks = tmp_path / "runs", tmp_path / "done"
    left = missing(jobs, source, runs, marks)
    assert [j.name for j in left if j.kind == "run"] == ["as-tab3-shift-s0"]
    assert len(missing(jobs, source, runs, marks, force=True)) == len(jobs) == 3
    run.write("result.json", {**result, "key": asdict(replace(key, data="other"))})
    assert len(missing(jobs, source, runs, marks)) == 3


def test_a_shared_stage_whose_weights_are_gone_is_made_again(source, tmp_path):
    jobs = jobs_of(["as-full", "as-tab3-shift"], None, [0], source)
    stage, weights, marks = jobs[0], tmp_path / "model.pt", tmp_path / "done"
    marks.mkdir()
    (marks / stage.name).write_text(json.dumps({"files": [str(weights)]}))
    assert stage.name in names(missing(jobs, source, tmp_path / "runs", marks))
    weights.touch()
    left = missing(jobs, source, tmp_path / "runs", marks)
    assert stage_is_kept(marks / stage.name)
    assert stage.name not in names(left) and all(job.needs == () for job in left)


def test_links_follow_the_heads_alone(source):
    one = jobs_of(["as-full"], None, [0, 1], source)
    assert all(job.kind == "run" and job.needs == () for job in one)
    assert names(linked(one)) == names(one)


def test_several_processes_a_run_take_so_many_gpus_and_train_a_shared_stage_once(source):
    first, second = jobs_of(["as-full", "as-tab3-shift"], None, [0], source, processes=2)
    assert (first.kind, second.kind, second.needs) == ("run", "run", (first.name,))
    assert first.words["parameters"]["processes"] == 2 and first.recipes == (
        jobs_of(["as-full"], None, [0], source)[0].recipes
    )
    packed, queue = Machine.of(None, [0, 1, 2, 3], 2, None), Machine.of(8, [], 1, Path("profile"))
    assert needed(first, packed)["gpus"] == 2 and needed(first, packed)["gpu_slots"] == 4
    assert needed(first, queue)["gpus"] == needed(first, queue)["threads"] == 2
    [single] = jobs_of(["as-full"], None, [0], source)
    assert needed(single, packed) == {
        "gpus": 1, "gpu_slots": 1, "threads": 1, "mem_mb": 2000, "minutes": 1440,
    }  # fmt: skip


def test_time_and_memory_of_a_job_come_from_what_was_measured(source):
    [job] = jobs_of(["as-full"], None, [0], source)
    alone = Machine.of(2, [], 1, None)
    assert needed(job, alone, Cost(hours=2.0, memory_gb=1.0))["mem_mb"] == 2280
    assert needed(job, alone, Cost(hours=2.0, memory_gb=1.0))["minutes"] == 360
    assert needed(job, alone, Cost(hours=2.0, unknown=frozenset({"epld"})))["minutes"] == 1440
    assert needed(job, alone, Cost(memory_gb=1e6))["mem_mb"] == memory_mb()
    assert f"mem_mb={memory_mb()}" in alone.words()
