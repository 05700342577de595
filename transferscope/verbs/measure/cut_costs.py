"""What the cut networks of a grid cost to use: parameters, operations and seconds of one image."""

import pandas as pd

from transferscope.verbs.running.executor import Executor


def cut_networks(executor: Executor, source: str) -> pd.DataFrame:
    """Return a row for each depth at which a source can be cut, from the cache where possible.

    Parameters
    ----------
    executor : Executor
        Has the networks and the images.
    source : str
        Its name.

    Returns
    -------
    pandas.DataFrame
        With the columns source, depth, layer, params and flops (of one image) of the network cut there, and latency:
        seconds until one image alone has come so far, mean over a few.
    """
    network, stages = executor.network(source), executor.stages(source)
    latency = executor.pace(network, stages, batch_size=1).seconds
    return pd.DataFrame(
        {
            "source": source,
            "depth": range(1, len(stages) + 1),
            "layer": [stage.layer for stage in stages],
            "params": [stage.params for stage in stages],
            "flops": [stage.flops for stage in stages],
            "latency": [latency[stage.layer] for stage in stages],
        }
    )
