"""Expected accuracies of every source, cut and protocol, beside the scores that they are made from."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from transferscope.prediction.belief import Belief, believe
from transferscope.prediction.calibration import Calibration
from transferscope.prediction.covariates import CUT_PROTOCOLS, SCRATCH
from transferscope.prediction.observation import Observation
from transferscope.results.recommendation import LEVEL

_COLUMNS = ("expected_accuracy", "lower", "upper")


def expected_accuracies(
    scores: xr.Dataset,
    samples: int,
    calibration: Calibration | None = None,
    observations: Sequence[Observation] = (),
) -> xr.Dataset:
    """Add what a transfer trained on this many images is expected to reach: `labelled` what one `believe`s.

    Parameters and errors are those of `believe`.
    """
    return labelled(scores, believe(scores, samples, calibration, observations))


def labelled(scores: xr.Dataset, belief: Belief) -> xr.Dataset:
    """Add what is believed of every candidate to the scores that it follows from.

    Parameters
    ----------
    scores : xarray.Dataset
        That `belief` was made from. Where there is `impossible`, over protocols too, nothing is expected of what it
        gives a reason against.
    belief : Belief

    Returns
    -------
    xarray.Dataset
        `scores` with expected_accuracy, lower and upper over (source, depth, protocol), NaN where a score is undefined,
        the same from scratch (`scratch_expected_accuracy` …), and the attribute samples.
    """
    table = belief.rows[["source", "depth", "protocol"]].join(belief.expected())
    scratch = table[table["protocol"] == SCRATCH].iloc[0]
    table = table[table["protocol"] != SCRATCH]
    places = [
        pd.Index(index).get_indexer(table[name])
        for name, index in (("source", scores["source"]), ("depth", scores["depth"]), ("protocol", CUT_PROTOCOLS))
    ]
    shape = (scores.sizes["source"], scores.sizes["depth"], len(CUT_PROTOCOLS))
    variables: dict[str, Any] = {}
    title = belief.case.metric.title
    for name in _COLUMNS:
        values = np.full(shape, np.nan)
        values[tuple(places)] = table[name]
        if "impossible" in scores:
            reasons = scores["impossible"].sel(protocol=list(CUT_PROTOCOLS)).transpose("source", "depth", "protocol")
            values[reasons.to_numpy() != ""] = np.nan
        long_name, description = (text.replace("accuracy", title) for text in _MEANINGS[name])
        description = description[0].upper() + description[1:]
        attrs = {"long_name": long_name, "units": "1", "description": description}
        variables[name] = (("source", "depth", "protocol"), values, attrs)
        scratch_attrs = {"long_name": f"{long_name}, from scratch", "description": f"{description} From scratch."}
        variables[f"scratch_{name}"] = ((), float(scratch[name]), attrs | scratch_attrs)
    about = {"long_name": "protocol", "description": "How what is kept of the source is used, and the rest made."}
    protocols = np.array(CUT_PROTOCOLS, dtype=object)
    predicted = scores.assign(variables).assign_coords(protocol=("protocol", protocols, about))
    return predicted.assign_attrs(samples=belief.case.samples)


_MEANINGS = {
    "expected_accuracy": (
        "expected accuracy",
        "accuracy on new images that a transfer with this source, cut and protocol is expected to reach when it is "
        "trained on `samples` images.",
    ),
    "lower": ("expected accuracy, lower end", f"Lower end of the {LEVEL:.0%} interval."),
    "upper": ("expected accuracy, upper end", f"Upper end of the {LEVEL:.0%} interval."),
}
