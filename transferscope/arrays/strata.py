"""How many images each class gives to a draw: in proportion to how many it has, within bounds."""

import numpy as np

from transferscope.errors import InputError


def apportion(
    counts: np.ndarray,
    *,
    total: int | None = None,
    share: float | None = None,
    least: int = 1,
    most: np.ndarray | None = None,
    offset: float | np.ndarray = 0.5,
) -> np.ndarray:
    """Share images out to classes: Webster's method, with bounds.

    Of a class with n images the k-th (from 0) stands at (k + offset) / n. As many as lie below one mark for all classes
    are taken, that is n times the mark, rounded. With a larger mark no class gets fewer.

    Parameters
    ----------
    counts : numpy.ndarray
        (n_classes,) images of each class.
    total : int
        Where the mark lies so that there are so many in all, or as many as the bounds allow. Where marks are equal, the
        first classes come first.
    share : float
        Instead of `total`: the mark itself. Then each class depends on its own count alone; halves become even.
    least : int
        Of each class at least so many, or all that it has or may give.
    most : numpy.ndarray, optional
        (n_classes,) what each class may give; by default all.
    offset : float or numpy.ndarray
        In [0, 1); drawn at random, one for each class, it lets chance round up or down. Only with `total`.

    Returns
    -------
    numpy.ndarray
        int64, (n_classes,).

    References
    ----------
    Balinski and Young (1982), Fair Representation.

    Examples
    --------
    >>> apportion(np.array([60, 30, 9, 1]), total=10)
    array([5, 3, 1, 1])
    """
    counts = np.asarray(counts, dtype=np.int64)
    most = counts if most is None else np.minimum(most, counts)
    lowest = np.minimum(least, most)
    if share is not None:
        return np.clip(np.rint(share * counts).astype(np.int64), lowest, most)
    assert total is not None
    codes = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    place = (rank + np.broadcast_to(offset, counts.shape)[codes]) / counts[codes]
    place[rank < lowest[codes]] = -1.0
    place[rank >= most[codes]] = np.inf
    taken = np.argsort(place, kind="stable")[: min(max(total, int(lowest.sum())), int(most.sum()))]
    return np.bincount(codes[taken], minlength=len(counts))


def allocate(available: np.ndarray, samples: int, what: str = "classes") -> np.ndarray:
    """Share `samples` out in proportion to `available`, at least min(2, available) each, exactly in total.

    Raises
    ------
    InputError
        They are fewer than two for each that has images; `what` says what these are.
    """
    needed = int(np.minimum(available, 2).sum())
    if samples < needed:
        raise InputError(
            f"samples = {samples} is too few for {np.count_nonzero(available)} {what}: each needs two "
            f"images (or its only one) for a leave-one-out prediction; take at least {needed}"
        )
    return apportion(available, total=samples, least=2)
