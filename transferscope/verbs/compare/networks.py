"""Two networks and the same images in, the similarity of every layer of one with every layer of the other out."""

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import xarray as xr
from torch import nn

from transferscope import similarity
from transferscope.activations.calls import Call, Trace
from transferscope.activations.capture import Activations, capture, resolve_stages
from transferscope.activations.faster import sped_up
from transferscope.activations.finite import Finite, check_finite
from transferscope.activations.grams import GramReducer
from transferscope.activations.kept import KeptFeatures
from transferscope.activations.reductions import CommonPositions, Reduction, map_side
from transferscope.activations.repeatability import LOOKED_AT, repeatability
from transferscope.activations.selecting import Layers
from transferscope.activations.tracing import trace
from transferscope.arrays import backend
from transferscope.data.batches import FEWEST, Pair, image_pairs
from transferscope.data.images import Transform
from transferscope.data.target import Target
from transferscope.errors import CaptureError, InputError, TransferscopeWarning
from transferscope.runtime.progress import Report, silent
from transferscope.runtime.wrappers import unwrapped
from transferscope.similarity.uncertainty import Cells, linear_cka_cells, measure_cells, representations
from transferscope.verbs.compare.options import IMAGENET, Estimator, Options
from transferscope.verbs.compare.seen import Seen

_FEWEST_SPED_UP = 64
"""Images in a batch from which on networks are made faster first, which takes some passes over a few."""


def compare(
    net_x: nn.Module,
    net_y: nn.Module,
    images: Any,
    *,
    measure: str = "linear_cka",
    layers_x: Layers = "auto",
    layers_y: Layers = "auto",
    reduce: Reduction = "flatten",
    standardize: bool = False,
    estimator: Estimator = "minibatch",
    standard_error: bool = False,
    permutations: int = 0,
    precision: backend.Precision = "float32",
    transform: Transform | tuple[Transform, Transform] = IMAGENET,
    batch_size: int = 64,
    device: str = "auto",
    seed: int = 0,
) -> xr.DataArray:
    """Compare every layer of `net_x` with every layer of `net_y` in one pass over the images.

    Both networks see the same batch tensors. Linear CKA is debiased, and can be slightly negative. By default it is
    accumulated over batches (Nguyen et al. 2021): each activation becomes a Gram matrix inside the forward hook and
    is let go, so that memory is layers × batch_size² whatever the number of images and features; sums of unbiased
    HSIC estimates are divided once, at the end. Smaller batches hardly change what to expect, but the standard error
    rises. The exact estimator compares all pairs of images, not only those within a batch: a smaller standard error
    from the same images, for n_samples² operations and with features of all images kept, on disk where they are many.
    All other measures need that too, and all of the features in memory at the end.

    Parameters
    ----------
    net_x, net_y : torch.nn.Module
        May be the same network, which then runs once. Wrappers are looked through, as in `capture`.
    images : torch.Tensor, DataLoader, Dataset or Target
        A tensor (n_samples, channels, height, width), already normalised for both networks; or a loader or
        dataset of such images, alone or first in a tuple; or a target, whose images `transform` prepares.
    measure : str
        A name in `similarity.MEASURES`.
    layers_x, layers_y
        As in `capture`.
    reduce
        As in `reductions.reducer`, None excepted. "flatten", the default, compares feature maps position by position,
        as Kornblith et al. (2019) do: where a feature is counts. "mean" asks only how much of it there is, and is
        far cheaper where features have to be kept. "positions" averages all maps to the resolution of the smallest
        and takes every position as a sample.
    standardize : bool
        Z-score every feature: with the statistics of each batch (minibatch estimator), of all images otherwise.
    estimator : "minibatch" or "exact"
        Of linear CKA, see above. One batch of all images makes them the same.
    standard_error : bool
        Standard errors for measures other than linear CKA, whose cost nothing: by a jackknife over 20 groups of images,
        which computes everything 20 times more.
    permutations : int
        Permutations of the images for p-values; 0 for none.
    precision : "float32", "tf32" or "bfloat16"
        Of the products that make Gram matrices, on a GPU with CuPy; fewer digits are faster.
    transform : Transform, or one for each network
        Only for a target: 224 px and ImageNet's mean and deviation by default.
    batch_size : int
        Images in one forward pass, where `images` is not a loader. Batches of fewer than 4, of a loader too, are
        joined to others.
    device : str
        "auto", "cpu", "cuda" or "cuda:N"; the networks are moved there.
    seed : int
        Of permutations and of the jackknife's groups.

    Returns
    -------
    xarray.DataArray
        Dimensions `layer_x` and `layer_y` with layer names as coordinates, in firing order; float64. Coordinates over
        both dimensions: `informative` (False where the number means nothing: constant features, too few images, more
        directions than images), and, as asked for, `standard_error` (over images) and `p_value` (share of permutations
        at least as similar).

    Raises
    ------
    InputError
        When an argument is not as described or there are fewer than 4 images.
    CaptureError
        When a layer does not exist, does not fire, has NaN or infinite activations, or no class token or positions
        where `reduce` asks for them.
    TransferscopeError
        When features that must be kept do not fit on the disk.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    >>> images = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> similarity = compare(net, net, images, layers_x=["0", "2"], layers_y=["0", "2"], device="cpu")
    >>> similarity.dims
    ('layer_x', 'layer_y')
    >>> round(float(similarity.sel(layer_x="0", layer_y="0")), 6)  # a layer with itself
    1.0
    """
    options = Options(
        measures=[measure],
        layers_x=layers_x,
        layers_y=layers_y,
        reduce=reduce,
        standardize=standardize,
        estimator=estimator,
        standard_error=standard_error,
        permutations=permutations,
        precision=precision,
        transform=transform,
        batch_size=batch_size,
        device=device,
        seed=seed,
    )
    return compare_by(net_x, net_y, images, options)[measure]


