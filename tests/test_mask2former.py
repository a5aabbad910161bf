"""Mask2Former around transformers' model: its losses, predictions and rates, and that nothing needs
transformers but this method itself. Tests of every method leave it out, as it needs an extra; what
they ask of all (processes, GPU, resuming, losses by name, labels) is asked here."""

import importlib.util
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from support import same_process, two_processes
from support.fake_gpu import pretended_gpu

from pointseg.cli import main
from pointseg.data.bestiary import CATEGORIES, make
from pointseg.data.supervision import collate
from pointseg.lab import methods, notebook, plan, recipe, run_data
from pointseg.lab.batch.choice import chosen
from pointseg.lab.experiment import experiment
from pointseg.lab.run_record import Run
from pointseg.nets.start import load_first_stage
from pointseg.nets.weights import to_be_replaced
from pointseg.ops.processes import row_draws, uniform
from pointseg.structures import Batch, Category, InputError, Sample, Training, Truth
from pointseg.students.mask2former import Mask2Former
from pointseg.training.loader import Feed
from pointseg.training.loop import Settings, Trainer, fit

NAME = "mask2former"
ROWS = ("exits-m2f", "exits-mal-m2f", "exits-m2f-masks")
PAIR = [Category(1, "disc"), Category(2, "square"), Category(3, "sky", False)]
there = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="pointseg[mask2former] is absent"
)


def truth_of(size, squares):
    """Squares (label, row, column, side)."""
    masks = torch.zeros(len(squares), *size, dtype=torch.bool)
    for mask, (_, row, column, side) in zip(masks, squares):
        mask[row : row + side, column : column + side] = True
    label = torch.tensor([square[0] for square in squares], dtype=torch.long)
    whole = torch.ones(len(squares), dtype=torch.bool)
    return Truth(masks, label, torch.arange(1, len(squares) + 1), whole, ~whole,
                 torch.zeros(size, dtype=torch.bool))  # fmt: skip


def batch_of(*truths):
    """Noise, brighter where an object is, padded to one size."""
    sizes = [tuple(truth.void.shape) for truth in truths]
    images = torch.zeros(len(truths), 3, *(max(side) for side in zip(*sizes)))
    noise = uniform(torch.tensor([3]), *images.shape)[0]
    for image, grain, truth, (h, w) in zip(images, noise, truths, sizes):
        image[:, :h, :w] = grain[:, :h, :w] / 2 + truth.masks.any(0) / 2
    seeds = row_draws(0, 0, 0, len(truths))
    return Batch(images, sizes, list(range(len(truths))), None, list(truths), seeds)


TWO = truth_of((64, 48), [(0, 4, 4, 20), (1, 30, 20, 24)])
ONE = truth_of((40, 64), [(1, 8, 30, 16)])
NONE = truth_of((64, 64), [])


@pytest.fixture
def method():
    torch.manual_seed(0)
    return Mask2Former.build(PAIR, "smoke")


class Samples(list):
    """Images that are the same in every epoch."""

    def set_epoch(self, epoch):
        self.epoch = epoch


def at_work(root, place, monkeypatch):
    """In a folder with the book's notebooks, which are executed here."""
    (place / "book").symlink_to(root / "book")
    monkeypatch.chdir(place)
    monkeypatch.setattr(notebook, "execute", same_process.execute)


def trainer_of(method, precision="float32", steps=4):
    training = Training(lr=1e-3, steps=steps, batch=2)
    return Trainer(method, Settings(training, precision=precision, checkpoint_every=2), "cpu")


@there
def test_its_size_is_the_printed_one():
    categories = [Category(k + 1, f"class {k}", k < 80) for k in range(133)]
    with torch.device("meta"), to_be_replaced():
        count = sum(p.numel() for p in Mask2Former.build(categories, "paper").parameters())
    assert round(count / 1e6) == 69  # [EXITS Tab. a5]


