"""How well features suit a labelled task, without training on it: pure array functions on NumPy and CuPy."""

from transferscope.transferability.alignment import alignment, alignment_from_layer
from transferscope.transferability.effective_rank import effective_rank, effective_rank_from_layer
from transferscope.transferability.gbc import gbc, gbc_from_layer
from transferscope.transferability.hscore import hscore, hscore_from_layer
from transferscope.transferability.kernel_ridge import (
    KernelRidgeFit,
    fit_kernel_ridge,
    kernel_ridge,
    kernel_ridge_from_layer,
)
from transferscope.transferability.knn import knn, knn_from_layer, nearest_mean, nearest_mean_from_layer
from transferscope.transferability.labels import encode_labels
from transferscope.transferability.layer import Layer
from transferscope.transferability.leep import leep, nce
from transferscope.transferability.logme import logme, logme_from_layer
from transferscope.transferability.multi_label import MULTI_LABEL
from transferscope.transferability.nleep import nleep, nleep_from_layer
from transferscope.transferability.panel import panel, panel_from_layer
from transferscope.transferability.parc import parc, parc_from_layer
from transferscope.transferability.regression import REGRESSION
from transferscope.transferability.ridge import ridge, ridge_from_layer
from transferscope.transferability.scores import SCORES, Score
from transferscope.transferability.sfda import sfda, sfda_from_layer
from transferscope.transferability.transrate import transrate, transrate_from_layer

__all__ = [
    "MULTI_LABEL",
    "REGRESSION",
    "SCORES",
    "KernelRidgeFit",
    "Layer",
    "Score",
    "alignment",
    "alignment_from_layer",
    "effective_rank",
    "effective_rank_from_layer",
    "encode_labels",
    "fit_kernel_ridge",
    "gbc",
    "gbc_from_layer",
    "hscore",
    "hscore_from_layer",
    "kernel_ridge",
    "kernel_ridge_from_layer",
    "knn",
    "knn_from_layer",
    "leep",
    "logme",
    "logme_from_layer",
    "nce",
    "nearest_mean",
    "nearest_mean_from_layer",
    "nleep",
    "nleep_from_layer",
    "panel",
    "panel_from_layer",
    "parc",
    "parc_from_layer",
    "ridge",
    "ridge_from_layer",
    "sfda",
    "sfda_from_layer",
    "transrate",
    "transrate_from_layer",
]
