"""Features of the same samples in two networks, for the tests of similarity."""

import numpy as np


def related(seed, n=40, p=6, q=9):
    """Features of the same samples in two networks that share something; read-only."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 4))
    pair = [shared @ rng.normal(size=(4, width)) + rng.normal(size=(n, width)) for width in (p, q)]
    for array in pair:
        array.flags.writeable = False
    return pair


def orthogonal(rng, p):
    return np.linalg.qr(rng.normal(size=(p, p)))[0]
