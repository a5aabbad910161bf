"""A backbone that does not learn: the maps of the one that does, made once an image."""

import pytest
import torch
from support.grid_targets import points_of
from test_epld_method import CATEGORIES, batch_of

from pointseg.nets import frozen_backbone
from pointseg.nets.frozen_backbone import FrozenBackbone
from pointseg.nets.timm_backbone import IMAGENET_NETWORK, TimmBackbone
from pointseg.papers.epld.method import EPLD

STRIDES = (8, 16)


@pytest.fixture(autouse=True)
def looked(monkeypatch):
    """Batch sizes that a network was run on, in an empty store."""
    sizes, plain = [], TimmBackbone.forward
    monkeypatch.setattr(frozen_backbone, "_kept", {})
    noting = lambda self, images: sizes.append(len(images)) or plain(self, images)  # noqa: E731
    monkeypatch.setattr(TimmBackbone, "forward", noting)
    return sizes


def network(seed=0):
    torch.manual_seed(seed)
    return FrozenBackbone(IMAGENET_NETWORK, STRIDES)


def test_its_maps_are_those_of_the_network_that_learns_without_a_gradient():
    frozen, learning = network(), TimmBackbone(IMAGENET_NETWORK, STRIDES).eval()
    learning.load_state_dict(frozen.state_dict())
    images = torch.rand(3, 3, 64, 64)
    for one, other in zip(frozen(images), learning(images)):
        torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-4)
        assert not one.requires_grad
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(module.training for module in frozen.train().modules())


def test_an_image_is_looked_at_once_by_all_networks_of_equal_weights(looked):
    images = torch.rand(3, 3, 64, 64)
    first = network()(images)
    again = network()(images[[2, 0]])
    assert looked == [1, 1, 1]
    assert all(torch.equal(a, f[[2, 0]]) for a, f in zip(again, first))
    network()(images[:, :, :32])
    assert len(looked) == 6, "another crop is another image"


def test_other_weights_look_for_themselves_also_where_they_were_loaded_later(looked):
    images, one, other = torch.rand(1, 3, 64, 64), network(), network(seed=1)
    before, apart = one(images), other(images)
    assert looked == [1, 1] and not torch.equal(before[0], apart[0])
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(images)[0], apart[0]) and looked == [1, 1]


def test_a_full_store_forgets_nothing_and_takes_nothing(looked, monkeypatch):
    monkeypatch.setattr(frozen_backbone, "MOST", 1)
    images, one = torch.rand(2, 3, 64, 64), network()
    maps = [one(images) for _ in range(2)]
    assert looked == [1, 1, 1] and torch.equal(maps[0][0], maps[1][0])


def test_a_method_on_it_trains_all_but_the_backbone():
    """[EPLD] The bed epld-frozen: neck and branch learn, the weights of the backbone stay."""
    student = {"backbone": IMAGENET_NETWORK, "weights": None, "backbone_learns": False}
    whole = EPLD.build(CATEGORIES, "smoke", student=student)
    whole.losses(batch_of(points_of((10, 10, 0, 1), (50, 30, 2, 2))), 1)["partial"].backward()
    learnt = {n.split(".")[2] for n, p in whole.named_parameters() if p.grad is not None}
    assert {"encoder", "fusion"} <= learnt and "backbone" not in learnt
    rates = [p for group in whole.param_groups(1e-3, 0) for p in group["params"]]
    mine = {id(p) for p in whole.student.network.backbone.parameters()}
    assert not mine & {id(p) for p in rates}
