"""Whether gradients reach what is to be trained: tried on two images, not read off the code."""

import math
import warnings
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.activations.outputs import tensors_in
from transferscope.activations.tracing import evaluating
from transferscope.protocols.cutting.dividing import Suffix
from transferscope.runtime.parameter_count import own_parameters


def hiding_weights(net: nn.Module) -> list[str]:
    """Return the paths of the modules that keep weights that no optimiser could step."""
    return [path for path, module in net.named_modules() if _hides_weights(module)]


def hidden_weights(hiding: Iterable[str], running: Collection[str]) -> str:
    """Say which modules of `hiding_weights` are among those at the paths `running`; empty for none."""
    hidden = [path for path in hiding if path in running]
    if not hidden:
        return ""
    named = _first_of(hidden, "layers")
    return f"the weights of {named} are kept in a form that cannot be trained, as those of quantised layers are"


def unreached(net: nn.Module, inputs: Tensor, deciding: Collection[int]) -> str:
    """Say which weights gradients do not reach, of those that decide what a network puts out; empty for none.

    Parameters
    ----------
    net : torch.nn.Module
        A network or a suffix of one; run forward and backward in evaluation mode, and left as it is.
    inputs : torch.Tensor
        (n_samples, ...).
    deciding : collection of int
        The ids of the parameters that decide what it puts out.
    """
    named = (net.net if isinstance(net, Suffix) else net).named_parameters()
    parameters = {name: each for name, each in named if id(each) in deciding and _is_plain(each)}
    with _ready(net):
        try:
            if outputs := _differentiable(net, inputs):
                # Not `autograd.grad`, which checkpoints do not take.
                torch.autograd.backward(outputs, [torch.ones_like(each) for each in outputs])
        except Exception as error:  # whatever an operator makes of it
            return f"its gradients cannot be computed ({type(error).__name__}: {' '.join(str(error).split())})"
        missing = {name: parameter for name, parameter in parameters.items() if parameter.grad is None}
    if not missing or not _matter(net, inputs, missing.values()):
        return ""
    return f"no gradient reaches {_first_of(missing, 'weights')}: no_grad or detach in a `forward`"


def starts_anew(net: nn.Module, inputs: Tensor) -> bool:
    """Whether a part of a network has gradients only where what it is given has: re-entrant checkpoints are such."""
    with _ready(net):
        waiting: list[Any] = [tensor.grad_fn for tensor in _differentiable(net, inputs)]
        seen = {None}
        while waiting:
            node = waiting.pop()
            if node not in seen:
                if node.name().startswith("CheckpointFunction"):
                    return True
                seen.add(node)
                waiting += [following for following, _ in node.next_functions]
    return False


def _differentiable(net: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return the outputs that have a gradient."""
    return [tensor for _, tensor in tensors_in(net(inputs.clone())) if tensor.requires_grad]


def _matter(net: nn.Module, inputs: Tensor, parameters: Collection[nn.Parameter]) -> bool:
    """Whether the output changes with some weights: the flow of data also runs through those whose shape is read."""
    before = [parameter.detach().clone() for parameter in parameters]
    draw = torch.Generator().manual_seed(0)
    with evaluating(net), torch.inference_mode(False), torch.no_grad():
        outputs = [tensor for _, tensor in tensors_in(net(inputs.clone()))]
        try:
            for parameter in parameters:
                # Through the data: weights that inference mode has seen may still count what changes them.
                parameter.data.add_(torch.randn(parameter.shape, generator=draw).to(parameter))
            changed = [tensor for _, tensor in tensors_in(net(inputs.clone()))]
        finally:
            for parameter, value in zip(parameters, before, strict=True):
                parameter.data.copy_(value)
    return any(not torch.equal(one, other) for one, other in zip(outputs, changed, strict=False))


def _hides_weights(module: nn.Module) -> bool:
    """Whether a module has weights that no optimiser would be given, or could not step."""
    plain = {id(each) for each in module.parameters(recurse=False) if _is_plain(each)}
    return any(key not in plain for key, count in own_parameters(module).items() if count > 0 or math.isnan(count))


def _is_plain(parameter: nn.Parameter) -> bool:
    """Whether a parameter holds numbers, not other tensors, as quantised ones of torchao do."""
    return parameter.is_floating_point() and not hasattr(parameter, "__tensor_flatten__")


@contextmanager
def _ready(net: nn.Module) -> Iterator[None]:
    """Evaluate a network with gradients for all its parameters, and put everything back."""
    parameters = [parameter for parameter in net.parameters() if _is_plain(parameter)]
    before = [(parameter.requires_grad, parameter.grad) for parameter in parameters]
    try:
        with evaluating(net), torch.inference_mode(False), torch.enable_grad(), warnings.catch_warnings():
            # Of operators without a derivative, which is what is looked for.
            warnings.simplefilter("ignore")
            for parameter in parameters:
                parameter.grad = None
                parameter.requires_grad_(True)
            yield
    finally:
        for parameter, (required, gradient) in zip(parameters, before, strict=True):
            parameter.requires_grad_(required)
            parameter.grad = gradient


def _first_of(names: Iterable[str], kind: str) -> str:
    first, *others = names
    return repr(first) + (f" and {len(others)} more {kind}" if others else "")
