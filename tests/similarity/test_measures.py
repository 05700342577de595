"""Every measure against a slow plain reference, its invariances, and all pairs at once against one pair at a time."""

import warnings
from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from feature_pairs import orthogonal, related
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from transferscope import similarity
from transferscope.arrays.backend import to_numpy
from transferscope.arrays.linalg import standardize
from transferscope.errors import InputError, TransferscopeWarning
from transferscope.similarity import MEASURES, Representation
from transferscope.similarity.dissimilarity import dissimilarities

RIGID = {"orthogonal", "shift"}
# Each function, what its value for x with itself is (n samples), and which maps of the features change nothing.
FUNCTIONS = {
    "rbf_cka": (similarity.rbf_cka, 1, RIGID),
    "rbf_cka debiased": (partial(similarity.rbf_cka, debiased=True), 1, RIGID),
    "cca": (similarity.cca, 1, RIGID | {"linear"}),
    "svcca": (similarity.svcca, 1, RIGID),
    "svcca rank": (partial(similarity.svcca, rank=3), 1, RIGID),
    "pwcca y": (partial(similarity.pwcca, weights="y"), 1, RIGID | {"linear"}),
    "pwcca x": (similarity.pwcca, 1, {"shift"}),
    "procrustes": (similarity.procrustes, 1, RIGID),
    "procrustes_distance": (similarity.procrustes_distance, 0, RIGID),
    "rsa": (similarity.rsa, 1, {"reorder", "rows", "sample shift"}),
    "rsa cosine": (partial(similarity.rsa, dissimilarity="cosine"), 1, {"orthogonal", "rows"}),
    "rsa cosine centered": (partial(similarity.rsa, dissimilarity="cosine", centered=True), 1, RIGID),
    "rsa euclidean": (partial(similarity.rsa, dissimilarity="euclidean", comparison="pearson"), 1, RIGID),
    "mutual_knn": (similarity.mutual_knn, 1, RIGID),
    "mutual_knn cosine": (partial(similarity.mutual_knn, k=4, metric="cosine"), 1, {"orthogonal", "rows"}),
    "information_imbalance": (similarity.information_imbalance, 2 / 40, RIGID),
}
ASYMMETRIC = {"pwcca x", "pwcca y", "information_imbalance"}
PAIRWISE = {
    "linear_cka": partial(similarity.linear_cka, debiased=True),
    "rbf_cka": partial(similarity.rbf_cka, debiased=True),
    **{name: getattr(similarity, name) for name in MEASURES if name not in ("linear_cka", "rbf_cka")},
}


def centred(X):
    return X - X.mean(axis=0)


def mapped(kind, X, rng):
    n, p = X.shape
    return {
        "orthogonal": lambda: X @ orthogonal(rng, p),
        "shift": lambda: X + rng.normal(size=p) * 50,
        "linear": lambda: X @ orthogonal(rng, p) @ np.diag(np.logspace(-2, 2, p)) @ orthogonal(rng, p),
        "reorder": lambda: X[:, rng.permutation(p)],
        "rows": lambda: X * rng.uniform(0.1, 10, size=(n, 1)),
        "sample shift": lambda: X + rng.normal(size=(n, 1)) * 50,
    }[kind]()


@pytest.mark.parametrize("measure", FUNCTIONS)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_invariances_of_every_measure(xp, measure, seed, scale):
    function, of_itself, maps = FUNCTIONS[measure]
    X, Y = related(seed)
    rng = np.random.default_rng(seed)
    f = lambda A, B: function(xp.asarray(A), xp.asarray(B))  # noqa: E731
    value = f(X, Y)
    order = rng.permutation(len(X))
    assert type(value) is float
    assert f(X, X) == pytest.approx(of_itself, abs=1e-9)
    assert f(X[order], Y[order]) == pytest.approx(value, abs=1e-9)
    assert f(scale * X, Y) == pytest.approx(value, abs=1e-9)
    for kind in maps:
        assert f(mapped(kind, X, rng), Y) == pytest.approx(value, abs=1e-7), kind
    if measure not in ASYMMETRIC:
        assert f(Y, X) == pytest.approx(value, abs=1e-9)


