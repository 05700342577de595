import json

import numpy as np
import pytest
from feature_pairs import orthogonal, related
from hypothesis import given
from hypothesis import strategies as st

from transferscope import similarity
from transferscope.arrays.backend import to_numpy
from transferscope.errors import InputError, TransferscopeWarning

# Fraction by fraction: unbiased HSIC xy -3/10, xx 9/10, yy 7/6; biased 333/400, 467/200, 169/100.
RATIONAL_X = np.array([[1, 0], [0, 1], [1, 1], [2, 1], [0, 3]])
RATIONAL_Y = np.array([[1], [0], [2], [1], [3]])

MEASURES = {
    "linear_cka": similarity.linear_cka,
    "linear_cka debiased": lambda X, Y: similarity.linear_cka(X, Y, debiased=True),
    "cca": similarity.cca,
    "svcca": similarity.svcca,
    "cca squared": lambda X, Y: similarity.cca(X, Y, squared=True),
    "rbf_cka": similarity.rbf_cka,
    "rbf_cka debiased": lambda X, Y: similarity.rbf_cka(X, Y, debiased=True),
}


def notebook():
    random = np.random.RandomState(1337)
    X = random.randn(100, 10)
    return X, random.randn(100, 10) + X


def slow_cka(X, Y, *, debiased):
    """CKA from Gram matrices of features that are not centred, by the definitions."""
    n = len(X)
    H = np.eye(n) - 1 / n

    def hsic(K, L):
        if not debiased:
            return np.trace(K @ H @ L @ H)
        K, L = K * (1 - np.eye(n)), L * (1 - np.eye(n))
        return np.trace(K @ L) + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2 * (K @ L).sum() / (n - 2)

    K, L = X @ X.T, Y @ Y.T
    return hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))


def slow_svcca(X, Y, threshold):
    """SVCCA with CCA from the covariances of the kept coordinates."""
    kept = []
    for A in (X, Y):
        U, s, _ = np.linalg.svd(A - A.mean(axis=0), full_matrices=False)
        k = next(k for k in range(1, len(s) + 1) if np.sum(s[:k] ** 2) >= threshold * np.sum(s**2))
        kept.append(U[:, :k] * s[:k])
    A, B = kept
    squared = np.linalg.eigvals(np.linalg.inv(A.T @ A) @ A.T @ B @ np.linalg.inv(B.T @ B) @ B.T @ A).real
    largest = np.sort(np.clip(squared, 0, None))[::-1][: min(A.shape[1], B.shape[1])]
    return np.mean(np.sqrt(largest))


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        # Kornblith et al. (2019), demo notebook of google-research, for CKA; QR and SVD in float64 for CCA.
        ("linear_cka", 0.5576132566),
        ("linear_cka debiased", 0.5134564895),
        ("cca", 0.7310139588),
        ("svcca", 0.7310139588),
        ("cca squared", 0.5453963322),
        ("rbf_cka", 0.6548311823),
    ],
)
def test_published_notebook(xp, measure, expected):
    X, Y = notebook()
    value = MEASURES[measure](xp.asarray(X), xp.asarray(Y))
    assert type(value) is float
    assert value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("bandwidth", [0.3, 2.0])
def test_debiased_rbf_cka_against_the_formula_of_song(xp, bandwidth):
    X, Y = related(3, n=15)
    n = len(X)
    kernels = []
    for A in (X, Y):
        squares = np.array([[np.sum((a - b) ** 2) for b in A] for a in A])
        K = np.exp(-squares / (2 * bandwidth**2 * np.median(squares)))
        np.fill_diagonal(K, 0)
        kernels.append(K)

    def hsic(K, L):
        ones = np.ones(n)
        middle = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
        return np.trace(K @ L) + middle - 2 / (n - 2) * (ones @ K @ L @ ones)

    K, L = kernels
    expected = hsic(K, L) / np.sqrt(hsic(K, K) * hsic(L, L))
    measured = similarity.rbf_cka(xp.asarray(X), xp.asarray(Y), bandwidth=bandwidth, debiased=True)
    assert measured == pytest.approx(expected, abs=1e-9)
    with pytest.raises(InputError, match="`bandwidth`"):
        similarity.rbf_cka(xp.asarray(X), xp.asarray(Y), bandwidth=0)


