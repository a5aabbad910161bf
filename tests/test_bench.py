"""The label bench: labels scored object by object on tune, rows on one look at the images."""

import dataclasses
import os
import shutil
import typing

import numpy as np
import pytest
import torch

from pointseg import cli
from pointseg.data.dataset import Dataset
from pointseg.data.supervision import collate
from pointseg.lab import bench as benches
from pointseg.lab import carry
from pointseg.lab import recipe as recipes
from pointseg.lab.key_points import proxy
from pointseg.lab.plan import beds, rows
from pointseg.lab.run_data import open_corpus
from pointseg.lab.run_record import Run
from pointseg.metrics.by_object import boundary_f, contacts, mask_scores, pieces
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.papers.point2mask import Point2Mask
from pointseg.structures import Truth

PLAN = """
rows:
  attentionshift:
    as-full: {scale: small, stages: [{method: token_querying}, {method: attentionshift, starts_from: 0}]}
    as-map: {scale: small, stages: [{method: token_querying}, {method: attentionshift, config: {shift: false, filtering: false}}]}
    as-refined: {scale: small, stages: [{method: attentionshift}, {method: mask_rcnn, learns_from: 0}]}
  point2mask:
    p2m-full: {scale: small, stages: [{method: point2mask}]}
bench:
  attentionshift:
    as-toy: {scale: smoke, layout: voc, seeds: [0, 1], first: [{method: token_querying}], config: {depth: 1}, rows: ["as-[fm]*"]}
    as-wrong: {scale: smoke, layout: voc, rows: [as-refined]}
  point2mask:
    p2m-toy: {scale: smoke, first: [{method: point_semantics}], steps: 2, rows: [p2m-full]}
"""  # noqa: E501


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("project")
    (place / "book").mkdir()
    (place / "book" / "_toc.yml").touch()
    (place / "book" / "plan.yml").write_text(PLAN)
    return place


@pytest.fixture(autouse=True)
def _there(place, monkeypatch):
    monkeypatch.chdir(place)


