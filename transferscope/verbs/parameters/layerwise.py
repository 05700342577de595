"""Parameter transferability of each layer: how near fine-tuned weights stay to those of the source."""

from collections.abc import Mapping, Sequence
from typing import Any

import array_api_compat
import numpy as np
import xarray as xr
from torch import nn

from transferscope.arrays import backend
from transferscope.arrays.displacement import Displacement, displacement
from transferscope.errors import InputError, near
from transferscope.networks.matching import without_prefix
from transferscope.results.labelled import parameter_array
from transferscope.results.parameters import PAPER
from transferscope.verbs.parameters.weights import blocks, find_classifier, weights_of

_SHOWN = 5
_AS_SOURCE = "its weights are those of the source, fine-tuning did not move them"
_AS_BOTH = "its weights are those of the source and the initial ones, none of the three differ"

Weights = nn.Module | Mapping[str, Any]
"""A network or its state dict."""


def transferability(
    initial: Weights | Sequence[Weights],
    source: Weights,
    finetuned: Weights,
    groups: str | Mapping[str, Sequence[str]] = "auto",
    *,
    classifier: str | None = "auto",
) -> xr.DataArray:
    """Return the parameter transferability of each layer of a source that was fine-tuned.

    T = D(θᵣ, θ) / D(θ_A, θ), where θᵣ are the weights that the training of the source started from, θ_A those of the
    source, θ those after fine-tuning it, and D the mean absolute difference between the convolution or linear weights
    of a layer. Of a block with several, D is averaged over its weights first. Biases and normalisations do not count.

    T is 0 or more; 1 where the source is no other than its initial weights; above 1 where the fine-tuned weights are
    nearer to the source than to its initial weights. It says how far weights moved, so it falls with every further step
    of the optimiser: over the published results for targets of several sizes, trained for the same epochs, the rank
    correlation of T with the size is -0.96. Compare values after as many steps, or at the same training loss.

    Parameters
    ----------
    initial
        θᵣ: a network or a state dict (names to torch tensors, or to NumPy or CuPy arrays). Where it is not known,
        several redraws by the architecture's own initialiser, as a sequence: values are then means over them.
    source, finetuned
        θ_A and θ, of the same architecture. Half precision and tensors on different devices will do: sums are in
        float64, on the device of `finetuned`. Prefixes that only some carry (``module.``, ``model.``, ``_orig_mod.``)
        are removed.
    groups
        What a layer is: "auto" for the blocks that the network repeats and single weights outside of them, "tensor" for
        every weight by itself, or a mapping of layer to names of weights or modules. See `weights.blocks`.
    classifier
        What is left out, for its outputs are other classes: "auto" for the last weight of `finetuned` if it is a matrix
        and not alone; a name of a weight or module; or None to leave out nothing, as for networks without a classifier.

    Returns
    -------
    DataArray
        Over `layer` (module path), in the order of `finetuned`. Infinite where a layer did not move from the source,
        and NaN where it is no other than its initial weights too; `reason` says so. Coordinates over `layer`: `depth`
        from 1, `spread` (standard deviation over the redraws, NaN with one), `distance_to_initial` and
        `distance_to_source` (D, in units of the weights; the former a mean over redraws), `relative_change`
        (‖θ - θ_A‖ / ‖θ_A‖ over all weights of the layer), `weights` (how many tensors), and `reason` (why it is
        infinite or NaN, else empty). Attributes: `mean` over the layers, `classifier` (the weight left out, or ""),
        `initials` (how many), `groups`, `paper`.

    Raises
    ------
    InputError
        When an argument is neither network nor state dict, or holds no weights, or NaN or infinite ones; when not all
        hold the same weights in the same shapes; when `groups` or `classifier` names a weight that is not there.

    References
    ----------
    Chen et al. (2022), arXiv 2212.00399.

    Examples
    --------
    >>> import numpy as np
    >>> initial, source, finetuned = ({"conv.weight": np.full((2, 2), value)} for value in (0.0, 2.0, 3.0))
    >>> float(transferability(initial, source, finetuned).sel(layer="conv"))
    3.0
    """
    initials: dict[str, Any] = {"initial": initial}
    if isinstance(initial, Sequence) and not isinstance(initial, str):
        initials = {f"initial[{i}]": each for i, each in enumerate(initial)}
    if not initials:
        raise InputError("Expected `initial` to hold at least one network or state dict but got an empty sequence")
    nets = {**initials, "source": source, "finetuned": finetuned}
    sides = {what: weights_of(net, what) for what, net in nets.items()}
    # Any of them may have been saved from within a wrapper such as DataParallel.
    reference = sides["finetuned"]
    for weights in sides.values():
        reference = without_prefix(reference, weights)
    sides = {what: without_prefix(weights, reference) for what, weights in sides.items()}
    head = _find(classifier, sides)
    for weights in sides.values():
        weights.pop(head, None)
    _require_same(sides, head)

    names = list(sides["finetuned"])
    layers = blocks(names, groups)
    moved = [_displacement([side[name] for side in sides.values()]) for name in names]
    to_initial = np.array([each.to_initial for each in moved]).T
    to_source, change, norm = np.array([[each.to_source, each.change, each.norm] for each in moved]).T
    values = ratios(to_initial, to_source, names, layers)
    members = [[names.index(name) for name in group] for group in layers.values()]
    distance_to_initial = [float(to_initial[:, indices].mean()) for indices in members]
    distance_to_source = [float(to_source[indices].mean()) for indices in members]
    reasons = [reason(*distances) for distances in zip(distance_to_initial, distance_to_source, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = values.std(axis=0, ddof=1) if len(initials) > 1 else np.full(len(layers), np.nan)
        relative_change = [np.linalg.norm(change[indices]) / np.linalg.norm(norm[indices]) for indices in members]
    values = values.mean(axis=0)
    return parameter_array(
        values,
        list(layers),
        {
            "spread": spread,
            "distance_to_initial": distance_to_initial,
            "distance_to_source": distance_to_source,
            "relative_change": relative_change,
            "weights": [len(indices) for indices in members],
            "reason": reasons,
        },
        mean=float(values.mean()),
        classifier=head,
        initials=len(initials),
        groups=groups if isinstance(groups, str) else "given",
        paper=PAPER,
    )


def ratios(
    to_initial: np.ndarray, to_source: np.ndarray, names: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """Return T of each layer from the mean distances of its weights: their average over the layer, then the ratio.

    Parameters
    ----------
    to_initial, to_source
        Mean |θᵣ - θ| and mean |θ_A - θ|, (..., n_weights); leading dimensions as they broadcast.
    names
        Of the weights.
    groups
        Layer to the names of its weights.

    Returns
    -------
    ndarray
        (..., n_layers) float64, 0 or more; infinite where a layer did not move from the source, NaN where none of the
        three differ.
    """
    position = {name: i for i, name in enumerate(names)}
    members = [[position[name] for name in group] for group in groups.values()]
    above, below = (
        np.stack([np.asarray(distances, np.float64)[..., indices].mean(axis=-1) for indices in members], axis=-1)
        for distances in (to_initial, to_source)
    )
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return above / below


def reason(to_initial: float, to_source: float) -> str:
    """Say why T is infinite or NaN, from the distances of a layer; nothing when it is finite."""
    if to_source > 0:
        return ""
    return _AS_SOURCE if to_initial > 0 else _AS_BOTH


def _find(classifier: str | None, sides: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the name of the weight that is left out; empty for none."""
    if classifier is None:
        return ""
    if classifier == "auto":
        return find_classifier(sides["finetuned"]) or ""
    names = dict.fromkeys(name for weights in sides.values() for name in weights)
    for name in (classifier, f"{classifier}.weight"):
        if name in names:
            return name
    raise InputError(
        f"`classifier` {classifier!r} is no convolution or linear weight of the networks{near(classifier, names)}; "
        "name one, or pass None to leave out nothing"
    )


def _require_same(sides: Mapping[str, Mapping[str, Any]], head: str) -> None:
    """Check that all hold the same weights in the same shapes."""
    problems = []
    for name in dict.fromkeys(name for weights in sides.values() for name in weights):
        shapes = {what: tuple(weights[name].shape) for what, weights in sides.items() if name in weights}
        if missing := [f"`{what}`" for what in sides if what not in shapes]:
            problems.append(f"{name!r} is missing from {' and '.join(missing)}")
        elif len(set(shapes.values())) > 1:
            problems.append(f"{name!r} is " + ", ".join(f"{shape} in `{what}`" for what, shape in shapes.items()))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(
            f"Expected {', '.join(f'`{what}`' for what in sides)} to hold the same weights in the same shapes, but "
            f"{'; '.join(problems[:_SHOWN])}{more}. Take all from one architecture, and name as `classifier` the "
            f"weight that may differ (now {head or None!r})"
        )
    if not sides["finetuned"]:
        raise InputError(f"No weight is left without the classifier {head!r}; pass classifier=None to keep it")


def _displacement(tensors: Sequence[Any]) -> Displacement:
    """Compare one weight of the initial networks, the source and the fine-tuned network, in this order."""
    arrays = [backend.from_torch(each) if array_api_compat.is_torch_array(each) else each for each in tensors]
    now = arrays[-1]
    *initials, source = (
        each
        if type(each) is type(now) and array_api_compat.device(each) == array_api_compat.device(now)
        else backend.from_numpy(backend.to_numpy(each), like=now)
        for each in arrays[:-1]
    )
    return displacement(initials, source, now)
