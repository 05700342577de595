"""The full-network embedding against loops over every number, and the linear SVM on top."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from transferscope.errors import InputError
from transferscope.protocols.heads.embedding import FullNetworkEmbedding, fit_embedding_head


def network_features(n=25, widths=(4, 7, 3, 6), seed=0):
    """Return features of a few layers, of very different scale and mean, one of them constant in every layer."""
    rng = np.random.default_rng(seed)
    layers = []
    for depth, width in enumerate(widths):
        layer = rng.normal(10.0**depth, 3.0**depth, (n, width)).astype(np.float32)
        layer[:, -1] = 0.1
        layers.append(layer)
    return layers


def reference(values, population, positive=0.15, negative=-0.25):
    """Return the embedding of `values`, z-scored by `population`, number by number."""
    out = []
    for row in values.tolist():
        embedded = []
        for column, value in enumerate(row):
            known = [other[column] for other in population.tolist()]
            mean = sum(known) / len(known)
            variance = sum((other - mean) ** 2 for other in known) / len(known)
            score = (value - mean) / variance**0.5 if max(known) > min(known) else 0.0
            embedded.append(1 if score > positive else -1 if score < negative else 0)
        out.append(embedded)
    return np.array(out)


@pytest.mark.parametrize("standardize", ["train", "split"])
def test_the_embedding_is_what_loops_give(standardize):
    train, test = network_features(), network_features(30, seed=1)
    embedding = FullNetworkEmbedding(standardize=standardize)
    fitted = embedding.fit_transform(train)
    np.testing.assert_array_equal(fitted, reference(np.hstack(train), np.hstack(train)))
    population = np.hstack(train if standardize == "train" else test)
    np.testing.assert_array_equal(embedding.transform(test), reference(np.hstack(test), population))
    assert set(np.unique(fitted)) == {-1, 0, 1}
    assert fitted.dtype == np.float32


def test_the_two_ways_to_standardize_differ_where_the_test_images_do():
    train = network_features()
    test = [layer + 5 * layer.std(axis=0) for layer in network_features(30, seed=1)]
    varying = FullNetworkEmbedding().fit(train).transform(test)[:, 0]
    assert (varying == 1).mean() > 0.9
    own = FullNetworkEmbedding(standardize="split").fit(train).transform(test)[:, 0]
    assert 0.2 < (own == 1).mean() < 0.8


def test_thresholds_are_parameters_and_a_score_on_them_is_typical():
    column = np.array([[-1.0], [-1.0], [1.0], [1.0]])
    # The z-scores are these numbers themselves.
    assert FullNetworkEmbedding().fit_transform(column).ravel().tolist() == [-1, -1, 1, 1]
    assert FullNetworkEmbedding(positive=1.0, negative=-1.0).fit_transform(column).ravel().tolist() == [0, 0, 0, 0]
    assert FullNetworkEmbedding(positive=2.0, negative=0.0).fit_transform(column).ravel().tolist() == [-1, -1, 0, 0]


def test_a_feature_that_is_constant_in_training_is_zero_everywhere():
    train, test = network_features(), network_features(9, seed=1)
    for layer in test:
        layer[:, -1] = np.linspace(-1e6, 1e6, 9)
    embedded = FullNetworkEmbedding().fit(train).transform(test)
    ends = np.cumsum([layer.shape[1] for layer in train]) - 1
    assert not embedded[:, ends].any()
    assert embedded[:, ends - 1].any()


@pytest.mark.parametrize(
    ("share", "kept"),
    [("all", 4), ("upper 75%", 3), ("upper 50%", 2), ("upper 25%", 1), (1.0, 4), (0.7, 2), (0.25, 1), (0.01, 1)],
)
def test_a_share_of_the_layers_is_the_last_ones_rounded_down_but_at_least_one(share, kept):
    train, test = network_features(), network_features(5, seed=1)
    embedded = FullNetworkEmbedding(share).fit(train).transform(test)
    np.testing.assert_array_equal(embedded, FullNetworkEmbedding().fit(train[-kept:]).transform(test[-kept:]))


@pytest.mark.parametrize(("share", "kept"), [("all", 15), ("upper 75%", 11), ("upper 50%", 7), ("upper 25%", 3)])
def test_the_sets_of_the_15_layers_of_a_vgg16_are_as_large_as_published(share, kept):
    layers = [np.eye(3)[:, [0]]] * 15
    assert FullNetworkEmbedding(share).fit_transform(layers).shape == (3, kept)


def test_a_share_that_only_rounding_puts_below_a_whole_number_keeps_that_number():
    layers = [np.eye(3)[:, [0]]] * 100
    assert 0.29 * 100 < 29
    assert FullNetworkEmbedding(0.29).fit_transform(layers).shape == (3, 29)


def test_one_matrix_stands_for_all_layers_side_by_side():
    train = network_features()
    whole = FullNetworkEmbedding().fit_transform(np.hstack(train))
    np.testing.assert_array_equal(whole, FullNetworkEmbedding().fit_transform(train))
    np.testing.assert_array_equal(FullNetworkEmbedding().fit_transform([[1, 2], [3, 2]]), [[-1, 0], [1, 0]])


def test_it_is_a_scikit_learn_transformer():
    embedding = FullNetworkEmbedding("upper 50%", positive=0.5, negative=-0.5, standardize="split")
    parameters = {"layers": "upper 50%", "positive": 0.5, "negative": -0.5, "standardize": "split"}
    assert embedding.get_params() == parameters
    assert clone(embedding.fit(network_features())).get_params() == parameters
    with pytest.raises(NotFittedError):
        clone(embedding).transform(network_features())
    pixels, labels = load_digits(return_X_y=True)
    pipeline = make_pipeline(FullNetworkEmbedding(), LinearSVC(C=0.01)).fit(pixels[:900], labels[:900])
    assert pipeline.score(pixels[900:], labels[900:]) > 0.85


def test_input_is_left_alone():
    train = network_features()
    before = [layer.copy() for layer in train]
    FullNetworkEmbedding().fit_transform(train)
    for layer, copy in zip(train, before, strict=True):
        np.testing.assert_array_equal(layer, copy)


# --- the head -------------------------------------------------------------------------------------------------------


def labelled(n, seed, classes=3):
    """Return features of three layers that follow the class, and the labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    means = [np.random.default_rng(50 + depth).normal(size=(classes, 40)) for depth in range(3)]
    return [(mean[labels] + rng.normal(size=(n, 40))).astype(np.float32) for mean in means], labels


