"""Attention on request against the dense matrices of unfused blocks, roll-out against dense
products."""

import pytest
import torch

from pointseg.nets.attention import attention_rows, rollout_rows, rows_times_attention
from pointseg.nets.vit import TokenViT

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
