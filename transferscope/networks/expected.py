"""What a network asks of a checkpoint: names, shapes, which of them are its classifier's, which share one tensor."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

COUNTER = "num_batches_tracked"
"""What the batch counters of batch norms are called; no activation depends on them."""


@dataclass(frozen=True)
class Expected:
    """The tensors of a network by name, and what is known of them; their values are never looked at.

    Attributes
    ----------
    tensors
        As in its state dict, in order.
    classifier
        Names of the tensors of its last layer, where that is a linear one; empty for a network without a classifier.
    ends
        Module paths of the classifier, also where an identity has taken its place.
    shared
        The names of each tensor that has several.
    """

    tensors: dict[str, Tensor]
    classifier: frozenset[str]
    ends: tuple[str, ...]
    shared: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, module: nn.Module) -> "Expected":
        """Read what `module` asks for."""
        state = module.state_dict(keep_vars=True)  # the tensors themselves, so that shared ones are known
        tensors: dict[str, Tensor] = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        names: dict[int, list[str]] = {}
        for key, tensor in tensors.items():
            names.setdefault(id(tensor), []).append(key)
        ends = tuple(_ends(module))
        classifier = frozenset(key for key in tensors if any(key.startswith(f"{end}.") for end in ends))
        return cls(tensors, classifier, ends, tuple(tuple(group) for group in names.values() if len(group) > 1))

    @cached_property
    def required(self) -> list[str]:
        """The names that a file has to hold: of all tensors but the classifier's and counters, one of those shared."""
        spared = {key for group in self.shared for key in group[1:]} | self.classifier
        return [key for key in self.tensors if key not in spared and not key.endswith(COUNTER)]

    @cached_property
    def scopes(self) -> frozenset[str]:
        """Paths of all modules with tensors in them, "" for the network itself."""
        parts = (key.split(".") for key in self.tensors)
        return frozenset(".".join(part[:depth]) for part in parts for depth in range(len(part)))


def _ends(module: nn.Module) -> Iterator[str]:
    """Find the paths of the classifier: timm says it; elsewhere it is the last module with a weight, if linear."""
    said = _said_by_timm(module)
    if said is not None:
        yield from (path for path, part in module.named_modules() if path and any(part is end for end in said))
        return
    weighted = [(path, part) for path, part in module.named_modules() if _has_weight(part)]
    if len(weighted) < 2:
        return
    path, last = weighted[-1]
    pointwise = isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1) and last.bias is not None
    if pointwise or isinstance(last, nn.Linear):
        yield path


def _said_by_timm(module: nn.Module) -> list[nn.Module] | None:
    try:
        found: Any = module.get_classifier()  # type: ignore[operator]
    except Exception:  # not of timm, or one that cannot say
        return None
    parts = list(found) if isinstance(found, tuple | list) else [found]
    return parts if parts and all(isinstance(part, nn.Module) for part in parts) else None


def _has_weight(module: nn.Module) -> bool:
    return any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))
