"""What a network can be adapted by: which protocols at which depths, and why not by the others."""

import warnings
from collections.abc import Collection, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from transferscope.activations.calls import Call
from transferscope.activations.outputs import tensor_at
from transferscope.activations.stages import classifiers
from transferscope.activations.tracing import evaluating
from transferscope.errors import SourceError, TransferscopeWarning
from transferscope.networks.loading import Network, build_untrained
from transferscope.protocols.cutting.anatomy import Anatomy, Dissection, copied
from transferscope.protocols.cutting.dividing import prefix_keys, trial, trial_images
from transferscope.protocols.cutting.gradients import hidden_weights, hiding_weights, starts_anew, unreached
from transferscope.protocols.cutting.heads import replaceable_heads
from transferscope.protocols.cutting.places import PROTOCOLS, depths_of, trained_after
from transferscope.runtime.seeding import seeded

Possible = dict[str, dict[int, str]]
"""Protocol to depth to why a network cannot be cut there for it; empty where it can."""


def possible(network: Network, layers: Sequence[str], *, trust_code: bool = False) -> Possible:
    """Try what `cut` would do by each protocol at each depth, short of copying and training anything.

    That takes about a dozen forward passes of two images of noise. It is taken for granted that a network that can be
    divided at its first, its middle and its last cut can be at the others, and that an architecture of a library is the
    same with and without its weights; a factory is run once more, to see whether that can be drawn anew.

    Parameters
    ----------
    network : Network
        Left as it is, and where it is.
    layers : sequence of str
        What it can be cut after, as `cuts` or `resolve_stages` return them, from the input on.
    trust_code : bool
        As in `cut`.

    Returns
    -------
    dict of str to dict of int to str
        For each of `places.PROTOCOLS` and each of its depths the reason; empty where it is possible. "truncate",
        which needs no more than the features, always is.
    """
    net, names = network.module, ["", *layers]
    sample = network.transform.blank(device=next((each.device for each in net.parameters()), torch.device("cpu")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TransferscopeWarning)  # said when the features were computed
        attempt = _Attempt(net, sample, layers)
        fresh = None
        if network.source.loader == "python":
            fresh = build_untrained(network.source, seed=network.seed, trust_code=trust_code)
        found: Possible = {"truncate": dict.fromkeys(depths_of("truncate", len(layers)), "")}
        for protocol in PROTOCOLS[1:]:
            depths = depths_of(protocol, len(layers))
            found[protocol] = {depth: attempt.reason(protocol, names[depth], fresh) for depth in depths}
    return found


def check_trainable(net: nn.Module, sample: Tensor, after: str) -> None:
    """Raise SourceError unless gradients reach all that comes after a layer; the whole network where that is empty."""
    if reason := _Attempt(net, sample, [after]).untrainable(after):
        raise SourceError(f"{type(net).__name__} cannot be trained: {reason}; use the protocol 'truncate'")


class _Attempt:
    """What is tried of one network; each thing once."""

    def __init__(self, net: nn.Module, sample: Tensor, layers: Sequence[str]) -> None:
        self._net = net
        self._sample = sample
        self._probed = {layers[0], layers[len(layers) // 2], layers[-1]}
        self._untrainable: dict[str, str] = {}
        self._anatomies: dict[str, Anatomy] = {}

    @cached_property
    def _dissection(self) -> Dissection:
        return Dissection(self._net, self._sample)

    def _anatomy(self, layer: str) -> Anatomy:
        if layer not in self._anatomies:
            self._anatomies[layer] = self._dissection.at(layer)
        return self._anatomies[layer]

    @cached_property
    def _heads(self) -> tuple[Call, ...]:
        return classifiers(self._dissection.trace)

    @cached_property
    def _hiding(self) -> list[str]:
        return hiding_weights(self._net)

    @cached_property
    def _expected(self) -> Tensor:
        with evaluating(self._net), torch.no_grad(), seeded(0, self._sample.device):
            output = self._net(trial_images(self._sample))
        expected = tensor_at(output, self._dissection.trace.output.way)
        if expected is None or not expected.is_floating_point():
            what = type(output).__name__ if expected is None else f"a tensor of {expected.dtype} (class indices, say)"
            raise SourceError(f"it returns {what}, not a tensor of numbers that have gradients")
        return expected

    @cached_property
    def _uncopied(self) -> str:
        try:
            copied(self._net, shared=True)
        except SourceError as error:
            return str(error)
        return ""

    @cached_property
    def _alike(self) -> bool:
        """Whether what follows one cut can be divided and trained as what follows any other."""
        if self.untrainable("") or starts_anew(self._net, trial_images(self._sample)):
            return False
        try:
            for layer in self._probed:
                trial(self._net, self._anatomy(layer), self._sample, self._expected)
        except SourceError:
            return False
        return True

    def reason(self, protocol: str, layer: str, fresh: nn.Module | None) -> str:
        """Say why a protocol cannot be carried out with a cut after `layer`; nothing where it can."""
        part = trained_after(protocol, layer)
        try:
            if self._uncopied:
                return self._uncopied
            if layer:
                anatomy = self._anatomy(layer)
                if part and (hidden := hidden_weights(self._hiding, anatomy.running)):
                    return hidden
            if not (part and self._alike) and (untrainable := self.untrainable(part)):
                return untrainable
            kept = "" if protocol == "surgical" else layer
            replaceable_heads(self._net, self._dissection.trace, self._heads, kept)
            if fresh is not None and protocol in ("reinit", "finetune", "scratch"):
                self._check_redrawn(fresh, layer)
        except SourceError as error:
            return str(error)
        return ""

    def untrainable(self, after: str) -> str:
        """Say why not all that comes after a layer (or all there is) can be trained; nothing where it can."""
        if after not in self._untrainable:
            try:
                self._untrainable[after] = self._tried(after)
            except SourceError as error:
                self._untrainable[after] = str(error)
        return self._untrainable[after]

    def _tried(self, after: str) -> str:
        net, calls = self._net, self._dissection.trace
        if not after:
            modules = {call.module for call in calls}
            running = [path for path, module in net.named_modules() if module in modules]
            deciding = calls.parameters_behind(calls.output.node)
            _ = self._expected  # raises where nothing that it puts out could be trained by
            return hidden_weights(self._hiding, running) or unreached(net, trial_images(self._sample), deciding)
        anatomy = self._anatomy(after)
        if hidden := hidden_weights(self._hiding, anatomy.running):
            return hidden
        suffix, activation = trial(net, anatomy, self._sample, self._expected)
        return unreached(suffix, activation, anatomy.deciding)

    def _check_redrawn(self, fresh: nn.Module, layer: str) -> None:
        try:
            check_redrawn(self._net, fresh)
        except SourceError:
            check_redrawn(self._net, fresh, prefix_keys(self._net, layer, self._sample) if layer else ())


def check_redrawn(net: nn.Module, fresh: nn.Module, kept_keys: Collection[str] = ()) -> None:
    """Raise SourceError unless `fresh` has all that `net` has, but `kept_keys` of its `state_dict`."""
    drawn = {key: value.shape for key, value in fresh.state_dict().items() if isinstance(value, Tensor)}
    wanted = {key: value.shape for key, value in net.state_dict().items() if isinstance(value, Tensor)}
    differing = [key for key, shape in wanted.items() if key not in kept_keys and drawn.get(key) != shape]
    if differing:
        raise SourceError(
            f"Built without its weights the architecture has other parameters than with them ({len(differing)}: "
            f"{', '.join(differing[:3])}), so that they cannot be re-initialised; use 'truncate' or 'defrost'"
        )
