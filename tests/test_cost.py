"""Cost: operations and bytes by hand, rounds in turn, and a chapter that renders with a run and without one."""

import json
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from support import tiny_method as tiny
from torch import nn

from pointseg.bookkit import report
from pointseg.bookkit.cost import clock, feeding, shown, survey
from pointseg.bookkit.cost.counting import counting_works, drawn_maps
from pointseg.bookkit.cost.labels import (
    ShiftSize,
    agreement,
    label_problem,
    label_works,
    rollout_works,
    shift_works,
)
from pointseg.bookkit.cost.network import (
    PASSES_OF_A_STEP,
    blots,
    creatures,
    step_piece,
    token_count,
    vit_pieces,
    weight_bytes,
)
from pointseg.data.bestiary import CATEGORIES
from pointseg.lab import recipe as recipes
from pointseg.lab.notebook import checked, read_notebook
from pointseg.lab.run_record import Run
from pointseg.nets.vit import TokenViT
from pointseg.structures import InputError

CPU = torch.device("cpu")
MACHINE = clock.Machine("made up", 1, float32=1e9, bf16=4e9, bytes=1e8)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the clock


def test_operations_of_a_product_and_of_its_backward():
    layer, x = nn.Linear(5, 3, bias=False), torch.randn(4, 5, requires_grad=True)
    assert clock.operations(lambda: layer(x)) == 2 * 4 * 5 * 3
    assert clock.operations(lambda: layer(x).sum().backward()) == 3 * 2 * 4 * 5 * 3


def small_vit():
    return TokenViT("small", dim=32, depth=2, heads=2, patch=8, stem="patch", queries=4).eval()


