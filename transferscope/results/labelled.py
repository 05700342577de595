"""Arrays in, labelled xarray out: the only maker and reader of xarray objects. No mathematics of its own.

Every variable and coordinate has a `long_name`, which plots of xarray show, and a `description`. Numbers have `units`:
"1" for counts, shares and whatever else has no dimension, or the nats of a score. Every object says by which version of
transferscope it was made, and in `versions` (JSON) by which of the packages that results depend on.
"""

import json
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from transferscope import similarity
from transferscope.activations.stages import Stage
from transferscope.runtime.links import link_of
from transferscope.runtime.metrics import ACCURACY, CLASSIFICATION, metric_of, metrics_of
from transferscope.runtime.provenance import versions
from transferscope.runtime.regular import open_regular
from transferscope.runtime.version import __version__
from transferscope.transferability import SCORES
from transferscope.transferability.standard_errors import KEPT
from transferscope.transferability.tasks import figures_of, scores_of

SIMILARITIES = ("linear_cka", "svcca")
BASELINES = ("network_params", "depth_fraction", "source_accuracy", "preference")
"""What needs no look at the target: a score that does not beat these is of no use."""

# Name to unit (None for what is no number), what a plot calls it, what it is.
_MEANINGS: dict[str, tuple[str | None, str, str]] = {
    "source": (None, "source", "Network of the zoo."),
    "depth": ("1", "depth", "Stages of the source that are kept; 0 would keep nothing."),
    "reference_layer": ("1", "layer of the scratch network", "Its place, 1 for the first."),
    "reference_layer_name": (None, "layer of the scratch network", "Its name (`named_modules()` path)."),
    "layer": (None, "cut after", "Layer after which the source is cut at this depth (`named_modules()` path)."),
    "params": ("1", "parameters", "Parameters of the source up to the cut; NaN: unknown."),
    "flops": ("1", "FLOPs per image", "Per image up to the cut (a multiply-add counts as two); NaN: unknown."),
    "linear_cka": ("1", "linear CKA", "Debiased, with each layer of the network trained from scratch on the target."),
    "svcca": ("1", "SVCCA", "Of 0.99 of the variance, with each layer of the scratch network."),
    "linear_cka_to_scratch": ("1", "linear CKA to scratch", "With the most similar layer of the scratch network."),
    "svcca_to_scratch": ("1", "SVCCA to scratch", "With the most similar layer of the scratch network."),
    "network_params": ("1", "parameters of the source", "Baseline: of the whole source, up to its last stage."),
    "depth_fraction": ("1", "share of the depth", "Baseline: share of the source's stages that are kept."),
    "source_accuracy": ("1", "accuracy of the source", "Baseline: on its own task, as the zoo gives it."),
    "preference": (
        "1", "preference", "Baseline: place in the order that the zoo gives, from its end; 0 for what it leaves out."
    ),
    "layer_x": (None, "layer of x", "Layers of the first network, in firing order (`named_modules()` path)."),
    "layer_y": (None, "layer of y", "Layers of the second network, in firing order (`named_modules()` path)."),
    "informative": (None, "informative", "False where the number means nothing."),
    "standard_error": ("1", "standard error", "Over images."),
    "p_value": ("1", "p-value", "Share of permutations of the images at least as similar."),
    "spread": ("1", "spread of T", "Standard deviation over the initial weights; NaN for a single set of them."),
    "distance_to_initial": ("1", "D(initial, fine-tuned)", "Mean absolute difference of the weights."),
    "distance_to_source": ("1", "D(source, fine-tuned)", "Mean absolute difference of the weights."),
    "relative_change": ("1", "relative change", "Norm of the change of the weights over the norm of the source's."),
    "weights": ("1", "weight tensors", "How many make the layer."),
    "impossible": (None, "not possible", "Why the source cannot be cut there for this protocol; empty where it can."),
    "protocol": (None, "protocol", "How what is kept of the source is used, and the rest made."),
    "reason": (None, "reason", "Why T is infinite or unknown; empty where it is not."),
}  # fmt: skip


_Data = TypeVar("_Data", xr.DataArray, xr.Dataset)


@dataclass(frozen=True)
class SourceScores:
    """What was measured of one source: a unit of work, independent of all other sources."""

    source: str
    stages: tuple[Stage, ...]
    reference_layers: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    """Score name to (depths,); to () where a score looks at the source's own predictions alone."""
    similarities: Mapping[str, np.ndarray]
    """Similarity measure to (depths, reference layers)."""
    standard_errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Score name to the shape of that score."""
    impossible: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Protocol to the reason why the source cannot be adapted by it, depth by depth; empty where it can."""


