"""Any network divided after one of its layers: what runs before the cut and what runs after it, as two networks.

Nothing is rewritten: both parts run the network's own `forward`. The prefix stops it at the cut; the suffix runs it
on one recorded image, with recorded outputs in place of the modules before the cut and the given activation in place
of the cut's own output. As everything later depends on the input through that tensor alone, the rest of the network
sees nothing but the given samples.
"""

from collections.abc import Iterable, Set
from typing import Any, cast

import torch
from torch import Tensor, nn

from transferscope.activations.calls import Call
from transferscope.activations.layout import Layout
from transferscope.activations.outputs import Way, tensor_at, tensor_for, with_tensor_at
from transferscope.activations.tracing import evaluating
from transferscope.errors import SourceError
from transferscope.protocols.cutting.anatomy import Anatomy, copied, dissect, tensors_of
from transferscope.runtime.seeding import seeded
from transferscope.runtime.trees import flattened, rebuilt

_TOLERANCE = 1e-4
"""Of the largest output: how far `suffix(prefix(x))` may be from `net(x)`. On the CPU the two are mostly equal."""


class _Reached(Exception):  # noqa: N818  # nothing is wrong: it ends a forward pass
    """Carries the output of the cut out of the forward pass."""

    def __init__(self, output: Any) -> None:
        self.output = output


class _AtCut:
    """A forward hook that acts on one call of its module: with an activation it replaces the output, else it stops."""

    def __init__(self, call: int, way: Way, layout: Layout) -> None:
        self.call = call
        self.calls = 0
        self.way = way
        self.layout = layout
        self.activation: Tensor | None = None

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        self.calls += 1
        if self.calls != self.call:
            return None
        if self.activation is None:
            raise _Reached(output)
        try:
            return with_tensor_at(output, self.way, self.layout.images_back(self.activation))
        except (KeyError, TypeError) as error:
            raise SourceError(f"its output, a {type(output).__name__}, cannot be put together again") from error


