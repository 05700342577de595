"""Pictures, for notebooks and papers: each takes a result and optional axes, returns the axes, and shows nothing."""

from transferscope.report.plots.advice_ways import advice
from transferscope.report.plots.confusion import confusion
from transferscope.report.plots.heatmaps import heatmap, heatmaps
from transferscope.report.plots.outcome import outcome
from transferscope.report.plots.parameter_curves import parameter_steps, parameter_transferability
from transferscope.report.plots.parameter_grid import parameter_heatmap
from transferscope.report.plots.rank_bars import ranking
from transferscope.report.plots.rank_depths import depth_curves, source_depth
from transferscope.report.plots.rank_plots import figures, pareto
from transferscope.report.plots.transfer_curves import accuracy_by_cost, accuracy_by_depth, learning_curves

__all__ = [
    "accuracy_by_cost",
    "accuracy_by_depth",
    "advice",
    "confusion",
    "depth_curves",
    "figures",
    "heatmap",
    "heatmaps",
    "learning_curves",
    "outcome",
    "parameter_heatmap",
    "parameter_steps",
    "parameter_transferability",
    "pareto",
    "ranking",
    "source_depth",
]
