"""The weights that a source was trained from: read from a file, or redrawn by the architecture's own initialiser."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from transferscope.errors import InputError, SourceError, check_whole
from transferscope.networks.checkpoints import load_checkpoint
from transferscope.networks.loading import build_untrained
from transferscope.networks.zoo import Source
from transferscope.verbs.parameters.weights import weights_of


@dataclass(frozen=True)
class Initial:
    """Initial weights of a source (θ_r of Chen et al. 2022, arXiv 2212.00399), or draws that stand for them.

    Attributes
    ----------
    draws
        State dicts of the source's architecture, its classifier included: floating-point tensors only, float32,
        on the CPU. One where the weights are given.
    description
        Whether they are the very weights that training began with: ``"given: net.initial.pt"`` or
        ``"redrawn by the architecture's own initialiser, seeds 0 to 4"``.
    """

    draws: tuple[dict[str, Tensor], ...]
    description: str


def initial_weights(source: Source, *, redraws: int = 5, seed: int = 0, trust_code: bool = False) -> Initial:
    """Return the weights that a source was trained from.

    They are read from the file that the source names as `initial`, which must fit the same model and kwargs as the
    source's own weights. Without one they are redrawn by the architecture's own initialiser, and the result says so.
    The global random state is left as it was.

    Parameters
    ----------
    source : Source
        An entry of a zoo.
    redraws : int
        How many times to draw where no file is named; at least 1.
    seed : int
        Of the first draw; those after it take the seeds that follow.
    trust_code : bool
        Allow to run the code of a factory (loader ``python``).

    Raises
    ------
    InputError
        When `redraws` is no whole number above 0, or the source needs ``trust_code=True``.
    SourceError
        When the architecture cannot be built, or the file cannot be read or does not fit it; or, with no file, when
        the factory has no checkpoint beside it, or gives most convolution and linear weights (those that are not
        constant) the same values for two seeds: what it loads is not what training began with.
    """
    check_whole("redraws", redraws, 1)
    if source.initial is not None:
        module = build_untrained(source, seed=seed, trust_code=trust_code)
        try:
            load_checkpoint(module, source.initial)
        except SourceError as error:
            where = f"source {source.name!r}: initial (of the same model and kwargs as the source)"
            raise SourceError(f"{where}: {error}") from error
        state = _floating(module)
        _weights(source, state, "initial")
        return Initial((state,), f"given: {source.initial.name}")
    if source.loader == "python" and source.checkpoint is None:
        raise SourceError(
            f"source {source.name!r}: without a checkpoint, what its factory returns are the weights of the source, "
            "and those that it was trained from cannot be redrawn; give these as `initial`, or let the factory draw "
            "them and give the trained ones as `checkpoint`"
        )
    draws = tuple(
        _floating(build_untrained(source, seed=seed + draw, trust_code=trust_code)) for draw in range(redraws)
    )
    if source.loader == "python":
        other = draws[1] if redraws > 1 else _floating(build_untrained(source, seed=seed + 1, trust_code=trust_code))
        _check_redrawn(source, draws[0], other)
    seeds = f"seeds {seed} to {seed + redraws - 1}" if redraws > 1 else f"seed {seed}"
    return Initial(draws, f"redrawn by the architecture's own initialiser, {seeds}")


def _floating(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}


def _weights(source: Source, state: Mapping[str, Tensor], what: str) -> dict[str, Any]:
    try:
        return weights_of(state, what)
    except InputError as error:
        raise SourceError(f"source {source.name!r}: {error}") from error


def _check_redrawn(source: Source, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Refuse a factory that loads its weights, or those of all but a new classifier, or draws them always alike."""
    weights = _weights(source, first, str(source.factory))
    # Initialisers set some layers to zero, and a few to a fixed filter; most are drawn.
    varied = [key for key, weight in weights.items() if weight.min() < weight.max()]
    alike = [key for key in varied if torch.equal(weights[key], second[key])]
    if 2 * len(alike) >= len(varied):
        unchanged = f"{len(alike)} of {len(varied)} convolution and linear weights" if varied else "all weights"
        raise SourceError(
            f"source {source.name!r}: its factory {source.factory} does not draw its weights anew: {unchanged} are the "
            "same for two seeds; give the weights that the source was trained from as `initial`"
        )