def compare_by(
    net_x: nn.Module, net_y: nn.Module, images: Any, options: Options, report: Report = silent
) -> dict[str, xr.DataArray]:
    """Do what `compare` does for several measures in the same pass over the images: measure name to result."""
    return look(net_x, net_y, images, options, report).results(options)


def look(
    net_x: nn.Module,
    net_y: nn.Module,
    images: Any,
    options: Options,
    report: Report = silent,
    *,
    whole: Target | None = None,
) -> Seen:
    """Pass over the images once.

    Where they are some of a `whole`, in whole batches, what is found out by looking at the first images is found out by
    those of the whole, and there is a sum for each batch: all parts add up to what one pass over the whole gives.
    """
    where = backend.resolve_device(options.device)
    nets = [unwrapped(net).to(where) for net in (net_x, net_y)]
    batches = image_pairs(images, options.batch_size, options.transforms, report)
    first = next(batches, (torch.empty(0), torch.empty(0)))
    if len(first[0]) < FEWEST:
        raise InputError(f"Expected `images` to hold at least {FEWEST} images, but got {len(first[0])}")
    shown, of_batch = (first, len(first[0])) if whole is None else _opening(whole, options)
    traced = [trace(net, sample[:1].to(where)) for net, sample in zip(dict.fromkeys(nets), shown, strict=False)]
    traced = [traced[0], traced[-1]]
    calls = [
        _usable(_asked_for(net, layers, each), layers, options.reduce)
        for net, layers, each in zip(nets, (options.layers_x, options.layers_y), traced, strict=True)
    ]
    names = [[call.layer for call in each] for each in calls]
    reduction, group = options.reduce, 1
    if options.reduce == "positions":
        grids = [map_side(call.shape, call.layout) for each in calls for call in each]
        reduction = CommonPositions([grid for grid in grids if grid])
        group = reduction.per_sample

    steady = True
    for i, net in enumerate(dict.fromkeys(nets)):
        if note := str(repeatability(net, shown[i][:LOOKED_AT].to(where), names[i], traced[i])):
            warnings.warn(f"{type(net).__name__}: {note}", TransferscopeWarning, stacklevel=2)
            steady = False

    def sum_up() -> similarity.MinibatchCKA:
        return similarity.MinibatchCKA(permutations=options.permutations, seed=options.seed, group=group)

    seen, finite = Seen(names, 0, [sum_up()], {}), Finite()
    with KeptFeatures(standardized=options.standardize) as store, ExitStack() as hooks:
        hooks.enter_context(backend.stream_of(where))
        hooks.enter_context(backend.product_precision(options.precision, where))
        if steady and of_batch >= _FEWEST_SPED_UP and not _share_modules(nets):
            for i, net in enumerate(dict.fromkeys(nets)):
                captured = [
                    layer for other, layers in zip(nets, names, strict=True) if other is net for layer in layers
                ]
                few = shown[i][:LOOKED_AT].to(where)
                hooks.enter_context(sped_up(net, few, list(dict.fromkeys(captured)), traced[i], folding_only=True))
        sides = _hooked(hooks, nets, traced, names, reduction, options)
        for batch in chain([first], batches):
            if whole is not None and seen.n_samples:
                seen.sums.append(sum_up())
            seen.n_samples += len(batch[0])
            _forward(sides, _moved(batch, where), group)
            if options.whole:
                _keep(store, sides, finite)
            if options.in_batches:
                seen.sums[-1].update_grams(*(_gram_stack(side, from_features=bool(options.whole)) for side in sides))
        if options.in_batches:
            for each in seen.sums:
                _check_sums(each, sides)
        finite.check()
        if options.whole:
            layers = [store.features([(i, layer) for layer in side.names]) for i, side in enumerate(sides)]
            seen.cells |= _cells_of_all_images(layers, options, group, report)
    return seen