def test_measures_that_have_a_direction():
    X, Y = related(0)
    for function in (similarity.pwcca, similarity.information_imbalance):
        assert abs(function(X, Y) - function(Y, X)) > 1e-3
    assert similarity.pwcca(X, Y, weights="y") == pytest.approx(similarity.pwcca(Y, X), abs=1e-12)


# References ---------------------------------------------------------------------------------------


def slow_pwcca(X, Y):
    """By the definition, with variates from whitened covariances."""
    X, Y = centred(X), centred(Y)
    sqrt_inv = lambda C: np.linalg.inv(scipy.linalg.sqrtm(C).real)  # noqa: E731
    wx, wy = sqrt_inv(X.T @ X), sqrt_inv(Y.T @ Y)
    A, rho, _ = np.linalg.svd(wx @ X.T @ Y @ wy, full_matrices=False)
    variates = X @ wx @ A
    alphas = [sum(abs(h @ x) for x in X.T) for h in variates.T]
    return sum(a * r for a, r in zip(alphas, rho, strict=True)) / sum(alphas)


@pytest.mark.parametrize(("p", "q"), [(6, 9), (9, 6)])
def test_pwcca_follows_the_definition(xp, p, q):
    X, Y = related(3, p=p, q=q)
    X = X + 100
    assert similarity.pwcca(xp.asarray(X), xp.asarray(Y)) == pytest.approx(slow_pwcca(X, Y), abs=1e-9)
    assert similarity.pwcca(xp.asarray(Y), xp.asarray(X), weights="y") == pytest.approx(slow_pwcca(X, Y), abs=1e-9)


def test_procrustes_is_the_best_rotation(xp):
    X, Y = related(4, p=7, q=7)
    A, B = (centred(F) / np.linalg.norm(centred(F)) for F in (X, Y))
    rotation, _ = scipy.linalg.orthogonal_procrustes(A, B)
    distance = np.sum((A @ rotation - B) ** 2)
    assert similarity.procrustes_distance(xp.asarray(X), xp.asarray(Y)) == pytest.approx(distance, abs=1e-9)
    assert similarity.procrustes(xp.asarray(X), xp.asarray(Y)) == pytest.approx(np.sum(A @ rotation * B), abs=1e-9)


@pytest.mark.parametrize("comparison", ["spearman", "pearson"])
@pytest.mark.parametrize("dissimilarity", ["correlation", "cosine", "euclidean"])
@pytest.mark.parametrize("centered", [False, True])
def test_rsa_against_scipy(xp, dissimilarity, comparison, centered):
    X, Y = related(5)
    X = X + 0.5
    A, B = (centred(X), centred(Y)) if centered else (X, Y)
    correlate = scipy.stats.spearmanr if comparison == "spearman" else scipy.stats.pearsonr
    expected = correlate(pdist(A, dissimilarity), pdist(B, dissimilarity)).statistic
    options = {"dissimilarity": dissimilarity, "comparison": comparison, "centered": centered}
    assert similarity.rsa(xp.asarray(X), xp.asarray(Y), **options) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dissimilarity", ["cosine", "euclidean"])