@cache
def _provenance() -> Mapping[str, str]:
    return {"transferscope_version": __version__, "versions": json.dumps(versions())}


def similarity_array(
    values: np.ndarray,
    layers_x: Sequence[str],
    layers_y: Sequence[str],
    cells: Mapping[str, np.ndarray] | None = None,
    **attributes: Any,
) -> xr.DataArray:
    """Label a layer × layer matrix: dimensions `layer_x` and `layer_y`, coordinates the layer names.

    What else is known of its cells (`informative`, `standard_error`, `p_value`) becomes coordinates over both.
    """
    dims = ("layer_x", "layer_y")
    name = attributes.get("measure", "similarity")
    measure = similarity.MEASURES.get(name)
    about = {} if measure is None else {"description": measure.definition, "range": measure.range}
    array = xr.DataArray(
        values,
        coords={
            "layer_x": list(layers_x),
            "layer_y": list(layers_y),
            **{name: (dims, array) for name, array in (cells or {}).items()},
        },
        dims=dims,
        name=name,
        attrs={
            "long_name": measure.title if measure else name, "units": "1", **about, **attributes, **_provenance(),
        },
    )  # fmt: skip
    return _described(array)


def similarity_dataset(results: Mapping[str, xr.DataArray], attributes: Mapping[str, Any]) -> xr.Dataset:
    """Join the similarities of the same layers by several measures: a variable for each measure.

    What is known of the cells of a measure beside its values is a variable `<measure>_informative`,
    `<measure>_standard_error`, `<measure>_p_value`: coordinates are shared, and these differ between measures.
    """
    variables: dict[str, Any] = {}
    for measure, array in results.items():
        per_cell = [name for name, coordinate in array.coords.items() if coordinate.dims == array.dims]
        about = {name: value for name, value in array.attrs.items() if name not in _provenance()}
        variables[measure] = array.drop_vars(per_cell).copy(deep=False)  # whose attributes are its own
        variables[measure].attrs = about
        for name in per_cell:
            long_name = f"{array.attrs['long_name']}, {array[name].attrs['long_name']}"
            attrs = {**array[name].attrs, "long_name": long_name}
            variables[f"{measure}_{name}"] = (array.dims, array[name].to_numpy(), attrs)
    return xr.Dataset(variables, attrs={**attributes, **_provenance()})


def parameter_array(
    values: np.ndarray, layers: Sequence[str], coordinates: Mapping[str, Sequence[Any] | np.ndarray], **attributes: Any
) -> xr.DataArray:
    """Label the parameter transferability of each layer: dimension `layer`, with its `depth` and what else is known."""
    array = xr.DataArray(
        values,
        coords={
            "layer": list(layers),
            "depth": ("layer", np.arange(1, len(layers) + 1)),
            **{name: ("layer", np.asarray(column)) for name, column in coordinates.items()},
        },
        dims="layer",
        name="transferability",
        attrs={
            "long_name": "parameter transferability T",
            "units": "1",
            "description": "D(initial, fine-tuned) / D(source, fine-tuned) of each layer's convolution or linear "
            "weights, D the mean absolute difference, averaged over the weights of a block.",
            "range": "[0, inf]",
            **attributes,
            **_provenance(),
        },
    )
    array["layer"].attrs.update(long_name="layer", description="Blocks of the networks, from the input on.")
    array["depth"].attrs.update(long_name="depth", units="1", description="Place of the layer, 1 for the first.")
    return _described(array)