def _opening(whole: Target, options: Options) -> tuple[Pair, int]:
    """Return the first few images, and how many the first batch has."""
    n_samples, batch = whole.n_samples, options.batch_size
    few = whole.subset(range(min(LOOKED_AT, n_samples)))
    joined = n_samples - batch < FEWEST  # the rest is too small for a batch of its own
    return next(image_pairs(few, LOOKED_AT, options.transforms)), n_samples if joined else batch


def _cells_of_all_images(
    layers: Sequence[Sequence[backend.Array]], options: Options, group: int, report: Report
) -> dict[str, Cells]:
    """Compute the measures that need the features of all images, from those of each side."""
    cells: dict[str, Cells] = {}
    if "linear_cka" in options.whole:
        exact = similarity.MinibatchCKA(permutations=options.permutations, seed=options.seed, group=group)
        exact.update(*layers, report=report)
        cells["linear_cka"] = linear_cka_cells(exact)
    others = [measure for measure in options.whole if measure != "linear_cka"]
    # For all measures together, so that each layer is factored once.
    prepared = [representations(side) for side in layers] if others else []
    for measure in others:
        cells[measure] = measure_cells(
            measure,
            prepared[0],
            prepared[-1],
            standard_error=options.standard_error,
            permutations=options.permutations,
            seed=options.seed,
            group=group,
            report=report,
        )
    return cells


@dataclass(frozen=True)
class _Side:
    """One of the two networks while it is hooked."""

    net: nn.Module
    names: list[str]
    grams: GramReducer
    activations: Activations


def _hooked(
    hooks: ExitStack,
    nets: Sequence[nn.Module],
    traced: Sequence[Trace],
    names: Sequence[list[str]],
    reduction: Reduction,
    options: Options,
) -> list[_Side]:
    """Attach hooks to the layers of both networks until `hooks` is closed; of a network with itself once."""
    sides: list[_Side] = []
    for net, seen, layers in zip(nets, traced, names, strict=True):
        if sides and (net, layers) == (sides[0].net, sides[0].names):
            break
        grams = GramReducer(None if options.whole else reduction, layers, standardized=options.standardize)
        activations = hooks.enter_context(
            capture(net, layers, reduce=reduction if options.whole else grams, traced=seen)
        )
        sides.append(_Side(net, layers, grams, activations))
    return sides


