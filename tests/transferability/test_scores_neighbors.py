"""k-NN and nearest class mean, left out one by one: against scikit-learn refitted without the sample."""

from functools import partial

import labelled_features
import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid, NearestNeighbors

from transferscope import transferability
from transferscope.errors import InputError

task = partial(labelled_features.task, signal=0.6)


def slow_knn(X, codes, k, metric):
    """Refit without each sample; equal votes go to the class with the greater sum of similarities."""
    right = []
    for i in range(len(X)):
        others = np.arange(len(X)) != i
        search = NearestNeighbors(n_neighbors=k, metric=metric).fit(X[others])
        distances, places = search.kneighbors(X[i : i + 1])
        classes = codes[others][places[0]]
        nearness = 1 - distances[0] / 2 if metric == "cosine" else -(distances[0] ** 2)
        ranking = [(np.sum(classes == c), np.sum(nearness[classes == c]), c) for c in np.unique(classes)]
        right.append(max(ranking)[2] == codes[i])
    return np.mean(right)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("k", [1, 4, 5])
@pytest.mark.parametrize(("n", "p", "classes"), [(60, 5, 3), (40, 90, 4)])
def test_knn_is_that_of_refitting_without_the_sample(xp, n, p, classes, k, metric):
    X, codes = task(n, p, classes)
    value = transferability.knn(xp.asarray(X), codes, k=k, metric=metric)
    assert type(value) is float
    assert 0.2 < value < 1
    assert value == pytest.approx(slow_knn(X, codes, k, metric), abs=1e-12)


def test_a_copy_of_a_sample_is_its_neighbour_but_the_sample_is_not(xp):
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(20, 8)), np.arange(20) % 2
    twice = xp.asarray(np.repeat(X, 2, axis=0))
    assert transferability.knn(twice, np.repeat(codes, 2), k=1) == 1
    assert transferability.knn(twice, np.arange(40) % 2, k=1) == 0


def test_all_that_are_as_near_as_the_last_neighbour_vote(xp):
    # On a line: 0 and 0 are of class a; 1, 1, 1 of class b are equally far from them.
    X, codes = np.array([[0.0], [0.0], [1.0], [1.0], [1.0]]), np.array(list("aabbb"))
    for order in (np.arange(5), np.array([4, 0, 2, 1, 3])):
        score = transferability.knn(xp.asarray(X[order]), codes[order].tolist(), k=2, metric="euclidean")
        # Each a sees the other a and three b; each b the two other b alone.
        assert score == pytest.approx(3 / 5)


def test_equal_votes_go_to_the_nearer_class_and_a_full_tie_is_wrong(xp):
    X = np.array([[0.0], [1.0], [-1.5], [10.0]])
    # The first sample has a neighbour of its class at 1 and one of the other at 1.5.
    assert transferability.knn(xp.asarray(X), [0, 0, 1, 1], k=2, metric="euclidean") == pytest.approx(2 / 4)
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert transferability.knn(xp.asarray(square), [0, 0, 1, 1], k=1, metric="euclidean") == 0


def test_knn_of_constant_features_is_the_majority_of_the_others(xp):
    features = xp.full((10, 3), 0.7)
    assert transferability.knn(features, np.arange(10) % 2) == 0
    assert transferability.knn(features, np.arange(10) < 7) == pytest.approx(0.7)


def test_more_neighbours_than_samples_are_all_others(xp):
    X, codes = task(12, 4)
    features = xp.asarray(X)
    assert transferability.knn(features, codes, k=50) == transferability.knn(features, codes, k=11)


def test_cosine_sees_directions_alone_and_huge_or_tiny_rows_too(xp):
    X, codes = task(30, 6)
    sizes = np.logspace(-50, 45, 30)[:, None]
    assert transferability.knn(xp.asarray(X * sizes), codes) == transferability.knn(xp.asarray(X), codes)
    X = np.vstack([X, np.zeros((2, 6))])
    assert 0 <= transferability.knn(xp.asarray(X), [*codes, 0, 1]) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"k": 0}, "`k`.*at least 1.*0"), ({"k": 2.5}, "`k`"), ({"metric": "l1"}, "'cosine' or 'euclidean' but got 'l1'")],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(InputError, match=message):
        transferability.knn(np.eye(4), [0, 1, 0, 1], **options)


@pytest.mark.parametrize(("n", "p", "classes"), [(40, 3, 3), (31, 60, 5), (200, 8, 60)])
def test_nearest_mean_is_that_of_refitting_without_the_sample(xp, n, p, classes):
    X, codes = task(n, p, classes, signal=0.3)
    everyone = np.arange(n)
    guesses = [NearestCentroid().fit(X[everyone != i], codes[everyone != i]).predict(X[i : i + 1])[0] for i in everyone]
    value = transferability.nearest_mean(xp.asarray(X), codes)
    assert type(value) is float
    assert 0 < value < 1
    assert value == pytest.approx(np.mean(guesses == codes), abs=1e-12)


def test_nearest_mean_of_a_single_sample_is_wrong(xp):
    X = np.array([[0.0], [0.1], [0.2], [9.0]])
    assert transferability.nearest_mean(xp.asarray(X), [0, 0, 0, 1]) == pytest.approx(3 / 4)
    assert transferability.nearest_mean(xp.asarray(X[2:]), [0, 1]) == 0


def test_nearest_mean_of_constant_features_is_zero(xp):
    assert transferability.nearest_mean(xp.full((10, 3), 0.7), np.arange(10) < 7) == 0