class _Recorded(nn.Module):
    """The outputs that a module gave for one image, call by call; takes the place of its `forward`."""

    def __init__(self, outputs: list[Any]) -> None:
        super().__init__()
        self.calls = 0
        self.samples = 1
        # Torch's own description of a structure is not to be copied or pickled: what it describes is, of numbers.
        self._places = []
        for call, output in enumerate(outputs):
            leaves, structure = flattened(output)
            self._places.append(rebuilt(list(range(len(leaves))), structure))
            for i, leaf in enumerate(leaves):
                if isinstance(leaf, Tensor):
                    self.register_buffer(f"output_{call}_{i}", leaf.detach().clone(), persistent=False)
                else:
                    setattr(self, f"output_{call}_{i}", leaf)

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return the output of the next call, as a copy that may be changed in place."""
        places, structure = flattened(self._places[self.calls])
        leaves = [getattr(self, f"output_{self.calls}_{i}") for i in places]
        self.calls += 1
        leaves = [_repeated(leaf, self.samples) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        return rebuilt(leaves, structure)


def _repeated(tensor: Tensor, samples: int) -> Tensor:
    """Return a copy of what belongs to one sample, for so many samples."""
    return tensor.repeat(samples, *[1] * (tensor.ndim - 1)) if tensor.shape[:1] == (1,) else tensor.clone()


class Prefix(nn.Module):
    """What a network computes up to a cut: images (n, ...) to the cut's output, unpooled, with images first.

    Made by `divide`. Its parameters are those that influence this output, its `state_dict` keys `net.` and the
    network's own. `flops` is what it computes for one image (a multiply-add counts as two; NaN when unknown), `layout`
    says what the axes of its output are.
    """

    def __init__(self, net: nn.Module, path: str, call: int, cut: Call) -> None:
        super().__init__()
        self.net = net
        self.flops = cut.flops
        self.layout = cut.layout.with_images_first
        self._at_cut = _AtCut(call, cut.way, cut.layout)
        net.get_submodule(path).register_forward_hook(self._at_cut)

    def forward(self, images: Tensor) -> Tensor:
        """Map images to the output of the cut, (n, ...)."""
        self._at_cut.calls = 0
        try:
            self.net(images.clone())  # which the network may change in place
        except _Reached as reached:
            output = tensor_at(reached.output, self._at_cut.way)
            assert output is not None  # the trace has seen one
            # What a network makes in inference mode of its own cannot be trained on.
            output = output.clone() if output.is_inference() else output
            return self._at_cut.layout.images_first(output)
        raise SourceError(f"The forward pass of {type(self.net).__name__} did not come to the cut; cut elsewhere")


class Suffix(nn.Module):
    """What a network computes after a cut: the cut's output (n, ...) to the network's output.

    Made by `divide`. Its parameters are those that influence the output for a given activation, its `state_dict`
    keys `net.` and the network's own. The activation is left as it is, whatever the network does in place.

    What stands in for the modules before the cut is for one image; for as many as there are activations where
    `repeats` is set, since some networks read the number of images early and use it late.
    """

    image: Tensor

    def __init__(self, net: nn.Module, anatomy: Anatomy, image: Tensor) -> None:
        super().__init__()
        self.net = net
        self.output = anatomy.output
        self.repeats = False
        self.register_buffer("image", image.detach().clone(), persistent=False)
        self.recorded = nn.ModuleList()
        for name, recorded in anatomy.outputs.items():
            module = net.get_submodule(name)
            self.recorded.append(_Recorded(recorded))
            # As a plain attribute: the module keeps its class, its other attributes and its place.
            vars(module)["forward"] = self.recorded[-1]
            _drop_pre_hooks(module)
        self._at_cut = _AtCut(anatomy.call_in_suffix, anatomy.cut.way, anatomy.cut.layout)
        net.get_submodule(anatomy.path).register_forward_hook(self._at_cut)

    def forward(self, activation: Tensor) -> Tensor:
        """Map outputs of the cut to outputs of the network."""
        samples = len(activation) if self.repeats else 1
        self._at_cut.activation, self._at_cut.calls = activation.clone(), 0
        for recorded in cast(Iterable[_Recorded], self.recorded):
            recorded.calls, recorded.samples = 0, samples
        try:
            output = tensor_for(self.net(_repeated(self.image, samples)), self.output)
        finally:
            self._at_cut.activation = None
        assert output is not None  # `divide` has compared it
        return output


def _drop_pre_hooks(module: nn.Module) -> None:
    """Let a module no longer compute its weights before each call, as torch.nn.utils.spectral_norm has it do."""
    module._forward_pre_hooks.clear()


def divide(net: nn.Module, layer: str, sample: Tensor) -> tuple[Prefix, Suffix]:
    """Divide a network after a layer, so that `suffix(prefix(x))` is `net(x)`.

    Both parts are independent copies in the mode `net` is in; `net` is left as it is. A parameter belongs to the
    part whose output it influences: to both if a weight is used on both sides, to neither if it is not used at all.
    Buffers of a module that runs on both sides are in both. See `join` for the way back.

    Where several layers give one and the same tensor the cut is at the first of them: dropout that ends a stage acts
    in the suffix while that is in training mode.

    Parameters
    ----------
    net : torch.nn.Module
        Any network that is called with one tensor.
    layer : str
        A `named_modules()` path, `path:2` for the module's second call; one of the cuts of `tracing.trace`.
    sample : torch.Tensor
        An input of the network, (n_samples, ...), on its device; its first sample is run.

    Raises
    ------
    CaptureError
        When the forward pass runs through no such layer, or it lies inside a residual connection.
    SourceError
        When the suffix does not give what the network gives.
    """
    with torch.inference_mode(False):
        anatomy = dissect(net, layer, sample)
        prefix, suffix = _stopped(net, anatomy), _continued(copied(net), anatomy, sample)
        images = trial_images(sample)
        with evaluating(net), evaluating(prefix), torch.no_grad():
            # Each from the same seed, so that chance before the cut or after it falls the same way.
            with seeded(0, sample.device):
                expected = tensor_at(net(images.clone()), suffix.output)
            with seeded(0, sample.device):
                activation = prefix(images)
        assert expected is not None  # the trace has followed it to the input
        _check(suffix, layer, activation, expected)
    return prefix, suffix


def trial(net: nn.Module, anatomy: Anatomy, sample: Tensor, expected: Tensor) -> tuple[Suffix, Tensor]:
    """Return the suffix that `divide` returns, but of the very parameters of `net`, and what it takes: to try things.

    Parameters
    ----------
    net, sample
        As in `divide`.
    anatomy : Anatomy
        Of the cut.
    expected : torch.Tensor
        What the network makes of `trial_images`.

    Raises
    ------
    SourceError
        As `divide`.
    """
    with torch.inference_mode(False):
        prefix = Prefix(copied(net, shared=True), anatomy.path, anatomy.call, anatomy.cut)
        suffix = _continued(copied(net, shared=True), anatomy, sample)
        with evaluating(prefix), torch.no_grad(), seeded(0, sample.device):
            activation = prefix(trial_images(sample))
        _check(suffix, anatomy.cut.layer, activation, expected)
    return suffix, activation


def trial_images(sample: Tensor) -> Tensor:
    """Return two images of noise like those of `sample` (n_samples, ...), always the same: suffixes are made of one."""
    return torch.randn(2, *sample.shape[1:], generator=torch.Generator().manual_seed(0)).to(sample)


def stopped(net: nn.Module, layer: str, sample: Tensor) -> Prefix:
    """Return the prefix that `divide` returns, also of a network that shows no cut.

    Parameters and errors are those of `divide`.
    """
    with torch.inference_mode(False):
        return _stopped(net, dissect(net, layer, sample, detached=True))


def prefix_keys(net: nn.Module, layer: str, sample: Tensor) -> frozenset[str]:
    """Return the `state_dict` keys of `net` that belong to the prefix that ends with `layer`.

    Parameters and errors are those of `divide`.
    """
    with torch.inference_mode(False):
        prefix = dissect(net, layer, sample).prefix
    tensor_ids = {id(tensor) for key, _, _, tensor in tensors_of(net) if key in prefix}
    # A module with two paths has two keys for each tensor.
    return frozenset(key for key, tensor in net.state_dict(keep_vars=True).items() if id(tensor) in tensor_ids)


def join(net: nn.Module, prefix: Prefix, suffix: Suffix) -> None:
    """Load the weights of both parts into the network that they were divided from, or one like it.

    Raises
    ------
    SourceError
        When a weight that both parts use has become two different ones.
    """
    first, second = prefix.net.state_dict(), suffix.net.state_dict()
    for key in first.keys() & second.keys():
        if not torch.equal(first[key], second[key].to(first[key].device)):
            raise SourceError(
                f"{key!r} is used before and after the cut and differs between prefix and suffix, so that no single "
                "network does what the two do; keep them apart"
            )
    net.load_state_dict({**first, **second}, strict=False)


def _stopped(net: nn.Module, anatomy: Anatomy) -> Prefix:
    first = copied(net)
    _strip(first, anatomy.prefix, anatomy.shared)
    return Prefix(first, anatomy.path, anatomy.call, anatomy.cut)


def _strip(net: nn.Module, kept_keys: Set[str], constant: Set[str]) -> None:
    """Take away the values of all that is not in `kept_keys`; of these, `constant` ones stay as plain values."""
    for key, module, name, tensor in list(tensors_of(net)):
        if key in kept_keys:
            continue
        if key in constant:
            delattr(module, name)
            module.register_buffer(name, tensor.detach(), persistent=False)
        elif isinstance(tensor, nn.Parameter):
            # Some networks look at the type of weights that they do not run: those of their first layer, say.
            delattr(module, name)
            module.register_buffer(name, tensor.new_empty(0), persistent=False)
        else:
            setattr(module, name, None)
            # Of batch and instance norm, whatever their class: else reading weights would bring a counter back.
            if hasattr(module, "track_running_stats"):
                module.track_running_stats = False  # type: ignore[assignment]


def _continued(rest: nn.Module, anatomy: Anatomy, sample: Tensor) -> Suffix:
    """Make a suffix of a copy of the network."""
    _strip(rest, anatomy.suffix, anatomy.shared)
    return Suffix(rest, anatomy, sample[:1])


def _check(suffix: Suffix, layer: str, activation: Tensor, expected: Tensor) -> None:
    """Make sure that a suffix gives what the network gives, with `repeats` as it has to be for that."""
    with evaluating(suffix), torch.no_grad():
        for suffix.repeats in (False, True):
            if not (problem := _problem(suffix, activation, expected)):
                return
    raise SourceError(
        f"{type(suffix.net).__name__} cannot be divided after {layer!r}: {problem}; cut elsewhere, or use the protocol "
        "'truncate', which needs nothing from after the cut"
    )


def _problem(suffix: Suffix, activation: Tensor, expected: Tensor) -> str | None:
    try:
        with seeded(0, activation.device):
            output = suffix(activation)
    except Exception as error:  # whatever the network makes of it
        return f"what comes after it does not run on that output alone ({type(error).__name__}: {error})"
    room = _TOLERANCE * float(expected.abs().max())
    if output.shape == expected.shape and torch.allclose(output, expected, rtol=0, atol=room, equal_nan=True):
        return None
    return "what comes after it depends on more than that output, or on chance in evaluation mode"
