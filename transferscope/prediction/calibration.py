"""Expected accuracy of every way to transfer: a linear model of logits, fitted to transfers that were really run."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from transferscope.errors import InputError
from transferscope.prediction.calibration_file import VERSION, read_calibration
from transferscope.prediction.covariates import SCRATCH

_FILE = "calibration.json"


@dataclass(frozen=True)
class Term:
    """One summand of the predicted logit: a coefficient times a product of covariates, for some protocols.

    Attributes
    ----------
    protocols : tuple of str
        Those that it is for; for others it is 0.
    factors : tuple of str
        Names in `COVARIATES`; none for a constant.
    coefficient : float
    """

    protocols: tuple[str, ...]
    factors: tuple[str, ...]
    coefficient: float = 0.0

    def values(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the product of the factors for each row of `candidates`, 0 for other protocols, (n_rows,)."""
        product = rows["protocol"].isin(self.protocols).to_numpy(float)
        for name in self.factors:
            product = product * rows[name].to_numpy(float)
        return product


@dataclass(frozen=True)
class Calibration:
    """What was learnt from measured transfers.

    Attributes
    ----------
    level : float
        Predicted logit where all terms are 0.
    terms : tuple of Term
        Summed to it.
    errors : mapping of str to (float, float)
        Protocol to the 10 % and 90 % quantiles of the measured logit less the predicted one, on targets that the
        prediction was not fitted to, for as many images as the scores were computed on.
    growth : float
        How fast these errors grow with the number of images: (1 + growth × `log_more`) times.
    contrast : float
        How wrong a predicted difference is, root mean square in logits, between the best of one source and the best of
        another: what they have in common, such as how hard the target is, does not change their order.
    ranges : mapping of str to (float, float)
        Covariate to the smallest and largest value that it was fitted to; beyond them nothing was measured.
    measured : str
        On what.
    """

    level: float
    terms: tuple[Term, ...]
    errors: Mapping[str, tuple[float, float]]
    growth: float
    contrast: float
    ranges: Mapping[str, tuple[float, float]]
    measured: str

    def logits(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the predicted logit of the accuracy for each row of `candidates`, (n_rows,)."""
        return self.level + sum((term.coefficient * term.values(rows) for term in self.terms), np.zeros(len(rows)))

    def beyond(self, rows: pd.DataFrame) -> list[str]:
        """Return the covariates that have a value for which nothing was measured."""
        outside = []
        for name, (low, high) in self.ranges.items():
            values = rows.loc[rows["protocol"] != SCRATCH, name].to_numpy(float)
            if len(values) and (values.min() < low or values.max() > high):
                outside.append(name)
        return outside

    def predict(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `candidates` with `expected_accuracy`, `lower` and `upper` added.

        The interval holds 80 % of measured accuracies of targets that the prediction was not fitted to, whatever is
        uncertain: how hard the target is, the scores, the transfer itself. Outside `ranges` nothing is known, and what
        is returned is `unfitted`.
        """
        if self.beyond(rows):
            return unfitted(rows)
        predicted = self.logits(rows)
        wider = 1 + self.growth * rows["log_more"].clip(lower=0).to_numpy(float)
        low, high = np.array([self.errors[protocol] for protocol in rows["protocol"]]).T * wider
        return rows.assign(
            expected_accuracy=expit(predicted), lower=expit(predicted + low), upper=expit(predicted + high)
        )

    def to_json(self) -> str:
        """Return the text of the file that `load_calibration` reads."""
        return json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n"


def unfitted(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `candidates` with what scores say without any calibration.

    `truncate` is expected to reach the leave-one-out accuracy of a linear head at that depth, `scratch` its held-out
    accuracy, and `reinit` and `finetune`, which are something between them, the better of both. `lower` and `upper` are
    NaN: how wrong this is was not measured.
    """
    frozen, scratch = rows["head"], rows["scratch"]
    logits = np.select(
        [rows["protocol"] == "truncate", rows["protocol"] == SCRATCH], [frozen, scratch], np.maximum(frozen, scratch)
    )
    return rows.assign(expected_accuracy=expit(logits), lower=math.nan, upper=math.nan)


def load_calibration(path: str | Path | None = None) -> Calibration:
    """Load a calibration; without a path the one that belongs to this version of transferscope.

    Raises
    ------
    InputError
        When the file is not a calibration of this version.
    """
    if path is None:
        return _shipped()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected `path` to be a calibration file, but it cannot be read ({error})") from error
    return _read(text, str(path))


@cache
def _shipped() -> Calibration:
    return _read(resources.files("transferscope.prediction").joinpath(_FILE).read_text(encoding="utf-8"), _FILE)


def _read(text: str, name: str) -> Calibration:
    content = read_calibration(text, name)
    return Calibration(
        content.level,
        tuple(Term(each.protocols, each.factors, each.coefficient) for each in content.terms),
        content.errors,
        content.growth,
        content.contrast,
        content.ranges,
        content.measured,
    )