def test_ties_in_dissimilarities_share_their_rank(xp, dissimilarity):
    """Classes as one-hot features: two distances only, whatever rounding makes of them away from the origin."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, size=30)
    rotation = orthogonal(rng, 4)
    X, Y = np.eye(4)[classes] @ rotation, related(6, n=30)[1]
    alike = (classes[:, None] != classes)[np.triu_indices(30, 1)]
    expected = scipy.stats.spearmanr(alike, pdist(Y, dissimilarity)).statistic
    value = similarity.rsa(xp.asarray(X * 1e3), xp.asarray(Y), dissimilarity=dissimilarity)
    assert value == pytest.approx(expected, abs=1e-12)


def test_samples_without_direction_are_orthogonal_to_all(xp):
    X, Y = (F.copy() for F in related(7, n=12))
    X[3], X[8] = 0.7, 0.0
    R = np.ones((12, 12))
    rest = [i for i in range(12) if i not in (3, 8)]
    R[np.ix_(rest, rest)] = 1 - np.corrcoef(X[rest])
    expected = scipy.stats.pearsonr(R[np.triu_indices(12, 1)], pdist(Y, "correlation")).statistic
    assert similarity.rsa(xp.asarray(X), xp.asarray(Y), comparison="pearson") == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("debiased", [False, True])
def test_rbf_cka_with_a_fixed_bandwidth(xp, debiased):
    X, Y = related(8)
    n = len(X)
    H = np.eye(n) - 1 / n

    def hsic(K, L):
        if not debiased:
            return np.trace(K @ H @ L @ H)
        K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
        return np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * (K @ L).sum() / (n - 2)

    K, L = (np.exp([[-np.sum((a - b) ** 2) / (2 * 2.5**2) for b in F] for a in F]) for F in (X, Y))
    expected = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    value = similarity.rbf_cka(xp.asarray(X), xp.asarray(Y), sigma=2.5, debiased=debiased)
    assert value == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InputError, match="`sigma`"):
        similarity.rbf_cka(xp.asarray(X), xp.asarray(Y), sigma=-1)


@pytest.mark.parametrize("debiased", [False, True])
def test_a_wide_gaussian_kernel_is_the_linear_one(xp, debiased):
    """K → 1 - d²/2σ², and centring leaves xᵢ·xⱼ/σ²: no digits may be lost to the 1."""
    X, Y = (xp.asarray(F) for F in related(9))
    expected = similarity.linear_cka(X, Y, debiased=debiased)
    assert similarity.rbf_cka(X, Y, sigma=1e7, debiased=debiased) == pytest.approx(expected, abs=1e-9)


def test_svcca_of_fixed_rank(xp):
    X, Y = related(10)
    U, V = (np.linalg.svd(centred(F))[0][:, :3] for F in (X, Y))
    expected = np.mean(np.cos(scipy.linalg.subspace_angles(U, V)))
    assert similarity.svcca(xp.asarray(X), xp.asarray(Y), rank=3) == pytest.approx(expected, abs=1e-9)
    assert similarity.svcca(xp.asarray(X), xp.asarray(Y), rank=99) == pytest.approx(similarity.cca(X, Y), abs=1e-9)
    with pytest.raises(InputError, match="`rank`"):
        similarity.svcca(xp.asarray(X), xp.asarray(Y), rank=0)


def test_svcca_from_a_sketch(xp):
    rng = np.random.default_rng(0)
    X, Y = (F @ np.diag(np.logspace(0, -9, 300)) @ orthogonal(rng, 300) for F in related(11, n=80, p=300, q=300))
    A, B = xp.asarray(X), xp.asarray(Y)
    exact = similarity.svcca(A, B, threshold=0.9)
    assert similarity.svcca(A, B, threshold=0.9, sketch=40) == pytest.approx(exact, abs=1e-6)
    # Same seed, same sketch: the very same number.
    assert similarity.svcca(A, B, threshold=0.9, sketch=40) == similarity.svcca(A, B, threshold=0.9, sketch=40)
    exact = similarity.svcca(A, B, rank=5)
    assert similarity.svcca(A, B, rank=5, sketch=40, seed=3) == pytest.approx(exact, abs=1e-6)
    with pytest.raises(InputError, match=r"got 0\.\d+ within 5 directions; raise `sketch`"):
        similarity.svcca(A, B, threshold=0.99, sketch=5)
    with pytest.raises(InputError, match="at least `rank` = 6"):
        similarity.svcca(A, B, rank=6, sketch=5)


@pytest.mark.parametrize("measure", FUNCTIONS)
def test_standardising_is_z_scoring_first(measure):
    X, Y = related(12)
    X = X * np.logspace(0, 2, X.shape[1])
    z_scored = [(F - F.mean(axis=0)) / F.std(axis=0) for F in (X, Y)]
    function = FUNCTIONS[measure][0]
    assert function(X, Y, standardize=True) == pytest.approx(function(*z_scored), abs=1e-9)


@pytest.mark.parametrize("measure", FUNCTIONS)
def test_half_precision_is_taken_at_its_word(measure):
    X, Y = (F.astype(np.float16) for F in related(13))
    function = FUNCTIONS[measure][0]
    assert function(X, Y) == pytest.approx(function(X.astype(np.float64), Y.astype(np.float64)), abs=1e-6)


@pytest.mark.parametrize("measure", FUNCTIONS)
def test_wrong_inputs_raise(xp, measure):
    f = FUNCTIONS[measure][0]
    good = xp.asarray(related(0)[0])
    with pytest.raises(InputError, match="same n_samples"):
        f(good, good[:30, :])
    with pytest.raises(InputError, match="`X`"):
        f(good[:1, :], good[:1, :])
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match=r"`Y`.*NaN"):
            f(good, xp.where(good > 0, good, xp.full_like(good, bad)))


@pytest.mark.parametrize(
    ("function", "option"),
    [
        (similarity.rsa, {"dissimilarity": "manhattan"}),
        (similarity.rsa, {"comparison": "kendall"}),
        (similarity.mutual_knn, {"metric": "correlation"}),
        (similarity.pwcca, {"weights": "z"}),
    ],
)
def test_unknown_options_raise(function, option):
    with pytest.raises(InputError, match=f"`{next(iter(option))}` to be one of .* but got"):
        function(*related(0), **option)


@pytest.mark.parametrize("measure", FUNCTIONS)
def test_constant_features_are_similar_to_nothing(xp, measure):
    X = xp.asarray(related(0)[0])
    for pair in ((xp.full(X.shape, 0.1), X), (X, xp.full(X.shape, 0.1)), (xp.ones(X.shape), xp.ones(X.shape))):
        with pytest.warns(TransferscopeWarning, match="constant features have no similarity"):
            assert np.isnan(FUNCTIONS[measure][0](*pair))


def test_what_a_measure_cannot_compare_is_nan(xp):
    X, Y = (xp.asarray(F) for F in related(0))
    with pytest.warns(TransferscopeWarning, match="RSA is NaN: what it compares is the same for all samples"):
        assert np.isnan(similarity.rsa(X[:, :1], Y))
    with pytest.warns(TransferscopeWarning, match="RSA is NaN"):
        assert np.isnan(similarity.rsa(xp.eye(40), Y, dissimilarity="euclidean", comparison="pearson"))
    with pytest.warns(TransferscopeWarning, match="RBF-CKA is NaN"):
        assert np.isnan(similarity.rbf_cka(X, Y, sigma=1e-3, debiased=True))


def test_independent_noise(xp):
    rng = np.random.default_rng(0)
    X, Y = (xp.asarray(rng.normal(size=(400, 20))) for _ in range(2))
    assert similarity.rbf_cka(X, Y, debiased=True) == pytest.approx(0, abs=0.02)
    assert similarity.rsa(X, Y) == pytest.approx(0, abs=0.02)
    assert similarity.information_imbalance(X, Y) == pytest.approx(1, abs=0.1)
    assert similarity.mutual_knn(X, Y) == pytest.approx(10 / 399, abs=0.01)


# All pairs ----------------------------------------------------------------------------------------


def networks(xp, n=50):
    """Layers of two networks, narrow and wide, float32 and float64, far from the origin or not."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(n, 4))
    sides = []
    for widths in ((3, 9, 70), (12, 60)):
        layers = [shared @ rng.normal(size=(4, p)) + rng.normal(size=(n, p)) + p for p in widths]
        layers[-1] = layers[-1].astype(np.float32)
        sides.append([xp.asarray(layer) for layer in layers])
    return sides


@pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")
@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("standardized", [False, True])
def test_all_pairs_are_the_pairs(xp, name, standardized):
    left, right = networks(xp)
    xs, ys = ([Representation(F, standardize=standardized) for F in side] for side in (left, right))
    matrix = MEASURES[name].pairs(xs, ys)
    assert matrix.shape == (3, 2)
    assert matrix.dtype == xp.float64
    if standardized:
        left, right = ([standardize(F) for F in side] for side in (left, right))
    expected = [[PAIRWISE[name](X, Y) for Y in right] for X in left]
    np.testing.assert_allclose(to_numpy(matrix), expected, atol=1e-6)
    alone = to_numpy(MEASURES[name].pairs(xs, xs))
    np.testing.assert_allclose(alone, [[PAIRWISE[name](X, Y) for Y in left] for X in left], atol=1e-6)
    if name not in ("pwcca", "information_imbalance"):
        np.testing.assert_allclose(alone, alone.T, atol=1e-12)
    else:
        assert np.max(np.abs(alone - alone.T)) > 1e-3


@pytest.mark.parametrize("name", MEASURES)
def test_constant_layers_are_nan_among_all_pairs_with_one_warning(xp, name):
    X, Y = (xp.asarray(F) for F in related(0))
    layers = [Representation(F) for F in (X, xp.full((40, 2), 0.1), Y, xp.zeros((40, 3)))]
    with pytest.warns(TransferscopeWarning, match="not informative for 12 of 16 layer pairs, 12 of them NaN") as caught:
        matrix = MEASURES[name].pairs(layers, layers)
    assert len(caught) == 1
    nothing = to_numpy(MEASURES[name].uninformative(layers, layers))
    expected = np.ones((4, 4), dtype=bool)
    expected[np.ix_([0, 2], [0, 2])] = False
    np.testing.assert_array_equal(np.isnan(to_numpy(matrix)), expected)
    np.testing.assert_array_equal(nothing, expected)
    assert float(matrix[0, 2]) == pytest.approx(PAIRWISE[name](X, Y), abs=1e-9)
    with pytest.warns(TransferscopeWarning, match="1 of 1"):
        assert np.isnan(float(MEASURES[name].pairs(layers[1:2], layers[3:])[0, 0]))


