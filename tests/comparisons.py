"""Comparisons of two networks made on the spot, for the tests of the result and of the terminal."""

import io

import numpy as np
from rich.console import Console

from transferscope.report.terminal.comparison import print_comparison
from transferscope.results import labelled
from transferscope.results.comparison import Comparison
from transferscope.results.summary import TargetSummary

TARGET = TargetSummary("shells", 90, 6, "0f" * 32)


def similarity(values, measure="linear_cka", informative=None, names_x="abc", names_y="vwxyz", **known):
    values = np.array(values, dtype=float)
    shown = np.ones(values.shape, bool) if informative is None else np.array(informative)
    cells = {"informative": shown, **{name: np.array(array) for name, array in known.items()}}
    return labelled.similarity_array(
        values, list(names_x)[: len(values)], list(names_y)[: values.shape[1]], cells,
        measure=measure, reduce="flatten", standardize=0, estimator="exact", x="birds", y="plain",
    )  # fmt: skip


def comparison(*arrays, x="birds", y="plain", reference=None):
    return Comparison(x, y, TARGET, reference, {array.attrs["measure"]: array for array in arrays})


def printed(found, width=100):
    console = Console(width=width, file=io.StringIO())
    print_comparison(found, console)
    return console.file.getvalue()