def _share_modules(nets: Sequence[nn.Module]) -> bool:
    """Whether two networks have parts in common: what is captured in the one may be folded in the other."""
    one, other = nets
    return one is not other and not set(one.modules()).isdisjoint(other.modules())


def _moved(batch: Pair, device: torch.device) -> Pair:
    x = backend.to_device(batch[0], device)
    return x, x if batch[1] is batch[0] else backend.to_device(batch[1], device)


def _forward(sides: Sequence[_Side], batch: Pair, group: int) -> None:
    for i, (side, tensor) in enumerate(zip(sides, batch, strict=False)):
        if i and side.net is sides[0].net:
            break  # hooks of both sides fired in the one pass
        for each in sides:
            each.grams.restart()
        # A copy: a network that starts with an in-place operation must change neither what the other one sees nor
        # what it was called with.
        side.net(tensor.clone())
    for side in sides:
        if list(side.activations) != side.names:
            raise CaptureError(
                f"Expected the layers {', '.join(side.names[:8])} to fire in this order on every batch, but got "
                f"{', '.join(list(side.activations)[:8])}; name layers that always fire"
            )
        for layer, rows in side.activations.items():
            if len(rows) != len(batch[0]) * group:
                raise CaptureError(
                    f"Expected layer {layer!r} to give {group} rows an image, but got {len(rows)} for {len(batch[0])} "
                    "images; choose a layer before the samples are regrouped"
                )


def _keep(store: KeptFeatures, sides: Sequence[_Side], finite: Finite) -> None:
    for i, side in enumerate(sides):
        for layer, features in side.activations.items():
            finite.add(layer, features)
            store.add((i, layer), backend.from_torch(features))


def _gram_stack(side: _Side, *, from_features: bool) -> backend.Array:
    values: Sequence[Any] = list(side.activations.values())
    if from_features:
        side.grams.restart()
        values = [side.grams(features) for features in values]
    return side.grams.stack(values)


def _check_sums(cka: similarity.MinibatchCKA, sides: Sequence[_Side]) -> None:
    """Name the first layer whose sums are not finite: on a GPU no batch is looked at by itself."""
    for side, sums in zip(sides, cka.self_hsic(), strict=False):
        for layer, value in zip(side.names, backend.to_numpy(sums), strict=True):
            check_finite(torch.tensor(value), layer)


def _asked_for(net: nn.Module, layers: Layers, traced: Trace) -> list[Call]:
    """Return the calls that are compared, in firing order."""
    names = {stage.layer for stage in resolve_stages(net, layers, traced)}
    return [call for call in traced if call.layer in names]


def _usable(calls: list[Call], layers: Layers, reduce: Reduction) -> list[Call]:
    """Leave out layers that have no class token or positions, when the reduction needs them."""
    if reduce == "positions":
        unfit = [call for call in calls if map_side(call.shape, call.layout) is None]
    elif reduce == "class_token":
        unfit = [call for call in calls if len(call.shape) != 2 or call.layout.class_token is None]
    else:
        return calls
    names = ", ".join(call.layer for call in unfit[:8])
    if len(unfit) == len(calls) or (unfit and layers != "auto"):
        raise CaptureError(
            f"Expected layers whose output `reduce={reduce!r}` can take, but {names} of shape {unfit[0].shape} a "
            f"sample cannot: no {'class token' if reduce == 'class_token' else 'grid'} of it is known; leave such "
            "layers out or choose another reduction"
        )
    if unfit:
        warnings.warn(
            f"{len(unfit)} layers are left out, since `reduce={reduce!r}` cannot take their output: {names}",
            TransferscopeWarning,
            stacklevel=4,
        )
    return [call for call in calls if call not in unfit]