@there
def test_weighted_losses_are_transformers_own(method, monkeypatch):
    """Of a whole batch, an image without objects in it; the points of masks are fixed here."""

    def fixed(*shape, device=None):
        return uniform(torch.tensor([5]), *shape[1:]).expand(*shape).clone()

    monkeypatch.setattr(torch, "rand", fixed)
    method.train()
    batch = batch_of(TWO, NONE, ONE)
    ours, targets = method.losses(batch, 0), method.targets(batch)
    model = method.student
    pixels = (batch.images - model.mean) / model.deviation
    pixels[batch.padding()[:, None].expand_as(pixels)] = 0
    masks = [each.float() for each in targets.masks]
    theirs = model(pixels, mask_labels=masks, class_labels=targets.label).loss
    assert set(ours) == set(Mask2Former.LOSSES)
    assert sum(ours.values()).item() == pytest.approx(theirs.item(), rel=1e-5)


@there
def test_points_come_from_the_seed_of_each_image(method):
    method.train()
    alone, seeds = batch_of(TWO), row_draws(0, 0, 0, 2)
    both = replace(alone, images=alone.images.repeat(2, 1, 1, 1), sizes=alone.sizes * 2,
                   truths=alone.truths * 2, draws=seeds)  # fmt: skip
    torch.manual_seed(1)
    first = method.losses(alone, 0)
    torch.manual_seed(2)
    assert method.losses(alone, 0) == first
    other = method.losses(replace(alone, draws=seeds[1:]), 0)
    assert other["mask"] != first["mask"]
    mean = (first["mask"] + other["mask"]).item() / 2
    assert method.losses(both, 0)["mask"].item() == pytest.approx(mean, rel=1e-5)


@there
def test_two_pieces_have_the_losses_of_the_whole(monkeypatch):
    monkeypatch.setitem(two_processes.MODULES, NAME, methods.OPTIONAL[NAME])
    for things in two_processes.BATCHES.values():
        whole = two_processes.losses_of(NAME, things)
        for alone, cut in zip(whole, two_processes.losses_of(NAME, things, 2), strict=True):
            assert cut == pytest.approx(alone, rel=1e-5, abs=1e-5)


@there
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_images_without_objects_train(precision, method):
    trainer = trainer_of(method, precision)
    for batch in (batch_of(NONE, NONE), batch_of(TWO, NONE)):
        losses, _ = trainer.advance(batch)
        assert losses["class"] > 0
        assert (losses["mask"] > 0) == (losses["dice"] > 0) == bool(len(batch.truths[0]))


@there
def test_it_learns_and_finds_what_it_has_learnt(method):
    trainer = trainer_of(method, steps=150)
    batch = batch_of(TWO, ONE)
    for _ in range(150):
        trainer.advance(batch)
    for truth, prediction in zip(batch.truths, method.eval().predict(batch.images, batch.sizes)):
        best = prediction.instances.masks[: len(truth)]
        overlap = (best[:, None] & truth.masks).sum((2, 3)) / (best[:, None] | truth.masks).sum(
            (2, 3)
        )
        assert overlap.amax(0).min() > 0.7
        assert torch.equal(prediction.instances.label[overlap.argmax(0)], truth.label)


@there
def test_predictions_have_the_image_s_size_whatever_lies_beside_it(method):
    """Padding is looked at, as in the official code, so its width may change an answer; what it
    holds may not, nor may the other images."""
    method.eval()
    batch = batch_of(TWO, ONE)
    clean = method.predict(batch.images, batch.sizes)
    padding = batch.padding()[:, None].expand_as(batch.images)
    noise = method.predict(batch.images.masked_fill(padding, 0.9), batch.sizes)
    alone = method.predict(batch.images[1:], batch.sizes[1:])
    for ours, theirs, size in zip(clean, noise, batch.sizes):
        assert ours.instances.masks.shape[1:] == size and len(ours.instances.masks)
        assert torch.equal(ours.instances.masks, theirs.instances.masks)
    same = alone[0].instances
    assert torch.allclose(same.scores, clean[1].instances.scores, atol=1e-5)
    assert torch.allclose(same.boxes, clean[1].instances.boxes, atol=1.0)