@pytest.fixture(scope="module")
def toy(place):
    """The records of the AttentionShift bed, seed 0, by row."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        list(benches.bench("as-toy", seeds=[0]))
        bed = beds()["as-toy"]
        return {row: record(bed, row) for row in bed.rows}


def record(bed, row, seed=0):
    return Run(benches.RUNS.absolute() / bed.folder(row, bed.recipe(rows()[row], seed)))


def test_a_row_is_scored_on_tune_and_says_what_it_stands_on(toy):
    run = toy["as-full"]
    data, result = run.read("data.json"), run.result
    assert run.status == "ok" and data["split"] == "tune" and data["images"] == 4
    assert len(data["points"]) == len(data["sha256"]) == 64
    assert run.read("env.json")["cpu"] and run.read("recipe.json")["scored_on"] == "tune"
    heads = [stage["head"] for stage in result["metrics"]["stages"]]
    assert heads[0].startswith("token_querying-") and result["bed"] == "as-toy"
    assert sum(path.stat().st_size for path in run.folder.iterdir()) < 80_000


def test_every_object_keeps_its_scores(toy):
    table, metrics = benches.objects_of(toy["as-full"]), toy["as-full"].metrics["bench"]
    assert len(table["iou"]) == toy["as-full"].read("data.json")["objects"]
    assert set(table) >= {"image", "target", "contact", "tokens", "iou", "recall", "precision",
                          "boundary", "part_recall", "purity", "keypoints_on", "proxy"}  # fmt: skip
    assert metrics["iou"] == pytest.approx(100 * table["iou"].mean(), abs=0.06)
    assert (0 <= table["iou"]).all() and (table["iou"] <= table["recall"] + 1e-3).all()


def test_rows_meet_the_same_objects(toy):
    one, other = (benches.objects_of(toy[row]) for row in ("as-full", "as-map"))
    for name in benches.FACTS:
        assert one[name].tolist() == other[name].tolist()
    assert "purity" not in other and not np.array_equal(one["iou"], other["iou"])


def test_the_images_are_looked_at_once_for_all_rows(toy, monkeypatch, place):
    counted = {"features": 0, "evidence": 0}

    def counting(target, name):
        before = getattr(target, name)

        def call(*given):
            counted[name] += 1
            return before(*given)

        monkeypatch.setattr(target, name, call)

    from pointseg.papers.attentionshift.labeller import Labeller
    from pointseg.students.mask_rcnn import MaskRCNN

    counting(MaskRCNN, "features")
    counting(Labeller, "evidence")
    list(benches.bench("as-toy", seeds=[0], runs=place / "once"))
    assert counted == {"features": 1, "evidence": 1}


def test_a_row_alone_has_the_scores_it_has_among_others(toy, place):
    list(benches.bench("as-toy", ["as-map"], [0], place / "alone"))
    bed = beds()["as-toy"]
    folder = place / "alone" / bed.folder("as-map", bed.recipe(rows()["as-map"], 0))
    packed = [(run / benches.OBJECTS).read_bytes() for run in (folder, toy["as-map"].folder)]
    assert packed[0] == packed[1]


def test_what_is_scored_is_not_scored_again(toy, monkeypatch):
    monkeypatch.setattr(benches, "score_rows", lambda *given: pytest.fail("scored again"))
    lines = list(benches.bench("as", seeds=[0], chosen=["as-full"]))[:1]
    assert "iou" in lines[0] and lines[0].startswith("smoke/bench-as-full-")


def test_scores_by_code_that_was_proven_to_give_the_same_are_kept(toy, monkeypatch, tmp_path):
    run = Run(tmp_path / "runs" / "smoke" / "bench-as-full" / "s0")
    shutil.copytree(toy["as-full"].folder, run.folder)
    recipe, new = beds()["as-toy"].recipe(rows()["as-full"], 0), {"code": "new"}
    assert benches.finished(run, recipe) and benches.state(run) == "current"
    methods = [stage.method for stage in recipe.stages]
    old = {method: benches.code_of(method, "bench") for method in methods}
    monkeypatch.setattr(benches, "code_of", lambda method, scored_by: new["code"])
    assert not benches.finished(run, recipe) and benches.state(run) == "stale"
    rest = {"new": "new", "battery": "b", "base": "1", "commit": "2"}
    proven = [{"method": f"bench {method}", "old": old[method], **rest} for method in methods]
    carry.write_carried(proven[:1], tmp_path / "runs")
    assert len(methods) == 2 and not benches.finished(run, recipe)
    carry.write_carried(proven, tmp_path / "runs")
    assert benches.finished(run, recipe) and benches.state(run) == "carried"
    new["code"] = "newer"
    assert not benches.finished(run, recipe) and benches.state(run) == "stale"


def test_data_without_parts_have_no_part_scores(place, monkeypatch):
    whole = Dataset.truth
    monkeypatch.setattr(
        Dataset, "truth", lambda data, row: dataclasses.replace(whole(data, row), parts=None)
    )
    list(benches.bench("as-toy", ["as-full"], [0], place / "partless"))
    bed = beds()["as-toy"]
    run = Run(place / "partless" / bed.folder("as-full", bed.recipe(rows()["as-full"], 0)))
    assert run.status == "ok" and "iou" in run.metrics["bench"]
    assert not {"part_recall", "purity"} & set(run.metrics["bench"])


def test_a_row_scored_again_prints_how_far_each_score_moved_and_may_move(toy, capsys):
    run = toy["as-full"]
    assert cli.main(["again", run.id]) == 0
    head, names, *lines, last = capsys.readouterr().out.splitlines()
    assert head.count(run.read("env.json")["cpu"]) == 2 and names.split() == [
        "kept", "again", "moved", "may", "move"]  # fmt: skip
    measured = {f"bench/{name}" for name in run.metrics["bench"]}
    assert {line.split()[0] for line in lines} == measured and "within 1 points" in last
    assert all(line.split()[3] == "+0.00" for line in lines), "the same machine, the same numbers"


def test_a_score_that_moved_too_far_is_named(toy, tmp_path, capsys):
    run = Run(tmp_path / "bench-as-toy" / "as-full" / "s0")
    shutil.copytree(toy["as-full"].folder, run.folder)
    result = run.read("result.json")
    result["metrics"]["bench"]["recall"] += 9
    run.write("result.json", result)
    given = ["again", "bench-as-toy/as-full/s0", "--runs", str(tmp_path)]
    assert cli.main(given) == 2
    assert "s0 moved further than it may: bench/recall: " in capsys.readouterr().err
    assert cli.main(["again", "bench-as-toy/none/s0"]) == 2
    assert "no finished run lies there" in capsys.readouterr().err


def test_a_bed_knows_its_data_by_their_content_and_not_by_their_place(toy, tmp_path):
    row, bed = "as-full", beds()["as-toy"]
    made = open_corpus(bed.recipe(rows()[row], 0)).scored
    far = shutil.copytree(made.root, tmp_path / "elsewhere")
    place = os.path.relpath(made.root)
    bed = dataclasses.replace(bed, given={**bed.given, "data": place}, content=made.content_hash())
    moved = {row: bed.recipe(rows()[row], 0, data=str(far))}
    assert benches.known_to(bed, moved)[row] == bed.recipe(rows()[row], 0)
    less = {row: bed.recipe(rows()[row], 0, data=str(far), scored_images=2)}
    assert benches.known_to(bed, less) == less
    other = dataclasses.replace(bed, content="0" * 64)
    known = benches.known_to(other, {row: bed.recipe(rows()[row], 0)})[row]
    assert known.data == str(made.root.resolve()) and benches.known_to(other, moved) == moved


def test_a_seed_draws_weights_and_points():
    bed = beds()["as-toy"]
    recipe = bed.recipe(rows()["as-full"], 1)
    assert (recipe.seed, recipe.points.seed, recipe.scored_split) == (1, 1, "tune")
    assert recipe.stage.training.steps == 0 and not recipe.stage.student
    assert dict(recipe.stage.config) == {"depth": 1}


def test_a_bed_at_scale_smoke_is_as_short_as_the_scale(root, monkeypatch):
    monkeypatch.chdir(root)
    bed, row = beds()["exits-bestiary"], rows()["exits-neighbours"]
    whole, short = bed.recipe(row, 0), bed.recipe(row, 0, scale="smoke")
    assert whole.stage.training.steps == bed.steps > 4 == short.stage.training.steps
    assert whole.images == bed.given["images"] > short.images, "its counts are the scale's"
    assert bed.recipe(row, 0, scale="smoke", images=5).images == 5
    assert [stage.method for stage in whole.stages] == ["similarity_warmup", "exits"]


def test_rows_of_a_bed_share_the_settings_that_their_methods_have(root, monkeypatch):
    monkeypatch.chdir(root)
    bed = beds()["panoptic-frozen"]
    path, transport, distance = (bed.recipe(rows()[row], 0) for row in bed.rows)
    assert set(bed.config) == {"transport_from", "student"}
    assert set(dict(path.stage.config)) == set(dict(distance.stage.config)) == {"student"}
    assert set(dict(transport.stage.config)) == set(bed.config)
    assert {r.stage.training.steps for r in (path, transport, distance)} == {600}
    for each in beds().values():
        taken = {n for r in each.rows for n in dict(each.recipe(rows()[r], 0).stage.config)}
        assert set(each.config) <= taken, f"{each.name}: nobody reads a setting"


def test_a_bed_may_label_by_another_method_from_the_rows_settings(root, monkeypatch):
    monkeypatch.chdir(root)
    recipe = beds()["exits-walk"].recipe(rows()["exits-taba2-1"], 0)
    assert [stage.method for stage in recipe.stages] == ["exits_walk"]
    assert dict(recipe.stage.config)["walk"] == {"hops": 1.0} and not recipe.stage.training.steps


def test_rows_of_a_bed_may_begin_otherwise(root, monkeypatch):
    monkeypatch.chdir(root)
    bed = beds()["exits-bestiary"]
    chains = {row: bed.recipe(rows()[row], 0).stages for row in bed.rows}
    methods = {row: [stage.method for stage in chain] for row, chain in chains.items()}
    assert methods["exits-mal"] == ["mal"] and methods["exits-taba3-0"] == ["exits"]
    assert methods["exits-full"] == methods["exits-taba3-4"] == ["similarity_warmup", "exits"]
    half, whole = (chains[row][0].training.steps for row in ("exits-taba3-4", "exits-full"))
    assert 2 * half == whole and chains["exits-mal"][0].starts_from is None


def test_a_bed_fills_in_what_a_row_s_tables_leave_open(root, monkeypatch):
    monkeypatch.chdir(root)
    recipe = beds()["exits-even"].recipe(rows()["exits-figa1-fg0.02"], 0)
    walk = dict(recipe.stage.config)["walk"]
    assert dict(walk) == {"foreground": 0.02, "background": 0.0}, "the row's word counts"


def test_a_labeller_with_steps_learns_and_its_student_does_not(place):
    list(benches.bench("p2m-toy"))
    bed = beds()["p2m-toy"]
    run = record(bed, "p2m-full")
    assert run.metrics["stages"][1]["steps"] == 2 and {"PQ", "iou", "iou_st"} <= set(
        run.metrics["bench"]
    )
    corpus = open_corpus(bed.recipe(rows()["p2m-full"], 0))
    training = benches.StageTraining(benches.Chain(corpus, run.stages), 1)
    before = training.started(corpus.judged()).state_dict()
    after = torch.load(run.stage_folder(1) / "model.pt")["weights"]
    learnt = {name for name in after if not torch.equal(before[name], after[name])}
    assert any(name.startswith("labeller.boundary") for name in learnt)
    parts = ("backbone", "encoder", "neck")
    heads = {n for n in after if n.startswith("student") and n.split(".")[2] not in parts}
    assert heads and not heads & learnt


def other(config, name):
    """Another value of a field of a config."""
    value, kind = getattr(config, name), typing.get_type_hints(type(config))[name]
    if typing.get_origin(kind) is typing.Literal:
        return next(v for v in typing.get_args(kind) if v != value)
    return not value if isinstance(value, bool) else value + 1 if value == 0 else value * 2


@pytest.mark.parametrize("cls, name", [
    (AttentionShift, "attentionshift"), (Point2Mask, "point2mask"),
])  # fmt: skip
def test_evidence_never_reads_the_settings_of_assign(cls, name):
    corpus = open_corpus(recipes.make(name, scored_on="tune"))
    marked = corpus.judged()
    batch = collate([marked[0], marked[1]])

    def evidence(**changes):
        torch.manual_seed(0)
        method = cls.build(corpus.categories, "smoke", **changes).eval()
        with torch.no_grad():
            return method.labeller.evidence(
                method.student.features(batch.images, batch.sizes), batch
            )

    config = cls.build(corpus.categories, "smoke").labeller.config
    changes = {field: other(config, field) for field in
               cls.build(corpus.categories, "smoke").labeller.ASSIGNING}  # fmt: skip
    assert same(evidence(), evidence(**changes))


def same(one, two):
    """Whether two records hold equal tensors."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if hasattr(one, "nnz"):  # a graph
        return not (one != two).nnz
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(two, f.name))
                   for f in dataclasses.fields(one))  # fmt: skip
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