def to_dataset(
    units: Sequence[SourceScores],
    attributes: Mapping[str, Any],
    baselines: Mapping[str, Sequence[float]] | None = None,
) -> xr.Dataset:
    """Join the scores of all sources over (source, depth).

    Sources with fewer stages than the deepest one are padded: NaN scores, an empty layer name, NaN parameters and
    FLOPs; these are NaN where they are unknown, too. Scores of the source's own predictions (LEEP, NCE) have no depth:
    they are variables over source alone. Similarities carry the layers of the scratch network as a third dimension, by
    position: with a reference per source their names differ, so `reference_layer_name` (source, reference_layer) holds
    them. Standard errors are variables `<score>_standard_error`.

    Parameters
    ----------
    units
        All with the same scores.
    attributes
        Of the dataset.
    baselines
        Those of `BASELINES` that are known of each source from elsewhere: name to a number a source.
    """
    depths = max((len(unit.stages) for unit in units), default=0)
    widths = max((len(unit.reference_layers) for unit in units), default=0)
    over_depths, scores_of_sources = _variables(units, depths)
    params = np.array([unit.stages[-1].params for unit in units], np.float64)
    over_sources = {"network_params": params, **(baselines or {}), **scores_of_sources}
    similarities = {
        name: _padded([unit.similarities[name] for unit in units], np.nan, (depths, widths)) for name in SIMILARITIES
    }
    for name, array in similarities.items():
        over_depths[f"{name}_to_scratch"] = np.fmax.reduce(array, axis=2, initial=np.nan)
    reference_layers = _padded([unit.reference_layers for unit in units], "", (widths,), object)
    dataset = xr.Dataset(
        {
            **{name: (("source", "depth"), array) for name, array in over_depths.items()},
            **{name: (("source",), np.asarray(array)) for name, array in over_sources.items()},
            **{name: (("source", "depth", "reference_layer"), array) for name, array in similarities.items()},
            "reference_layer_name": (("source", "reference_layer"), reference_layers),
        },
        coords={
            "source": np.array([unit.source for unit in units], dtype=object),
            "depth": np.arange(1, depths + 1),
            "reference_layer": np.arange(1, widths + 1),
        },
        attrs={**attributes, **_provenance()},
    )
    if protocols := [*units[0].impossible] if units else []:
        reasons = [[unit.impossible[protocol] for protocol in protocols] for unit in units]
        padded = _padded(reasons, "", (len(protocols), depths), object)
        dataset = dataset.assign(impossible=(("source", "protocol", "depth"), padded))
        dataset = dataset.assign_coords(protocol=np.array(protocols, dtype=object))
    return _described(dataset)


