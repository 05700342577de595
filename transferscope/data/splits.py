"""Which images a transfer is trained on, stopped by and tested on."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from transferscope.arrays.strata import apportion
from transferscope.data.notes import listed
from transferscope.errors import InputError, TransferscopeWarning, check_whole
from transferscope.runtime.checks import Size
from transferscope.runtime.metrics import CLASSIFICATION, STRATUM

if TYPE_CHECKING:
    from transferscope.data.target import Target

VALIDATION_SHARE = 0.2
LEAST_FOR_VALIDATION = 5
"""With fewer images in a class, none is set aside for stopping or choosing."""
LEAST_UNSEEN = 10
"""Images of each class that nothing was made from: with fewer they are no test part."""

_HOLD_OUT, _DRAW, _VALIDATION = range(3)  # each has random numbers of its own


def held_out_split(target: "Target") -> str | None:
    """Return the name of the split that transfers are tested on: ``test``, else ``val``; None without one."""
    split = target.split
    return next((name for name in ("test", "val") if 0 < split.count(name) < len(split)), None)


def hold_out(
    target: "Target", share: float = 0.25, most: int = 2000, seed: int = 0, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Set the images aside that every transfer is tested on.

    That is the target's own ``test`` split; its ``val`` split where there is no other; else a stratified share of
    all images. Images may be drawn for training from the ``train`` split where there is one beside the test images,
    else from all others. Those with the same content as a test image are left out.

    Parameters
    ----------
    target : Target
        The labelled images.
    share : float
        Share of the images that is held out when the target has no split of its own, in (0, 1).
    most : int
        At most this many images are held out, class by class in proportion, but one of each class in any case.
    seed : int
        At least 0; decides the draw. To be the same for all runs that are compared.
    seen : numpy.ndarray, optional
        Indices of images that something else was made from already. Of a target without a split of its own they are
        tested on only where `LEAST_UNSEEN` others of each class are missing.

    Returns
    -------
    pool, test : numpy.ndarray
        int64, sorted indices into the target, of the images to train on and to test on. Nothing is in both.

    Raises
    ------
    InputError
        A class has no image to train on, or only one image in all; an argument is out of range.

    Warns
    -----
    TransferscopeWarning
        A class has no test image; images were left out of the pool because they are test images too.
    """
    if not 0 < share < 1:
        raise InputError(f"Expected `share` to lie between 0 and 1, but got {share!r}")
    check_whole("most", most, 1)
    labels, split = target.strata, np.array(target.split, dtype=object)
    held_out = held_out_split(target)
    candidates = np.arange(len(labels)) if held_out is None else np.flatnonzero(split == held_out)
    available = np.bincount(labels[candidates], minlength=len(target.learnt.groups))
    if held_out is None:
        if target.task == CLASSIFICATION:
            _refuse(target, available == 1, "one image only, which cannot be both trained and tested on: add images")
        limit, total = np.maximum(available - 1, 0), min(round(share * len(labels)), most)
        beside = candidates
        unseen = np.setdiff1d(candidates, [] if seen is None else seen)
        others = np.bincount(labels[unseen], minlength=len(available))
        if (others >= np.where(available > 0, LEAST_UNSEEN, 0)).all():
            candidates, available, limit = unseen, others, np.minimum(limit, others)
    else:
        limit, total = available, most
        beside = np.flatnonzero(split == "train" if "train" in target.split else split != held_out)
    wanted = apportion(available, total=total, most=limit)
    chosen = labels[candidates]
    test = candidates[_ranks(chosen, seed, _HOLD_OUT) < wanted[chosen]]
    pool = _without_copies(target, np.setdiff1d(beside, test), test)

    if target.task != CLASSIFICATION:
        _warn_of_missing(target, pool, test)
        return pool, test
    hint = "put images of them beside the other training images, or remove them"
    _refuse(target, np.bincount(labels[pool], minlength=len(available)) == 0, f"no image to train on: {hint}")
    untested = np.bincount(labels[test], minlength=len(available)) == 0
    if untested.any():
        warnings.warn(
            f"target {target.name!r}: these {target.learnt.in_words} have no test image, so no accuracy says how well "
            f"they are recognised: {_named(target, untested)}; move some of their images to the {held_out} folder",
            TransferscopeWarning,
            stacklevel=2,
        )
    return pool, test


