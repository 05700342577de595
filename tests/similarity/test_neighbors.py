"""Mutual nearest neighbours and information imbalance: plain references, ties, and what rounding makes of them."""

import numpy as np
import pytest
import scipy.stats
from feature_pairs import related
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

from transferscope import similarity
from transferscope.arrays import linalg
from transferscope.arrays.backend import to_numpy
from transferscope.errors import InputError
from transferscope.similarity import Representation
from transferscope.similarity.dissimilarity import dissimilarities, from_upper_triangle, midranks, upper_triangle


def plain_imbalance(X, Y):
    """Loops over samples; ranks of ties averaged by scipy, and over tied nearest neighbours by hand."""
    n = len(X)
    total = 0
    for i in range(n):
        others = [j for j in range(n) if j != i]
        near = np.round([np.sum((X[i] - X[j]) ** 2) for j in others], 9)
        ranks = scipy.stats.rankdata(np.round([np.sum((Y[i] - Y[j]) ** 2) for j in others], 9))
        total += np.mean(ranks[near == near.min()])
    return 2 / n**2 * total


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("k", [1, 5, 38])
def test_mutual_knn_against_sklearn(xp, metric, k):
    X, Y = related(0)
    X = X + 0.3
    found = [NearestNeighbors(n_neighbors=k, metric=metric).fit(F).kneighbors(return_distance=False) for F in (X, Y)]
    expected = np.mean([len(set(a) & set(b)) / k for a, b in zip(*found, strict=True)])
    assert similarity.mutual_knn(xp.asarray(X), xp.asarray(Y), k=k, metric=metric) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [0, -1, 39])
def test_k_fits_the_samples(xp, k):
    X, Y = (xp.asarray(F) for F in related(0))
    with pytest.raises(InputError, match="`k` to be a whole number between 1 and n_samples - 2 = 38 but got"):
        similarity.mutual_knn(X, Y, k=k)


def test_imbalance_against_loops(xp):
    X, Y = related(1)
    value = similarity.information_imbalance(xp.asarray(X), xp.asarray(Y))
    assert value == pytest.approx(plain_imbalance(X, Y), abs=1e-12)
    back = similarity.information_imbalance(xp.asarray(Y), xp.asarray(X))
    assert back == pytest.approx(plain_imbalance(Y, X), abs=1e-12)


def test_imbalance_by_hand(xp):
    """Points 0 1 3 7 on a line against 0 1 3 -2: neighbours 1 0 1 2; ranks there 1 1 1 3, so that Δ = 2/16 · 6."""
    X, Y = xp.asarray([[0.0], [1], [3], [7]]), xp.asarray([[0.0], [1], [3], [-2]])
    assert similarity.information_imbalance(X, Y) == pytest.approx(2 / 16 * 6, abs=1e-15)


def test_a_projection_is_predicted_but_does_not_predict(xp):
    X = np.random.default_rng(0).normal(size=(300, 2))
    plane, line = xp.asarray(X), xp.asarray(X[:, :1])
    assert similarity.information_imbalance(plane, line) < 0.2
    assert similarity.information_imbalance(line, plane) > 0.4


@pytest.mark.parametrize("turned", [False, True])
def test_ties_are_shared_whatever_rounding_makes_of_them(xp, turned):
    """A lattice, turned or far from the origin: most distances tie, and hardly any exactly once it is centred."""
    rng = np.random.default_rng(0)
    X = np.stack(np.meshgrid(*[np.arange(4.0)] * 2), axis=-1).reshape(-1, 2)
    Y = rng.integers(0, 3, size=(16, 3)).astype(float)
    maps = [np.linalg.qr(rng.normal(size=(p, p)))[0] for p in (2, 3)]
    moved = [F @ Q if turned else F + 1e6 for F, Q in zip((X, Y), maps, strict=True)]
    for A, B, f, g in ((X, Y, *moved), (Y, X, *moved[::-1])):
        value = similarity.information_imbalance(xp.asarray(f), xp.asarray(g))
        assert value == pytest.approx(plain_imbalance(A, B), abs=1e-12)


