"""A pretended GPU: tensors that say they lie on `cuda:0`, and do not mix with those of the CPU.

Values stay in this machine's memory and are computed on its processor. What a GPU refuses is
refused: an operation on tensors of both places, `.numpy()` of one that is elsewhere, a draw there
by a generator that is here. Backward passes are not checked: torch makes zeros of its own in them,
and those know nothing of this device.
"""

from __future__ import annotations

import contextlib
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

HERE, DEVICE = torch.device("cpu"), torch.device("cuda", 0)
aten = torch.ops.aten
INDEXING = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}
JOINING = {aten.cat.default, aten.stack.default}
# They make a tensor themselves, to compare with or to fill: it lies where its like does
CHECKED_INSIDE = {torch.nn.functional.one_hot, torch._C._nn.pad_sequence}


class Elsewhere(Tensor):
    """Holds the values; what it says of its device is all that is pretended."""

    @staticmethod
    def __new__(cls, held: Tensor):
        return Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(),
            dtype=held.dtype, device=held.device,
        )  # fmt: skip

    def __init__(self, held: Tensor):
        self.held = held

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self, **_) -> str:
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("a tensor on cuda:0 is no numpy array; .cpu() first")
        if func is Tensor.tolist:
            return args[0].detach().held.tolist()
        if func is Tensor.new_tensor:
            return Elsewhere(torch.tensor(*args[1:], **{"dtype": args[0].dtype} | kwargs))
        if func in CHECKED_INSIDE:
            return Elsewhere(func(*tree_map(_held, args), **kwargs))
        with (
            torch._C.DisableTorchFunctionSubclass()
        ):  # which would call everything that comes out elsewhere
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        given = _tensors((args, kwargs or {}))
        if torch._C._current_graph_task_id() == -1:  # no backward pass is running
            refuse_mixing(func, args, given)
        made = func(*tree_map(_held, args), **tree_map(_held, kwargs or {}))
        known = {id(x.held): x for x in given if isinstance(x, Elsewhere)} | {
            id(x): x for x in given
        }
        return tree_map(
            lambda x: known.get(id(x), Elsewhere(x)) if isinstance(x, Tensor) else x, made
        )


def _held(x):
    return x.held if isinstance(x, Elsewhere) else HERE if isinstance(x, torch.device) else x


def _tensors(tree) -> list[Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, Tensor)]


def refuse_mixing(func, args, given: list[Tensor]) -> None:
    """As CUDA does: single numbers may lie here, and so may the indices into what is elsewhere."""
    if func is aten.copy_.default:
        return
    if func in INDEXING and isinstance(args[0], Elsewhere):
        given = [args[0], *_tensors(args[2:])]
    here = [x for x in given if not isinstance(x, Elsewhere) and (x.dim() or func in JOINING)]
    if here and len(here) < len(given):
        raise RuntimeError(f"{func}: tensors on cuda:0 and on cpu")


class _There(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return Elsewhere(x.detach().clone())

    @staticmethod
    def backward(ctx, grad):
        return _held(grad)


class _Here(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.detach().held.clone()

    @staticmethod
    def backward(ctx, grad):
        return Elsewhere(grad)


def moved(x: Tensor, device: torch.device | None) -> Tensor:
    if device is None or device.type == x.device.type:
        return x
    return (_Here if isinstance(x, Elsewhere) else _There).apply(x)


class Pretending(TorchFunctionMode):
    """Sends what is made on the GPU, or moved to it, elsewhere."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return _transferred(func, *args, **kwargs)
        if torch.device(kwargs.get("device") or HERE).type != DEVICE.type:
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"{func}: a generator on cpu cannot draw on cuda:0")
        return moved(func(*tree_map(_held, args), **kwargs | {"device": HERE}), DEVICE)


def _transferred(func, x: Tensor, *rest, **kwargs) -> Tensor:
    if func is not Tensor.to:
        return moved(x, DEVICE if func is Tensor.cuda else HERE)
    if rest and isinstance(rest[0], Tensor):
        rest = (rest[0].device, rest[0].dtype)
    device, dtype, *_ = torch._C._nn._parse_to(*rest, **kwargs)
    x = moved(x, device)
    return x if dtype in (None, x.dtype) else func(x, dtype)


class _Autocast(torch.autocast):
    """The processor's, under the GPU's name."""

    def __init__(self, device_type: str, *args, **kwargs):
        super().__init__("cpu", *args, **kwargs)


@contextlib.contextmanager
def pretended_gpu():
    """Inside, `cuda` is elsewhere; torch.cuda.is_available() stays what it is."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(
        True
    )  # a wrapper cannot take a parameter's place
    try:
        with (
            mock.patch("torch.autocast", _Autocast),
            mock.patch("torch.cuda.max_memory_allocated", lambda device=None: 0),
            Pretending(),
        ):
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
