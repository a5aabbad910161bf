"""Attention on request against the dense matrices of unfused blocks, roll-out against dense
products."""

from dataclasses import replace

import pytest
import torch

from pointseg.nets import vit as networks
from pointseg.nets.attention import attention_rows, rollout_rows, rows_times_attention
from pointseg.nets.vit import TokenViT, unfuse

NETWORKS = {
    "small": {"dim": 48, "depth": 4, "heads": 3},
    "vit_tiny_patch16_224": {},
    "vit_small_patch16_dinov3": {},  # rotary positions, separate biases, registers
    "vit_small_patch16_rope_224": {},  # another attention class of timm
}


def dense_attention(vit, trace):
    """Every block's whole matrix, taken from the block itself with fused attention off:
    [blocks, b, heads, T, T]."""
    outputs = []
    for block, given in zip(vit.blocks, trace.inputs):
        block.attn.fused_attn = False
        hook = block.attn.attn_drop.register_forward_hook(
            lambda _m, _i, out: outputs.append(out.detach())
        )
        block(given) if trace.rope is None else block(given, rope=trace.rope)
        hook.remove()
    return torch.stack(outputs)


@pytest.fixture(scope="module", params=NETWORKS)
def shown(request):
    torch.manual_seed(0)
    vit = TokenViT(request.param, queries=5, **NETWORKS[request.param]).eval()
    with torch.no_grad():
        for block in vit.blocks:  # sharper than at the start, so that a wrong row shows
            for name, weight in block.attn.named_parameters():
                weight.mul_(
                    6.0
                    if name.startswith(("qkv.weight", "q_proj.weight", "k_proj.weight"))
                    else 1.0
                )
        result = vit(torch.rand(2, 3, 56, 40), trace=True)
        dense = dense_attention(vit, result.trace)
    return vit, result.trace, dense


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_rows_equal_the_dense_matrix(shown, chunk):
    vit, trace, dense = shown
    rows = torch.tensor([[0, trace.query_start, 3], [trace.query_start + 4, 1, 1]])
    for block in (0, vit.depth - 1):
        outputs = attention_rows(vit, trace, block, rows, chunk)
        for image in range(2):
            torch.testing.assert_close(
                outputs[image], dense[block, image][:, rows[image]], atol=1e-5, rtol=0
            )
    torch.testing.assert_close(outputs.sum(-1), torch.ones(outputs.shape[:-1]))


def test_no_rows_asked(shown):
    vit, trace, dense = shown
    none = torch.zeros(0, dtype=torch.long)
    assert attention_rows(vit, trace, 0, none).shape == (2, dense.shape[2], 0, dense.shape[3])
    assert rollout_rows(vit, trace, none, 2).shape == (2, 2, 0, dense.shape[3])


@pytest.mark.parametrize("chunk", [5, 1000])
def test_rollout_equals_dense_products_at_every_depth(shown, chunk):
    vit, trace, dense = shown
    rows = torch.tensor([[trace.query_start, 2, 0], [4, trace.query_start + 1, 5]])
    outputs = rollout_rows(vit, trace, rows, chunk=chunk)
    assert len(outputs) == vit.depth
    product = torch.eye(dense.shape[-1], dtype=torch.float64)
    for depth in range(vit.depth):
        mixed = dense[vit.depth - 1 - depth].double().mean(1) + torch.eye(
            dense.shape[-1], dtype=torch.float64
        )
        product = product @ (mixed / mixed.sum(-1, keepdim=True))
        expected = torch.stack([product[image][rows[image]] for image in range(2)])
        torch.testing.assert_close(outputs[depth].double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        outputs[: vit.depth // 2], rollout_rows(vit, trace, rows, vit.depth // 2, chunk)
    )


def test_rollout_rows_are_distributions(shown):
    vit, trace, _ = shown
    outputs = rollout_rows(vit, trace, torch.arange(3))
    assert (outputs >= 0).all()
    torch.testing.assert_close(outputs.sum(-1), torch.ones(outputs.shape[:-1]))


def test_times_attention_is_linear_in_the_rows(shown):
    vit, trace, dense = shown
    rows = torch.rand(2, 4, dense.shape[-1])
    outputs = rows_times_attention(vit, trace, 1, rows, chunk=9)
    torch.testing.assert_close(outputs, rows @ dense[1].mean(1), atol=1e-4, rtol=1e-4)


def test_capture_leaves_no_trace_in_the_gradient():
    vit = TokenViT(dim=48, depth=2, heads=2, queries=2)
    images = torch.rand(1, 3, 16, 24)
    plain = vit(images)
    result = vit(images, trace=True)
    torch.testing.assert_close(result.tokens, plain.tokens)
    assert not any(t.requires_grad for t in result.trace.inputs)
    assert not rollout_rows(vit, result.trace, torch.arange(2)).requires_grad


def test_capture_is_exact_whatever_precision_the_step_uses():
    vit = TokenViT(dim=48, depth=2, heads=2, queries=2).eval()
    with torch.no_grad():
        trace = vit(torch.rand(1, 3, 16, 24), trace=True).trace
    outside = rollout_rows(vit, trace, torch.arange(4))
    with torch.autocast("cpu", torch.bfloat16):
        inside = rollout_rows(vit, trace, torch.arange(4))
    assert torch.equal(outside, inside)


def unfused(**settings):
    torch.manual_seed(0)
    vit = TokenViT(**{"dim": 48, "depth": 3, "heads": 3, "queries": 4, **settings})
    unfuse(vit)
    return vit


def test_what_an_unfused_forward_pass_formed_is_read_and_not_formed_again(monkeypatch):
    vit = unfused()
    trace = vit(torch.rand(2, 3, 24, 40), trace=True).trace
    rows, anew = torch.tensor([[0, 5, 5], [trace.query_start, 1, 2]]), replace(trace, attention=())
    expected = rollout_rows(vit, anew, rows), attention_rows(vit, anew, 1, rows)
    monkeypatch.setattr("pointseg.nets.attention.block_queries_keys", None)
    torch.testing.assert_close(rollout_rows(vit, trace, rows), expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(attention_rows(vit, trace, 1, rows), expected[1])
    assert not any(matrix.requires_grad for matrix in trace.attention)
    assert not vit.blocks[0].attn.attn_drop._forward_pre_hooks


def test_attention_is_kept_before_any_of_it_is_dropped():
    vit, images = unfused(), torch.rand(1, 3, 16, 16)
    plain = vit.eval()(images, trace=True).trace.attention[0]
    for block in vit.blocks:
        block.attn.attn_drop.p = 0.9
    torch.testing.assert_close(vit.train()(images, trace=True).trace.attention[0], plain)


@pytest.mark.parametrize("way", ["fused", "lowered", "many tokens", "compiled"])
def test_no_attention_is_kept_where_the_forward_pass_forms_none_that_serves(way, monkeypatch):
    vit = unfused()
    if way == "fused":
        vit = TokenViT(dim=48, depth=3, heads=3, queries=4)
    if way == "many tokens":
        monkeypatch.setattr(networks, "KEPT_TOKENS", 9)
    if way == "compiled":
        for block in vit.blocks:
            monkeypatch.setattr(block, "_compiled_call_impl", block._call_impl)
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "lowered"):
        trace = vit(torch.rand(1, 3, 16, 24), trace=True).trace
    assert trace.attention == (None,) * 3
    assert rollout_rows(vit, trace, torch.arange(2)).isfinite().all()
