"""How much a score depends on which images were drawn: the delete-d jackknife over stratified draws."""

from collections.abc import Iterator

import numpy as np

from transferscope.errors import InputError
from transferscope.strata import apportion

KEPT = 0.8
"""Share of the images in a draw."""


def stratified_draws(labels: np.ndarray, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield sorted indices of images, drawn without replacement class by class.

    Every draw has the same number of images, `KEPT` of all. Each class gives its share, rounded up or down at random,
    but never fewer than two images, or its only one: no class is lost, and none becomes unlearnable.

    Without replacement, because most scores leave each image out in turn or look at its neighbours: the copies that a
    bootstrap makes of an image would give its label away.

    Parameters
    ----------
    labels : numpy.ndarray
        (n_samples,) class of each image.
    draws : int
        How many.
    seed : int
        Decides the draws.

    Raises
    ------
    InputError
        When there are too few images to leave any out.
    """
    n = len(labels)
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    size = max(round(KEPT * n), int(np.minimum(counts, 2).sum()))
    if size == n:
        raise InputError(
            f"Expected more than {n} images of {len(classes)} classes for `uncertainty`, which leaves some images out "
            "but no class with fewer than two; take more with `samples`, or leave `uncertainty` out"
        )
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order, offsets = np.empty(n), np.empty(len(counts))
        for label, count in enumerate(counts):
            order[codes == label] = rng.permutation(count)
            offsets[label] = rng.random()
        wanted = apportion(counts, total=size, least=2, offset=offsets)
        yield np.flatnonzero(order < wanted[codes])


def jackknife_standard_error(values: np.ndarray, kept: int, n_samples: int) -> np.ndarray:
    """Return the standard error of a statistic from its values on draws without replacement.

    That is the delete-d jackknife: √(m / d) times the standard deviation over the draws, m images kept and d left out.
    For a mean it is the usual standard error. It holds for statistics that are less smooth than leaving out one image
    at a time allows, such as a median or a rank correlation, and errs on the side of too much where they are far from
    linear in their images.

    Parameters
    ----------
    values : numpy.ndarray
        (draws, ...), at least two draws.
    kept : int
        Images in each draw.
    n_samples : int
        Images in all.

    References
    ----------
    Shao and Wu (1989), A General Theory for Jackknife Variance Estimation.
    """
    return np.sqrt(kept / (n_samples - kept)) * np.std(values, axis=0, ddof=1)