@pytest.mark.parametrize("words, cause", [
    (["bench", "xy"], "there is no paper or bed 'xy'"),
    (["bench", "as-toy", "--rows", "as-none"], "there is no row 'as-none'"),
    (["bench", "as-toy", "--seeds", "a"], "expected numbers such as 0-4"),
    (["bench", "as-wrong"], "as-refined learns from labels"),
    (["bench", "as-toy", "--seeds", "7", "--val"], "is not finished on tune"),
])  # fmt: skip
def test_bad_input_is_one_line(capsys, words, cause):
    assert cli.main(words) == 2
    line = capsys.readouterr().err
    assert cause in line and line.count("\n") == 1


def test_data_without_a_tune_split_is_refused(capsys, shared_data):
    assert cli.main(["bench", "as-toy", "--data", str(shared_data / "VOCdevkit")]) == 2
    line = capsys.readouterr().err
    assert "no split 'tune'" in line and line.count("\n") == 1


def truth_of(masks, label, parts=None, thing=None):
    masks, n = torch.as_tensor(masks), len(masks)
    things = torch.ones(n, dtype=torch.bool) if thing is None else torch.tensor(thing)
    none = torch.zeros(n, dtype=torch.bool)
    void = torch.zeros(masks.shape[-2:], dtype=torch.bool)
    return Truth(masks, torch.tensor(label), torch.arange(1, n + 1), things, none, void, parts)