@there
def test_instances_are_pairs_of_a_query_and_a_class_best_first():
    from pointseg.students.mask2former_network import instances_of

    classes = torch.tensor([[2.0, 1.0, 0.0], [0.0, 4.0, 0.0]])  # the last column is nobody
    masks = torch.full((2, 8, 8), -9.0)
    masks[0, :4, :4], masks[1, 4:, :] = 9.0, 9.0
    instances = instances_of(classes, masks, (30, 32), (32, 32), most=3)
    assert instances.label.tolist() == [1, 0, 1] and instances.masks.shape == (3, 30, 32)
    likely = classes.softmax(-1)
    wanted = torch.stack([likely[1, 1], likely[0, 0], likely[0, 1]])
    assert torch.allclose(instances.scores, wanted, atol=0.05)
    assert instances.boxes[:2].tolist() == [[0, 16, 32, 30], [0, 0, 16, 16]]
    nothing = instances_of(classes, -masks.abs(), (30, 32), (32, 32), most=3)
    assert nothing.masks.shape == (0, 30, 32) and nothing.boxes.shape == (0, 4)


@there
def test_the_backbone_learns_at_a_tenth_and_norms_and_embeddings_do_not_shrink(method):
    rates, names = {}, {id(p): name for name, p in method.named_parameters()}
    for group in method.param_groups(1.0, 0.5):
        rates |= {names[id(p)]: (group["lr"], group["weight_decay"]) for p in group["params"]}
    assert rates.keys() == set(names.values())
    for name, (lr, decay) in rates.items():
        assert lr == (0.1 if "pixel_level_module.encoder." in name else 1.0), name
        still = (
            "norm",
            "embedder.weight",
            "queries_features",
            "position_bias",
            "module.level_embed.",
        )
        if any(word in name for word in still):
            assert decay == 0, name
        elif name.endswith((".fc1.weight", "q_proj.weight", "class_predictor.weight")):
            assert decay == 0.5, name


@there
def test_on_a_pretended_gpu_it_loses_what_it_loses_here(method):
    batch = batch_of(TWO, ONE)
    here = trainer_of(method).advance(batch)[0]
    torch.manual_seed(0)
    again = Mask2Former.build(PAIR, "smoke")
    with pretended_gpu() as device:
        training = Settings(Training(lr=1e-3, steps=4, batch=2), precision="float32")
        elsewhere = Trainer(again, training, device).advance(batch)[0]
    assert elsewhere == pytest.approx(here, rel=1e-5)


@there
def test_stopped_and_begun_again_it_ends_with_the_same_weights(tmp_path):
    batch = batch_of(TWO, TWO)
    pairs = list(zip((batch.images * 255).to(torch.uint8), batch.truths))
    samples = Samples(Sample(k, image, truth=truth) for k, (image, truth) in enumerate(pairs))

    def trained(folder, until):
        torch.manual_seed(0)
        method = Mask2Former.build(PAIR, "smoke")
        settings = Settings(Training(lr=1e-3, steps=4, batch=2), checkpoint_every=1)
        feed = Feed(samples, collate, 2, seed=0)
        records = fit(method, feed, settings, folder, device="cpu")
        for record in records:
            if record.step == until:
                break
        records.close()
        return method.state_dict()

    whole = trained(None, 3)
    trained(tmp_path, 1)
    again = trained(tmp_path, 3)
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@there
def test_the_command_line_trains_it_and_predicts(root, tmp_path, monkeypatch, capsys):
    at_work(root, tmp_path, monkeypatch)
    words = ["--scale", "smoke", "-p", 'training={"steps": 2}']
    assert main(["train", NAME, *words]) == 0, capsys.readouterr().err
    [model] = tmp_path.rglob("model.pt")
    make(tmp_path / "made", "coco", images=1, val=2, size=64, progress=False)
    images, out = tmp_path / "made" / "coco" / "val2017", tmp_path / "out"
    assert main(["predict", str(model), str(images), "--out", str(out)]) == 0
    assert len(list(out.glob("*.overlay.png"))) == 2


