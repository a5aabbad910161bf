"""Weights: files made here, read with a report; the official MAE names; bad files in one line."""

import json
from hashlib import sha256

import pytest
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from pointseg.data.bestiary import CATEGORIES
from pointseg.lab.models import shapes_of
from pointseg.lab.recipe import make
from pointseg.nets.vit import TokenViT
from pointseg.nets.weights import SHIPPED, fit_weights, load_backbone, read_backbone, save_backbone
from pointseg.structures import InputError

TINY = {"dim": 48, "depth": 2, "heads": 2}
VIT = "vit_tiny_patch16_224"


def official_mae(width=192, grid=14, depth=12):
    """A checkpoint with the names and shapes of facebookresearch/mae.

    Bare ViT names, decoder_*, mask_token.
    """
    torch.manual_seed(3)
    vit = TokenViT(VIT)
    weights = {
        name.removeprefix("body."): torch.randn_like(value)
        for name, value in vit.body.state_dict().items()
    }
    weights["pos_embed"] = torch.randn(1, grid * grid + 1, width)
    decoder = {"mask_token": torch.randn(1, 1, 64), "decoder_embed.weight": torch.randn(64, width),
               "decoder_pos_embed": torch.randn(1, grid * grid + 1, 64),
               "decoder_norm.weight": torch.randn(64),
               "decoder_blocks.0.attn.qkv.weight": torch.randn(192, 64)}  # fmt: skip
    norms = {"norm.weight": torch.randn(width), "norm.bias": torch.randn(width)}
    return {**weights, **norms}, decoder


@pytest.mark.parametrize("wrapped", ["model", "state_dict", None])
def test_official_mae_checkpoint(tmp_path, wrapped):
    encoder, decoder = official_mae()
    content = {**encoder, **decoder}
    torch.save({wrapped: content, "epoch": 799} if wrapped else content, tmp_path / "mae.pth")
    vit = TokenViT(VIT, queries=3)
    queries = vit.query_tokens.clone()
    report = load_backbone(vit, tmp_path / "mae.pth")
    assert report.missing == () and report.unexpected == ()
    assert set(report.decoder) == set(decoder)
    assert torch.equal(vit.blocks[3].attn.qkv.weight, encoder["blocks.3.attn.qkv.weight"])
    assert torch.equal(vit.query_tokens, queries)
    assert f"{len(report.loaded)} loaded, 0 missing" in str(report)


def test_positions_of_another_grid_are_resampled(tmp_path):
    encoder, _ = official_mae(grid=8)
    save_file(encoder, tmp_path / "mae.safetensors")
    vit = TokenViT(VIT)
    load_backbone(vit, tmp_path / "mae.safetensors")
    positions = vit.body.pos_embed
    assert positions.shape == (1, 197, 192)
    assert torch.equal(positions[:, 0], encoder["pos_embed"][:, 0])  # the class token has no place
    # resampled back, a smooth grid is what it was
    smooth = torch.linspace(0, 1, 8).view(8, 1, 1).expand(8, 8, 192).reshape(1, 64, 192)
    encoder["pos_embed"] = torch.cat([torch.zeros(1, 1, 192), smooth], 1)
    fit_weights(vit, encoder, "smooth")
    back = resample_abs_pos_embed(
        vit.body.pos_embed.detach(), (8, 8), (14, 14), num_prefix_tokens=1
    )
    torch.testing.assert_close(back[:, 1:], smooth, atol=0.03, rtol=0)


def test_report_names_what_does_not_fit(tmp_path):
    encoder, _ = official_mae()
    del encoder["blocks.11.mlp.fc2.bias"]
    encoder["head.weight"] = torch.zeros(10, 192)
    torch.save(encoder, tmp_path / "odd.pth")
    report = load_backbone(TokenViT(VIT), tmp_path / "odd.pth")
    assert report.missing == ("body.blocks.11.mlp.fc2.bias",)
    assert report.unexpected == ("body.head.weight",)