def test_of_equally_near_neighbours_the_first_is_taken(xp):
    """Four points of a square and their centre: each corner's nearest is the centre, then the first side."""
    square = np.array([[0.0, 0], [0, 2], [2, 2], [2, 0], [1, 1]])
    angle = 0.3
    turned = square @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    # Neighbours by that rule: {4, 1}, {4, 0}, {4, 1}, {4, 0}, {0, 1}.
    line = np.array([[0.0], [1], [10], [-10.5], [3]])
    # On the line: {1, 4}, {0, 4}, {4, 1}, {0, 1}, {1, 0}.
    expected = (2 + 2 + 2 + 1 + 2) / 10
    assert similarity.mutual_knn(xp.asarray(turned), xp.asarray(line), k=2) == pytest.approx(expected, abs=1e-15)


def test_duplicates_are_neighbours_and_never_themselves(xp):
    X = np.repeat(np.random.default_rng(0).normal(size=(5, 3)), 3, axis=0)
    far = np.random.default_rng(1).normal(size=(15, 3)) * 1e-3 + np.repeat(np.arange(5.0), 3)[:, None]
    assert similarity.mutual_knn(xp.asarray(X), xp.asarray(far), k=2) == pytest.approx(1, abs=1e-15)
    # Two duplicates at ranks 1 and 2 of each other: 1.5 on average.
    assert similarity.information_imbalance(xp.asarray(X), xp.asarray(X)) == pytest.approx(2 / 15 * 1.5, abs=1e-15)


def test_large_k_and_blocks_of_rows(xp, monkeypatch):
    """What does not fit at once is done in blocks: the same numbers."""
    X, Y = (xp.asarray(F) for F in related(2))
    whole = [f(X, Y) for f in (similarity.mutual_knn, similarity.information_imbalance, similarity.rsa, similarity.cca)]
    monkeypatch.setattr(linalg, "BLOCK", 50)
    parts = [f(X, Y) for f in (similarity.mutual_knn, similarity.information_imbalance, similarity.rsa, similarity.cca)]
    assert parts == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("kind", ["correlation", "cosine", "euclidean"])
def test_dissimilarities_are_those_of_scipy(xp, kind, centered):
    X = related(3)[0] + 2
    measured = to_numpy(dissimilarities(Representation(xp.asarray(X)), kind, centered=centered))
    A = X - X.mean(axis=0) if centered else X
    expected = cdist(A, A, "sqeuclidean" if kind == "euclidean" else kind)
    np.testing.assert_allclose(measured, expected, atol=1e-12)
    assert not np.any(np.diag(measured))


def test_small_angles_keep_their_digits(xp):
    """Features far from zero all point the same way: 1 - cos would be rounding noise."""
    X = np.random.default_rng(0).normal(size=(10, 3)) * 1e-6 + 1
    measured = to_numpy(dissimilarities(Representation(xp.asarray(X)), "cosine"))
    exact = X.astype(np.longdouble)
    cross = np.cross(exact[:, None], exact[None, :])
    norms = np.sqrt(np.sum(exact**2, axis=1))
    sine = np.sqrt(np.sum(cross**2, axis=-1)) / (norms[:, None] * norms)
    np.testing.assert_allclose(measured, (sine**2 / 2).astype(float), rtol=1e-6, atol=1e-19)


def test_midranks_are_those_of_scipy(xp):
    values = np.random.default_rng(0).integers(0, 6, size=(7, 30)).astype(float)
    expected = [scipy.stats.rankdata(row) - 1 for row in values]
    np.testing.assert_array_equal(to_numpy(midranks(xp.asarray(values), 0.0)), expected)
    noisy = values + np.random.default_rng(1).uniform(0, 1e-3, size=values.shape)
    np.testing.assert_array_equal(to_numpy(midranks(xp.asarray(noisy), 0.01)), expected)


def test_upper_triangles_go_there_and_back(xp):
    M = np.random.default_rng(0).normal(size=(6, 6))
    M = M + M.T
    np.fill_diagonal(M, 0)
    values = upper_triangle(xp.asarray(M))
    np.testing.assert_array_equal(to_numpy(values), M[np.triu_indices(6, 1)])
    np.testing.assert_array_equal(to_numpy(from_upper_triangle(values, 6)), M)
