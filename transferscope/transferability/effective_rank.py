"""The effective rank of the features: over how many directions images are spread, whatever their labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from transferscope.arrays.backend import Array, array_namespace
from transferscope.transferability.labels import encode_labels
from transferscope.transferability.layer import Layer


def effective_rank(features: Array, labels: Any = None) -> float:
    """Effective rank of the centred features: exp of the entropy of their singular values, divided by their sum.

    RankMe scores self-supervised networks by it, on features that are not centred. It looks at no labels: noise has
    the highest rank of all. It tells sources apart that keep much or little of the target's images, and depends on
    the number of samples and features, so compare layers of equal width on the same images.

    Parameters
    ----------
    features
        (n_samples, n_features), at least 2 samples.
    labels
        (n_samples,) as in other scores, or None; checked, and otherwise not looked at.

    Returns
    -------
    float
        In [1, min(n_samples - 1, n_features)]; higher is more transferable; 0 for constant features.

    Raises
    ------
    InputError
        When features or labels are not as above.

    References
    ----------
    Roy and Vetterli (2007), The effective rank: A measure of effective dimensionality.
    Garrido et al. (2023), RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations
    by Their Rank.

    Examples
    --------
    >>> import numpy as np
    >>> round(effective_rank(np.vstack([np.eye(3), -np.eye(3)])), 6)  # three directions, equally strong
    3.0
    """
    layer = Layer(features)
    return effective_rank_from_layer(layer, None if labels is None else encode_labels(labels, layer.n_samples))


def effective_rank_from_layer(layer: Layer, codes: np.ndarray | None = None) -> float:
    """Do what `effective_rank` does, from a layer; `codes` are there because other scores take them."""
    singular_values = layer.centred.singular_values
    xp = array_namespace(singular_values)
    if singular_values.shape[0] == 0:
        return 0.0
    shares = singular_values / xp.sum(singular_values)
    return float(xp.exp(-xp.sum(shares * xp.log(shares))))
