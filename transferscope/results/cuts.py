"""Every cut of every source by every protocol as one table."""

import numpy as np
import pandas as pd
import xarray as xr


def cut_table(predictions: xr.Dataset) -> pd.DataFrame:
    """List every source, depth and protocol with a prediction: a row each, cheapest first, unknown FLOPs last.

    Columns source, layer, depth, depths, protocol, expected_accuracy, lower, upper, and params and flops of the network
    that comes out: `truncate` ends at the cut, the other protocols keep the architecture. Both are integers; floats,
    with NaN for those that are unknown, where some are.
    """
    names = ["expected_accuracy", "lower", "upper", "layer", "params", "flops"]
    rows = predictions[names].to_dataframe().reset_index()
    rows = rows[rows["layer"] != ""]
    by_source = rows.groupby("source")
    rows["depths"] = by_source["depth"].transform("max")
    for name in ("params", "flops"):
        # Of the whole network, which is unknown where any of its stages is.
        whole = by_source[name].transform(lambda values: values.max(skipna=False))
        rows[name] = rows[name].where(rows["protocol"] == "truncate", whole)
        if rows[name].notna().all():
            rows[name] = rows[name].astype(np.int64)
    rows = rows[rows["expected_accuracy"].notna()].sort_values(["flops", "depth", "source"], kind="stable")
    columns = ["source", "layer", "depth", "depths", "protocol", *names[:3], "params", "flops"]
    return rows[columns].reset_index(drop=True)