def _warn_of_missing(target: "Target", pool: np.ndarray, test: np.ndarray) -> None:
    """Warn of labels that no image is trained or tested on; raise InputError when there is no image at all."""
    for part, what in ((pool, "train on"), (test, "test on")):
        if not len(part):
            raise InputError(f"target {target.name!r} has no image to {what}: add images, or leave its splits out")
        missing = [name for name, count in zip(target.classes, target.learnt.counts(part), strict=True) if not count]
        if missing:
            warnings.warn(
                f"target {target.name!r}: these {target.learnt.what} have no image to {what}, so they do not count: "
                f"{listed(missing)}",
                TransferscopeWarning,
                stacklevel=3,
            )


def sizes_within(sizes: Sequence[Size], labels: np.ndarray, task: str = CLASSIFICATION) -> tuple[int, ...]:
    """Return what the numbers of images per class, or other stratum, come to in a pool, sorted, each once.

    "all" is the number of images of the largest class. A number above it means the same and becomes the same.

    Parameters
    ----------
    sizes : sequence of int or "all"
        At least 1.
    labels : numpy.ndarray
        (n_pool,) codes of classes, or of other strata.
    task : str
        What the strata are for.

    Warns
    -----
    TransferscopeWarning
        A number is larger than any class.
    """
    everything = int(np.bincount(labels).max())
    larger = sorted({size for size in sizes if size != "all" and size > everything})
    if larger:
        warnings.warn(
            f"No {STRATUM[task]} has more than {everything} images to train on: {', '.join(map(str, larger))} of each "
            f"would be the same as all, and is run and recorded once, as {everything}",
            TransferscopeWarning,
            stacklevel=2,
        )
    return tuple(sorted({everything if size == "all" else min(int(size), everything) for size in sizes}))


def draw(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Draw the training images of one run.

    For one seed, a smaller draw is the beginning of every larger one. The classes take turns, each in a random order
    of its own; one that has fewer than `per_class` images gives all of them.

    Parameters
    ----------
    labels : numpy.ndarray
        (n_pool,) class codes.
    per_class : int
        Images of each class, at least 1.
    seed : int
        At least 0.

    Returns
    -------
    numpy.ndarray
        int64, positions in `labels`.
    """
    check_whole("per_class", per_class, 1)
    ranks = _ranks(labels, seed, _DRAW)
    chosen = np.flatnonzero(ranks < per_class)
    return chosen[np.lexsort((labels[chosen], ranks[chosen]))]


def validation_part(labels: np.ndarray, seed: int) -> np.ndarray | None:
    """Choose the images of a draw that a run is stopped or its settings are chosen by.

    Parameters
    ----------
    labels : numpy.ndarray
        (n_samples,) class codes of the draw.
    seed : int
        At least 0.

    Returns
    -------
    numpy.ndarray or None
        int64, sorted positions in the draw: `VALIDATION_SHARE` of each class, rounded. None when a class has fewer
        than `LEAST_FOR_VALIDATION` images.
    """
    counts = np.bincount(labels)
    if counts[counts > 0].min() < LEAST_FOR_VALIDATION:
        return None
    wanted = apportion(counts, share=VALIDATION_SHARE)
    return np.flatnonzero(_ranks(labels, seed, _VALIDATION) < wanted[labels])


def _ranks(labels: np.ndarray, seed: int, purpose: int) -> np.ndarray:
    """Return the place of each image in a random order of its class, which depends on no other class."""
    check_whole("seed", seed, 0)
    ranks = np.empty(len(labels), dtype=np.int64)
    classes, starts = np.unique(np.sort(labels), return_index=True)
    for label, members in zip(classes, np.split(np.argsort(labels, kind="stable"), starts[1:]), strict=True):
        order = np.random.default_rng([purpose, int(label), seed]).permutation(len(members))
        ranks[members[order]] = np.arange(len(members))
    return ranks


def _without_copies(target: "Target", pool: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Leave the images out of `pool` that are also, by their content, in `test`."""
    contents = target.contents
    tested = {contents[index] for index in test}
    copies = np.array([contents[index] in tested for index in pool], dtype=bool)
    if copies.any():
        warnings.warn(
            f"target {target.name!r}: {np.count_nonzero(copies)} of the {len(pool)} images to train on have the same "
            "content as a test image; they are left out, so that nothing is tested on what was trained on",
            TransferscopeWarning,
            stacklevel=3,
        )
    return pool[~copies]


def _refuse(target: "Target", wrong: np.ndarray, what: str) -> None:
    if wrong.any():
        raise InputError(f"target {target.name!r}: these {target.learnt.in_words} have {what}: {_named(target, wrong)}")


def _named(target: "Target", chosen: np.ndarray) -> str:
    names = [target.learnt.groups[index] for index in np.flatnonzero(chosen)]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
