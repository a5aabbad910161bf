"""Cost: operations and bytes by hand, and rounds in turn.

A chapter that renders with a run and without one.
"""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from pointseg.bookkit import report
from pointseg.bookkit.cost import clock, tables, works
from pointseg.data.bestiary import CATEGORIES
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
    """64 x 64 pixels in patches of 8.

    64 patches and 4 queries make 68 tokens of width 32 in 2 blocks.
    """
    patches, tokens, width, pixels = 64, 68, 32, 3 * 8 * 8
    linear = 2 * tokens * width * (3 * width + width + 4 * width + 4 * width)
    attention = 2 * 2 * tokens * tokens * width
    vit, images = small_vit(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        counted = clock.operations(lambda: vit(images))
    assert counted == 2 * patches * pixels * width + 2 * (linear + attention)


def test_operations_of_a_rollout_of_some_rows():
    tokens, width, rows = 68, 32, 10
    _, rollout = works.vit_pieces(small_vit(), "tiny", 64, rows=rows)
    keys = 2 * tokens * width * 2 * width
    # the last block gives its rows; every block below forms all of its rows and takes the chain
    # through each head
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
    machine = clock.measure_machine(CPU, 32, 1)
    assert min(machine.float32, machine.bf16, machine.bytes) > 0 and machine.threads == 1


def test_rounds_go_in_turn_and_end_when_patience_does():
    calls = []
    pair = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert len(clock.interleaved(pair, clock.Patience(3))["a"]) == 3 and calls == list("ab" * 3)
    seconds = clock.interleaved(pair, clock.Patience(9, budget_s=0))
    assert len(seconds["b"]) == 1 and calls == list("ab" * 4) and min(seconds["a"]) >= 0


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


def test_tokens_of_an_image_that_ends_inside_a_patch():
    vit = TokenViT("vit_tiny_patch16_224", queries=7)
    assert works.token_count(vit, 33) == 1 + 3 * 3 + 7
    assert vit(torch.rand(1, 3, 33, 33), trace=True).trace.inputs[0].shape[1] == 17


def test_bytes_that_must_move_are_weights_input_and_output():
    vit = small_vit()
    forward, rollout = works.vit_pieces(vit, "tiny", 64)
    assert forward.moved == 4 * (sum(p.numel() for p in vit.parameters()) + 3 * 64 * 64 + 68 * 32)
    assert rollout.moved == 2 * 4 * (2 * 32 * 32 + 68 * 32 + 10 * 68)
    assert works.weight_bytes(nn.Linear(3, 2)) == 4 * 8


def test_points_lie_on_their_targets_and_stuff_follows_the_things_of_other_classes():
    batch, other = works.creatures(64, 3), works.creatures(64, 3, works.COCO)
    for points, moved in zip(batch.points, other.points):
        assert len(points) and (points.xy >= 0).all() and (points.xy < 64).all()
        for classes, one in ((CATEGORIES, points), (works.COCO, moved)):
            assert [classes[k].is_thing for k in one.label] == one.is_thing.tolist()


def test_images_larger_than_any_drawn_are_enlarged_with_their_points():
    small, large = works.creatures(512, 1), works.creatures(1024, 1)
    assert large.images.shape == (1, 3, 1024, 1024) and large.sizes == [(1024, 1024)]
    assert torch.equal(large.points[0].xy, 2 * small.points[0].xy)
    means = [batch.images.mean() for batch in (small, large)]
    torch.testing.assert_close(*means, atol=1e-3, rtol=0)


def test_a_step_at_the_papers_scale_is_counted_without_weights_to_download():
    pieces = works.step_pieces("psps", "paper", works.creatures(64, 1, works.COCO), works.COCO)
    assert [piece.name for piece in pieces] == ["features", "evidence", "assign", "whole step"]
    assert pieces[-1].weights > 40e6  # ResNet-50 alone has 94 MB


def test_the_shift_and_its_bare_products_reach_every_token_from_every_key_point():
    pieces = works.shift_pieces(6, instances=2, keypoints=3, turns=2, dim=8)
    whole, bare = (piece.work() for piece in pieces[2:])
    assert whole.shape == (2, 3, 8)
    assert bare.shape == (1, 2 * 3, 36)  # the tokens of a whole grid are shared


# --- the notebook and the chapter


def test_the_parameters_of_the_notebook_are_typed_and_checked(root):
    source = read_notebook(root / "book" / "cost_measure.py")
    assert checked(source, {"scale": "small", "budget_s": "2"})["budget_s"] == 2.0
    for wrong in ({"repeats": "often"}, {"tier": "small"}):
        with pytest.raises(InputError):
            checked(source, wrong)


@pytest.fixture(scope="module")
def metrics():
    """What the notebook leaves, at its smallest."""
    torch.set_num_threads(1)
    return works.survey(replace(works.EXTENTS["smoke"], vit_s=()), clock.Patience(1))


def made_up(runs, name, metrics):
    run = Run(runs / "studies" / name / "s0")
    run.folder.mkdir(parents=True)
    run.write("recipe.json", {"method": "cost", "scale": "small"})
    run.write("env.json", {"device": "an <abacus>"})
    run.write("result.json", {"status": "ok", "notebook": "cost_measure.py",
                              "finished": "2026-01-02", "metrics": metrics})  # fmt: skip
    return run


def test_tables_of_a_run(tmp_path, metrics):
    run = made_up(tmp_path, "cost-measure", metrics)
    line = tables.source_line(run)
    assert "runs.html#studies/cost-measure/s0" in line and "&lt;abacus&gt;" in line
    read = run.result["metrics"]
    made = [
        tables.machine_table(read),
        tables.cost_table(read["rows"]),
        tables.memory_table(read["memory"]),
    ]
    for head, rows in made:
        assert rows and all(len(row) == len(head) for row in rows)
        assert report.table(head, rows).count("<tr>") == len(rows) + 1
    verbs = {row["name"] for row in read["rows"] if row["group"] == works.METHODS[0]}
    branch = [row for row in read["rows"] if row["name"] == works.BRANCH]
    assert [row["group"] for row in branch] == ["epld"] and branch[0]["gigaops"] > 0
    assert verbs - {"whole step, bf16"} == {"features", "evidence", "assign", "whole step"}
    assert all(row["ms"] > 0 for row in read["rows"])
    json.dumps(read, allow_nan=False)


@pytest.mark.parametrize("faster", [False, True])
def test_a_step_is_timed_in_bf16_too_where_the_processor_multiplies_faster_so(faster):
    groups = works.cpu_pieces(works.EXTENTS["smoke"], bf16=faster)
    steps = next(pieces for pieces in groups if pieces[0].group == works.METHODS[0])
    assert [step.precision for step in steps[3:]] == ["float32", "bf16"][: 1 + faster]
    assert [step.name for step in steps[3:]] == ["whole step", "whole step, bf16"][: 1 + faster]


def test_a_step_holds_gradients_and_moments_beside_the_weights(metrics):
    for row in metrics["memory"]:
        assert row["peak_mb"] > 3 * row["weights_mb"] > 0


@pytest.mark.parametrize(
    "value, text", [(None, "-"), (53406.2, "53,406"), (0.01234, "0.0123"), (7.0, "7")]
)
def test_numbers_are_short(value, text):
    assert tables.number(value) == text


@pytest.mark.parametrize("with_run", [True, False])
def test_the_chapter_renders(root, tmp_path, metrics, monkeypatch, with_run):
    if with_run:
        made_up(tmp_path, "cost-measure", metrics)
    monkeypatch.chdir(root / "book")
    import matplotlib

    matplotlib.use("agg")
    code = read_notebook(root / "book" / "cost.py").code
    names: dict = {}
    exec(compile(code.replace('"../runs"', repr(str(tmp_path))), "cost.py", "exec"), names)
    assert (names["run"] is not None) == with_run
    matplotlib.pyplot.close("all")
