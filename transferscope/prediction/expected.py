"""Expected accuracies of every source, cut and protocol, beside the scores that they are made from."""

import math
import warnings
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import expit

from transferscope.errors import TransferscopeWarning, check_whole
from transferscope.prediction.calibration import Calibration, load_calibration, unfitted
from transferscope.prediction.covariates import COVARIATES, CUT_PROTOCOLS, SCRATCH, Case, candidates, logit
from transferscope.results.recommendation import LEVEL
from transferscope.transferability.scores import NEEDED

_COLUMNS = ("expected_accuracy", "lower", "upper")


def accuracy_interval(accuracy: Any, n_samples: int) -> tuple[Any, Any]:
    """Wilson score interval (Wilson 1927) of an accuracy measured on `n_samples` images, at 80 %.

    Raises
    ------
    InputError
        When `n_samples` is not positive.
    """
    check_whole("n_samples", n_samples, 1)
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (accuracy + z**2 / (2 * n_samples)) / (1 + z**2 / n_samples)
    variance = accuracy * (1 - accuracy) / n_samples + z**2 / (4 * n_samples**2)
    half = z * np.sqrt(variance) / (1 + z**2 / n_samples)
    # At 0 and 1 the two terms are equal; their rounding must not leave [0, 1].
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def expected_accuracies(scores: xr.Dataset, samples: int, calibration: Calibration | None = None) -> xr.Dataset:
    """Add what a transfer trained on this many images is expected to reach.

    Parameters
    ----------
    scores : xarray.Dataset
        Over (source, depth): `layer` ("" where a source has no such depth), `depth_fraction` and the scores in
        `scores.NEEDED`; attributes n_samples (images they were computed on), classes and, if a network was trained from
        scratch on these images, scratch_accuracy and scratch_held_out. Where there is `impossible`, over protocols too,
        nothing is expected of what it gives a reason against.
    samples : int
        Images that the transfer is trained on.
    calibration : Calibration, optional
        By default the one that belongs to this version of transferscope.

    Returns
    -------
    xarray.Dataset
        With `expected_accuracy`, `lower` and `upper` over (source, depth, protocol), the protocols truncate, reinit and
        finetune, and `scratch_expected_accuracy`, `scratch_lower` and `scratch_upper` of the sources' architecture
        trained from scratch. Attributes: `samples`; `calibrated`, 0 where the calibration says nothing of such a target
        (a warning tells of it): scores then speak for themselves, and intervals are those of the number of images
        alone; `contrast`, how wrong a difference between the best of two sources is (`Calibration.contrast`);
        `scratch_growth`, by how much more images than were looked at raise the logit of the accuracy from scratch.

    Raises
    ------
    InputError
        When no source has all scores at any depth.
    """
    calibration = calibration or load_calibration()
    rows = _rows(scores, samples)
    if beyond := calibration.beyond(rows):
        warnings.warn(
            "Nothing like this target was measured yet, so that accuracies are those of scores alone, and their "
            f"intervals too narrow. Beyond what was measured: {'; '.join(COVARIATES[name] for name in beyond)}",
            TransferscopeWarning,
            stacklevel=2,
        )
        table = unfitted(rows)
        table["lower"], table["upper"] = accuracy_interval(table["expected_accuracy"], scores.attrs["n_samples"])
        growth = 0.0
    else:
        table = calibration.predict(rows)
        now = _rows(scores, scores.attrs["n_samples"])
        growth = float(calibration.logits(rows.iloc[-1:])[0] - calibration.logits(now.iloc[-1:])[0])
    scratch = table[table["protocol"] == SCRATCH].iloc[0]
    table = table[table["protocol"] != SCRATCH]
    places = [
        pd.Index(index).get_indexer(table[name])
        for name, index in (("source", scores["source"]), ("depth", scores["depth"]), ("protocol", CUT_PROTOCOLS))
    ]
    shape = (scores.sizes["source"], scores.sizes["depth"], len(CUT_PROTOCOLS))
    variables: dict[str, Any] = {}
    for name in _COLUMNS:
        values = np.full(shape, np.nan)
        values[tuple(places)] = table[name]
        if "impossible" in scores:
            reasons = scores["impossible"].sel(protocol=list(CUT_PROTOCOLS)).transpose("source", "depth", "protocol")
            values[reasons.to_numpy() != ""] = np.nan
        long_name, description = _MEANINGS[name]
        attrs = {"long_name": long_name, "units": "1", "description": description}
        variables[name] = (("source", "depth", "protocol"), values, attrs)
        scratch_attrs = {"long_name": f"{long_name}, from scratch", "description": f"{description} From scratch."}
        variables[f"scratch_{name}"] = ((), float(scratch[name]), attrs | scratch_attrs)
    about = {"long_name": "protocol", "description": "How what is kept of the source is used, and the rest made."}
    protocols = np.array(CUT_PROTOCOLS, dtype=object)
    predicted = scores.assign(variables).assign_coords(protocol=("protocol", protocols, about))
    attributes = {"samples": samples, "calibrated": int(not beyond), "contrast": calibration.contrast}
    return predicted.assign_attrs(attributes, scratch_growth=growth)


_MEANINGS = {
    "expected_accuracy": (
        "expected accuracy",
        "Accuracy on new images that a transfer with this source, cut and protocol is expected to reach when it is "
        "trained on `samples` images.",
    ),
    "lower": ("expected accuracy, lower end", f"Lower end of the {LEVEL:.0%} interval."),
    "upper": ("expected accuracy, upper end", f"Upper end of the {LEVEL:.0%} interval."),
}


def _rows(scores: xr.Dataset, samples: int) -> pd.DataFrame:
    about = scores.attrs
    case = Case(
        samples, int(about["n_samples"]), int(about["classes"]), about.get("scratch_accuracy"),
        int(about.get("scratch_held_out", 0)),
    )  # fmt: skip
    table = scores[["layer", "depth_fraction", *NEEDED]].to_dataframe().reset_index()
    return candidates(table[table["layer"] != ""], case)


def most_samples(scores: xr.Dataset, calibration: Calibration | None = None) -> int:
    """Return the largest number of images that the calibration says anything of, given these scores."""
    ranges = (calibration or load_calibration()).ranges
    classes, probe = scores.attrs["classes"], scores.attrs["n_samples"]
    bounds = [base * math.exp(ranges[name][1]) for name, base in (("log_per_class", classes), ("log_more", probe))]
    return int(min(bounds) * (1 + 1e-9))  # the bounds are logarithms of whole numbers


def raised(accuracy: float, by: float, n_samples: int) -> float:
    """Return an accuracy measured on this many images, its logit raised."""
    return accuracy if by == 0 else float(expit(logit(accuracy, n_samples) + by))