def test_scores_of_masks_by_hand():
    true, pseudo = torch.zeros(1, 12, 12, dtype=torch.bool), torch.zeros(1, 12, 12) > 0
    true[0, 2:6, 2:6] = pseudo[0, 2:6, 4:10] = True  # 16 and 24 pixels, 8 in common
    parts = torch.zeros(12, 12, dtype=torch.uint8)
    parts[:, 2:4], parts[:, 4:6] = 1, 2
    scores = mask_scores(truth_of(true, [0], parts), pseudo)
    by_hand = {"iou": 8 / 32, "precision": 8 / 24, "recall": 8 / 16, "part_recall": 0.5}
    assert {name: scores[name][0] for name in by_hand} == pytest.approx(by_hand)


def test_the_right_owner_is_counted_among_pixels_that_things_have():
    true, pseudo = (torch.zeros(3, 4, 10, dtype=torch.bool) for _ in range(2))
    true[0, :, :4] = true[1, :, 4:8] = true[2, :, 8:] = True
    pseudo[0, :, :2] = pseudo[1, :, 2:3] = pseudo[2, :, 3:] = True  # the second is the third's
    truth = truth_of(true, [0, 0, 1], thing=[True, True, False])
    owned = mask_scores(truth, pseudo)["owned"]
    assert owned[0] == pytest.approx(8 / 12)  # its last column went to stuff, which is no thing
    assert np.isnan(owned[1:]).all()  # no thing has any of it; stuff has no owner