def test_integers_worked_by_hand(xp):
    X, Y = xp.asarray(RATIONAL_X), xp.asarray(RATIONAL_Y)
    assert similarity.linear_cka(X, Y) == pytest.approx((333 / 400) / np.sqrt(467 / 200 * 169 / 100), abs=1e-12)
    assert similarity.linear_cka(X, Y, debiased=True) == pytest.approx(-0.3 / np.sqrt(0.9 * 7 / 6), abs=1e-12)


@pytest.mark.parametrize("layer", ["mnist_lay04", "svhn_lay06"])
def test_real_activations(xp, real_folder, layer):
    golden = json.loads((real_folder / "golden" / "vectors.json").read_text())["real"]
    with np.load(real_folder / "golden" / golden["file"]) as arrays:
        X, Y = (xp.asarray(arrays[f"{layer}_model{i}"]) for i in (0, 1))
    golden = golden[layer]
    assert similarity.linear_cka(X, Y) == pytest.approx(golden["linear_cka"], abs=1e-6)
    assert similarity.linear_cka(X, Y, debiased=True) == pytest.approx(golden["linear_cka_debiased"], abs=1e-6)
    assert similarity.cca(X, Y) == pytest.approx(golden["cca_mean"], abs=1e-6)
    U, V = similarity.svcca_subspace(X), similarity.svcca_subspace(Y)
    assert [U.shape[1], V.shape[1]] == golden["svcca_components"]
    assert similarity.mean_canonical_correlation(U, V) == pytest.approx(golden["svcca_0.99"], abs=1e-6)


@pytest.mark.parametrize("debiased", [False, True])
@pytest.mark.parametrize(("p", "q"), [(3, 5), (3, 60), (70, 60)])
def test_cka_in_either_space_follows_the_definition(xp, p, q, debiased):
    X, Y = related(0, n=20, p=p, q=q)
    value = similarity.linear_cka(xp.asarray(X), xp.asarray(Y), debiased=debiased)
    assert value == pytest.approx(slow_cka(X, Y, debiased=debiased), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99, 1.0])
def test_svcca_follows_the_definition(xp, threshold):
    X, Y = related(1)
    X = X * np.logspace(0, -2, X.shape[1])
    value = similarity.svcca(xp.asarray(X), xp.asarray(Y), threshold=threshold)
    assert value == pytest.approx(slow_svcca(X, Y, threshold), abs=1e-9)


def test_cca_averages_as_many_correlations_as_the_smaller_side_has(xp):
    """One feature against eight, of which it is one: its only correlation is 1."""
    _, Y = related(2)
    assert similarity.cca(xp.asarray(Y[:, :1]), xp.asarray(Y)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("measure", MEASURES)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100))
