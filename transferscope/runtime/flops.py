"""Counting the floating-point operations of whatever a function runs, or saying that they are unknown."""

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from transferscope.errors import TransferscopeWarning
from transferscope.runtime.products import arguments_of, attention_of_any_score, formula_of, may_multiply


def count_flops(function: Callable[..., Any], *args: Any) -> float:
    """Call `function(*args)` and count the floating-point operations of its products and convolutions.

    Matrix products, convolutions, recurrent layers and attention count, forward and, where `function` calls it,
    backward; a multiply-add counts as two. Element-wise operations and Fourier transforms are left out. Attention
    counts the same whatever kernel computes it (see `products`). Of nested tensors the actual lengths count, of a
    compiled network the operations before compilation.

    A formula that `torch.utils.flop_counter.register_flop_formula` has for an operator is used where there is none
    here. What runs in other threads, and kernels that are launched past torch's operators, cannot be seen.

    Parameters
    ----------
    function : callable
    *args
        What it is called with.

    Returns
    -------
    float
        An integer; NaN, with a warning that names it, when an operator ran that may multiply matrices and has no
        formula.
    """
    with FlopCounter() as counter:
        function(*args)
    return counter.total


class FlopCounter:
    """Counts within its `with` block what `count_flops` counts; warns at the end when the figure is unknown."""

    def __init__(self) -> None:
        self._watch = _Watch()
        self._entered = ExitStack()

    @property
    def total(self) -> float:
        """Operations so far: an integer, NaN when unknown."""
        return math.nan if self._watch.unknown else self._watch.counted

    def __enter__(self) -> "FlopCounter":
        # Compiled code runs kernels that are no operators.
        self._entered.enter_context(torch.compiler.set_stance("force_eager"))
        self._entered.enter_context(self._watch)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_raised: object) -> None:
        self._entered.close()
        if self._watch.unknown and kind is None:
            warnings.warn(
                f"FLOPs are unknown: how many {', '.join(self._watch.unknown)} takes here cannot be told; "
                "torch.utils.flop_counter.register_flop_formula adds a formula for an operator that has none",
                TransferscopeWarning,
                stacklevel=3,
            )


class _Watch(TorchDispatchMode):
    """Sees every operator that runs."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0
        self.unknown: dict[str, None] = {}
        """Names of operators, in the order in which they ran."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            try:
                self.counted += attention_of_any_score(func.name(), args)
            except ValueError:
                self.unknown[func.name()] = None
            return func(*args, **kwargs)
        # Tensors that wrap others (jagged ones, say) come back as operators on these.
        if any(hasattr(each, "__tensor_flatten__") for each in types):
            return NotImplemented
        from torch.utils.flop_counter import flop_registry  # with Triton, where that is there

        name = func._schema.name
        formula, registered = formula_of(name), flop_registry.get(func._overloadpacket)
        if formula is None and registered is None:
            if (done := self._decomposed(func, args, kwargs)) is not NotImplemented:
                return done
            if may_multiply(func, args, kwargs):
                self.unknown[name] = None
            return func(*args, **kwargs)
        returned = func(*args, **kwargs)
        try:
            if formula is not None:
                self.counted += sum(int(formula(given)) for given in arguments_of(func, args, kwargs, returned))
            elif registered is not None:
                self.counted += int(registered(*args, **kwargs, out_val=returned))
        except Exception:  # a formula that cannot read its arguments, whatever the reason, gives no figure
            self.unknown[name] = None
        return returned

    def _decomposed(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run an operator as those that it is made of: in inference mode the composed one arrives here."""
        nested = any(isinstance(value, torch.Tensor) and value.is_nested for value in args)
        if func.namespace == "prim" or nested:
            return NotImplemented
        with self:
            return func.decompose(*args, **kwargs)
