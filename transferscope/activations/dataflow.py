"""Which tensor of a forward pass was made from which: a graph of its own, that `no_grad` and checkpoints cannot hide.

Autograd sees what gradients flow through; where they do not, inside `torch.no_grad`, behind `detach`, in a re-entrant
checkpoint, its graph ends. Here every operator that runs is written down, with what its axes stand for.
"""

from collections.abc import Iterator, Mapping, Set
from typing import Any

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from transferscope.activations import axis_rules
from transferscope.activations.axes import Axes, of_images, unknown
from transferscope.activations.axis_rules import Operation

Node = int
"""A tensor as an operator left it, numbered in the order in which they were made: what it depends on came before."""

INPUT: Node = 0
"""The images."""

# They look at nothing of a tensor but its shape.
_SHAPE_ONLY = ("_like", "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full")


class Dataflow(TorchDispatchMode):
    """Writes down a forward pass, in inference mode, that runs inside its `with` block.

    Parameters
    ----------
    net : torch.nn.Module
        Whose parameters are told apart.
    images : torch.Tensor
        What it will be called with, (n_samples, ...), made in inference mode.
    """

    supports_higher_order_operators = True

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        super().__init__()
        self._sources: list[tuple[Node, ...]] = [()]
        self._from_images = [True]
        self._depths = [0]
        self._operators = [0]
        self._calls = 0
        self._nodes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._axes: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._written: dict[int, tuple[StorageWeakRef, Node]] = {}
        """The last operator that wrote to a storage, by its address: other views of it changed, too."""
        self._parameters: dict[Node, int] = {}
        self._names = {id(parameter): name for name, parameter in net.named_parameters()}
        self._nodes[images] = INPUT
        self._axes[images] = of_images(images.shape)
        self._wrote(images, INPUT)
        for parameter in net.parameters():
            node = self._new((), from_images=False)
            self._parameters[node] = id(parameter)
            for tensor in _held(parameter):
                self._nodes[tensor] = node

    # --- what was seen ----------------------------------------------------------------------------------------

    def node(self, tensor: Tensor) -> Node | None:
        """Return where a tensor stands in the graph; None of one that no operator was seen to make."""
        return next(iter(self._read(tensor)), None)

    def axes(self, tensor: Tensor) -> Axes | None:
        """Return what the axes of a tensor stand for; None of one that images had no part in."""
        node = self._nodes.get(tensor)
        if node is None or not self._from_images[node] or tensor.is_nested:
            return None
        axes: Axes | None = self._axes.get(tensor)
        return unknown(tensor.shape) if axes is None else axes

    def from_images(self, node: Node | None) -> bool:
        """Whether the images had a part in it."""
        return node is not None and self._from_images[node]

    def operator(self, node: Node | None) -> int | None:
        """Return a number of the operator that made a node; those of one call have the same."""
        return None if node is None else self._operators[node]

    def depth(self, node: Node) -> int:
        """Return how many operators follow one another on the longest way from the images."""
        return self._depths[node]

    def bottlenecks(self, outputs: set[Node]) -> set[Node]:
        """Return the nodes that every way from the images to any of `outputs` runs through."""
        on_the_way = {node for node in self.behind(outputs) if self._from_images[node]}
        consumers: dict[Node, Node] = {}
        for node in sorted(on_the_way):
            for source in self._sources[node]:
                consumers[source] = node  # the last one remains
        consumers |= dict.fromkeys(outputs, len(self._sources))
        found, furthest = set(), INPUT
        for node in sorted(on_the_way):
            # Nothing that was made before is still waiting to be used after this.
            if furthest <= node:
                found.add(node)
            furthest = max(furthest, consumers.get(node, node))
        return found

    def behind(self, nodes: Set[Node], up_to: Set[Node] = frozenset()) -> set[Node]:
        """Return the nodes that any of `nodes` depends on, with themselves, not going beyond those of `up_to`."""
        waiting, seen = [node for node in nodes if node not in up_to], set(up_to)
        found: set[Node] = set()
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                found.add(node)
                waiting += self._sources[node]
        return found

    def parameters_behind(self, node: Node, up_to: Node | None = None) -> set[int]:
        """Return the ids of the parameters that a node depends on, not going beyond the node `up_to`."""
        behind = self.behind({node}, set() if up_to is None else {up_to})
        return {self._parameters[each] for each in behind if each in self._parameters}

    # --- seeing it --------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # Tensors that wrap others come back as operators on these.
        if any(hasattr(each, "__tensor_flatten__") for each in types):
            return NotImplemented
        schema, name = getattr(func, "_schema", None), _name(func)
        tensors = list(_tensors((args, kwargs)))
        if schema is not None and func.namespace != "prim" and not axis_rules.is_known(name):
            done = NotImplemented
            if not any(tensor.is_nested for tensor in tensors):
                with self:
                    done = func.decompose(*args, **kwargs)
            if done is not NotImplemented:
                return done
        sources: tuple[Node, ...] = ()
        if not name.endswith(_SHAPE_ONLY):
            sources = tuple(sorted({source for tensor in tensors for source in self._read(tensor)}))
        returned = func(*args, **kwargs)
        given = {} if schema is None else dict(zip((each.name for each in schema.arguments), args, strict=False))
        self._note(
            Operation(name, {**given, **kwargs}, self._axes_given, self._names_behind), returned, sources, schema
        )
        return returned

    def _note(self, operation: Operation, returned: Any, sources: tuple[Node, ...], schema: Any) -> None:
        """Write down what an operator made, and which of its arguments it changed."""
        made = list(_tensors(returned))
        self._calls += 1
        axes: list[Axes] = []
        if any(self._from_images[source] for source in sources):
            axes = axis_rules.axes_after(operation, [() if each.is_nested else each.shape for each in made])
        changes = schema is not None and schema.is_mutable
        # Dropout in evaluation mode is a copy in some versions of torch: it has the same values.
        copy = operation.name == "clone" and len(sources) == 1
        for place, tensor in enumerate(made):
            node = self._nodes[tensor] = sources[0] if copy else self._new(sources)
            if axes:
                self._axes[tensor] = axes[place]
            if changes or self._writer(tensor) is None:
                self._wrote(tensor, node)
        for argument in schema.arguments if changes else ():
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(operation.given.get(argument.name)):
                    if not any(tensor is each for each in made):
                        node = self._nodes[tensor] = self._new(sources)
                        self._wrote(tensor, node)

    def _read(self, tensor: Tensor) -> tuple[Node, ...]:
        """Return the node that a tensor is now, if any: who made it, or also who wrote to its memory since."""
        node, writer = self._nodes.get(tensor), self._writer(tensor)
        if node is not None and writer is not None and writer > node:
            node = self._nodes[tensor] = self._new((node, writer))
            self._wrote(tensor, node)
        found = writer if node is None else node
        return () if found is None else (found,)

    def _writer(self, tensor: Tensor) -> Node | None:
        storage = _storage(tensor)
        reference, node = self._written.get(storage, (None, None)) if storage is not None else (None, None)
        # Another storage may have come to the same address.
        return None if reference is None or reference.expired() else node

    def _wrote(self, tensor: Tensor, node: Node) -> None:
        if (storage := _storage(tensor)) is not None:
            self._written[storage] = (StorageWeakRef(tensor.untyped_storage()), node)

    def _new(self, sources: tuple[Node, ...], *, from_images: bool | None = None) -> Node:
        relevant = [source for source in sources if self._from_images[source]]
        self._sources.append(sources)
        self._operators.append(self._calls)
        self._from_images.append(bool(relevant) if from_images is None else from_images)
        self._depths.append(1 + max((self._depths[source] for source in relevant), default=-1))
        return len(self._sources) - 1

    def _axes_given(self, value: Any) -> Axes | None:
        return self.axes(value) if isinstance(value, Tensor) else None

    def _names_behind(self, tensor: Tensor) -> list[str]:
        node = self._nodes.get(tensor)
        ids = set() if node is None else self.parameters_behind(node)
        return sorted(self._names[each] for each in ids if each in self._names)


def _name(func: Any) -> str:
    schema = getattr(func, "_schema", None)
    return (func.name() if schema is None else schema.name).rpartition("::")[2].removesuffix("_")


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _held(tensor: Tensor) -> Iterator[Tensor]:
    """Yield a tensor and, of one that wraps others (a quantised weight, say), those."""
    yield tensor
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _held(getattr(tensor, name))


def _storage(tensor: Tensor) -> int | None:
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # sparse, quantised on some backends
        return None