@there
def test_it_learns_from_the_labels_of_an_earlier_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_data, "cache", lambda: tmp_path / "data")
    stages = [{"method": "mal"}, {"method": NAME, "learns_from": 0}]
    run = Run(tmp_path / "runs" / "smoke" / "labels" / "s0")
    metrics = experiment(recipe.make(stages=stages, images=6, scored_images=2), run)
    assert [stage["method"] for stage in metrics["stages"]] == ["mal", NAME]
    assert "AP50" in metrics["val"] and len(list(run.stages.glob("*/labels.json.gz"))) == 1


@there
def test_the_backbone_starts_from_a_file_that_has_it(method, tmp_path):
    torch.save(method.state_dict(), tmp_path / "weights.pt")
    other = Mask2Former.build(PAIR, "smoke")
    load_first_stage(other, tmp_path / "weights.pt", Mask2Former.FIRST_STAGE)
    theirs, backbone = method.state_dict(), "model.pixel_level_module.encoder."
    same = {name: torch.equal(theirs[name], value) for name, value in other.named_parameters()
            if name.endswith(("proj.weight", "class_predictor.weight"))}  # fmt: skip
    assert same and all(equal == (backbone in name) for name, equal in same.items())


@there
def test_a_class_that_there_is_not_is_refused(method):
    with pytest.raises(InputError, match="class index 2 is out of range, there are 2 thing"):
        method.targets(batch_of(truth_of((64, 64), [(2, 4, 4, 9)])))


@there
def test_every_row_of_the_plan_builds_it(root, monkeypatch):
    monkeypatch.chdir(root)
    with torch.device("meta"), to_be_replaced():
        for row in ROWS:
            assert isinstance(plan.rows()[row].recipe.build(CATEGORIES), Mask2Former)


def test_without_transformers_one_line_says_what_to_install(root, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "pointseg.students.mask2former_network", raising=False)
    at_work(root, tmp_path, monkeypatch)
    with pytest.raises(InputError, match=r"pip install 'pointseg\[mask2former\]'"):
        Mask2Former.build(PAIR, "smoke")
    assert main(["train", NAME, "--scale", "smoke"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("pointseg: mask2former: transformers is absent")


def test_transformers_is_imported_only_where_a_network_is_built():
    program = (
        "import sys, pointseg.cli; from pointseg.lab.methods import method_class; "
        "method_class('mask2former'); print('transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("scale", ["small", "photos"])
def test_scales_without_settings_are_refused(scale, root, monkeypatch):
    monkeypatch.chdir(root)
    with pytest.raises(
        InputError, match=f"no settings for scale {scale}, only for paper and smoke"
    ):
        Mask2Former.build(PAIR, scale)
    for name in (NAME, "exits-m2f"):
        with pytest.raises(
            InputError, match=f"mask2former has none called {scale}, only paper and"
        ):
            plan.recipe_for(name, scale=scale)


def test_its_rows_are_run_at_scale_paper_alone_and_by_their_names(root, monkeypatch):
    monkeypatch.chdir(root)
    for names, scale in (
        (["exits"], None),
        (["all"], None),
        (["exits"], "small"),
        (["all"], "smoke"),
    ):
        assert not set(ROWS) & set(chosen(names, scale).rows)
    assert set(ROWS) <= set(chosen(["exits"], "paper").rows)
    assert chosen(["paper"], None).rows == [row for row in plan.rows() if row in ROWS]
    assert chosen(["exits-m2f"], None).rows == ["exits-m2f"]
