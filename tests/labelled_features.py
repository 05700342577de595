"""Features with class labels, for the tests of transferability scores."""

import numpy as np


def task(n, p, classes=3, *, seed=0, signal=1.0):
    """Features (n, p) around the means of their classes, and codes of those; more signal is easier."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.arange(n) % classes)
    X = rng.normal(size=(n, p)) + signal * rng.normal(size=(classes, p))[codes] + 0.5
    X.flags.writeable = codes.flags.writeable = False
    return X, codes


def one_hot(codes):
    return np.eye(codes.max() + 1)[codes]
