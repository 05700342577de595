"""A mark on networks whose classifier nobody has trained: what they put out says nothing, whatever their layers say."""

from typing import Any

_MARK = "_transferscope_untrained"


def mark_untrained(net: Any, why: str) -> None:
    """Note on a network why its outputs are no predictions."""
    setattr(net, _MARK, why)


def untrained(net: Any) -> str:
    """Return why the outputs of a network are no predictions; empty when nothing is known against them."""
    return str(getattr(net, _MARK, ""))