def test_invariances_of_every_measure(xp, measure, seed, scale, shift):
    X, Y = related(seed)
    rng = np.random.default_rng(seed)
    f = lambda A, B: MEASURES[measure](xp.asarray(A), xp.asarray(B))  # noqa: E731
    value = f(X, Y)
    order = rng.permutation(len(X))
    assert -1 <= value <= 1
    assert f(X, X) == pytest.approx(1, abs=1e-9)
    assert f(Y, X) == pytest.approx(value, abs=1e-9)
    assert f(X[order], Y[order]) == pytest.approx(value, abs=1e-9)
    assert f(scale * (X @ orthogonal(rng, X.shape[1])) + shift, Y) == pytest.approx(value, abs=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_cca_is_invariant_to_invertible_linear_maps(xp, seed):
    X, Y = related(seed)
    rng = np.random.default_rng(seed)
    skewed = X @ orthogonal(rng, 6) @ np.diag(np.logspace(-2, 2, 6)) @ orthogonal(rng, 6)
    value = similarity.cca(xp.asarray(X), xp.asarray(Y))
    assert similarity.cca(xp.asarray(skewed), xp.asarray(Y)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_wrong_inputs_raise(xp, measure):
    f = MEASURES[measure]
    good = xp.asarray(related(0)[0])
    with pytest.raises(InputError, match="same n_samples"):
        f(good, good[:30, :])
    with pytest.raises(InputError, match=r"`Y` to have shape \(n_samples, n_features\)"):
        f(good, good[:, 0])
    with pytest.raises(InputError, match="`X`"):
        f(good[:1, :], good[:1, :])
    with pytest.raises(InputError, match="NaN"):
        f(good, xp.where(good > 0, good, xp.full_like(good, np.nan)))


def test_debiased_cka_needs_four_samples(xp):
    with pytest.raises(InputError, match="at least 4 samples"):
        similarity.linear_cka(xp.eye(3), xp.eye(3), debiased=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_constant_features_are_similar_to_nothing(xp, measure):
    X = related(0)[0]
    with pytest.warns(TransferscopeWarning, match="constant features have no similarity"):
        value = MEASURES[measure](xp.full(X.shape, 0.1), xp.asarray(X))
    assert np.isnan(value)


@pytest.mark.parametrize("width", [1, 30])
def test_one_odd_sample_has_no_unbiased_similarity(xp, width):
    """Its unbiased self-HSIC is exactly zero: what rounding leaves must not be divided by itself."""
    X, Y = np.zeros((20, width)), related(0, n=20)[1]
    X[3] = 0.7
    with pytest.warns(TransferscopeWarning, match="`X` has zero self-HSIC"):
        assert np.isnan(similarity.linear_cka(xp.asarray(X), xp.asarray(Y), debiased=True))
    streamed = similarity.MinibatchCKA()
    streamed.update([xp.asarray(X)], [xp.asarray(Y)])
    with pytest.warns(TransferscopeWarning, match="1 of 1 layer pairs"):
        assert np.isnan(float(streamed.result()[0, 0]))


def test_too_many_directions_for_the_samples_warn_once(xp):
    rng = np.random.default_rng(0)
    thin, wide = (similarity.svcca_subspace(xp.asarray(rng.normal(size=(12, p))), 1) for p in (2, 9))
    with pytest.warns(TransferscopeWarning, match=r"3 of 4 layer pairs.*2 \+ 10") as caught:
        # 2 + 9 of 12 samples already fill the n - 1 = 11 centred dimensions, and are not too many.
        similarity.svcca_matrix([thin, wide], [wide, xp.concat([wide, thin[:, :1]], axis=1)])
    assert len(caught) == 1


def test_eleven_directions_of_twelve_samples_are_not_too_many(xp):
    rng = np.random.default_rng(0)
    X, Y = (xp.asarray(rng.normal(size=(12, p))) for p in (2, 9))
    assert similarity.cca(X, Y) < 0.999999
    with pytest.warns(TransferscopeWarning, match=r"3 \+ 9"):
        assert similarity.cca(xp.concat([X, X[:, :1] ** 2], axis=1), Y) <= 1 + 1e-12


def test_svcca_matrix_holds_the_pairs(xp):
    layers = [xp.asarray(X) for X in (*related(3), *related(4))]
    us, vs = ([similarity.svcca_subspace(X) for X in side] for side in (layers[:3], layers[2:]))
    matrix = similarity.svcca_matrix(us, vs)
    assert matrix.shape == (3, 2)
    assert matrix.dtype == xp.float64
    for i, X in enumerate(layers[:3]):
        for j, Y in enumerate(layers[2:]):
            assert float(matrix[i, j]) == pytest.approx(similarity.svcca(X, Y), abs=1e-12)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.01, float("nan")])
def test_threshold_is_a_share(threshold):
    with pytest.raises(InputError, match="`threshold`"):
        similarity.svcca(*related(0), threshold=threshold)


# Streaming ----------------------------------------------------------------------------------------


def network(seed, n=96):
    """Four layers of one network's features for the same samples, in both precisions."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).normal(size=(n, 5))
    widths = (3, 20, 150, 40)
    layers = [shared @ rng.normal(size=(5, p)) + 2 * rng.normal(size=(n, p)) + 1 for p in widths]
    return [layer.astype(np.float32) if i % 2 else layer for i, layer in enumerate(layers)]


def stream(xp, xs, ys, batches, **options):
    accumulator = similarity.MinibatchCKA(**options)
    for rows in batches:
        accumulator.update([xp.asarray(X[rows]) for X in xs], ys and [xp.asarray(Y[rows]) for Y in ys])
    return accumulator


def test_one_batch_of_all_rows_is_debiased_cka(xp):
    xs, ys = network(0), network(1)[:3]
    result = stream(xp, xs, ys, [slice(None)]).result()
    assert result.shape == (4, 3)
    assert result.dtype == xp.float64
    expected = [[slow_cka(X.astype(float), Y.astype(float), debiased=True) for Y in ys] for X in xs]
    np.testing.assert_allclose(to_numpy(result), expected, atol=1e-6)


def test_one_biased_batch_of_all_rows_is_biased_cka(xp):
    xs, ys = network(0), network(1)
    result = stream(xp, xs, ys, [slice(None)], debiased=False).result()
    expected = [[slow_cka(X.astype(float), Y.astype(float), debiased=False) for Y in ys] for X in xs]
    np.testing.assert_allclose(to_numpy(result), expected, atol=1e-6)


def test_a_network_against_itself(xp):
    xs = network(0)
    batches = [slice(0, 40), slice(40, 96)]
    alone, twice = stream(xp, xs, None, batches).result(), stream(xp, xs, xs, batches).result()
    np.testing.assert_allclose(to_numpy(alone), to_numpy(twice), atol=1e-12)
    np.testing.assert_allclose(np.diag(to_numpy(alone)), 1, atol=1e-12)


def test_merging_shards_is_exact(xp):
    xs, ys = network(0), network(1)
    batches = [slice(0, 32), slice(32, 64), slice(64, 96)]
    whole = stream(xp, xs, ys, batches)
    shards = [stream(xp, xs, ys, batches[2:]), similarity.MinibatchCKA(), stream(xp, xs, ys, batches[:2])]
    for shard in shards[1:]:
        shards[0].merge(shard)
    assert shards[0].n_samples == whole.n_samples == 96
    np.testing.assert_allclose(to_numpy(shards[0].result()), to_numpy(whole.result()), rtol=1e-14)


def test_unbiased_batches_approach_the_full_value_and_biased_ones_do_not():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(2048, 16))
    X, Y = (shared @ rng.normal(size=(16, 256)) / 4 + rng.normal(size=(2048, 256)) * 1.5 for _ in range(2))
    full = similarity.linear_cka(X, Y, debiased=True)
    batches = [slice(start, start + 32) for start in range(0, 2048, 32)]
    assert float(stream(np, [X], [Y], batches).result()[0, 0]) == pytest.approx(full, abs=0.02)
    assert float(stream(np, [X], [Y], batches, debiased=False).result()[0, 0]) > full + 0.1


@pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
def test_squares_that_overflow_raise(xp):
    accumulator = similarity.MinibatchCKA()
    with pytest.raises(InputError, match="overflow their dtype"):
        accumulator.update([xp.asarray((network(0)[0] * 1e30).astype(np.float32))])
    assert accumulator.n_samples == 0


def test_streaming_rejects_what_does_not_fit(xp):
    a, b = xp.asarray(network(0)[0]), xp.asarray(network(0)[2])
    accumulator = similarity.MinibatchCKA()
    with pytest.raises(InputError, match="at least one batch"):
        accumulator.result()
    with pytest.raises(InputError, match="none"):
        accumulator.update([])
    with pytest.raises(InputError, match="none"):
        accumulator.update([a], [])
    with pytest.raises(InputError, match=r"96 in xs\[0\] and 90 in ys\[1\]"):
        accumulator.update([a], [b, b[:90, :]])
    with pytest.raises(InputError, match=r"`xs\[1\]`"):
        accumulator.update([a, b[:, 0]])
    with pytest.raises(InputError, match=r"`xs\[1\]`.*NaN"):
        accumulator.update([a, xp.where(b > 0, b, xp.full_like(b, np.nan))])
    assert accumulator.n_samples == 0
    accumulator.update([a, b])
    with pytest.raises(InputError, match="same layers in every batch"):
        accumulator.update([a])
    with pytest.raises(InputError, match="debiased"):
        accumulator.merge(similarity.MinibatchCKA(debiased=False))
