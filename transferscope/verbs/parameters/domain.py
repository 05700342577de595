"""How far the images of a target lie from those of a source, and how varied they are, in the eyes of the source."""

import math
from typing import Any, NamedTuple

from transferscope.arrays.backend import Array, array_namespace
from transferscope.arrays.discrepancy import diversity, frechet_distance, maximum_mean_discrepancy
from transferscope.arrays.linalg import check_features
from transferscope.errors import InputError


class Domain(NamedTuple):
    """Distance and diversity of images in one feature space; without a unit, for all features have length 1."""

    frechet: float
    """Squared Fréchet distance of source and target images; NaN where there are no source images."""
    mmd: float
    """Unbiased squared maximum mean discrepancy of the two; NaN where there are no source images, and where at least
    half of all pairs of images have the same features."""
    within: float
    """Variance of the target images within their classes, in [0, 1]."""
    between: float
    """Variance of the target images between their classes, in [0, 1]."""


def domain(source_features: Array | None, target_features: Array, labels: Any) -> Domain:
    """Compare source and target images by the features that one source makes of both.

    Every image's feature vector is first divided by its length, so that the numbers have no unit and can be compared
    between sources. A vector of zeros, which has no direction, stays what it is.

    Parameters
    ----------
    source_features
        (n_source_images, n_features), or None. Some hundreds are enough; the same number for all targets, since
        distances from fewer images are larger.
    target_features
        (n_target_images, n_features), of the same layer.
    labels
        (n_target_images,) class of each target image.

    Raises
    ------
    InputError
        When the features are no finite matrices with the same n_features (and, where there are source images, at
        least 2 rows each), or there are not as many labels as target images.
    """
    target = _unit_length(target_features, "target_features")
    spread = diversity(target, labels)
    if source_features is None:
        return Domain(math.nan, math.nan, *spread)
    source = _unit_length(source_features, "source_features")
    frechet = frechet_distance(source, target)
    try:
        mmd = maximum_mean_discrepancy(source, target)
    except InputError:  # The distance took both sets, so there is only the median of zero left to object to.
        mmd = math.nan
    return Domain(frechet, mmd, *spread)


def _unit_length(features: Array, name: str) -> Array:
    xp = array_namespace(features)
    wide = xp.astype(check_features(features, name), xp.float64)
    # First to at most 1, for the squares of very small or very large features would leave the range of float64.
    largest = xp.max(xp.abs(wide), axis=1, keepdims=True)
    scaled = wide / xp.where(largest > 0, largest, xp.ones_like(largest))
    lengths = xp.sqrt(xp.sum(scaled**2, axis=1, keepdims=True))
    return scaled / xp.where(lengths > 0, lengths, xp.ones_like(lengths))
