"""How well features suit a labelled task, without training on it: pure array functions on NumPy and CuPy."""

from transferscope.transferability.hscore import hscore, hscore_from_factors
from transferscope.transferability.labels import encode_labels
from transferscope.transferability.logme import logme, logme_from_factors
from transferscope.transferability.panel import panel, panel_from_factors
from transferscope.transferability.ridge import ridge, ridge_from_factors

__all__ = [
    "encode_labels",
    "hscore",
    "hscore_from_factors",
    "logme",
    "logme_from_factors",
    "panel",
    "panel_from_factors",
    "ridge",
    "ridge_from_factors",
]
