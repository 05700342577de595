"""Arrays in, labelled xarray out: the only maker of xarray objects. No mathematics of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from transferscope import __version__, backend, similarity, transferability
from transferscope.linalg import Factors, thin_svd
from transferscope.stages import Stage

SIMILARITIES = ("linear_cka", "svcca")
SCORES = ("logme", "hscore", "ridge")
VERSION = 1
"""Goes up when the meaning of a score changes, so that cached scores of an earlier meaning are not used."""

DESCRIPTIONS = {
    "layer": "Layer after which the source is cut at this depth (`named_modules()` path).",
    "params": "Parameters of the source up to the cut.",
    "flops": "Floating-point operations per image up to the cut (a multiply-add counts as two).",
    "logme": "LogME: exact log evidence per image of a Bayesian linear model, mean over classes.",
    "hscore": "H-score with Ledoit-Wolf shrinkage, between 0 and the number of classes minus one.",
    "ridge": "Leave-one-out accuracy of ridge regression onto the classes.",
    "linear_cka": "Debiased linear CKA with each layer of the network trained from scratch on the target.",
    "svcca": "SVCCA (0.99 of the variance) with each layer of the network trained from scratch on the target.",
    "linear_cka_to_scratch": "Debiased linear CKA with the most similar layer of the scratch network.",
    "svcca_to_scratch": "SVCCA with the most similar layer of the scratch network.",
}


@dataclass(frozen=True)
class SourceScores:
    """What was measured of one source: a unit of work, independent of all other sources."""

    source: str
    stages: tuple[Stage, ...]
    reference_layers: tuple[str, ...]
    scores: Mapping[str, np.ndarray]
    """Score name to (depths,)."""
    similarities: Mapping[str, np.ndarray]
    """Similarity measure to (depths, reference layers)."""


@dataclass(frozen=True)
class Factored:
    """The layers of a network, each factored once for all scores and all the pairs it takes part in."""

    features: Mapping[str, Any]
    """Layer name to (n_samples, n_features)."""
    factors: tuple[Factors, ...]
    """Of each layer's centred features."""
    subspaces: tuple[Any, ...]
    """Of each layer: an orthonormal basis of the directions that hold 0.99 of its variance."""


def factor(features: Mapping[str, Any]) -> Factored:
    """Factor every layer's features (n_samples, n_features)."""
    factors = tuple(thin_svd(array) for array in features.values())
    return Factored(features, factors, tuple(similarity.subspace_from_factors(each) for each in factors))


def score_layers(layers: Factored, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return every transferability score of every layer: score name to (depths,)."""
    codes = transferability.encode_labels(labels, len(labels))
    rows = [
        transferability.panel_from_layer(transferability.Layer.from_factors(array, centred), codes, SCORES)
        for array, centred in zip(layers.features.values(), layers.factors, strict=True)
    ]
    return {name: np.array([row[name] for row in rows]) for name in SCORES}


def compare_layers(x: Factored, y: Factored) -> dict[str, np.ndarray]:
    """Return every similarity of all layer pairs: measure to (layers of x, layers of y)."""
    cka = similarity.MinibatchCKA(debiased=True)
    cka.update(list(x.features.values()), list(y.features.values()))
    return {
        "linear_cka": backend.to_numpy(cka.result()),
        "svcca": backend.to_numpy(similarity.svcca_matrix(x.subspaces, y.subspaces)),
    }


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
    return xr.DataArray(
        values,
        coords={
            "layer_x": list(layers_x),
            "layer_y": list(layers_y),
            **{name: (dims, array) for name, array in (cells or {}).items()},
        },
        dims=dims,
        name=attributes.get("measure", "similarity"),
        attrs={**attributes, "transferscope_version": __version__},
    )


def to_dataset(units: Sequence[SourceScores], attributes: Mapping[str, Any]) -> xr.Dataset:
    """Join the scores of all sources over (source, depth).

    Sources with fewer stages than the deepest one are padded: NaN scores, an empty layer name, -1 parameters and
    FLOPs. Similarities carry the layers of the scratch network as a third dimension, by position: with a
    reference per source their names differ, so `reference_layer_name` (source, reference_layer) holds them.
    """
    depths = max((len(unit.stages) for unit in units), default=0)
    widths = max((len(unit.reference_layers) for unit in units), default=0)
    shape = (len(units), depths)

    layer = np.full(shape, "", dtype=object)
    sizes = {"params": np.full(shape, -1, np.int64), "flops": np.full(shape, -1, np.int64)}
    scores = {name: np.full(shape, np.nan) for name in SCORES}
    similarities = {name: np.full((*shape, widths), np.nan) for name in SIMILARITIES}
    nearest = {f"{name}_to_scratch": np.full(shape, np.nan) for name in SIMILARITIES}
    names = np.full((len(units), widths), "", dtype=object)
    for i, unit in enumerate(units):
        kept, width = len(unit.stages), len(unit.reference_layers)
        layer[i, :kept] = [stage.layer for stage in unit.stages]
        names[i, :width] = unit.reference_layers
        for name, array in sizes.items():
            array[i, :kept] = [getattr(stage, name) for stage in unit.stages]
        for name in SCORES:
            scores[name][i, :kept] = unit.scores[name]
        for name in SIMILARITIES:
            matrix = unit.similarities[name]
            similarities[name][i, :kept, :width] = matrix
            nearest[f"{name}_to_scratch"][i, :kept] = np.fmax.reduce(matrix, axis=1)

    per_depth = {"layer": layer, **sizes, **scores, **nearest}
    variables = {
        **{name: (("source", "depth"), array) for name, array in per_depth.items()},
        **{name: (("source", "depth", "reference_layer"), array) for name, array in similarities.items()},
        "reference_layer_name": (("source", "reference_layer"), names),
    }
    dataset = xr.Dataset(
        variables,
        coords={
            "source": np.array([unit.source for unit in units], dtype=object),
            "depth": np.arange(1, depths + 1),
            "reference_layer": np.arange(1, widths + 1),
        },
        attrs={**attributes, "transferscope_version": __version__},
    )
    for name, text in DESCRIPTIONS.items():
        dataset[name].attrs["description"] = text
    dataset["depth"].attrs["description"] = "Stages of the source that are kept; 0 would keep nothing."
    return dataset


def source_similarity(scores: xr.Dataset, source: str, measure: str = "linear_cka") -> xr.DataArray:
    """Return the layer × layer similarity of one source with the scratch network, without padding."""
    rows = scores.sel(source=source)
    layers = [name for name in rows["layer"].to_numpy() if name]
    reference = [name for name in rows["reference_layer_name"].to_numpy() if name]
    values = rows[measure].to_numpy()[: len(layers), : len(reference)]
    return similarity_array(values, layers, reference, measure=measure, x=source, y="scratch")