@pytest.mark.parametrize("share", ["all", "upper 50%", 0.2])
@pytest.mark.parametrize("standardize", ["train", "split"])
def test_the_head_is_a_linear_svm_of_c_one_on_the_embedding(share, standardize):
    (train, labels), (test, truth) = labelled(30, 0), labelled(150, 1)
    embedding = FullNetworkEmbedding(share, standardize=standardize).fit(train)
    plain = LinearSVC(C=1.0, dual=True, tol=1e-6, max_iter=100_000, random_state=0)
    scores = plain.fit(embedding.transform(train), labels).decision_function(embedding.transform(test))
    fit = fit_embedding_head(train, labels, share, standardize=standardize)
    predictions = fit.predict(test)
    # The loose tolerance may show where two classes are about as likely.
    ranked = np.sort(scores, axis=1)
    clear = ranked[:, -1] - ranked[:, -2] > 0.05
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(predictions[clear], scores.argmax(axis=1)[clear])
    assert np.mean(predictions == truth) > 0.9
    assert predictions.dtype == np.int64
    assert (fit.trials, fit.validation_accuracy) == (1, None)
    again = fit_embedding_head(train, labels, share, standardize=standardize)
    np.testing.assert_array_equal(predictions, again.predict(test))


def test_with_split_alone_the_images_beside_an_image_matter():
    (train, labels), (test, _) = labelled(30, 0), labelled(150, 1)
    shifted = [layer + 100 * layer.std(axis=0) for layer in test]
    split = fit_embedding_head(train, labels, standardize="split")
    np.testing.assert_array_equal(split.predict(shifted), split.predict(test))
    kept = fit_embedding_head(train, labels)
    # All features of all images are high.
    assert len(set(kept.predict(shifted))) == 1
    alone = [layer[:1] for layer in test]
    assert kept.predict(alone) == kept.predict(test)[0]


def test_codes_of_absent_classes_are_never_predicted_and_one_image_of_each_is_enough():
    (train, labels), (test, truth) = labelled(2, 0), labelled(60, 1)
    predictions = fit_embedding_head(train, 3 * labels + 1).predict(test)
    assert set(predictions) == {1, 4}
    assert np.mean((predictions == 3 * truth + 1)[truth < 2]) > 0.9


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", ["upper 10%", 0.0, 1.5, -0.5])
def test_an_unknown_share_is_an_input_error(share):
    with pytest.raises(InputError, match=r"one of all, upper 75%, upper 50%, upper 25% or a share in \(0, 1\]"):
        FullNetworkEmbedding(share).fit(network_features())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"standardize": "test"}, "'train' or 'split', but got 'test'"),
        ({"positive": -1.0}, "`negative` at most `positive`, but got -0.25 and -1.0"),
        ({"positive": float("nan")}, "at most `positive`"),
    ],
)
def test_parameters_that_mean_nothing_are_an_input_error(parameters, message):
    with pytest.raises(InputError, match=message):
        FullNetworkEmbedding(**parameters).fit(network_features())


def test_layers_that_do_not_fit_are_an_input_error():
    train = network_features()
    with pytest.raises(InputError, match="a list of layers to keep 'upper 50%' of them, but got one matrix"):
        FullNetworkEmbedding("upper 50%").fit(np.hstack(train))
    with pytest.raises(InputError, match=r"layers of \[4, 7, 3, 6\] features, as fitted to, but got \[4, 7, 3\]"):
        FullNetworkEmbedding().fit(train).transform(train[:3])
    with pytest.raises(InputError, match=r"layers of the same images, but they have \[24, 25\] rows"):
        FullNetworkEmbedding().fit([train[0], train[1][1:]])
    broken = [layer.copy() for layer in train]
    broken[2][1, 1] = np.nan
    with pytest.raises(InputError, match="`X`"):
        FullNetworkEmbedding().fit(broken)
    with pytest.raises(InputError, match="`X`"):
        FullNetworkEmbedding().fit(train).transform(broken)
    with pytest.raises(InputError, match="`labels`"):
        fit_embedding_head(train, np.zeros(25, int))
    fit = fit_embedding_head(train, np.arange(25) % 2, "upper 50%")
    with pytest.raises(InputError, match=r"layers of \[4, 7, 3, 6\] features, as fitted to, but got \[3, 6\]"):
        fit.predict(train[2:])
    with pytest.raises(InputError, match="`X`"):
        fit.predict(broken)
