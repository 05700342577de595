"""The head of any protocol on frozen features, for what is to be learnt of any task."""

from collections.abc import Sequence

import numpy as np

from transferscope.protocols.heads.embedding import fit_embedding_head
from transferscope.protocols.heads.linear import HeadFit, fit_head
from transferscope.protocols.heads.several import fit_embedding_outputs, fit_kernel_outputs, fit_linear_outputs
from transferscope.protocols.heads.toptuning import fit_top_tuning_head
from transferscope.runtime.metrics import CLASSIFICATION


def fit_protocol(
    protocol: str,
    layers: Sequence[np.ndarray],
    depth: int,
    values: np.ndarray,
    task: str,
    validation: np.ndarray | None,
    seed: int,
    share: str = "all",
) -> HeadFit:
    """Fit the head of a protocol.

    Parameters
    ----------
    protocol : {"truncate", "svm", "nearest_mean", "toptuning", "fne"}
        Which one.
    layers : sequence of numpy.ndarray
        Features of every stage, each (n_samples, n_features).
    depth : int
        The stage whose features are taken, from 1; all are for "fne".
    values, task
        As in `Target`.
    validation : numpy.ndarray, optional
        Positions of images that settings are chosen by; None where they are too few.
    seed : int
        Of what is drawn.
    share : str
        The layers that "fne" takes.

    Raises
    ------
    InputError
        The protocol has no meaning for the task.
    """
    if protocol == "fne":
        if task == CLASSIFICATION:
            return fit_embedding_head(layers, values, share, seed=seed)
        return fit_embedding_outputs(layers, values, task, share, seed=seed)
    features = layers[depth - 1]
    if protocol == "toptuning":
        if task == CLASSIFICATION:
            return fit_top_tuning_head(features, values, validation, seed)
        return fit_kernel_outputs(features, values, task, seed)
    if task == CLASSIFICATION:
        return fit_head(protocol, features, values, validation, seed)
    return fit_linear_outputs(protocol, features, values, task, validation, seed)
