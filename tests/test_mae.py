"""Masked autoencoding: what is hidden, that nothing leaks, that it learns; the probe by hand."""

import json
from hashlib import sha256

import numpy as np
import pytest
import torch

from pointseg.data.supervision import collate
from pointseg.lab import pretrain as lab_pretrain
from pointseg.lab.pretrain import pretrain, probe_image, recorded, ship
from pointseg.lab.run_record import Run
from pointseg.nets.vit import TokenViT, ViTConfig
from pointseg.nets.weights import load_backbone, save_backbone
from pointseg.ops.processes import row_draws
from pointseg.structures import InputError
from pointseg.training.loop import Trainer, lr_factor
from pointseg.training.pretraining.images import Squares, random_views, stored_squares
from pointseg.training.pretraining.mae import (
    MAEConfig,
    MaskedAutoencoder,
    hide_pixels,
    mean_colours,
    random_hidden,
    to_patches,
)
from pointseg.training.pretraining.pretraining import Pretraining, new_method
from pointseg.training.pretraining.probe import (
    ProbeImage,
    best_threshold_iou,
    k_means,
    part_purity,
    point_similarity,
    probe,
    same_object_auc,
    token_class,
)

TINY = {"dim": 48, "depth": 2, "heads": 2}


def hidden_patches(images, grid, *rest):
    return random_hidden(row_draws(0, 0, 0, images), grid, *rest)


def small_mae(**settings):
    torch.manual_seed(0)
    return MaskedAutoencoder(
        TokenViT(**TINY), MAEConfig(decoder_dim=24, decoder_depth=1, **settings)
    )


@pytest.mark.parametrize("grid", [(16, 16), (5, 7), (4, 4)])
@pytest.mark.parametrize("block", [1, 2, 3])
def test_exactly_three_quarters_are_hidden(grid, block):
    hidden = hidden_patches(6, grid, 0.75, block)
    assert hidden.shape == (6, grid[0] * grid[1])
    assert (hidden.sum(1) == round(0.75 * grid[0] * grid[1])).all()


def test_hidden_patches_come_in_squares():
    hidden = hidden_patches(3, (8, 8), 0.75, 2).view(3, 4, 2, 4, 2)
    assert (hidden == hidden[:, :, :1, :, :1]).all()


