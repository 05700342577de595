"""What every registered score has to do, and the panel of them all."""

import math
import re
import warnings

import numpy as np
import pytest
from labelled_features import task

from transferscope import transferability
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.transferability import SCORES, layer

FROM_FEATURES = [name for name, score in SCORES.items() if score.needs == "features"]
FROM_PROBABILITIES = [name for name in SCORES if name not in FROM_FEATURES]

# What the registry says of the range, in numbers, for n samples and C classes.
RANGES = {
    "(-∞, ∞)": lambda n, C: (-math.inf, math.inf),
    "(-∞, 0]": lambda n, C: (-math.inf, 0),
    "[0, ∞)": lambda n, C: (0, math.inf),
    "[0, n)": lambda n, C: (0, n - 1),
    "[0, 1]": lambda n, C: (0, 1),
    "[-1, 1]": lambda n, C: (-1, 1),
    "[0, C - 1]": lambda n, C: (0, C - 1),
    "[-C (C - 1) / 2, 0]": lambda n, C: (-C * (C - 1) / 2, 0),
    "[-ln n, 0]": lambda n, C: (-math.log(n), 0),
    "[-ln C, 0]": lambda n, C: (-math.log(C), 0),
}


def material(name, X):
    """What the score is computed from: the features, or something like predictions made of them."""
    if name in FROM_FEATURES:
        return X
    powers = np.exp(X[:, :8] - X[:, :8].max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def assert_in_range(name, value, labels):
    low, high = RANGES[SCORES[name].range](len(labels), len(np.unique(labels)))
    assert type(value) is float
    assert low - 1e-9 <= value <= high + 1e-9


def assert_stated(name, X, labels):
    """Either a number in the score's range, or NaN or infinity with a warning, or an error that says what to do."""
    message = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = SCORES[name].function(X, labels)
        except InputError as error:
            message = str(error)
    if message is not None:
        # What was expected, what came; what to do.
        assert re.fullmatch(r"Expected .* but .*; .*", message)
        return
    assert {each.category for each in caught} <= {TransferscopeWarning}
    if math.isfinite(value):
        assert_in_range(name, value, labels)
    else:
        assert name in ("alignment", "logme")
        assert len(caught) == 1


# The registry -------------------------------------------------------------------------------------


def test_the_registry_holds_every_score_under_its_own_name():
    expected = "logme hscore transrate nleep gbc parc sfda knn nearest_mean ridge kernel_ridge alignment effective_rank"
    assert list(SCORES) == [*expected.split(), "leep", "nce"]
    assert FROM_PROBABILITIES == ["leep", "nce"]
    for name, score in SCORES.items():
        assert score.name == name
        assert score.function is getattr(transferability, name)
        assert score.title
        assert score.paper
        assert score.cost
        if name in FROM_FEATURES:
            assert score.from_layer is getattr(transferability, f"{name}_from_layer")


# The panel ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 8), (30, 60)])
def test_panel_holds_what_each_score_gives_alone(xp, shape):
    X, codes = task(*shape)
    features = xp.asarray(X.astype(np.float32))
    probabilities = xp.asarray(material("leep", X))
    found = transferability.panel(features, codes, source_probabilities=probabilities)
    assert list(found) == list(SCORES)
    for name, score in SCORES.items():
        alone = score.function(features if name in FROM_FEATURES else probabilities, codes)
        assert found[name] == pytest.approx(alone, rel=1e-12)
    assert list(transferability.panel(features, codes)) == FROM_FEATURES


def test_panel_factors_the_features_once(monkeypatch):
    calls = []
    real = layer.thin_svd
    monkeypatch.setattr(layer, "thin_svd", lambda *given, **options: calls.append(given) or real(*given, **options))
    X, codes = task(60, 12)
    transferability.panel(X, codes)
    assert len(calls) == 1


def test_panel_takes_names_in_the_order_given():
    X, codes = task(30, 6)
    assert list(transferability.panel(X, codes, ["ridge", "logme", "ridge"])) == ["ridge", "logme"]
    assert list(transferability.panel(X, codes, "gbc")) == ["gbc"]


@pytest.mark.parametrize(
    ("measures", "message"),
    [
        (["logme", "hscroe"], "'hscroe' is none; did you mean 'hscore'"),
        ("xyz", "'xyz' is none; there are logme, hscore"),
        ([3], "3 is none"),
        ([], "at least one score"),
        (["leep"], "Expected `source_probabilities` for 'leep'"),
    ],
)
def test_wrong_measures_raise(measures, message):
    with pytest.raises(InputError, match=message):
        transferability.panel(*task(30, 6), measures)


def test_a_score_that_is_not_defined_takes_no_other_down():
    """Every sample a class of its own: PARC and GBC raise, the alignment warns."""
    X = task(12, 4)[0]
    with pytest.warns(TransferscopeWarning) as caught:
        found = transferability.panel(X, np.arange(12))
    said = " ".join(str(each.message) for each in caught)
    assert "the score parc is NaN: Expected `labels`" in said
    assert "the score gbc is NaN" in said
    assert np.isnan([found["parc"], found["gbc"], found["alignment"]]).all()
    assert found["ridge"] == found["knn"] == found["nearest_mean"] == 0
    assert math.isfinite(found["logme"])


def test_what_is_no_input_is_an_error_of_the_whole_panel():
    X, codes = task(30, 6)
    with pytest.raises(InputError, match="`labels`"):
        transferability.panel(X, codes[:-1])
    with pytest.raises(InputError, match="NaN"):
        transferability.panel(np.where(X > 2, np.nan, X), codes)
    with pytest.raises(InputError, match="`source_probabilities`"):
        transferability.panel(X, codes, ["ridge", "nce"], source_probabilities=X)


# Every score --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("n", "p"), [(40, 7), (30, 60)])
@pytest.mark.parametrize("name", FROM_FEATURES)
def test_invariances_that_are_claimed(xp, name, n, p, seed):
    X, codes = task(n, p, seed=seed, signal=0.6)
    rng = np.random.default_rng(seed)
    score = lambda A, c: SCORES[name].function(xp.asarray(A), c)  # noqa: E731
    value = score(X, codes)
    assert_in_range(name, value, codes)
    order, rotation = rng.permutation(n), np.linalg.qr(rng.normal(size=(p, p)))[0]
    same = pytest.approx(value, abs=1e-7)
    assert score(X[order], codes[order]) == same
    assert score(X, 2 - codes) == same
    maps = {"rotation": X @ rotation, "scale": 37.0 * X, "shift": X + rng.normal(size=p)}
    # These two look at how features lie to the origin.
    for claimed in maps.keys() - ({"shift"} if name in ("logme", "knn") else set()):
        assert score(maps[claimed], codes) == same, claimed


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("n", "p"), [(40, 5), (40, 40), (40, 1500), (300, 20), (300, 300)])
@pytest.mark.parametrize("name", [name for name in SCORES if name != "effective_rank"])  # which looks at no labels
def test_noise_never_beats_features_that_tell_the_classes_apart(name, n, p, seed):
    X, codes = task(n, p, classes=4, seed=seed)
    noise = np.random.default_rng(seed + 100).normal(size=(n, p)) + 0.5
    if name in FROM_PROBABILITIES and p < 8:
        pytest.skip("needs features to make probabilities of")
    score = SCORES[name].function
    informative, other = (score(material(name, A), codes) for A in (X, noise))
    assert informative > other


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X, y[:-1]), "`labels`"),
        (lambda X, y: (X, np.zeros(len(y), int)), "at least 2 classes"),
        (lambda X, y: (X, y / 2), "integers, booleans or strings"),
        (lambda X, y: (np.where(np.arange(len(X)) == 3, np.nan, X.T).T, y), "NaN"),
        (lambda X, y: (X[:1], y[:1]), "at least 2 samples"),
        (lambda X, y: (X[:, 0], y), "shape"),
    ],
)
def test_input_that_is_none_raises(name, change, message):
    X, codes = task(20, 8)
    with pytest.raises(InputError, match=message):
        SCORES[name].function(*change(material(name, X), codes))


