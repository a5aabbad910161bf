"""The token ViT: sizes, query tokens, parameter groups, pyramids."""

import pytest
import torch

from pointseg.nets.convnet import ConvBackbone
from pointseg.nets.stem import sine_grid, sine_positions
from pointseg.nets.vit import TokenViT, grid_coordinates, layer_decay_groups, still_rotations
from pointseg.structures import InputError

TINY = {"dim": 48, "depth": 3, "heads": 2}
ROTARY = "vit_small_patch16_dinov3"


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.rand(2, 3, 40, 72)


def tiny(**overrides):
    torch.manual_seed(1)
    return TokenViT(**{**TINY, **overrides}).eval()


@pytest.mark.parametrize("name, stride", [("vit_tiny_patch16_224", 16),
                                          ("deit_tiny_patch16_224", 16),
                                          ("vit_small_patch14_reg4_dinov2", 14)])  # fmt: skip
@torch.no_grad()
def test_timm_vits_answer_as_timm_does(name, stride):
    """Without queries and at the native grid, the last block's tokens are those of timm's own
    forward."""
    vit = TokenViT(name).eval()
    side = 5 * stride
    images = torch.rand(1, 3, side, side)
    outputs = vit(images, features=(1,))
    reference = vit.body.get_intermediate_layers(
        vit.normalise(images), n=[1, vit.depth - 1], norm=False
    )
    torch.testing.assert_close(outputs.tokens, reference[1])
    torch.testing.assert_close(outputs.features[1].flatten(2).transpose(1, 2), reference[0])
    assert outputs.grid == (5, 5) and vit.stride == stride


@torch.no_grad()
def test_rotary_vit_without_queries_is_timms():
    vit = TokenViT(ROTARY).eval()
    images = torch.rand(1, 3, 48, 64)
    theirs = vit.body.forward_intermediates(vit.normalise(images), indices=[vit.depth - 1],
    norm=False,
                                            intermediates_only=True)[0]  # fmt: skip
    torch.testing.assert_close(vit(images).map(), theirs)


def test_queries_without_a_place_are_not_rotated():
    table = still_rotations(torch.rand(6, 8), 2)
    assert table.shape == (8, 8)
    assert (table[6:, :4] == 0).all() and (table[6:, 4:] == 1).all()


@torch.no_grad()
def test_queries_neither_reorder_nor_rename_patches(images):
    """With silenced value vectors of queries nothing flows from them: patches are as without
    queries."""
    vit = tiny(queries=5)
    bare = tiny()
    bare.load_state_dict(
        {k: v for k, v in vit.state_dict().items() if not k.startswith("query")}, strict=False
    )
    one = vit(images, trace=True)
    first_patches = one.trace.inputs[0][:, one.trace.patches]
    torch.testing.assert_close(first_patches, bare(images, trace=True).trace.inputs[0])
    assert one.trace.query_start == one.tokens.shape[1]
    torch.testing.assert_close(one.trace.inputs[0][:, one.trace.query_start :],
                               (vit.query_tokens + vit.query_positions)
                               .expand(2, -1, -1))  # fmt: skip


@torch.no_grad()
def test_patches_and_queries_are_permuted_with_their_inputs(images):
    """Attention is unmasked: exchanging two queries exchanges their outputs and moves no patch."""
    vit = tiny(queries=4)
    before = vit(images)
    order = torch.tensor([2, 0, 3, 1])
    vit.query_tokens.data, vit.query_positions.data = (
        vit.query_tokens[order],
        vit.query_positions[order],
    )
    after = vit(images)
    torch.testing.assert_close(after.queries, before.queries[:, order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.tokens, before.tokens, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(40, 72), (33, 65), (1, 8), (130, 17)])
@pytest.mark.parametrize("settings", [{}, {"stem": "patch"}, {"position": "learned"},
                                      {"stem": "patch", "position": "learned"}])  # fmt: skip
@torch.no_grad()
def test_any_size(size, settings):
    vit = tiny(queries=2, **settings)
    outputs = vit(torch.rand(1, 3, *size))
    grid = tuple(-(-side // 8) for side in size)
    assert outputs.grid == grid and outputs.tokens.shape == (1, grid[0] * grid[1], 48)
    assert outputs.map().shape == (1, 48, *grid) and outputs.queries.shape == (1, 2, 48)


@torch.no_grad()
def test_odd_sizes_are_padded_with_the_mean_colour(images):
    vit = tiny()
    image = images[:, :, :37, :70]
    padded = vit.mean.expand(2, 3, 40, 72).clone()
    padded[:, :, :37, :70] = image
    torch.testing.assert_close(vit(image).tokens, vit(padded).tokens)


def test_sine_positions_by_a_loop():
    """Fixed positions depend on the place alone, not on the grid's size."""
    small, large = sine_grid(3, 4, 16), sine_grid(7, 9, 16)
    torch.testing.assert_close(small, large[:3, :4])
    wave = 100.0 ** (-1 / 3)
    expected = torch.tensor([torch.sin(torch.tensor(2 * wave)), torch.cos(torch.tensor(2 * wave))])
    torch.testing.assert_close(sine_positions(torch.tensor([2.0, 5.0]), 16)[[1, 5]], expected)


def test_anchored_queries_start_at_their_places():
    vit = tiny(queries=4, anchored=True, image_size=64)
    assert vit.anchors.tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    # x = 0.25 of 8 tokens is the corner between tokens 1 and 2
    torch.testing.assert_close(vit.query_positions[0], sine_positions(torch.tensor([1.5, 1.5]), 48))
    assert grid_coordinates(0).shape == (0, 2) and (grid_coordinates(5) < 1).all()


def test_layer_decay_by_hand():
    vit = tiny(queries=3)
    groups = layer_decay_groups(vit, lr=1.0, weight_decay=0.05, decay=0.5)
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(rate) == len(list(vit.parameters()))
    assert rate[id(vit.query_tokens)] == (1.0, 0.0)
    assert rate[id(vit.blocks[2].mlp.fc1.weight)] == (0.5, 0.05)
    assert rate[id(vit.blocks[0].mlp.fc1.weight)] == (0.125, 0.05)
    assert rate[id(vit.blocks[0].mlp.fc1.bias)] == (0.125, 0.0)
    assert rate[id(vit.body.patch_embed.project.weight)] == (0.0625, 0.05)


def test_checkpointing_changes_memory_not_gradients(images):
    gradients = []
    for checkpoint in (False, True):
        vit = tiny(queries=2, checkpoint=checkpoint).train()
        vit(images).queries.square().sum().backward()
        gradients.append([p.grad.clone() for p in vit.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["no_such_vit", "resnet18", "swin_tiny_patch4_window7_224",
                                  "crossvit_9_240",
                                  "vit_small_patch16_rope_mixed_224"])  # fmt: skip
def test_what_is_no_plain_vit_is_told_in_one_line(name):
    with pytest.raises(InputError, match=f"^{name}: no"):
        TokenViT(name)


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8), (32,)])
@torch.no_grad()
def test_conv_backbone_strides(strides):
    maps = ConvBackbone(16, strides)(torch.rand(1, 3, 50, 99))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, -(-50 // s), -(-99 // s)) for s in strides]
