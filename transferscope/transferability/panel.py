"""All transferability scores of one feature matrix from one factorisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from transferscope.backend import Array
from transferscope.linalg import Factors, check_features, thin_svd
from transferscope.transferability.hscore import hscore_from_factors
from transferscope.transferability.labels import encode_labels
from transferscope.transferability.logme import logme_from_factors
from transferscope.transferability.ridge import ridge_from_factors


def panel(features: Array, labels: Any) -> dict[str, float]:
    """Score features by every measure: ``"logme"``, ``"hscore"`` and ``"ridge"``.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) integers, booleans or strings, at least two classes.

    Raises
    ------
    InputError
        When features or labels are not as above.
    """
    features = check_features(features, "features", min_samples=2)
    codes = encode_labels(labels, features.shape[0])
    raw, centred = thin_svd(features, centered=False), thin_svd(features)
    return panel_from_factors(raw, centred, features.shape[1], codes)


def panel_from_factors(raw: Factors, centred: Factors, n_features: int, codes: np.ndarray) -> dict[str, float]:
    """Do what `panel` does, from the factors of the features as they are and centred."""
    return {
        "logme": logme_from_factors(raw, codes),
        "hscore": hscore_from_factors(centred, n_features, codes),
        "ridge": ridge_from_factors(centred, codes),
    }
