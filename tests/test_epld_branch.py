"""EPLD's fusion module and distance branch: alive at the start, and blind to what is not there."""

import dataclasses

import pytest
import torch
from support.drawn_memory import drawn_memory
from support.grid_targets import drawn_points, points_of

from pointseg.nets.mask_decoder import mask_logits
from pointseg.papers.epld.branch import DecoderLayer, DistanceBranch, FusionModule, layer_notes
from pointseg.papers.epld.method import Config
from pointseg.papers.epld.queries import targets_on_grid

SIDE = 16


def targets_of(*points, inside=None):
    if inside is None:
        inside = torch.ones(len(points), SIDE, SIDE, dtype=torch.bool)
    return targets_on_grid(list(points), inside, (SIDE, SIDE))


def branch(width=32, heads=4, **choices):
    return DistanceBranch(width, heads, 4, True, Config(**choices))


def start(seed, width, heads, **choices):
    """(logits [L, b, N, h, w], branch) of a drawn start, on two images of six targets."""
    rng = torch.Generator().manual_seed(seed)
    targets = targets_of(drawn_points(rng, 6, SIDE), drawn_points(rng, 6, SIDE))
    memory = drawn_memory(seed, width)
    net = branch(width, heads, **choices)
    estimate = net(memory, targets)
    estimate.log_prob[:, :, 0].sum().backward()
    return estimate, net


def faults(estimate, net) -> list[str]:
    """What is dead in each layer: everything owned by one target, or a weight without gradient."""
    result = []
    for k, (label, layer) in enumerate(zip(estimate.label, net.layers)):
        largest = torch.nn.functional.one_hot(label.flatten()).float().mean(0).max()
        if largest > 0.9:
            result.append(f"layer {k}: one target owns {largest:.0%}")
        result += [
            f"layer {k}: no gradient in {name}"
            for name, p in layer.named_parameters()
            # a softmax over targets forgets what all targets share
            if not name.endswith(("join.bias", "key.bias", "in_proj_bias"))
            and not p.grad.abs().max() > 1e-6
        ]
    return result


@pytest.mark.parametrize("width, heads", [(32, 4), (64, 8)])
def test_no_layer_is_dead_at_the_start_in_a_hundred_draws(width, heads):
    """The heads of scales smoke and small; six layers a draw, 50 draws each."""
    dead = {seed: bad for seed in range(50) if (bad := faults(*start(seed, width, heads)))}
    assert not dead, dead


def test_the_dead_are_seen_where_the_last_relu_of_the_official_heads_meets_a_negative_join():
    """The gate is red: behind a ReLU, one target owns what nobody is positive on."""
    seeds = range(20)
    assert any(faults(*start(seed, 32, 4, last_relu=True)) for seed in seeds)