def _variables(units: Sequence[SourceScores], depths: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return what is known of each cut, (source, depth), and the scores of each source alone, (source,)."""
    shares = [np.arange(1, len(unit.stages) + 1) / len(unit.stages) for unit in units]
    over_depths = {
        "layer": _padded([[stage.layer for stage in unit.stages] for unit in units], "", (depths,), object),
        "params": _padded([[stage.params for stage in unit.stages] for unit in units], np.nan, (depths,)),
        "flops": _padded([[stage.flops for stage in unit.stages] for unit in units], np.nan, (depths,)),
        "depth_fraction": _padded(shares, np.nan, (depths,)),
    }
    over_sources: dict[str, np.ndarray] = {}
    for name in units[0].scores if units else ():
        variables = {name: [unit.scores[name] for unit in units]}
        if name in units[0].standard_errors:
            variables[f"{name}_standard_error"] = [unit.standard_errors[name] for unit in units]
        for variable, arrays in variables.items():
            if SCORES[name].needs == "source_probabilities":
                over_sources[variable] = np.array(arrays, np.float64)
            else:
                over_depths[variable] = _padded(arrays, np.nan, (depths,))
    return over_depths, over_sources


def _padded(arrays: Sequence[Any], fill: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """Stack arrays of at most `shape`; what they lack of it is `fill`."""
    out = np.full((len(arrays), *shape), fill, dtype)
    for row, array in zip(out, arrays, strict=True):
        values = np.asarray(array)
        row[tuple(map(slice, values.shape))] = values
    return out


def read_netcdf(
    path: str | Path,
    choose: Callable[[list[str]], list[str]] | None = None,
    check: Callable[[int], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Read a NetCDF file into memory.

    Parameters
    ----------
    path
    choose
        Takes the names of all variables and returns those to read; None for all.
    check
        Takes how many bytes these are, before they are read.
    **options
        Passed to `xarray.open_dataset`.
    """
    open_regular(path).close()  # not a pipe, which libraries would wait for
    try:
        with xr.open_dataset(path, **options) as dataset:
            chosen = dataset
            if choose is not None:
                chosen = dataset.reset_coords()[choose([str(name) for name in dataset.variables])]
            if check is not None:
                check(chosen.nbytes)
            return chosen.load()
    except Exception as error:
        _clear_away(error)
        raise


def _clear_away(error: Exception) -> None:
    """Let go of what an error holds on to: half of a damaged file, which would complain on stderr that it is closed."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        traceback.clear_frames(error.__traceback__)
    finally:
        sys.unraisablehook = hook


def runs_dataset(
    runs: pd.DataFrame,
    dims: Sequence[str],
    variables: Sequence[str],
    place: Callable[[pd.Series], pd.Series],
    meanings: Mapping[str, tuple[str, str]],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    """Spread a row for each run over the dimensions that tell runs apart; what was not run is NaN.

    The coordinate `layer` over (source, depth) names the layers, and is empty where there is none.

    Parameters
    ----------
    runs
        With the columns `dims`, `variables` and `layer`. Rows without a layer (NaN) do not name any.
    dims, variables
        Columns. `source` and `depth` are among the dimensions.
    place
        The key by which a dimension is sorted, as in `pandas.Series.sort_values`.
    meanings
        Name of a variable or dimension to its unit and description.
    attributes
        Of the dataset; what is no text or number is written as JSON.
    """
    texts = {name: object for name in dims if not pd.api.types.is_numeric_dtype(runs[name])}
    runs = runs.astype(texts)
    dataset = runs.set_index([*dims])[[*variables]].astype(float).to_xarray()
    dataset = dataset.sel({dim: runs[dim].drop_duplicates().sort_values(key=place).to_numpy() for dim in dims})
    layers = pd.DataFrame("", dataset.indexes["source"], dataset.indexes["depth"], dtype=object)
    named = runs[["source", "depth", "layer"]].dropna().drop_duplicates()
    for source, depth, layer in named.itertuples(index=False):
        layers.loc[source, depth] = layer
    dataset = dataset.assign_coords(layer=(("source", "depth"), layers.to_numpy(dtype=object)))
    for name in map(str, dataset.variables):
        dataset[name].attrs["long_name"] = name.replace("_", " ")
        if name in meanings:
            units, description = meanings[name]
            dataset[name].attrs |= (
                {"units": units, "description": description} if units else {"description": description}
            )
    written = {name: json.dumps(value) if isinstance(value, Mapping) else value for name, value in attributes.items()}
    return dataset.assign_attrs({**written, "transferscope_version": __version__})


def score_names(scores: xr.Dataset) -> list[str]:
    """Return the names of what is one number at a cut: similarities to the scratch network, scores, standard errors."""
    names = [*(f"{name}_to_scratch" for name in SIMILARITIES), *SCORES]
    return [each for name in names for each in (name, f"{name}_standard_error") if each in scores]


def _described(data: _Data) -> _Data:
    """Say of every variable and coordinate that says nothing yet what it is."""
    variables = data.variables if isinstance(data, xr.Dataset) else data.coords
    for name in map(str, variables):
        if not data[name].attrs:
            data[name].attrs.update(_attributes(name, data.attrs))
    return data


def _attributes(name: str, attributes: Mapping[str, Any]) -> dict[str, str]:
    of = name.removesuffix("_standard_error")
    metric = metric_of(attributes.get("metric", ACCURACY.name), task=None)
    figures, default = figures_of(metric.task), metrics_of(metric.task)[0]
    if name in SCORES:
        score, of_task = SCORES[name], scores_of(metric.task)[name]
        named = re.fullmatch(r"(?P<title>.*) \((?P<units>nats.*)\)(?P<more>.*)", of_task.title)
        title, range_ = of_task.title, of_task.range
        if name in figures and metric is not default:
            title, range_ = title.replace(default.title, metric.title), f"[{link_of(metric).lowest:g}, 1]"
        note = " Of the source's own predictions, so the same at every depth." * (score.needs == "source_probabilities")
        return {
            "long_name": named["title"] + named["more"] if named else title,
            "units": named["units"] if named else "1",
            "description": f"{title}; higher is better.{note}", "range": range_, "paper": score.paper,
        }  # fmt: skip
    if of in SCORES:
        draws = f"{attributes.get('uncertainty', 'some')} stratified draws of {KEPT:.0%} without replacement"
        share = "that of a share of the images" if metric.task == CLASSIFICATION else "that of so many images"
        how = share if of in figures else f"delete-d jackknife, {draws}"
        score_attrs = _attributes(of, attributes)
        return {
            "long_name": f"{score_attrs['long_name']}, standard error", "units": score_attrs["units"],
            "description": f"Standard error of {of} over images: {how}.",
        }  # fmt: skip
    unit, long_name, description = _MEANINGS[name]
    return {"long_name": long_name, **({"units": unit} if unit else {}), "description": description}


def source_similarity(scores: xr.Dataset, source: str, measure: str = "linear_cka") -> xr.DataArray:
    """Return the layer × layer similarity of one source with the scratch network, without padding."""
    rows = scores.sel(source=source)
    layers = [name for name in rows["layer"].to_numpy() if name]
    reference = [name for name in rows["reference_layer_name"].to_numpy() if name]
    values = rows[measure].to_numpy()[: len(layers), : len(reference)]
    return similarity_array(values, layers, reference, measure=measure, x=source, y="scratch")