def test_our_file_comes_back(tmp_path):
    torch.manual_seed(0)
    vit = TokenViT(queries=4, **TINY).eval()
    path = save_backbone(vit, tmp_path / "deep" / "ours.safetensors")
    back = read_backbone(path, queries=7, drop_path=0.1).eval()
    assert back.query_tokens.shape == (7, 48) and back.config.depth == 2
    images = torch.rand(1, 3, 24, 24)
    one, other = TokenViT(**TINY).eval(), read_backbone(path).eval()
    report = load_backbone(one, path)
    assert report.missing == report.unexpected == ()
    with torch.no_grad():
        assert torch.equal(
            one(images).tokens, other(images).tokens
        )  # written once in half precision
    for name, value in one.state_dict().items():
        if not name.startswith("query"):
            assert torch.equal(value, vit.state_dict()[name].half().float()), name


def test_wrong_width_is_one_clear_line(tmp_path):
    path = save_backbone(TokenViT(**TINY), tmp_path / "narrow.safetensors")
    with pytest.raises(InputError) as caught:
        load_backbone(TokenViT(dim=96, depth=2, heads=2), path)
    text = str(caught.value)
    assert (
        "narrow.safetensors: body.blocks.0.attn.proj.bias is [48], this network's is [96]" in text
    )
    assert "\n" not in text


class Payload:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('a checkpoint was executed')",))


def bad_files(folder):
    torch.save({"model": Payload()}, folder / "evil.pth")
    (folder / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json")
    (folder / "torn.pth").write_bytes(b"PK\x03\x04 torn")
    (folder / "empty.pth").write_bytes(b"")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"a": 1}, folder / "numbers.pth")
    torch.save({"other.weight": torch.zeros(2)}, folder / "stranger.pth")
    return ["evil.pth", "torn.safetensors", "torn.pth", "empty.pth", "list.pth", "numbers.pth",
            "stranger.pth", "absent.pth", "absent.safetensors"]  # fmt: skip


def test_bad_files_are_told_in_one_line(tmp_path):
    vit = TokenViT(**TINY)
    for name in bad_files(tmp_path):
        with pytest.raises(InputError) as caught:
            load_backbone(vit, tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


def test_not_a_backbone_of_ours(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    for name, cause in (("plain", "not a backbone of ours"), ("absent", "no such file")):
        with pytest.raises(InputError, match=f"{name}.safetensors: {cause}"):
            read_backbone(tmp_path / f"{name}.safetensors")


def test_pretrained_of_the_hub_goes_through_timm(monkeypatch):
    """No network here: timm is asked for the right model, pretrained; what it returns is loaded."""
    import timm

    requested, create = [], timm.create_model

    def offline(name, pretrained=False, **settings):
        requested.append((name, pretrained))
        return create(name, pretrained=False, **settings)

    vit = TokenViT(VIT)
    monkeypatch.setattr(timm, "create_model", offline)
    assert load_backbone(vit, "timm").missing == ()
    assert load_backbone(vit, VIT + ".augreg_in21k").missing == ()
    assert requested == [(VIT, True), (VIT + ".augreg_in21k", True)]


@pytest.mark.skipif(not SHIPPED.exists(), reason="the shipped backbone is not in this tree")
def test_shipped_backbone_is_whole_and_small():
    vit = read_backbone(queries=5)
    assert SHIPPED.stat().st_size <= 8_000_000
    assert all(value.isfinite().all() for value in vit.state_dict().values())


@pytest.mark.skipif(not SHIPPED.exists(), reason="the shipped backbone is not in this tree")
def test_record_beside_the_weights_is_theirs(root):
    """The file's hash, the run that made it, and that it knows more than the untrained network."""
    record = json.loads(SHIPPED.with_suffix(".json").read_text())
    run = root / "runs" / "pretraining" / "bestiary-mae" / "s0"
    assert record["sha256"] == sha256(SHIPPED.read_bytes()).hexdigest()
    assert record["recipe_sha256"] == sha256((run / "recipe.json").read_bytes()).hexdigest()
    probes = json.loads((run / "probes.json").read_text())
    assert record["trained"] == probes[max(probes, key=int)] and record["untrained"] == probes["0"]
    for name in ("point_iou", "point_iou_centred", "point_auc_centred", "token_class"):
        assert record["trained"][name] > record["untrained"][name]
    assert json.loads((run / "result.json").read_text())["status"] == "ok"


@pytest.mark.parametrize("method", ["mal", "token_querying"])
def test_a_saved_model_is_read_without_the_weights_that_it_began_with(method):
    """A warning for each of their tensors was printed where a run at scale small came to score."""
    shapes = shapes_of(make(method, scale="small"), CATEGORIES)
    assert shapes and all(value.is_meta for value in shapes.values())
