"""The pictures that a study of parameter transferability is saved with: three for each source."""

import numpy as np
import pandas as pd
from matplotlib import rcParams
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from transferscope.report.plots.drawing import explain, label, size_styles, styled
from transferscope.report.plots.naming import LONGEST_NAME, short
from transferscope.report.plots.parameter_curves import (
    MEAN_T,
    band,
    depth_handles,
    handles_of,
    parameter_steps,
    parameter_transferability,
)
from transferscope.report.plots.parameter_grid import heatmap_size, parameter_heatmap
from transferscope.report.plots.parameter_rows import chosen, layer_names, logarithmic, scale
from transferscope.results.parameters import CRITERIA, ParameterTransfer

_MOST_PANELS = 6
_MOST_COLUMNS = 3


def figures(result: ParameterTransfer) -> dict[str, Figure]:
    """Draw for each source its layers on all targets, T over depth, and the mean T over steps.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        File name to picture: transferability-<source>-heatmap.png, -depth.png and -steps.png.
    """
    pictures = {}
    with styled("notebook"):
        for source in sorted(result.layers["source"].unique()):
            layers = result.layers[result.layers["source"] == source]
            pictures[f"transferability-{source}-heatmap.png"] = _heatmap_figure(layers, source)
            pictures[f"transferability-{source}-depth.png"] = _depth_figure(layers, source)
            pictures[f"transferability-{source}-steps.png"] = _steps_figure(result.trajectory, source)
    return pictures


def _heatmap_figure(layers: pd.DataFrame, source: str) -> Figure:
    """Draw all criteria side by side, on one scale of colours."""
    rows, columns, images = _all_criteria(layers, source)
    names = list(layer_names(rows, LONGEST_NAME))
    size = heatmap_size(0.0, layers=names, targets=list(columns.values()), panels=len(CRITERIA))
    figure = _figure(*size, f"{short(source)}, {images}")
    norm = scale(rows["transferability"].to_numpy())
    for i, (criterion, ax) in enumerate(zip(CRITERIA, figure.subplots(1, len(CRITERIA)), strict=True)):
        parameter_heatmap(layers, source, ax, criterion=criterion, norm=norm, cbar=i == len(CRITERIA) - 1)
        label(ax, title=CRITERIA[criterion])
        if i:
            ax.set_ylabel("")
            ax.tick_params(axis="y", left=False, labelleft=False)
    return figure


def _depth_figure(layers: pd.DataFrame, source: str) -> Figure:
    """Draw a panel for each criterion, one below the other."""
    rows, columns, images = _all_criteria(layers, source)
    letters = max(map(len, layer_names(rows, LONGEST_NAME)))
    figure = _figure(9, 7 + 0.6 * letters * rcParams["xtick.labelsize"] / 72, f"{short(source)}, {images}")
    axes = figure.subplots(len(CRITERIA), 1, sharex=True, sharey=True)
    for criterion, ax in zip(CRITERIA, axes, strict=True):
        parameter_transferability(layers, source, ax, criterion=criterion, legend=False)
        label(ax, title=CRITERIA[criterion])
        ax.label_outer()
    values = rows["transferability"].to_numpy()
    if isinstance(scale(values), LogNorm):
        logarithmic(axes[0])
    explain(figure, depth_handles(list(columns.values()), band(layers)[1], bool(np.isinf(values).any())))
    return figure


def _steps_figure(trajectory: pd.DataFrame, source: str) -> Figure:
    """Draw a panel for each of at most six targets."""
    trajectory = trajectory[trajectory["source"] == source]
    targets = sorted(trajectory["target"].unique())
    shown = targets[:_MOST_PANELS]
    columns = min(len(shown), _MOST_COLUMNS)
    rows = -(-len(shown) // columns)
    few = f", {len(shown)} of {len(targets)} targets" * (len(shown) < len(targets))
    figure = _figure(3.2 * columns + 1.9, 2.7 * rows + 0.5, f"{short(source)}{few}")
    axes = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    for ax in axes[len(shown) :]:
        ax.remove()
    for target, ax in zip(shown, axes, strict=False):
        parameter_steps(trajectory, source, target, ax, legend=False)
        label(ax, title=short(target))
        ax.tick_params(labelbottom=True)
        ax.set(xlabel="", ylabel="")
    figure.supxlabel("optimiser steps", fontsize=rcParams["axes.labelsize"])
    figure.supylabel(MEAN_T, fontsize=rcParams["axes.labelsize"])
    explain(figure, handles_of(size_styles(trajectory).items()), "images of each class")
    return figure


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=rcParams["axes.titlesize"])
    return figure


def _all_criteria(layers: pd.DataFrame, source: str) -> tuple[pd.DataFrame, dict[str, str], str]:
    parts = [chosen(layers, source, criterion, None) for criterion in CRITERIA]
    return pd.concat([rows for rows, _, _ in parts]), *parts[0][1:]
