"""A hybrid ViT: tokens of stride 8 or 16 from a pretrained network's maps, blocks on top."""

from dataclasses import replace

import pytest
import timm
import torch

from pointseg.nets.attention import rollout_rows
from pointseg.nets.start import starting_backbone
from pointseg.nets.vit import TokenViT, ViTConfig, layer_decay_groups
from pointseg.papers.attentionshift.method import AttentionShift
from pointseg.papers.attentionshift.token_querying import TokenQuerying
from pointseg.structures import Batch, Category, InputError, Points

HYBRID = ViTConfig("small", dim=32, depth=2, heads=2, image_size=64, queries=6, anchored=True,
                   stem="features", stem_network="tf_efficientnet_lite0")  # fmt: skip
CATEGORIES = [Category(1, "cat"), Category(2, "dog")]


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return TokenViT(HYBRID)


def marked():
    torch.manual_seed(1)
    points = Points(torch.tensor([[20.0, 20.0], [50.0, 40.0]]), torch.tensor([0, 1]),
                    torch.tensor([1, 2]), torch.ones(2, dtype=torch.bool))  # fmt: skip
    return Batch(torch.rand(1, 3, 61, 70), [(61, 70)], ["a"], [points])


@pytest.mark.parametrize("size", [(64, 64), (61, 70), (40, 104)])
@pytest.mark.parametrize("stride", [8, 16])
def test_tokens_have_their_stride_at_any_size(stride, size):
    vit = TokenViT(replace(HYBRID, patch=stride))
    output = vit(torch.rand(2, 3, *size), features=(1,), trace=True)
    assert vit.stride == stride and output.grid == tuple(-(-side // stride) for side in size)
    assert output.tokens.shape == (2, output.grid[0] * output.grid[1], 32)
    assert output.queries.shape == (2, 6, 32) and output.features[1].shape[-2:] == output.grid
    rows = torch.tensor([[output.trace.query_start]] * 2)
    rolled = rollout_rows(vit, output.trace, rows)
    torch.testing.assert_close(rolled.sum(-1), torch.ones(rolled.shape[:-1]))


def test_the_network_below_learns_at_a_tenth_and_its_norms_not_at_all(vit):
    rate = {id(p): g["lr"] for g in layer_decay_groups(vit, 1.0, 0.05, 0.9) for p in g["params"]}
    stem = vit.body.patch_embed
    below = [p for p in stem.backbone.parameters() if p.requires_grad]
    assert below and all(rate[id(p)] == 0.1 for p in below)
    assert rate[id(stem.project.weight)] == pytest.approx(0.9**3)
    frozen = [p for p in stem.backbone.parameters() if not p.requires_grad]
    assert frozen and not {id(p) for p in frozen} & set(rate)


def test_training_leaves_the_norms_of_the_network_alone(vit):
    before = {k: v.clone() for k, v in vit.state_dict().items() if "running" in k}
    vit.train()(torch.rand(1, 3, 64, 64))
    after = vit.state_dict()
    assert before and all(torch.equal(value, after[key]) for key, value in before.items())
    vit.eval()


@pytest.mark.parametrize("cls", [TokenQuerying, AttentionShift])
def test_points_teach_it(cls):
    """Losses are finite and reach both the blocks and what lies below them."""
    torch.manual_seed(0)
    smoke = cls.CONFIGS["smoke"]
    student = replace(smoke.student, backbone=HYBRID)
    method = cls.build(CATEGORIES, "smoke", student={"backbone": student.backbone})
    sum(method.losses(marked(), 0).values()).backward()
    stem = method.student.vit.body.patch_embed
    for part in (stem.project.weight, next(p for p in stem.backbone.parameters()
                                           if p.requires_grad)):  # fmt: skip
        assert part.grad is not None and part.grad.isfinite().all() and part.grad.any()


def test_it_starts_from_a_file_for_its_network(tmp_path):
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    torch.save(network.state_dict(), tmp_path / "site.pth")
    config = replace(HYBRID, stem_weights=str(tmp_path / "site.pth"))
    body = starting_backbone(config, None).body.patch_embed.backbone.body
    assert torch.equal(body.conv_stem.weight, network.conv_stem.weight)


def test_other_strides_are_refused():
    with pytest.raises(InputError, match="patch: tokens of features have stride 8 or 16, not 32"):
        TokenViT(replace(HYBRID, patch=32))