@pytest.mark.parametrize("name", MEASURES)
def test_too_few_samples_say_nothing(name):
    measure = MEASURES[name]
    rng = np.random.default_rng(0)
    for n, expected in ((measure.min_samples - 1, True), (measure.min_samples, False)):
        layer = Representation(rng.normal(size=(max(n, 1), 1 if measure.directions else 5)))
        assert bool(measure.uninformative([layer], [layer])[0, 0]) is expected
    few = Representation(rng.normal(size=(measure.min_samples - 1, 5)))
    with pytest.warns(TransferscopeWarning, match=f"needed: {measure.min_samples}"):
        assert np.isnan(measure.pairs([few], [few])[0, 0])


@pytest.mark.parametrize("name", ["cca", "svcca", "pwcca"])
def test_crowded_pairs_are_flagged_and_not_nan(xp, name):
    rng = np.random.default_rng(0)
    layers = [Representation(xp.asarray(rng.normal(size=(12, p)))) for p in (2, 9)]
    with pytest.warns(TransferscopeWarning, match="1 of 4 layer pairs, 0 of them NaN.*directions") as caught:
        matrix = MEASURES[name].pairs(layers, layers)
    assert len(caught) == 1
    assert not np.any(np.isnan(to_numpy(matrix)))
    # 2 + 9 directions fill the 11 dimensions that 12 centred samples have; 9 + 9 are too many.
    np.testing.assert_array_equal(
        to_numpy(MEASURES[name].uninformative(layers, layers)), [[False, False], [False, True]]
    )


