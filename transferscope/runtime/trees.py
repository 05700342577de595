"""Nested outputs of modules, of tuples, mappings and whatever else a library registered, as flat lists and back.

The one place that knows torch's trees: `torch.utils` has no public name for them.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch.utils import _pytree

Structure: TypeAlias = _pytree.TreeSpec
"""How leaves are put together."""


def flattened(tree: Any) -> tuple[list[Any], Structure]:
    """Return what a nested object holds, in order, and how it holds it."""
    return _pytree.tree_flatten(tree)


def rebuilt(leaves: Sequence[Any], structure: Structure) -> Any:
    """Return the nested object with other leaves."""
    return _pytree.tree_unflatten(leaves, structure)