def test_the_fusion_module_sums_the_enlarged_levels():
    """With both convolutions the identity (norm aside) and one level, F^fuse is that level."""
    memory = drawn_memory(0, 8)
    fusion = FusionModule(8, 1)
    for convolution in (fusion.net[0], fusion.net[3]):
        torch.nn.init.dirac_(convolution.weight)
        torch.nn.init.zeros_(convolution.bias)
    fusion.net[1] = torch.nn.Identity()
    torch.testing.assert_close(fusion(memory), memory.level(0).relu())
    fusion.levels = 3
    coarse = torch.zeros(2, 8, SIDE // 4, SIDE // 4)
    parts = [memory.level(0), torch.zeros(2, 8, SIDE // 2, SIDE // 2), coarse + 1]
    tokens = torch.cat([p.flatten(2).transpose(1, 2) for p in parts], 1)
    lifted = fusion(dataclasses.replace(memory, tokens=tokens))
    torch.testing.assert_close(lifted, (memory.level(0) + 1).relu())


def test_a_decoder_layer_is_the_mask_attention_of_panoptic_segformer_before_its_last_relu():
    """Queries, keys and heads one by one, as printed there; the layer moves the keys' map over."""
    memory, layer = drawn_memory(5, 32), DecoderLayer(32, 4, 3, self_attention=False)
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.3)
    queries = torch.randn(2, 5, 32)
    q = layer.query(layer.norm(queries)).unflatten(-1, (4, 8)).transpose(1, 2)
    k = layer.key(memory.tokens).unflatten(-1, (4, 8)).transpose(1, 2)
    plain = mask_logits(q @ k.transpose(-2, -1) / 8**0.5, memory, layer.mix, layer.join)
    present = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(queries, memory, present), plain)


def test_an_image_s_estimate_does_not_depend_on_its_neighbour_in_the_batch():
    """Not on its targets either, which fill the table with rows that are absent here."""
    memory, net = drawn_memory(1, 32), branch(layers=3)
    rng = torch.Generator().manual_seed(1)
    few, many = drawn_points(rng, 2, SIDE), drawn_points(rng, 9, SIDE)
    both = net(memory, targets_of(few, many))
    alone = net(dataclasses.replace(memory, tokens=memory.tokens[:1]), targets_of(few))
    torch.testing.assert_close(both.logits[:, :1, :2], alone.logits)
    torch.testing.assert_close(both.log_prob[:, :1, :2], alone.log_prob)
    assert torch.equal(both.label[:, :1], alone.label)
    assert (both.log_prob[:, 0, 2:].exp() == 0).all()


def test_the_order_of_the_points_orders_the_rows_and_nothing_else():
    memory, net = drawn_memory(2, 32, images=1), branch(layers=3)
    rows = [(2, 3, 0, 1), (12, 4, 1, 2), (7, 13, 0, 3)]
    one = net(memory, targets_of(points_of(*rows)))
    other = net(memory, targets_of(points_of(*(rows[k] for k in (2, 0, 1)))))
    torch.testing.assert_close(one.logits[:, :, [2, 0, 1]], other.logits)


def test_what_stands_in_the_padding_reaches_no_logit_of_the_decoder():
    padding = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
    padding[:, :, 8:] = True
    memory = drawn_memory(3, 32, images=1, padding=padding)
    noisy = dataclasses.replace(
        memory,
        tokens=memory.tokens + 9 * torch.randn_like(memory.tokens) * memory.padding[..., None],
    )
    layer, queries = DecoderLayer(32, 4, 3), torch.randn(1, 2, 32)
    present = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(layer(queries, memory, present), layer(queries, noisy, present))


def test_one_target_owns_everything_and_learns_nothing_from_it():
    estimate = branch(layers=2)(drawn_memory(4, 32, images=1), targets_of(points_of((3, 3, 0, 1))))
    assert not estimate.label.any() and (estimate.log_prob == 0).all()


@pytest.mark.parametrize(
    "choices",
    [
        {"source": "learnt"},
        {"source": "sine"},
        {"class_embedding": False},
        {"layers": 1},
        {"layers": 7},
        {"fusion_levels": 1},
        {"decoder_levels": 1},
        {"self_attention": False},
        {"erosion": 3},
    ],
    ids=str,
)
def test_every_row_of_the_paper_s_tables_is_a_choice(choices):
    """[EPLD Tab. 1-4]"""
    net = branch(**choices)
    rng = torch.Generator().manual_seed(0)
    targets = targets_of(drawn_points(rng, 3, SIDE), drawn_points(rng, 5, SIDE))
    estimate = net(drawn_memory(0, 32), targets)
    assert estimate.label.shape == (choices.get("layers", 6), 2, SIDE, SIDE)
    (estimate.log_prob[:, :, 0].sum() + estimate.classes.sum()).backward()
    unused = {"fusion"} if choices.get("source", "fused") != "fused" else set()
    unused |= {"embedding"} if not choices.get("class_embedding", True) else set()
    lacking = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is None}
    assert lacking == unused


def test_the_notes_show_a_collapse():
    rng = torch.Generator().manual_seed(0)
    targets = targets_of(drawn_points(rng, 4, SIDE), drawn_points(rng, 4, SIDE))
    net = branch(layers=2, last_relu=True)
    with torch.no_grad():
        net.layers[1].join.weight.fill_(-1)
    notes = layer_notes(net(drawn_memory(0, 32), targets), targets)
    assert notes["positive 2"] == 0 < notes["positive 1"]
    assert notes["entropy 2"].item() == pytest.approx(torch.tensor(4.0).log().item())
    assert notes["entropy 1"] < notes["entropy 2"]