@pytest.mark.parametrize("name", SCORES)
def test_labels_of_any_kind_give_the_same(name):
    X, codes = task(30, 8, classes=2)
    given = material(name, X)
    value = SCORES[name].function(given, codes)
    for labels in (codes == 1, np.array(["cat", "dog"])[codes].tolist(), codes.astype(np.uint8) * 200):
        assert SCORES[name].function(given, labels) == pytest.approx(value, abs=1e-12)


def odd_inputs():
    X, codes = task(40, 8)
    rng = np.random.default_rng(1)
    yield "a class with a single sample", X, np.where(np.arange(40) == 0, 9, codes)
    yield "every sample a class", X, np.arange(40)
    yield "two samples", X[:2], np.array([0, 1])
    yield "five samples", X[:5], np.array([0, 1, 0, 1, 1])
    yield "five samples, many features", rng.normal(size=(5, 3000)), np.array([0, 1, 0, 1, 2])
    yield "constant features", np.full((40, 8), 0.3), codes
    yield "zero features", np.zeros((40, 8)), codes
    yield "one feature", X[:, :1], codes
    yield "every row twice", np.repeat(X, 2, axis=0), np.repeat(codes, 2)
    yield "the labels themselves", np.eye(3)[codes], codes
    yield "integer features", np.round(X).astype(np.int32), codes
    yield "boolean features", X > 0.5, codes
    yield "tiny features", X * 1e-30, codes
    yield "huge features", X * 1e30, codes
    yield "half precision", X.astype(np.float16), codes


@pytest.mark.parametrize(("X", "labels"), [pytest.param(*rest, id=kind) for kind, *rest in odd_inputs()])
def test_odd_features_give_a_stated_result_or_an_error_that_says_what_to_do(xp, X, labels):
    if X.dtype == np.float16 and xp.__name__ == "array_api_strict":
        pytest.skip("has no half precision")
    for name in FROM_FEATURES:
        assert_stated(name, xp.asarray(X), labels)


@pytest.mark.parametrize("name", FROM_PROBABILITIES)
@pytest.mark.parametrize("labels", [np.arange(12), np.r_[np.zeros(11, int), 1]], ids=["every sample", "one sample"])
@pytest.mark.parametrize(
    "probabilities",
    [np.full((12, 4), 0.25), np.eye(12), np.eye(4)[np.arange(12) % 3], np.full((12, 1), 1.0)],
    ids=["constant", "one each", "certain", "one class"],
)
def test_odd_probabilities_give_a_stated_result(xp, name, labels, probabilities):
    assert_in_range(name, SCORES[name].function(xp.asarray(probabilities), labels), labels)


@pytest.mark.parametrize("name", SCORES)
def test_a_thousand_classes(name):
    rng = np.random.default_rng(0)
    labels = np.r_[np.arange(1000), np.arange(20)]
    X = (rng.normal(size=(1000, 16))[labels] + 0.05 * rng.normal(size=(1020, 16))).astype(np.float32)
    assert_stated(name, material(name, X), labels)
