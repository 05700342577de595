"""What is put around a network, for devices, averages, compilation and adapters, and how to see past it."""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from transferscope.errors import SourceError

_AROUND = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(net: nn.Module) -> nn.Module:
    """Return the network inside any wrappers, as it is.

    Wrappers are those for several devices or processes, for averages of weights, that of `torch.compile`, and a PEFT
    model; the layers have the names that they have without a wrapper. Adapters that PEFT has put inside stay there.
    """
    while (inner := _inside(net)) is not None:
        net = inner
    return net


def plain(net: nn.Module) -> nn.Module:
    """Return the network inside any wrappers, made such that its layers can be seen, cut and trained.

    The network is changed for it, so it has to be one's own: adapters of PEFT are merged into its weights, whatever
    `torch.compile` has made of it or of its parts runs uncompiled, and every parameter requires a gradient.

    Raises
    ------
    SourceError
        When it is compiled to TorchScript, which hides its layers, or has adapters that cannot be merged.
    """
    while True:
        if _of_peft(net) and hasattr(net, "get_base_model"):
            net = _merged(net)
        elif (inner := _inside(net)) is not None:
            net = inner
        else:
            break
    if scripted := [path for path, module in net.named_modules() if isinstance(module, torch.jit.ScriptModule)]:
        where = f"its part {scripted[0]!r} is" if scripted[0] else "it is"
        raise SourceError(
            f"{where} compiled to TorchScript, so that its layers cannot be seen or replaced; build the network in "
            "Python and load the weights from its `state_dict()`"
        )
    for parent, name, module in list(_parts(net)):
        if is_compiled(module):
            setattr(parent, name, unwrapped(module))
        elif _of_peft(module) and hasattr(module, "get_base_layer") and hasattr(module, "merge"):
            adapted = cast(Any, module)
            adapted.merge()
            setattr(parent, name, adapted.get_base_layer())
    for module in net.modules():
        _run_as_written(module)
    for parameter in net.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return net


def is_compiled(net: nn.Module) -> bool:
    """Whether `torch.compile` returned this, whose class has no public name: a module around the `_orig_mod` given."""
    return [name for name, _ in net.named_children()] == ["_orig_mod"]


def _inside(net: nn.Module) -> nn.Module | None:
    """Return what a wrapper holds; None when this is no wrapper."""
    if isinstance(net, _AROUND):
        return net.module
    if is_compiled(net):
        return next(net.children())
    if _of_peft(net) and hasattr(net, "get_base_model"):
        return cast(Any, net).get_base_model()
    return None


def _of_peft(module: nn.Module) -> bool:
    """Whether a class is one of PEFT, which need not be installed, or made from one."""
    return any(kind.__module__.partition(".")[0] == "peft" for kind in type(module).__mro__)


def _merged(net: nn.Module) -> nn.Module:
    """Merge the adapters of a PEFT model into the weights of the network that it holds."""
    if not hasattr(net, "merge_and_unload"):
        kind = type(getattr(net, "active_peft_config", net)).__name__
        raise SourceError(
            f"the adapters of its PEFT model ({kind}) cannot be merged into its weights; give the network without them"
        )
    return cast(Any, net).merge_and_unload()


def _parts(net: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Yield the parent, name and module of every place in a network, innermost first."""
    places = list(net.named_modules(remove_duplicate=False))
    modules = dict(places)
    for path, module in reversed(places):
        if path:
            parent, _, name = path.rpartition(".")
            yield modules[parent], name, module


def _run_as_written(module: nn.Module) -> None:
    """Undo `module.compile()`, which keeps what it has compiled beside the module's own forward."""
    vars(module).pop("_compiled_call_impl", None)