def test_informative_pairs_do_not_warn(xp):
    layers = [Representation(xp.asarray(F)) for F in related(0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for measure in MEASURES.values():
            measure.pairs(layers, layers)


def test_layers_that_do_not_fit_raise(xp):
    layer = Representation(xp.asarray(related(0)[0]))
    for measure in MEASURES.values():
        with pytest.raises(InputError, match="one layer at least"):
            measure.pairs([layer], [])
        with pytest.raises(InputError, match="same n_samples but got 30, 40"):
            measure.pairs([layer], [Representation(layer.features[:30, :])])


# One layer ----------------------------------------------------------------------------------------


def test_derived_matrices_are_exact_far_from_the_origin(xp):
    X = related(14, n=30)[0]
    layer = Representation(xp.asarray(X + 1e6))
    near = X + 1e6 - 1e6
    distances = to_numpy(layer.squared_distances)
    expected = np.array([[np.sum((a - b) ** 2) for b in near] for a in near])
    np.testing.assert_allclose(distances, expected, rtol=1e-9, atol=1e-9)
    assert not np.any(np.diag(distances))
    np.testing.assert_array_equal(distances, distances.T)
    np.testing.assert_allclose(to_numpy(layer.gram), centred(near) @ centred(near).T, atol=1e-9)
    assert layer.gram is layer.gram
    assert layer.squared_distances is layer.squared_distances


@pytest.mark.filterwarnings("ignore::transferscope.errors.TransferscopeWarning")
@pytest.mark.parametrize("standardized", [False, True])
@pytest.mark.parametrize("name", MEASURES)
def test_permuted_and_subset_layers_are_those_of_their_samples(xp, name, standardized):
    rng = np.random.default_rng(0)
    order = rng.permutation(50)
    rows = np.sort(rng.permutation(50)[:35])
    left, right = networks(xp)
    xs, ys = ([Representation(F, standardize=standardized) for F in side] for side in (left, right))
    measure = MEASURES[name]
    for method, index in (("permuted", order), ("subset", rows)):
        index = xp.asarray(index)
        taken = [getattr(y, method)(index) for y in ys]
        fresh = [Representation(xp.take(F, index, axis=0), standardize=standardized) for F in right]
        base_x = xs if method == "permuted" else [x.subset(index) for x in xs]
        assert taken[0].n_samples == index.shape[0]
        for layer, other in zip(taken, fresh, strict=True):
            np.testing.assert_allclose(to_numpy(layer.features), to_numpy(other.features), atol=1e-5)
        expected = to_numpy(measure.pairs([Representation(x.features) for x in base_x], fresh))
        np.testing.assert_allclose(to_numpy(measure.pairs(base_x, taken)), expected, atol=2e-6)


def test_permutations_take_what_is_there(xp):
    """Nothing is computed from the features again: with the matrices made, they may even be gone."""
    X = xp.asarray(related(0)[0])
    layer = Representation(X)
    before = {name: measure.pairs([layer], [layer]) for name, measure in MEASURES.items() if name != "pwcca"}
    layer.features = None
    layer.constant = False
    shuffled = layer.permuted(xp.asarray(np.random.default_rng(0).permutation(40)))
    shuffled.__dict__["like"] = X
    for name in ("cca", "svcca", "procrustes", "rsa", "rbf_cka", "mutual_knn"):
        value = MEASURES[name].kernel([shuffled], [shuffled])
        np.testing.assert_allclose(to_numpy(value), to_numpy(before[name]), atol=1e-12)


def test_rows_taken_twice(xp):
    """A bootstrap sample: duplicates are at distance zero, and the centring is that of the sample."""
    X = related(0)[0]
    rows = np.random.default_rng(0).integers(0, 40, size=40)
    layer = Representation(xp.asarray(X)).subset(xp.asarray(rows))
    np.testing.assert_allclose(to_numpy(layer.gram), centred(X[rows]) @ centred(X[rows]).T, atol=1e-12)
    expected = np.array([[np.sum((a - b) ** 2) for b in X[rows]] for a in X[rows]])
    np.testing.assert_allclose(to_numpy(layer.squared_distances), expected, atol=1e-12)
    assert not layer.constant
    assert Representation(xp.asarray(X)).subset(xp.asarray([3, 3, 3])).constant


def test_subsets_take_their_dissimilarities_from_the_whole(xp):
    layer = Representation(xp.asarray(related(0)[0]))
    MEASURES["rsa"].pairs([layer], [layer])
    part = layer.subset(xp.asarray([5, 1, 8, 30, 2]))
    part.features = None
    R = 1 - np.corrcoef(related(0)[0])[np.ix_([5, 1, 8, 30, 2], [5, 1, 8, 30, 2])]
    np.testing.assert_allclose(to_numpy(dissimilarities(part, "correlation")), R, atol=1e-12)
    # Less the mean of the samples that were taken, the features of the whole no longer do.
    fresh = Representation(layer.subset(xp.asarray([5, 1, 8, 30, 2])).features)
    again = layer.subset(xp.asarray([5, 1, 8, 30, 2]))
    for kind in ("correlation", "cosine"):
        ours, theirs = (to_numpy(dissimilarities(each, kind, centered=True)) for each in (again, fresh))
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_errors_name_the_layer(xp):
    with pytest.raises(InputError, match=r"`layer3\.1`.*6 NaN"):
        Representation(xp.full((3, 2), np.nan), name="layer3.1")


def test_inputs_are_not_written_to():
    X, Y = (F.copy() for F in related(0))
    for measure in MEASURES.values():
        measure.pairs([Representation(X, standardize=True)], [Representation(Y)])
    np.testing.assert_array_equal(X, related(0)[0])
    np.testing.assert_array_equal(Y, related(0)[1])
