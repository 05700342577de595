"""Fitted heads as modules of torch: they predict what the fitted head does, and score as scikit-learn does."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from transferscope.protocols.heads.embedding import fit_embedding_head
from transferscope.protocols.heads.linear import fit_head
from transferscope.protocols.heads.modules import HeadScores
from transferscope.protocols.heads.toptuning import NystromKernelRidge, fit_top_tuning_head


def clusters(classes, n_features, seed=0, n=60):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = 2 * rng.normal(size=(classes, n_features)) + 30  # far from 0, where differences cancel
    features = centres[labels] + 1.5 * rng.normal(size=(n, n_features))
    features[:, 0] = 7  # one that does not vary
    return features.astype(np.float32), labels


def scores(fit, features):
    return HeadScores(fit.arrays)(torch.from_numpy(features)).numpy()


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("n_features", [5, 90])  # fewer than images, and more
@pytest.mark.parametrize("name", ["truncate", "svm", "nearest_mean", "toptuning"])
def test_the_largest_score_is_what_the_head_predicts(name, n_features, classes):
    train, labels = clusters(classes, n_features)
    test, _ = clusters(classes, n_features, seed=1, n=200)
    test[:, 1:] = test[:, 1:] * 0.2 + train[np.arange(200) % 60][:, 1:] * 0.8
    fit = fit_top_tuning_head(train, labels, None, 0) if name == "toptuning" else fit_head(name, train, labels, None, 0)
    predicted = fit.predict(test)
    assert len(set(predicted)) == classes
    np.testing.assert_array_equal(scores(fit, test).argmax(1), predicted)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_full_network_embedding_predicts_the_same(classes):
    train, labels = clusters(classes, 12)
    test, _ = clusters(classes, 12, n=90)
    layers = [train[:, :5], train[:, 5:]]
    for share in ("all", "upper 50%"):
        fit = fit_embedding_head(layers, labels, share)
        kept = test if share == "all" else test[:, 5:]
        np.testing.assert_array_equal(scores(fit, kept).argmax(1), fit.predict([test[:, :5], test[:, 5:]]))


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_of_a_logistic_regression_are_scikit_learns(classes):
    train, labels = clusters(classes, 8)
    fit = fit_head("truncate", train, labels, None, 0)
    scaler = StandardScaler().fit(train.astype(np.float64))
    reference = LogisticRegression(C=0.1, tol=1e-5, max_iter=2000).fit(scaler.transform(train), labels)
    ours = torch.softmax(torch.from_numpy(scores(fit, train)), 1)
    np.testing.assert_allclose(ours, reference.predict_proba(scaler.transform(train)), atol=1e-4)


def test_values_of_top_tuning_are_those_of_the_regression():
    train, labels = clusters(3, 6)
    fit = fit_top_tuning_head(train, labels, None, 0)
    np.testing.assert_allclose(
        scores(fit, train), NystromKernelRidge(random_state=0).fit(train, labels).decision_function(train), atol=1e-9
    )


def test_one_can_be_made_to_load_into():
    train, labels = clusters(3, 6)
    made = HeadScores(fit_head("truncate", train, labels, None, 0).arrays)
    again = HeadScores.like({name: tuple(tensor.shape) for name, tensor in made.state_dict().items()})
    again.load_state_dict(made.state_dict())
    inputs = torch.from_numpy(train)
    assert torch.equal(again(inputs), made(inputs))