def test_what_a_mask_takes_of_its_kin_is_counted_in_its_box():
    """By hand: the first is columns 0, 1 and 8, 9, so its box is the image; the second, of its
    class, is columns 4, 5; the third, of another class, columns 6, 7; the last ones are no kin."""
    true, pseudo = (torch.zeros(4, 6, 12, dtype=torch.bool) for _ in range(2))
    true[0, :, :2] = true[0, :, 8:10] = true[1, :, 4:6] = true[2, :, 6:8] = True
    true[3, :, 10:] = True
    pseudo[0, :3, 4:8] = pseudo[1, :, :10] = pseudo[2, :, 4:10] = True
    truth = truth_of(true, [0, 0, 1, 0], thing=[True, True, True, False])
    taken = mask_scores(truth, pseudo)["taken"]
    assert taken[0] == 0.5, "half of the second one"
    assert np.isnan(taken[1:]).all(), "no kin in the box, none at all, no thing"
    assert pieces(truth) == [2, 1, 1, 1]


def test_a_crumb_is_no_piece():
    mask = torch.zeros(2, 10, 40, dtype=torch.bool)
    mask[:, :, :10] = mask[:, 0, 20] = True
    mask[1, 0, 20:26] = True  # 6 of 106 pixels
    assert pieces(truth_of(mask, [0, 0])) == [1, 2]


def test_the_boundary_score_agrees_with_all_pairs_of_border_pixels():
    rng = np.random.default_rng(0)
    true, pseudo = (torch.from_numpy(rng.random((3, 14, 15)) < 0.5) for _ in range(2))
    pseudo[2] = False
    for k, score in enumerate(boundary_f(true, pseudo).tolist()):
        spots = [border_by_hand(mask[k].numpy()) for mask in (true, pseudo)]
        shares = [np.mean([min(chess(p, q) for q in b) <= 1 for p in a]) if a and b else 0.0
                  for a, b in (spots, spots[::-1])]  # fmt: skip
        total = sum(shares)
        assert score == pytest.approx(2 * shares[0] * shares[1] / total if total else 0.0)


def chess(p, q):
    return max(abs(p[0] - q[0]), abs(p[1] - q[1]))


def border_by_hand(mask):
    """Pixels of the mask with a 4-neighbour in the image that is none of it."""
    h, w = mask.shape
    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    near = [(y, x, y + dy, x + dx) for y in range(h) for x in range(w) for dy, dx in steps]
    return list({(y, x) for y, x, v, u in near
                 if mask[y, x] and 0 <= v < h and 0 <= u < w and not mask[v, u]})  # fmt: skip


def test_contact_is_with_the_closest_kin():
    masks = torch.zeros(5, 20, 40, dtype=torch.bool)
    for k, (left, right) in enumerate([(0, 5), (6, 10), (11, 15), (30, 34), (35, 40)]):
        masks[k, :10, left:right] = True
    truth = truth_of(masks, [0, 0, 1, 2, 3], thing=[True, True, True, True, False])
    assert contacts(truth) == ["same", "same", "other", "apart", "stuff"]


def test_the_proxy_gives_a_token_to_the_points_it_looks_like():
    """Two kinds of tokens, one like the object's point and one like the ground's: the object's
    kind inside the box is the mask."""
    from types import SimpleNamespace as Plain

    from pointseg.papers.attentionshift.masks import MaskPoints
    from pointseg.papers.attentionshift.tokens import Region, Tokens

    kind = torch.tensor([0, 0, 1, 1, 0, 1, 1, 0])  # on a grid of 2 x 4 tokens of 8 pixels
    tokens = Tokens.of(torch.eye(2)[kind][None])
    in_box = torch.tensor([[1, 1, 1, 0, 1, 1, 1, 0]]).bool()
    points = MaskPoints(torch.tensor([[[4.0, 4], [20, 4], [12, 12]]]),
                        torch.tensor([[True, False, True]]),
                        torch.tensor([[True, True, False]]))  # fmt: skip
    labels = Plain(mask_points=points, region=Region.of(in_box),
                   objects=Plain(grid=(2, 4), stride=8))  # fmt: skip
    assert proxy(labels, tokens).int().tolist() == [[1, 1, 0, 0, 1, 0, 0, 0]]
