"""Forward hooks that turn a forward pass into named activations, reduced and released as they come."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from transferscope.activations.calls import Trace
from transferscope.activations.finite import Finite
from transferscope.activations.layout import Layout, usual
from transferscope.activations.outputs import named, tensor_at, tensors_in
from transferscope.activations.reductions import LayoutReduction, Reduction, reducer
from transferscope.activations.selecting import Layers, check_fired, listed, path_of, select_layers
from transferscope.activations.stages import Stage, natural_stages
from transferscope.activations.tracing import numbered, trace, watching
from transferscope.arrays import backend
from transferscope.errors import CaptureError, TransferscopeWarning
from transferscope.runtime.wrappers import is_compiled, unwrapped


class Activations(Mapping[str, torch.Tensor]):
    """The activations of the most recent forward pass, in the order in which the layers fired."""

    def __init__(self) -> None:
        self._tensors: dict[str, torch.Tensor] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        """Shape of each layer's output for one sample, before any reduction."""

    def __getitem__(self, layer: str) -> torch.Tensor:
        """Return the activation of `layer`."""
        if layer not in self._tensors:
            raise CaptureError(f"No activation of layer {layer!r}; captured: {listed(self._tensors)}")
        return self._tensors[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __contains__(self, layer: object) -> bool:
        return layer in self._tensors


@contextmanager
def capture(
    net: nn.Module, layers: Layers = "auto", *, reduce: Reduction = None, traced: Trace | None = None
) -> Iterator[Activations]:
    """Capture layer activations of every forward pass made inside the `with` block.

    Inside the block the network is in evaluation mode and no gradients are kept; hooks, mode and gradient state
    are as before when it ends, however it ends.

    Parameters
    ----------
    net : torch.nn.Module
        Any network. Wrappers (`DataParallel`, `DistributedDataParallel`, `AveragedModel`, `torch.compile`) are looked
        through: layers are called as without them. A compiled network runs uncompiled meanwhile.
    layers : "auto", a name, or a sequence of names and globs
        Paths of `named_modules()`. In a glob `*` stands for one path component and `**` for any number. A module
        that is called more than once in a forward pass appears as `path`, `path:2`, …; one of its calls can be
        asked for by that name. "auto" picks the natural stages (see `stages.natural_stages`).
    reduce : None, "flatten", "mean", "grid", "class_token", "positions" or a callable
        What is kept of each output, see `reductions.reducer`: None keeps it as it is; a callable gets the tensor
        and returns what to keep.
    traced : Trace, optional
        What `tracing.trace` found of this network, which is looked for at the first forward pass otherwise, where
        stages or the axes of an output are asked for.

    Yields
    ------
    Activations
        Mapping from layer name to tensor, replaced at each forward pass. Of several tensors in one output the one that
        lies deepest in the graph is taken, the first of equals.

    Raises
    ------
    CaptureError
        When a layer does not exist, never fired, or returned no tensor.
    InputError
        When `reduce` is unknown.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    >>> with capture(net, layers=["0", "1"]) as activations:
    ...     output = net(torch.ones(2, 3, 8, 8))
    >>> tuple(activations["0"].shape)
    (2, 4, 6, 6)
    >>> torch.equal(activations["1"], output)
    True
    """
    recorder = _Recorder(net, layers, reducer(reduce), traced)
    try:
        with watching(net), _uncompiled(net):
            yield recorder.activations
        recorder.check_fired()
    finally:
        recorder.remove()


def _uncompiled(net: nn.Module) -> AbstractContextManager[Any]:
    """Let hooks fire that were not there when a network was compiled."""
    if not any(map(is_compiled, net.modules())):
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def collect(
    net: nn.Module,
    batches: Iterable[torch.Tensor],
    layers: Layers = "auto",
    *,
    reduce: Reduction = "mean",
    device: torch.device | str = "cpu",
    traced: Trace | None = None,
) -> dict[str, backend.Array]:
    """Run `net` over `batches` and return the reduced features of every layer for all samples.

    Parameters
    ----------
    net : torch.nn.Module
        Already on `device`.
    batches : iterable of torch.Tensor
        Each (n_samples, ...).
    layers, reduce, traced
        As in `capture`.
    device : torch.device or str
        Where the batches are moved before the forward pass.

    Returns
    -------
    dict of str to array
        Layer name to (n_samples, n_features), float32 or float64, in firing order: NumPy arrays from the CPU, CuPy
        arrays from a GPU (NumPy ones where CuPy is missing).

    Raises
    ------
    CaptureError
        As `capture`; also when an activation is NaN or infinite, when the layers that fire differ from batch to
        batch, or when there is no batch.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    finite = Finite()
    with capture(net, layers, reduce=reduce, traced=traced) as activations:
        for batch in batches:
            net(backend.to_device(batch, device))
            if parts and list(parts) != list(activations):
                raise CaptureError(
                    f"Expected the same layers to fire on every batch, but got {listed(activations)} after "
                    f"{listed(parts)}; name layers that always fire"
                )
            for layer, tensor in activations.items():
                finite.add(layer, tensor)
                if len(tensor) != len(batch):
                    raise CaptureError(
                        f"Expected layer {layer!r} to give a row per image, but got {len(tensor)} for {len(batch)} "
                        "images; choose a layer before the samples are regrouped"
                    )
                parts.setdefault(layer, []).append(tensor)
    finite.check()
    return {layer: backend.from_torch(torch.cat(parts.pop(layer))) for layer in list(parts)}


def resolve_stages(
    net: nn.Module, layers: Layers, sample: torch.Tensor | Trace, *, cuts_only: bool = False
) -> tuple[Stage, ...]:
    """Return the stages that `layers` stands for in `net`, in firing order, with the size of what each keeps.

    Parameters
    ----------
    net, layers
        As in `capture`.
    sample : torch.Tensor or Trace
        An input of the network, (n_samples, ...), whose first sample is run; or what `tracing.trace` found of it.
    cuts_only : bool
        Leave out, with a warning, the layers after which the network cannot be cut: those inside a residual block,
        or whose rows are no images but windows of them, say. Where nothing tells (its output does not follow from its
        input), all are kept.

    Raises
    ------
    CaptureError
        When a layer does not exist or does not fire, "auto" finds none, or no cut is left.
    """
    net = unwrapped(net)
    calls = sample if isinstance(sample, Trace) else trace(net, sample)
    if layers == "auto":
        return tuple(natural_stages(net, calls))
    requested = select_layers(net, layers)
    selected = [call for call in calls if call.layer in requested or path_of(call.layer) in requested]
    check_fired(net, requested, {name for call in selected for name in (call.layer, path_of(call.layer))}, calls)
    inner = [call.layer for call in selected if not call.is_cut]
    if cuts_only and inner and any(call.is_cut for call in calls):
        selected = [call for call in selected if call.is_cut]
        if not selected:
            raise CaptureError(
                f"No network can be cut after {listed(inner)}: inside a residual connection, or where the images are "
                "regrouped (to windows, say); name whole blocks, which `transferscope layers` lists"
            )
        warnings.warn(
            f"{len(inner)} layers are left out, since no network can be cut there (inside a residual connection, or "
            f"where the images are regrouped, to windows, say): {listed(inner)}",
            TransferscopeWarning,
            stacklevel=2,
        )
    return tuple(Stage(call.layer, call.shape, call.params, call.flops) for call in selected)


class _Recorder:
    """The hooks of one `capture` and what they have recorded."""

    def __init__(
        self,
        net: nn.Module,
        layers: Layers,
        reducer: Callable[[torch.Tensor], torch.Tensor],
        traced: Trace | None,
    ) -> None:
        self.activations = Activations()
        self._net = unwrapped(net)
        self._reducer = reducer
        self._parts: dict[str, dict[Any, torch.Tensor]] = {}
        self._calls: Counter[tuple[str, Any]] = Counter()
        self._fired: set[str] = set()
        self._tracing = False
        self._automatic = layers == "auto"
        self._wanted = [] if self._automatic else select_layers(self._net, layers)
        self._traced = traced
        self._looked = False
        self._layouts: dict[str, Layout] = {}
        self._handles = [
            net.register_forward_pre_hook(self._begin, with_kwargs=True),
            net.register_forward_hook(self._finish),
        ]
        self._watch()

    def _watch(self) -> None:
        paths = {path_of(name) for name in self._wanted}
        for path, module in self._net.named_modules():
            if path in paths:
                hook = self._hook(path)
                # Before any other hook or module can change the output in place.
                self._handles.append(module.register_forward_hook(hook, prepend=True))

    def _hook(self, path: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _args: Any, output: Any) -> None:
            if self._tracing:
                return
            _, tensor = next(tensors_in(output), ((), None))
            if tensor is None:
                raise CaptureError(
                    f"Expected layer {path!r} to return a tensor, or a tuple or mapping with one, but got "
                    f"{type(output).__name__}; choose another layer"
                )
            self._calls[path, tensor.device] += 1
            name = numbered(path, self._calls[path, tensor.device])
            if name in self._wanted or (path in self._wanted and not self._automatic):
                self._record(name, output, tensor)

        return record

    def _record(self, name: str, output: Any, first: torch.Tensor) -> None:
        # A module that is called more often than when it was looked at works as in its first call.
        call = None if self._traced is None else self._traced.find(name) or self._traced.find(path_of(name))
        tensor = first if call is None else tensor_at(output, call.way)
        if tensor is None:
            raise CaptureError(
                f"Expected layer {name!r} to return the same in every forward pass, but got no "
                f"{named(call.way) if call else 'tensor'} this time; choose another layer"
            )
        layout = usual(tensor.ndim) if call is None else call.layout
        self.activations.shapes[name] = tuple(size for axis, size in enumerate(tensor.shape) if axis != layout.samples)
        # Replicas of DataParallel run side by side; each writes under its own device.
        parts = self._parts.setdefault(name, {})
        if isinstance(self._reducer, LayoutReduction):
            self._check(name, layout, tensor)
            parts[tensor.device] = self._reducer(tensor.detach(), layout)
        else:
            parts[tensor.device] = self._reducer(tensor.detach())

    def _check(self, name: str, layout: Layout, tensor: torch.Tensor) -> None:
        """Say once which axes were taken for channels where nothing told."""
        assert isinstance(self._reducer, LayoutReduction)
        if layout.assumed and self._reducer.needs_channels and name not in self._layouts:
            warnings.warn(
                f"Layer {name!r} does not say which axis of its output, of shape {tuple(tensor.shape)}, holds the "
                f"channels; axis {layout.channels} is assumed. To decide it yourself, pass a function as `reduce=`",
                TransferscopeWarning,
                stacklevel=2,
            )
        self._layouts[name] = layout

    def _begin(self, net: nn.Module, args: Any, kwargs: Any) -> None:
        if self._tracing:
            return
        if self._traced is None and not self._looked:
            self._looked = True
            self._traced = self._trace(args, kwargs)
        if self._automatic and not self._wanted and self._traced is not None:
            self._wanted = [stage.layer for stage in natural_stages(self._net, self._traced)]
            self._watch()
        self._parts.clear()
        self._calls.clear()

    def _trace(self, args: Any, kwargs: Any) -> Trace | None:
        """Look how the network works; None where that cannot be and nothing depends on it."""
        callable_with_tensor = bool(args) and isinstance(args[0], torch.Tensor) and len(args[0]) > 0
        if self._automatic and not callable_with_tensor:
            raise CaptureError(
                "Expected the network to be called with a tensor as its first positional argument, to find its "
                "stages with; call it so, or name the layers explicitly instead of `layers='auto'`"
            )
        if not callable_with_tensor:
            return None
        own_device = next((p.device for p in self._net.parameters()), None)
        sample = args[0][:1] if own_device is None else args[0][:1].to(own_device)
        self._tracing = True
        try:
            return trace(self._net, sample, *args[1:], **kwargs)
        finally:
            self._tracing = False

    def _finish(self, _net: nn.Module, _args: Any, _output: Any) -> None:
        if self._tracing:
            return
        merged = {}
        for name, parts in self._parts.items():
            devices = sorted(parts, key=lambda d: (d.type, d.index or 0))
            home = devices[0]
            merged[name] = torch.cat([parts[d].to(home) for d in devices]) if len(parts) > 1 else parts[home]
        self.activations._tensors = merged
        self._fired.update(merged)
        self._parts = {}

    def check_fired(self) -> None:
        if not self._fired and not self._wanted:
            raise CaptureError("No forward pass ran inside `capture`; call the network inside the `with` block")
        check_fired(self._net, self._wanted, self._fired)

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
