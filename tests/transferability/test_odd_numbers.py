"""Features of odd numbers: every score is a value or a sentence."""

import math
import warnings

import numpy as np
import pytest

import transferscope as ts
from transferscope import similarity
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.similarity import MEASURES
from transferscope.transferability import SCORES

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 2], 20)
FEATURES = RNG.normal(size=(60, 8)) + 2 * (LABELS[:, None] == np.arange(8))
OTHERS = RNG.normal(size=(60, 5))
MATRIX = np.matrix  # not called, for it warns that it is of the past
OF_FEATURES = [name for name, score in SCORES.items() if score.needs == "features"]


@pytest.mark.parametrize(
    "scale", [1e300, 1e200, 1e51, 1e50 / 8, 1e30, 1e-30, 1e-49, 1e-51, 1e-200, 1e-320, 0.0, np.logspace(-300, 300, 8)]
)
def test_features_of_any_size_have_a_score_or_a_sentence(scale):
    features = FEATURES * scale
    largest = np.abs(features).max()
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            scores = ts.score(features, LABELS, OF_FEATURES).loc["features"]
    except InputError as error:
        refused = str(error)
        scores, said = {}, []
    else:
        refused = ""
    if refused:
        assert largest > 1e50 or largest < 1e-50
        assert "scale the features" in refused
        assert f"it is {largest:.3g}" in refused
        return
    assert largest == 0 or 1e-50 <= largest <= 1e50
    assert all(issubclass(each.category, TransferscopeWarning) for each in said)
    explained = " ".join(str(each.message) for each in said)
    assert all(math.isfinite(value) or f"{name} is NaN: " in explained for name, value in scores.items())


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_similarity_of_features_too_large_or_small_is_an_error(measure, scale):
    with pytest.raises(InputError, match="scale the features"):
        getattr(similarity, measure)(FEATURES * scale, OTHERS)


def test_scores_do_not_depend_on_the_scale_where_it_is_allowed():
    names = [name for name in OF_FEATURES if name in ("knn", "nearest_mean", "gbc", "sfda")]
    expected = ts.score(FEATURES, LABELS, names).loc["features"]
    for scale in (1e45, 1e-45):
        found = ts.score(FEATURES * scale, LABELS, names).loc["features"]
        np.testing.assert_allclose(found[["knn", "nearest_mean"]], expected[["knn", "nearest_mean"]])


@pytest.mark.parametrize("name", [*OF_FEATURES, "linear_cka"])
@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ma.masked_array(FEATURES, FEATURES > 2), "a masked one, with [1-9][0-9]* values missing"),
        (np.ma.masked_array(FEATURES), "a masked one, with 0 values missing"),
        (FEATURES.view(MATRIX), r"a numpy\.matrix"),
    ],
)
def test_arrays_that_lack_values_or_multiply_otherwise_are_an_error(name, array, says):
    with pytest.raises(InputError, match=says):
        similarity.linear_cka(array, OTHERS) if name == "linear_cka" else ts.score(array, LABELS, [name])


def test_masked_labels_are_an_error():
    with pytest.raises(InputError, match="a masked one, with 3 values missing; leave the samples out"):
        ts.score(FEATURES, np.ma.masked_array(LABELS, np.arange(60) < 3), ["knn"])
