"""Floating-point operations of a piece of work, by the formulas of ``torch.utils.flop_counter``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_ATEN = torch.ops.aten
ON_CPU = {
    _ATEN._scaled_dot_product_flash_attention_for_cpu: _ATEN._scaled_dot_product_flash_attention,
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: _ATEN._scaled_dot_product_flash_attention_backward,
}
"""Attention on a CPU, for which the registry has no formula, and what computes the same on a GPU."""


class FlopCount(TorchDispatchMode):
    """Counts in ``total`` what matrix products, convolutions and attention within its block compute, backward too.

    ``FlopCounterMode`` counts the same, and by module; but it loads ``torch._dynamo``, 2 s that every trainer would
    pay for the sum alone.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0


def _dispatch(
    self: FlopCount,
    func: OpOverload,
    types: object,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
) -> object:
    kwargs = kwargs or {}
    packet = func._overloadpacket
    formula = flop_registry.get(ON_CPU.get(packet, packet))
    if formula is None:
        with self:  # what an operation is made of may be counted
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts
    result = func(*args, **kwargs)
    self.total += int(formula(*args, **kwargs, out_val=result))
    return result


# Set from outside: a method of that name in the class is wrapped such that its first call loads torch._dynamo.
FlopCount.__torch_dispatch__ = _dispatch  # type: ignore[method-assign,assignment]