def test_operations_of_a_vit_are_those_counted_by_hand():
    """64 x 64 pixels in patches of 8: 64 patches and 4 queries make 68 tokens of width 32 in 2 blocks."""
    patches, tokens, width, pixels = 64, 68, 32, 3 * 8 * 8
    linear = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width)
    attention = 2 * 2 * tokens * tokens * width
    vit, images = small_vit(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        counted = clock.operations(lambda: vit(images))
    assert counted == 2 * patches * pixels * width + 2 * (linear + attention)


def test_operations_of_asked_rows_and_of_their_rollout():
    tokens, width, blocks, rows = 68, 32, 2, 10
    _, capture, rollout = vit_pieces(small_vit(), "tiny", (64, 64), rows, CPU)
    keys = 2 * tokens * width * 2 * width
    assert clock.operations(capture.work) == blocks * (keys + 2 * rows * tokens * width)
    # the last block gives its rows; every block below forms all of its rows and takes the chain through each head
    below = keys + 2 * tokens * tokens * width + 2 * rows * tokens * tokens * 2
    assert clock.operations(rollout.work) == keys + 2 * rows * tokens * width + below


def test_attention_fused_on_a_cpu_is_counted_backward_too():
    q, k, v = (torch.randn(1, 2, 6, 4, requires_grad=True) for _ in range(3))
    attend = nn.functional.scaled_dot_product_attention
    forward = 2 * 2 * (2 * 6 * 6 * 4)
    with torch.no_grad():
        assert clock.operations(lambda: attend(q, k, v)) == forward
    # backward forms the scores again and has two products for each of the two of the forward
    assert clock.operations(lambda: attend(q, k, v).sum().backward()) == forward + 5 * forward // 2


def test_the_floor_is_the_slower_of_products_and_traffic():
    assert MACHINE.floor_s(2_000_000_000, 100) == 2
    assert MACHINE.floor_s(2_000_000_000, 100, "bf16") == 0.5
    assert MACHINE.floor_s(1000, 300_000_000) == 3


def test_the_machine_has_rates():
    machine = clock.measure_machine(CPU, 32, 1, repeats=2)
    assert min(machine.float32, machine.bf16, machine.bytes) > 0 and machine.threads == 1


def test_rounds_go_in_turn_and_end_when_patience_does():
    calls = []
    works = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert clock.interleaved(works, 3)["a"].repeats == 3 and calls == list("ab" * 4)
    spent = clock.interleaved(works, 9, budget_s=0, warm=False)
    assert spent["b"].repeats == 1 and calls == list("ab" * 5)
    assert spent["a"].cpu_min_s <= spent["a"].cpu_median_s and spent["a"].wall_min_s >= 0


def test_memory_is_the_highest_of_the_running_sum():
    assert (
        clock.highest([5, 5, -5, 3, -8]) == 10
        and clock.highest([]) == 0
        and clock.highest([-4, 3]) == 0
    )


def test_peak_memory_counts_what_is_held_at_one_time():
    def one_after_the_other():
        for _ in range(3):
            torch.zeros(250_000)

    assert clock.peak_bytes(one_after_the_other, CPU) == pytest.approx(1e6, rel=0.01)
    assert clock.peak_bytes(lambda: [torch.zeros(250_000) for _ in range(3)], CPU) == pytest.approx(
        3e6, rel=0.01
    )


# --- the works


def test_tokens_of_a_picture_that_ends_inside_a_patch():
    vit = TokenViT("vit_tiny_patch16_224", queries=7)
    assert token_count(vit, (33, 64)) == 1 + 3 * 4 + 7
    assert token_count(vit, (800, 1333)) == 1 + 50 * 84 + 7
    assert vit(torch.rand(1, 3, 33, 64), trace=True).trace.inputs[0].shape[1] == 20


def test_bytes_that_must_move_are_weights_input_and_output():
    vit = small_vit()
    forward, _, rollout = vit_pieces(vit, "tiny", (64, 64), 10, CPU)
    assert forward.moved == 4 * (sum(p.numel() for p in vit.parameters()) + 3 * 64 * 64 + 68 * 32)
    assert rollout.moved == 2 * 4 * (2 * 32 * 32 + 68 * 32 + 10 * 68)
    batch = creatures(64, 2)
    step = step_piece("attentionshift", "smoke", batch, CATEGORIES, CPU)
    assert step.moved > PASSES_OF_A_STEP * 4 * 10_000 and step.images == 2
    assert weight_bytes(nn.Linear(3, 2)) == 4 * 8


def test_points_of_both_kinds_of_batch_lie_in_their_pictures():
    for batch in (creatures(64, 3), blots((40, 70), 2, 3, CATEGORIES)):
        for points, (h, w) in zip(batch.points, batch.sizes):
            assert (
                len(points) and (points.xy >= 0).all() and (points.xy < torch.tensor([w, h])).all()
            )
            assert all(
                CATEGORIES[k].is_thing == bool(t) for k, t in zip(points.label, points.is_thing)
            )


def test_ways_of_one_comparison_agree():
    table, loop = (work() for work in counting_works(*drawn_maps(64, 3)).values())
    np.testing.assert_allclose(table, loop, atol=1e-9)
    labels = label_works(label_problem((96, 128)))
    same = []
    for seed in range(3):
        works = label_works(label_problem((192, 256), seed=seed))
        same.append(agreement(works["Point2Mask"](), works["Point2Mask, solved at full size"]()))
    assert sum(same) / 3 > 0.98  # a solve among the pixels of stuff instead would reach 0.92
    assert labels["PSPS"]().shape == (96, 128)
    works = shift_works(ShiftSize(instances=2, keypoints=3, iterations=2, dim=8, side=6, box=1.0))
    assert works["whole"]().shape == (2, 3, 8) and works["bare products"]().shape == (2, 3, 36)


def test_one_dense_product_of_the_rollout_holds_the_rows():
    works = rollout_works(20, 3, 2, "vit_tiny_patch16_224")
    dense, rows = works["one dense product"](), works["one product of rows"]()
    torch.testing.assert_close(dense[-3:], rows)
    assert works["rows, all of it"]().shape == (2, 1, 3, 20)


# --- the notebook and the chapter


def test_the_parameters_of_the_notebook_are_typed_and_checked(root):
    source = read_notebook(root / "book" / "cost_measure.py")
    types = {name: p.type for name, p in source.parameters.items()}
    assert types == {
        "scale": "str",
        "repeats": "int",
        "budget_s": "float",
        "panoptic": "str",
        "out": "str",
    }
    assert checked(source, {"scale": "small", "budget_s": "2"})["budget_s"] == 2.0
    for wrong in ({"repeats": "often"}, {"tier": "small"}):
        with pytest.raises(InputError):
            checked(source, wrong)


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """What the notebook leaves, at its smallest."""
    torch.set_num_threads(1)
    extent, patience = replace(survey.EXTENTS["smoke"], vit_s=()), survey.Patience(1, 0.0)
    network = survey.network_rows(extent, MACHINE, patience)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        fed = survey.feeding_rows(extent, patience)
    return {
        "machines": [MACHINE.as_dict()], "gpu": [],
        "network": network + [row | {"network": "ViT-S/16", "tokens": 105} for row in network],
        "labels": survey.label_rows(extent, patience, tmp_path_factory.mktemp("empty") / "none"),
        "feeding": fed, "waiting": [{"method": "psps", "processes": 4, "step_ms": 41.0, "waiting": 0.021}],
        "same_labels": survey.same_labels(extent), "memory": survey.memory_rows(extent),
        "extent": {"depth": extent.depth},
    }  # fmt: skip


def made_up(runs, name, metrics, finished, scale="small"):
    folder = runs / name
    folder.mkdir(parents=True)
    run = Run(folder)
    run.write("recipe.json", {"method": "cost", "scale": scale})
    run.write("env.json", {"device": "an <abacus>"})
    run.write("result.json", {"status": "ok", "notebook": f"{name.split('-')[0]}.py", "finished": finished,
                              "metrics": metrics})  # fmt: skip
    return run


def test_the_newest_kept_run_is_read(tmp_path):
    newest = partial(report.newest, tmp_path, "cost_measure.py")
    assert newest() is None
    made_up(tmp_path, "cost_measure-small-1", {}, "2026-01-02")
    made_up(tmp_path, "cost_measure-small-2", {}, "2026-01-01")
    made_up(tmp_path, "cost_measure-smoke-3", {}, "2026-01-03", scale="smoke")
    made_up(tmp_path, "attentionshift-small-4", {}, "2026-01-04")
    assert newest().id == "cost_measure-small-1" and newest(method="other") is None


def test_tables_of_a_run(tmp_path, metrics):
    run = made_up(tmp_path, "cost_measure-small-1", metrics, "2026-01-02")
    assert "runs.html#cost_measure-small-1" in shown.source(
        run
    ) and "&lt;abacus&gt;" in shown.source(run)
    read = run.result["metrics"]
    tables = [shown.machine_table(read), shown.network_table(read["network"]), shown.label_table(read["labels"]),
              shown.memory_table(read["memory"]), shown.asked_table(read), shown.waiting_table(read["waiting"]),
              shown.feeding_table(read["feeding"], survey.PROCESSES)]  # fmt: skip
    for head, rows in tables:
        assert rows and all(len(row) == len(head) for row in rows)
        assert report.table(head, rows).count("<tr>") == len(rows) + 1
    assert {row["piece"] for row in read["network"]} == {
        "forward",
        "attention rows",
        "roll-out",
        "attentionshift step",
    }
    assert all(row["ms"] > 0 and row["floor_ms"] > 0 for row in read["network"])
    json.dumps(read, allow_nan=False)


def test_a_verdict_is_computed_from_the_run(metrics):
    slow = json.loads(json.dumps(metrics))
    for row in slow["labels"]:
        row["ms"] = 1e4 if row["way"] in ("whole", "PSPS") else 1.0
    slow["memory"][0] |= {"weights_mb": 100.0, "peak_mb": 11_950.0}
    slow["memory"][1] |= {"weights_mb": 100.0, "peak_mb": 11_949.0}
    verdicts = {one.what: one.verdict for one in shown.asked(slow)}
    assert (
        verdicts["key-point shift, seconds"] == "missed"
        and verdicts["pseudo label of PSPS, seconds"] == "missed"
    )
    assert verdicts["pseudo label of Point2Mask, seconds"] == "met"
    assert verdicts["roll-out: all of the dense way over all of ours"] == ""
    assert [v for what, v in verdicts.items() if "two pictures" in what] == ["missed", "met"]


def test_a_step_holds_gradients_and_moments_beside_the_weights(metrics):
    for row in metrics["memory"]:
        assert row["peak_mb"] > 3 * row["weights_mb"] > 0


def test_a_step_is_fed_when_it_waits_a_tenth_at_most():
    """By hand: a batch of 10 ms between steps of 90 ms; one every 2.5 ms beside steps of 2.25 ms."""
    assert feeding.shortest_step(0.010, 0) == pytest.approx(0.090)
    assert feeding.shortest_step(0.010, 4) == pytest.approx(0.00225)


def test_the_loop_tells_what_it_waited(monkeypatch):
    """A batch that takes 50 ms to come, beside a step that takes next to nothing; and one that is there."""
    tiny.register()
    quick = tiny.feed(tiny.settings(steps=6))
    quick.dataset.categories = CATEGORIES
    slow = SimpleNamespace(
        dataset=quick.dataset,
        epoch=quick.epoch,
        batches=lambda start: map(delayed, quick.batches(start)),
    )
    delayed = lambda batch: time.sleep(0.05) or batch  # noqa: E731
    for feed, late in ((quick, False), (slow, True)):
        monkeypatch.setattr(feeding, "feed_of", lambda recipe, processes, feed=feed: feed)
        [row] = feeding.waits({"tiny": recipes.make("tiny", training={"steps": 6})}, [0], 3, 2, CPU)
        assert (row["waiting"] > 0.6) == late and (row["step_ms"] > 50) == late


def test_every_way_of_asking_for_data_is_fed(metrics):
    assert [row["method"] for row in metrics["feeding"]] == list(feeding.METHODS)
    assert all(row["ms"] > 0 and row["images"] > 0 for row in metrics["feeding"])
    head, [first, *_] = shown.feeding_table(metrics["feeding"], (1, 4))
    assert len(head) == len(first) and float(first[4]) > float(first[5]) > float(first[6])


@pytest.mark.parametrize(
    "value, text", [(None, "-"), (53406.2, "53,406"), (0.01234, "0.0123"), (7.0, "7")]
)
def test_numbers_are_short(value, text):
    assert shown.number(value) == text


@pytest.mark.parametrize("with_run", [True, False])
def test_the_chapter_renders(root, tmp_path, metrics, monkeypatch, capsys, with_run):
    if with_run:
        made_up(tmp_path, "cost_measure-small-1", metrics, "2026-01-02")
    monkeypatch.chdir(root / "book")
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib

    matplotlib.use("agg")
    code = read_notebook(root / "book" / "cost.py").code
    seen: dict = {}
    exec(compile(code.replace('"../runs"', repr(str(tmp_path))), "cost.py", "exec"), seen)
    assert (seen["run"] is not None) == with_run
    matplotlib.pyplot.close("all")
