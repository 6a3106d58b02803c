"""What torch itself counts in a network: two independent ways, neither of them graphopt's.

`_Products` sees every operator that torch really runs, after its own decompositions, and counts
multiply-accumulates from the tensors handed over: a recurrent layer arrives as its matrix products
step by step, an einsum as its batched products, attention as two of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten
# What multiplies tensors in a way that is not counted here would be missed: it is refused.
_REFUSED = ("mkldnn", "_scaled_dot_product", "lstm", "gru", "_trilinear", "addmv", "cudnn")


class _Products(TorchDispatchMode):
    """Counts the multiply-accumulates of convolutions and matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet in (_aten.convolution, _aten._convolution):
            self.macs += _convolution(args[0], args[1], result, transposed=args[6])
        elif packet in (_aten.mm, _aten.bmm, _aten.mv, _aten.dot):
            self.macs += result.numel() * args[0].shape[-1]
        elif packet in (_aten.addmm, _aten.baddbmm):
            self.macs += result.numel() * args[1].shape[-1]
        elif any(word in packet.__name__ for word in _REFUSED):
            raise NotImplementedError(f"{func} is not counted")
        return result


def _convolution(data: Tensor, weight: Tensor, result: Tensor, *, transposed: bool) -> int:
    """One product per tap for each output element, or for each input element if transposed.

    The weight is [out, in / groups, taps...], or [in, out / groups, taps...] if transposed; taps
    on padding are multiplied like the others.
    """
    elements = data.numel() if transposed else result.numel()
    return elements * math.prod(weight.shape[1:])


def macs(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """Multiply-accumulates of one forward pass."""
    counter = _Products()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            torch.no_grad(),
            torch.backends.mkldnn.flags(enabled=False),
            sdpa_kernel(SDPBackend.MATH),
            counter,
        ):
            network(*inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.macs


def flop_counter_mode(network: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    """What FlopCounterMode says, used as its documentation uses it."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(*inputs)
    return int(counter.get_total_flops())


def ground_truth(
    network: nn.Module, settings: list[tuple[dict[str, int], tuple[Tensor, ...]]]
) -> dict[str, Any]:
    """The record of one network: its counts for each setting's inputs."""
    return {
        "settings": [
            {
                "dims": sizes,
                "inputs": [list(tensor.shape) for tensor in inputs],
                "macs": macs(network, inputs),
                "flop_counter_mode": flop_counter_mode(network, inputs),
            }
            for sizes, inputs in settings
        ],
    }
