"""The effective rank of features, against its formula and where it is known."""

import math

import numpy as np
import pytest

from transferscope.errors import InputError
from transferscope.transferability import effective_rank


@pytest.mark.parametrize(("n", "p"), [(30, 5), (12, 40)])
def test_it_is_the_exponential_of_an_entropy(xp, n, p):
    X = np.random.default_rng(0).normal(size=(n, p)) * np.arange(1, p + 1) + 3
    values = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    values = values[: min(n - 1, p)]
    entropy = -sum(v / values.sum() * math.log(v / values.sum()) for v in values)
    assert effective_rank(xp.asarray(X)) == pytest.approx(math.exp(entropy), rel=1e-9)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_of_equally_long_directions_it_is_their_number(xp, k):
    directions = np.linalg.qr(np.random.default_rng(k).normal(size=(20, k)))[0].T
    X = np.concatenate([directions, -directions])  # centred as they are
    assert effective_rank(xp.asarray(X)) == pytest.approx(k)


def test_constant_features_have_none(xp):
    assert effective_rank(xp.asarray(np.full((10, 4), 2.5))) == 0.0


def test_it_looks_at_no_labels_but_takes_none_that_are_wrong():
    X = np.random.default_rng(0).normal(size=(12, 4))
    assert effective_rank(X) == effective_rank(X, np.arange(12) % 3) == effective_rank(X, np.arange(12) % 2)
    with pytest.raises(InputError, match="at least 2 classes"):
        effective_rank(X, np.zeros(12, int))
