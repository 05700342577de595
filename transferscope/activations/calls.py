"""The calls of one forward pass, and what is known of each of them."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import overload

from torch import nn

from transferscope.activations.dataflow import INPUT, Dataflow, Node
from transferscope.activations.layout import USUAL, Layout
from transferscope.activations.outputs import Way


@dataclass(frozen=True, eq=False)
class Call:
    """One call of one module during a forward pass."""

    layer: str
    """`named_modules()` path; the second call of the same module is `path:2`, the third `path:3`."""
    module: nn.Module
    shape: tuple[int, ...]
    """Shape of the output tensor, for one sample."""
    is_cut: bool
    """Whether everything later depends on the input only through this output, and that has a part for each image."""
    node: Node | None
    """Where the output stands in the graph of data: two calls with the same node return the same values."""
    params: float
    """Parameters of the network cut after this call: those that its output depends on. Of a call that is no cut, those
    of all modules entered so far. An integer, NaN when unknown."""
    flops: float
    """Floating-point operations so far for one sample (a multiply-add counts as two): an integer, NaN when unknown."""
    way: Way = ()
    """Which tensor of an output with several: the deepest one in the graph, the first of equals."""
    layout: Layout = USUAL
    """What its axes are."""
    leads_to_output: bool = True
    """Whether what the network puts out depends on it."""
    equals: tuple[str, ...] = ()
    """Names of the tensors of its output that lie equally deep, where there are several."""
    has_images: bool = True
    """Whether it has an axis that counts images, as far as batches of two sizes told: windows of images have none."""


class Trace(Sequence[Call]):
    """The calls of one forward pass in the order in which they finished; the network's own comes last."""

    def __init__(
        self,
        calls: Sequence[Call],
        flow: Dataflow,
        ends: Set[Node],
        *,
        detached_after: str = "",
        without_tensor: Mapping[str, str],
    ) -> None:
        self._calls = tuple(calls)
        self._flow = flow
        self._ends = ends
        self.detached_after = detached_after
        """The last layer that images had a part in, where they have none in what the network puts out."""
        self.without_tensor = without_tensor
        """Layers that return something else than tensors: the name of its type."""

    @overload
    def __getitem__(self, index: int) -> Call: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Call]: ...
    def __getitem__(self, index: int | slice) -> Call | Sequence[Call]:
        """Return a call, or several."""
        return self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def output(self) -> Call:
        """The network's own call."""
        return self._calls[-1]

    def find(self, layer: str) -> Call | None:
        """Return the call that has this name."""
        return next((call for call in self._calls if call.layer == layer), None)

    def behind(self, call: Call) -> set[Node]:
        """Return what the output of a call depends on, with itself."""
        return set() if call.node is None else self._flow.behind({call.node})

    def all_run_through(self, calls: Sequence[Call]) -> bool:
        """Whether the network's output depends on the images only through the outputs of these calls."""
        nodes = {call.node for call in calls if call.node is not None}
        return bool(self._ends) and INPUT not in self._flow.behind(self._ends, up_to=nodes)

    def parameters_behind(self, node: Node | None, up_to: Node | None = None) -> set[int]:
        """Return the ids of the parameters that an output depends on, not going beyond the output `up_to`."""
        return set() if node is None else self._flow.parameters_behind(node, up_to)