@pytest.mark.parametrize(
    "vit", [TINY, {**TINY, "stem": "patch"}, {"name": "vit_small_patch16_dinov3"}]
)
@torch.no_grad()
def test_hidden_pixels_change_nothing(vit):
    """Overlapping convolutions would carry hidden pixels into visible tokens; here they cannot."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(TokenViT(**vit)).eval()
    side = 4 * model.vit.stride
    one, hidden = torch.rand(2, 3, side, side), hidden_patches(2, (4, 4), 0.75)
    noise = torch.rand_like(one)
    other = torch.where(
        hide_pixels(torch.ones_like(one), hidden, model.vit.stride).bool(), one, noise
    )
    assert not torch.equal(one, other)
    visible = (~hidden).nonzero()[:, 1].view(2, -1)
    tokens = [model.encode(model.vit.normalise(images), hidden, visible) for images in (one, other)]
    assert tokens[0].shape == (2, 4, model.vit.dim)
    assert torch.equal(*tokens)


@torch.no_grad()
def test_visible_pixels_do_matter():
    model = small_mae().eval()
    images, hidden = torch.rand(1, 3, 32, 32), hidden_patches(1, (4, 4), 0.75)
    visible = (~hidden).nonzero()[:, 1].view(1, -1)
    changed = hide_pixels(images, ~hidden, 8)  # the visible ones turn black
    one, other = (model.encode(model.vit.normalise(x), hidden, visible) for x in (images, changed))
    assert (one - other).abs().amin(1).max() > 1e-4


@torch.no_grad()
def test_nothing_hidden_is_the_network_in_use():
    """With every patch visible the encoder of the pretraining is the backbone, token for token."""
    model = small_mae().eval()
    images = torch.rand(2, 3, 32, 40)
    hidden = torch.zeros(2, 20, dtype=torch.bool)
    everything = torch.arange(20).expand(2, -1)
    tokens = model.encode(model.vit.normalise(images), hidden, everything)
    torch.testing.assert_close(tokens, model.vit(images).tokens)


def test_loss_by_a_loop():
    """Mean squares of normalised pixels, plus the mean colour, over the painted patches alone."""
    model = small_mae(colour=0.5, painted=0.5).double()
    images, hidden = torch.rand(2, 3, 32, 32).double(), hidden_patches(2, (4, 4), 0.75)
    pixels, total = model.vit.normalise(images), []
    painted = model.painted(pixels, hidden, row_draws(0, 0, 0, 2))
    assert painted.which.shape == (2, 6)
    for image, row in enumerate(painted.which.tolist()):
        for k, index in enumerate(row):
            assert hidden[image, index]
            top, left = index // 4 * 8, index % 4 * 8
            patch = pixels[image, :, top : top + 8, left : left + 8]
            goal = (patch - patch.mean()) / (patch.var() + 1e-4).sqrt()
            error = ((painted.patches[image, k].view(3, 8, 8) - goal) ** 2).mean()
            colour = ((painted.colours[image, k] - patch.mean((1, 2))) ** 2).mean()
            total.append((error + 0.5 * colour).item())
    # the network's answer passes through float32
    loss = sum(model.pixel_losses(painted, pixels).values())
    assert loss.item() == pytest.approx(np.mean(total), rel=1e-4)


def test_patches_in_reading_order():
    pixels = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    patches = to_patches(pixels, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4], pixels[1, :, 2:4, 2:4].flatten())
    assert torch.equal(mean_colours(patches)[1, 4], pixels[1, :, 2:4, 2:4].mean((1, 2)))


def test_loss_falls_on_one_batch():
    model = small_mae(painted=1.0)
    images = torch.nn.functional.interpolate(torch.rand(4, 3, 4, 4), size=(32, 32), mode="bilinear")
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = sum(model.losses(images, row_draws(0, 0, 0, 4)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_teacher_tells_nothing_of_the_position_and_follows_slowly():
    """Standardised over the images at each position; it moves by its share towards the encoder."""
    model = small_mae(latent=1.0, slowness=0.75)
    pixels = model.vit.normalise(torch.rand(6, 3, 32, 32))
    with torch.no_grad():
        model.vit.blocks[0].mlp.fc1.weight.add_(1.0)
    before = model.teacher.blocks[0].mlp.fc1.weight.clone()
    features = model.teacher_features(pixels)
    torch.testing.assert_close(features.mean(0), torch.zeros(16, 48), atol=1e-4, rtol=0)
    assert (features.var(0) < 1.001).all() and features.var(0).mean() > 0.9
    torch.testing.assert_close(model.teacher.blocks[0].mlp.fc1.weight, before + 0.25)
    model.eval().teacher_features(pixels)
    torch.testing.assert_close(model.teacher.blocks[0].mlp.fc1.weight, before + 0.25)


def test_each_way_of_hiding_is_a_view_of_its_own(monkeypatch):
    model, masks = small_mae(latent=0.5, masks=3), []
    hide = model.random_hidden
    monkeypatch.setattr(model, "random_hidden", lambda *a: masks.append(hide(*a)) or masks[-1])
    losses = model.losses(torch.rand(2, 3, 32, 32), row_draws(0, 0, 0, 2), with_teacher=True)
    assert len(masks[0]) == 6 and len(masks[0].unique(dim=0)) == 6
    sum(losses.values()).backward()
    assert model.imagine.weight.grad is not None
    assert not any(p.requires_grad for p in model.teacher.parameters())


def test_best_threshold_by_trying_all():
    torch.manual_seed(0)
    scores, mask = torch.rand(6, 7), torch.rand(6, 7) > 0.6
    tried = [((scores >= t) & mask).sum() / ((scores >= t) | mask).sum() for t in scores.flatten()]
    assert best_threshold_iou(scores, mask) == pytest.approx(float(max(tried)))
    assert best_threshold_iou(mask.float() + 0.1 * scores, mask) == 1.0


def test_auc_by_counting_pairs():
    torch.manual_seed(0)
    scores = torch.rand(4, 4)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:4, 2:6] = True  # tokens of stride 2: rows 0-1, columns 1-2
    inside = scores[:2, 1:3].flatten()
    outside = scores[torch.ones(4, 4, dtype=torch.bool).index_put_((torch.tensor([0, 0, 1, 1]),
                     torch.tensor([1, 2, 1, 2])), torch.tensor(False))]  # fmt: skip
    pairs = (inside[:, None] > outside[None]).float().mean()
    assert same_object_auc(scores, mask, 2) == pytest.approx(float(pairs))


def test_features_that_name_their_object_and_parts_score_one():
    """Oracle features: one direction per part, with a common direction per object."""
    owner = torch.zeros(8, 8, dtype=torch.long)
    owner[1:5, 1:7] = 1
    part = torch.zeros(8, 8, dtype=torch.long)
    part[1:5, 1:4], part[1:5, 4:7] = 1, 2
    by_owner = torch.nn.functional.one_hot(owner, 2).permute(2, 0, 1).float()
    by_part = torch.nn.functional.one_hot(part, 3).permute(2, 0, 1).float()
    mask = owner.bool().repeat_interleave(4, 0).repeat_interleave(4, 1)
    parts = part.repeat_interleave(4, 0).repeat_interleave(4, 1)
    similar = point_similarity(by_owner, torch.tensor([10.0, 9.0]), 4)
    assert same_object_auc(similar, mask, 4) == 1.0
    assert part_purity(by_part, mask, parts, 4) == (1.0, 0.5)
    assert part_purity(torch.ones(2, 8, 8), mask, parts, 4) == (
        0.5,
        0.5,
    )  # knows nothing: the largest part
    assert part_purity(by_part, mask, mask.long(), 4) is None


def test_token_class_reads_labels_that_are_there():
    """One direction a class: right for every token; noise: near chance, one in the classes."""
    torch.manual_seed(0)
    images, named, noise = [], [], []
    for index in range(40):
        masks = torch.zeros(2, 16, 16, dtype=torch.bool)
        masks[0, :8], masks[1, 8:] = True, True
        label = torch.tensor([index // 2 % 4, (index // 2 + 1) % 4])
        images.append(
            ProbeImage(torch.zeros(3, 16, 16), masks, masks[0].long(), torch.zeros(2, 2), label)
        )
        grid = label.repeat_interleave(2)[:, None].expand(4, 4)
        named.append(
            torch.nn.functional.one_hot(grid, 4).permute(2, 0, 1) + 0.1 * torch.randn(4, 4, 4)
        )
        noise.append(torch.randn(4, 4, 4))
    assert token_class(torch.stack(named), images, 4) == 1.0
    assert token_class(torch.stack(noise), images, 4) < 0.4


def test_k_means_finds_clusters_far_apart():
    torch.manual_seed(0)
    points = torch.cat(
        [torch.randn(9, 2) * 0.1 + centre for centre in torch.tensor([[0.0, 0], [9, 0], [0, 9]])]
    )
    cluster = k_means(points, 3).view(3, 9)
    assert (cluster == cluster[:, :1]).all() and len(cluster[:, 0].unique()) == 3


def test_probe_leaves_the_network_as_it_was():
    vit = TokenViT(**TINY).train()
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[0, 4:20, 4:20] = True
    picture = ProbeImage(
        torch.rand(3, 32, 32),
        mask,
        mask[0].long(),
        torch.tensor([[8.5, 8.5]]),
        torch.zeros(1).long(),
    )
    scores = probe(vit, [picture, picture])
    assert vit.training and 0 < scores["point_iou"] <= 1


def test_probe_images_hold_their_points():
    config = Pretraining(size=64)
    image = probe_image(config, 3)
    for mask, (x, y) in zip(image.masks, image.points.tolist()):
        assert mask[int(y), int(x)]
    assert torch.equal(image.points, probe_image(config, 3).points)


def test_a_view_is_a_square_of_its_image_and_follows_its_seed():
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    images = torch.cat([ramp, ramp.transpose(2, 3), 0 * ramp + 0.3], 1).expand(64, -1, -1, -1)
    views = random_views(images, row_draws(0, 0, 0, 64), smallest=0.5, side=images.shape[-1])
    assert (views[:, 2] - 0.3).abs().max() < 1e-6
    width, height = views[:, 0, 0, -1] - views[:, 0, 0, 0], views[:, 1, -1, 0] - views[:, 1, 0, 0]
    torch.testing.assert_close(width.abs(), height, atol=0.02, rtol=0)
    assert height.min() > 0.45 and height.max() <= 1 and height.std() > 0.1
    assert 16 < (width < 0).sum() < 48
    again = random_views(images[:8], row_draws(0, 0, 8, 8), smallest=0.5, side=images.shape[-1])
    torch.testing.assert_close(again, views[8:16])


def test_a_view_may_be_smaller_than_its_image():
    images = torch.rand(4, 3, 32, 32)
    views = random_views(images, row_draws(0, 0, 0, 4), smallest=1.0, side=16)
    means = torch.nn.functional.avg_pool2d(images, 2)
    same = [min((v - m).abs().max(), (v.flip(2) - m).abs().max()) for v, m in zip(views, means)]
    assert views.shape == (4, 3, 16, 16) and max(same) < 1e-5


def test_a_pretraining_begins_with_the_weights_that_it_is_given(tmp_path):
    vit = new_method(Pretraining(**RUN, seed=5)).model.vit
    start = save_backbone(vit, tmp_path / "start.safetensors")
    begun = new_method(Pretraining(**RUN, start=str(start))).model.vit
    for name, value in vit.state_dict().items():
        torch.testing.assert_close(begun.state_dict()[name], value, atol=1e-3, rtol=1e-3)


def test_the_whole_image_is_a_view_where_no_crop_is_smaller():
    images = torch.rand(8, 3, 16, 16)
    views = random_views(images, row_draws(0, 0, 0, 8), smallest=1.0, side=images.shape[-1])
    same = [min((v - i).abs().max(), (v.flip(2) - i).abs().max()) for v, i in zip(views, images)]
    assert max(same) < 1e-5


def test_any_folder_of_images_is_cut_to_squares(tmp_path):
    from PIL import Image

    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 200
    (tmp_path / "in" / "below").mkdir(parents=True)
    Image.fromarray(wide).save(tmp_path / "in" / "below" / "wide.png")
    (tmp_path / "in" / "note.txt").write_text("no image")
    stored = stored_squares(tmp_path / "s.npy", str(tmp_path / "in"), 9, 16, 0)
    assert stored.shape == (1, 16, 16, 3) and (stored == 200).all()
    with pytest.raises(InputError, match="holds images of shape"):
        stored_squares(tmp_path / "s.npy", str(tmp_path / "in"), 9, 32, 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        stored_squares(tmp_path / "t.npy", str(tmp_path / "empty"), 9, 16, 0)


def test_rate_rises_stays_and_falls():
    config = Pretraining(views=1000, batch=10, warmup=0.1, cooldown=0.2, mae=MAEConfig())
    assert config.steps == 100
    rates = [lr_factor(step, 100, config.settings.training) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11) and rates[10] == rates[80] == 1.0
    assert rates[-1] == pytest.approx(0.05) and all(r > 0 for r in rates)


SMALL = ViTConfig(**TINY, image_size=64)
RUN = {"batch": 8, "images": 12, "size": 64, "probe_images": 2, "probes": (0, 16), "vit": SMALL,
       "checkpoint_every": 2}  # fmt: skip


def test_pretraining_resumed_is_pretraining_at_one_go(tmp_path, monkeypatch):
    """Stopped in a probe or after any step and started again, the same bytes come out."""
    whole = pretrain("mae", tmp_path / "whole", **RUN, views=48)
    advance, keep = Trainer.advance, lab_pretrain.keep_portrait

    def dies_looking(vit, images, path):
        if path.stem == "views00000016":
            raise KeyboardInterrupt
        keep(vit, images, path)

    monkeypatch.setattr(lab_pretrain, "keep_portrait", dies_looking)
    with pytest.raises(KeyboardInterrupt):
        pretrain("mae", tmp_path / "parts", **RUN, views=48)
    monkeypatch.setattr(lab_pretrain, "keep_portrait", keep)

    def dies(trainer, batch):
        if trainer.step == 5:
            raise KeyboardInterrupt
        return advance(trainer, batch)

    monkeypatch.setattr(Trainer, "advance", dies)
    with pytest.raises(KeyboardInterrupt):
        pretrain("mae", tmp_path / "parts", **RUN, views=48)
    assert json.loads((tmp_path / "parts" / "result.json").read_text())["status"] == "interrupted"
    monkeypatch.setattr(Trainer, "advance", advance)
    parts = pretrain("mae", tmp_path / "parts", **RUN, views=48)
    assert whole.read_bytes() == parts.read_bytes()
    for name in ("log.jsonl", "probes.jsonl"):
        assert (whole.parent / name).read_bytes() == (parts.parent / name).read_bytes()
    assert load_backbone(TokenViT(**TINY, image_size=64), whole).missing == ()
    first = sorted(path.name for path in (tmp_path / "whole" / "snapshots").iterdir())[0]
    assert first == "views00000000.safetensors"
    assert json.loads((tmp_path / "whole" / "result.json").read_text())["metrics"]["point_iou"] > 0
    with pytest.raises(InputError, match="another pretraining's"):
        pretrain("mae", tmp_path / "parts", **RUN, views=56)


def test_shipping_keeps_record_and_weights_together(tmp_path):
    pretrain("mae", tmp_path / "out", **RUN, views=16)
    (tmp_path / "weights").mkdir()
    weights = tmp_path / "weights" / "small.safetensors"
    kept = ship(tmp_path / "out", weights, tmp_path / "runs", "small")
    record = json.loads(weights.with_suffix(".json").read_text())
    assert record["sha256"] == sha256(weights.read_bytes()).hexdigest()
    assert record["views"] == 16
    assert all(given in record["command"] for given in ("--views 16", "--batch 8", "--size 64"))
    assert kept.status == "ok" and set(kept.read("probes.json")) == {"0", "16"}
    assert len(list((kept.folder / "looks").iterdir())) == 2


def test_a_record_tells_the_start_from_an_untrained_network(tmp_path):
    """A pretraining that goes on from weights is held against both."""
    ends = {}
    for name, start in (("first", None), ("second", str(tmp_path / "first.safetensors"))):
        pretrain("mae", tmp_path / name, **RUN, views=16, start=start)
        weights = tmp_path / f"{name}.safetensors"
        ends[name] = ship(tmp_path / name, weights, tmp_path / "runs", name).metrics
        assert recorded(Run(tmp_path / name)).start == start
    assert set(ends["first"]) == {"trained", "untrained"}
    assert ends["second"]["untrained"] == ends["first"]["untrained"]
    assert ends["second"]["start"] == pytest.approx(ends["first"]["trained"], abs=0.01)
    assert ends["second"]["start"] != ends["second"]["untrained"]


def test_the_teacher_is_followed_after_the_first_views():
    """One way of hiding until then, `masks` ways afterwards; it begins as the encoder then is."""
    mae = MAEConfig(latent=1.0, masks=2, decoder_dim=24, slowness=1.0)
    config = Pretraining(**RUN, views=64, alone=16, mae=mae)
    assert [config.views_at(step) for step in range(5)] == [0, 8, 16, 32, 48]
    assert config.steps == 5 and config.views_at(5) == 64
    method = new_method(config)
    trainer = Trainer(method, config.settings, "cpu")
    squares = Squares(np.random.default_rng(0).integers(0, 255, (8, 64, 64, 3), dtype=np.uint8))
    batch = collate([squares[i] for i in range(8)])
    for with_teacher in (False, False, True):
        encoder = {name: value.clone() for name, value in method.model.vit.state_dict().items()}
        losses, _ = trainer.advance(batch)
        assert ("features" in losses) == with_teacher
        assert (method.model.imagine.weight.grad is not None) == with_teacher
    for name, value in method.model.teacher.state_dict().items():
        assert torch.equal(value, encoder[name])


def test_unknown_kind():
    with pytest.raises(InputError, match="simclr: unknown kind"):
        pretrain("simclr", "nowhere")
