"""The convolution and linear weights of a network, by name, and the layers that they form."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

import array_api_compat
from torch import nn

from transferscope.errors import InputError, near


def weights_of(net: nn.Module | Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return the convolution and linear weights of a network, in its order.

    Those are floating-point tensors of two dimensions or more whose name ends in ``.weight`` or ``_weight`` (the
    ``in_proj_weight`` of attention). A weight whose bias has the same shape belongs to a normalisation and is left
    out, as are biases, averages and counters.

    Parameters
    ----------
    net
        A network, or a state dict: names to torch tensors, or to NumPy or CuPy arrays.
    what
        Name of the argument, for messages.

    Returns
    -------
    dict
        Name (as in the state dict) to tensor or array: those of `net` itself, neither copied nor moved.

    Raises
    ------
    InputError
        When `net` is neither, holds no such weights, or NaN or infinite ones.
    """
    if not isinstance(net, nn.Module | Mapping):
        raise InputError(
            f"Expected `{what}` to be a torch.nn.Module or a state dict but got {type(net).__name__}; load a "
            "checkpoint into its network first"
        )
    state = net.state_dict() if isinstance(net, nn.Module) else net
    weights = {key: tensor for key, tensor in state.items() if _is_weight(key, tensor, state)}
    if not weights:
        keys = f"{', '.join(map(str, list(state)[:5]))}" if state else "nothing"
        raise InputError(
            f"Expected `{what}` to hold convolution or linear weights, floating-point tensors named '….weight', but it "
            f"holds {keys}; pass a network or its whole state dict, unwrapped"
        )
    for key, tensor in weights.items():
        xp = array_api_compat.array_namespace(tensor)
        if not xp.all(xp.isfinite(tensor)):
            raise InputError(
                f"Expected finite weights but {key!r} of `{what}` holds NaN or infinite values; was its training "
                "divergent, or its checkpoint damaged?"
            )
    return weights


def _is_weight(key: Any, tensor: Any, state: Mapping[str, Any]) -> bool:
    if not isinstance(key, str) or not re.search(r"(^|[._])weight$", key):
        return False
    if not array_api_compat.is_array_api_obj(tensor) or tensor.ndim < 2 or not all(tensor.shape):
        return False
    bias = state.get(key.removesuffix("weight") + "bias")
    normalisation = getattr(bias, "shape", None) == tensor.shape
    xp = array_api_compat.array_namespace(tensor)
    return not normalisation and xp.isdtype(tensor.dtype, "real floating")


def find_classifier(weights: Mapping[str, Any]) -> str | None:
    """Return the name of the classifier's weight: the last one, where it is a matrix and not alone; else None.

    A network whose classifier was removed, and which ends in another linear layer, has that one taken for it.
    """
    if len(weights) < 2:
        return None
    last = list(weights)[-1]
    return last if weights[last].ndim == 2 else None


def blocks(names: Sequence[str], groups: str | Mapping[str, Sequence[str]] = "auto") -> dict[str, list[str]]:
    """Group weights into layers: what one transferability is computed of.

    Parameters
    ----------
    names
        Of the weights, in the order of the network, without the classifier's.
    groups
        "auto": a residual block, or any other block that a network repeats, is one layer, and each weight outside of
        them is another. Names decide: a block is a module with two weights or more in a numbered series
        (``layer1.0``, ``layer1.1``; ``denselayer1``, ``denselayer2``) of which at least two share the names of two
        weights or more; or one numbered alike, elsewhere in the network, that shares as many with such a block; or
        an entry of a list that has two weights or more as direct children (``layer1.0`` with ``conv1`` and ``conv2``),
        alone too. Of nested ones the innermost counts.
        "tensor": every weight is a layer.
        A mapping: layer to the names of its weights, or of modules, whose weights are all meant. What is in none is
        left out.

    Returns
    -------
    dict
        Layer (module path) to the names of its weights. In the order of the network, or of the mapping.

    Raises
    ------
    InputError
        When `groups` is something else, or names a weight that does not exist or is named twice, or a layer is empty.
    """
    if groups == "auto":
        repeated = _repeated(names)
        layers = defaultdict(list)
        for name in names:
            paths = (path for path in _parents(name) if path in repeated)
            layers[next(paths, name.rpartition(".")[0] or name)].append(name)
        return dict(layers)
    if groups == "tensor":
        return {name.removesuffix(".weight"): [name] for name in names}
    if isinstance(groups, Mapping):
        return _given(names, groups)
    raise InputError(
        "Expected `groups` to be 'auto', 'tensor' or a mapping of layer to the names of its weights but got "
        f"{groups!r}; leave it out for the blocks of the network"
    )


def _parents(name: str) -> list[str]:
    """Return the paths of the modules that a weight lies in, from the outside in."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _repeated(names: Sequence[str]) -> set[str]:
    """Find the modules that are blocks, the innermost of nested ones."""
    inside: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        for path in _parents(name):
            inside[path].add(name.removeprefix(f"{path}."))
    series: defaultdict[str, list[str]] = defaultdict(list)
    for path, parts in inside.items():
        if len(parts) > 1 and re.search(r"\d", path.rpartition(".")[2]):
            # A letter may count on after the number: 3a, 3b.
            series[re.sub(r"\d+[a-z]?", "#", path)].append(path)
    matched: set[str] = set()
    for paths in series.values():
        beside: defaultdict[str, list[str]] = defaultdict(list)
        for path in paths:
            beside[path.rpartition(".")[0]].append(path)
        # All of a series: its first block may be built a little differently.
        repeated = {
            path
            for group in beside.values()
            if any(_alike(inside[x], inside[y]) for i, x in enumerate(group) for y in group[:i])
            for path in group
        }
        # Where a stage has one block only, it is known by those of other stages.
        matched |= repeated | {path for path in paths if any(_alike(inside[path], inside[each]) for each in repeated)}
    repeated = _innermost(matched)
    alone = _innermost({path for path, parts in inside.items() if re.search(r"\.\d+$", path) and _children(parts) > 1})
    # A list of parts within a block is none of its own; nor is one around blocks, of which `_innermost` rids it.
    return _innermost(repeated | {path for path in alone if repeated.isdisjoint(_parents(f"{path}."))})


def _innermost(paths: set[str]) -> set[str]:
    return paths - {outer for path in paths for outer in _parents(path)}


def _children(names: Set[str]) -> int:
    """Count the weights that belong to direct children with a name, as the convolutions of a residual block do."""
    return sum(bool(re.fullmatch(r"[^\W\d]\w*\.weight", name)) for name in names)


def _alike(x: Set[str], y: Set[str]) -> bool:
    return len(x & y) > 1


def _given(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Look up the weights of layers of one's own."""
    paths = {path for name in names for path in (*_parents(name), name)}
    layers: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for layer, members in groups.items():
        members = [members] if isinstance(members, str) else members
        for member in members:
            if member not in paths:
                raise InputError(
                    f"`groups` puts {member!r} into layer {layer!r}, but no convolution or linear weight has or lies "
                    f"under this name{near(member, paths)}; the classifier's is never among the layers"
                )
        inside = [name for name in names if not {name, *_parents(name)}.isdisjoint(members)]
        if not inside:
            raise InputError(f"Expected `groups` to name weights for layer {layer!r} but got none; leave it out")
        for name in inside:
            if name in owner:
                raise InputError(
                    f"`groups` puts {name!r} into the layers {owner[name]!r} and {layer!r}; a weight is in one at most"
                )
            owner[name] = layer
        layers[layer] = inside
    if not layers:
        raise InputError("Expected `groups` to name at least one layer but got none; leave it out for the blocks")
    return layers
