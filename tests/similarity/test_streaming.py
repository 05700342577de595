"""Linear CKA of all pairs, however it is worked off: plain formulas, resampling and simulation say what is right."""

import numpy as np
import pytest

from transferscope import similarity
from transferscope.arrays.backend import to_numpy
from transferscope.errors import InputError
from transferscope.similarity import hsic
from transferscope.similarity.streaming import MinibatchCKA


def related(rng, n, widths_x=(7, 30, 90), widths_y=(5, 50)):
    """Layers of two networks that share four directions, (n, width) each."""
    shared = rng.normal(size=(n, 4))
    maps = np.random.default_rng(1)

    def layers(widths):
        return [shared @ maps.normal(size=(4, width)) + rng.normal(size=(n, width)) for width in widths]

    return layers(widths_x), layers(widths_y)


def arrays(xp, layers):
    return [xp.asarray(X) for X in layers]


def accumulated(xs, ys, **options):
    cka = MinibatchCKA(**options)
    cka.update(xs, ys)
    return cka


def plain_rows(X, Y, debiased):
    """Rows of the sum of products of centred kernels, by the definitions of Gretton (2005) and Song et al. (2012)."""
    K, L = X @ X.T, Y @ Y.T
    n = len(K)
    if not debiased:
        H = np.eye(n) - 1 / n
        return ((H @ K @ H) * (H @ L @ H)).sum(axis=1)
    kernels = []
    for M in (K, L):
        M = M * (1 - np.eye(n))
        rows = M.sum(axis=1)
        U = M - rows[:, None] / (n - 2) - rows / (n - 2) + M.sum() / ((n - 1) * (n - 2))
        kernels.append(U * (1 - np.eye(n)))
    return (kernels[0] * kernels[1]).sum(axis=1)


def dense(xs, ys, debiased):
    def kernels(layers):
        grams = [similarity.Representation(X).gram for X in layers]
        return hsic.center_kernels(hsic.array_namespace(grams[0]).stack(grams), debiased=debiased, eps=2.0**-52)

    return hsic.row_sums(*kernels(xs), *((None, None) if ys is None else kernels(ys)))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("way", ["dense", "tiles", "features"])
def test_every_way_gives_the_same_row_sums(xp, monkeypatch, way, alone, debiased):
    xs, ys = related(np.random.default_rng(0), 50)
    monkeypatch.setattr(hsic, "_SHARE_OF_DEVICE", 2**62)
    monkeypatch.setattr(hsic, "TILE_BYTES", 80_000)  # blocks of 64 rows at least: 50 would be one without the next line
    monkeypatch.setattr(hsic, "SMALLEST_TILE", 8)
    ways = {
        "dense": dense,
        "tiles": lambda xs, ys, debiased: hsic.tiled_row_sums(xs, ys, debiased=debiased),
        "features": lambda xs, ys, debiased: hsic.feature_row_sums(xs, ys, debiased=debiased),
    }
    found = ways[way](arrays(xp, xs), None if alone else arrays(xp, ys), debiased)
    others = xs if alone else ys
    expected = [
        np.moveaxis([[plain_rows(X, Y, debiased) for Y in others] for X in xs], 2, 0),
        np.transpose([plain_rows(X, X, debiased) for X in xs]),
        np.transpose([plain_rows(Y, Y, debiased) for Y in others]),
    ]
    for array, value in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_numpy(array), value, rtol=1e-9, atol=1e-9 * np.abs(value).max())


class OnDisk:
    def __init__(self, X):
        self._X, self.shape = X, X.shape

    def __getitem__(self, where):
        return self._X[where]


@pytest.mark.parametrize("tile", [2**28, 10_000])
def test_float32_features_have_the_value_of_float64_ones(xp, monkeypatch, tile):
    """Of these squares fit into float32, and products of kernels do not."""
    monkeypatch.setattr(hsic, "TILE_BYTES", tile)
    monkeypatch.setattr(hsic, "_SHARE_OF_DEVICE", 2**62)
    xs, ys = ([np.float32(X) for X in side] for side in related(np.random.default_rng(0), 80, (200, 90), (150,)))
    scaled = [X * np.float32(1e16) for X in xs]
    cka = accumulated(arrays(xp, scaled), arrays(xp, ys))
    xs, ys = ([np.float64(X) for X in side] for side in (scaled, ys))
    value = [[plain_rows(X, Y, True).sum() for Y in ys] for X in xs]
    selves = [[plain_rows(X, X, True).sum() for X in side] for side in (xs, ys)]
    np.testing.assert_allclose(to_numpy(cka.result()), value / np.sqrt(np.outer(*selves)), atol=1e-6)
    np.testing.assert_allclose(to_numpy(cka.self_hsic()[0]), selves[0], rtol=1e-5)


@pytest.mark.parametrize("tile", [2**28, 10_000])
def test_many_equal_rows_do_not_drift_in_float32(monkeypatch, tile):
    """Two kernels of four different numbers each, and a layer beside its copy: 1, not more."""
    monkeypatch.setattr(hsic, "TILE_BYTES", tile)
    monkeypatch.setattr(hsic, "prefers_features", lambda *_: False)
    first, second = (np.repeat(np.float32([[0], [1]]), [count, 1500 - count], axis=0) for count in (5, 10))
    found = accumulated([first], [second, first.copy()]).result()
    xs = [np.float64(X) for X in (first, second)]
    inner, outer = (plain_rows(xs[0], X, True).sum() for X in xs)
    expected = outer / np.sqrt(inner * plain_rows(xs[1], xs[1], True).sum())
    np.testing.assert_allclose(found, [[expected, 1.0]], atol=1e-10)


@pytest.mark.parametrize("tile", [2**28, 10_000])
@pytest.mark.parametrize("kept", [np.asarray, OnDisk])
def test_squares_beyond_float32_are_refused(monkeypatch, tile, kept):
    monkeypatch.setattr(hsic, "TILE_BYTES", tile)
    X = np.float32(1e25) * np.random.default_rng(0).normal(size=(80, 200)).astype(np.float32)
    with np.errstate(all="ignore"), pytest.raises(InputError, match="cast them to float64"):
        MinibatchCKA().update([kept(X)])


def test_permutations_that_change_nothing_count_whatever_the_rounding():
    """Of three times three equal samples 216 · 6 of 9! permutations keep the groups together: .0036 and 1/2000."""
    groups = np.repeat(np.eye(3), 3, axis=0)
    p = accumulated([0.7 * groups], [1.3 * groups], permutations=1999).p_value().item()
    share = 216 * 6 / 362880
    assert abs(p - share - 1 / 2000) < 4 * np.sqrt(share / 2000)


def test_grams_may_lie_in_any_order():
    grams = np.stack([X @ X.T for X in related(np.random.default_rng(0), 20)[0]])
    found = MinibatchCKA(), MinibatchCKA()
    found[0].update_grams(grams)
    found[1].update_grams(np.asfortranarray(grams))
    np.testing.assert_allclose(found[1].result(), found[0].result(), atol=1e-12)


@pytest.mark.parametrize(("n", "width"), [(400, 3), (60, 200)])
def test_large_batches_are_worked_off_the_cheaper_way(monkeypatch, n, width):
    """Many samples of few features by features, few of many by blocks; the result is that of one Gram matrix each."""
    xs, ys = related(np.random.default_rng(0), n, (width, width), (width,))
    expected = accumulated(xs, ys).result()
    used = []
    for name in ("feature_row_sums", "tiled_row_sums"):
        plain = getattr(hsic, name)
        monkeypatch.setattr(hsic, name, lambda *a, plain=plain, name=name, **k: used.append(name) or plain(*a, **k))
    monkeypatch.setattr(hsic, "TILE_BYTES", 10_000)
    monkeypatch.setattr(hsic, "_SHARE_OF_DEVICE", 2**62)
    np.testing.assert_allclose(accumulated(xs, ys).result(), expected, atol=1e-10)
    assert used == ["feature_row_sums" if n > width else "tiled_row_sums"]


def test_a_layer_with_one_odd_sample_has_no_unbiased_hsic_either_way(xp, monkeypatch):
    X = np.zeros((80, 3))
    X[5] = 1.0
    Y = np.random.default_rng(0).normal(size=(80, 4))
    for tile in (2**28, 10_000):
        monkeypatch.setattr(hsic, "TILE_BYTES", tile)
        monkeypatch.setattr(hsic, "_SHARE_OF_DEVICE", 2**62)
        cka = accumulated(arrays(xp, [X, Y]), None)
        with pytest.warns(match="NaN for 3 of 4"):
            values = to_numpy(cka.result())
        assert np.isnan(values).tolist() == [[True, True], [True, False]]


# --- standard errors ----------------------------------------------------------------------------------------------


def test_the_standard_error_is_that_of_leaving_samples_out(xp):
    xs, ys = related(np.random.default_rng(0), 150)
    left_out = []
    for i in range(150):
        kept = np.arange(150) != i
        left_out.append(accumulated([X[kept] for X in xs], [Y[kept] for Y in ys]).result())
    jackknife = np.sqrt(149 / 150 * np.sum((left_out - np.mean(left_out, axis=0)) ** 2, axis=0))
    found = to_numpy(accumulated(arrays(xp, xs), arrays(xp, ys)).standard_error())
    np.testing.assert_allclose(found, jackknife, rtol=0.06)


@pytest.mark.parametrize("batch", [60, 15])
def test_the_standard_error_is_the_spread_over_draws_of_samples(batch):
    rng = np.random.default_rng(3)
    values, errors = [], []
    for _ in range(200):
        xs, ys = related(rng, 60)
        cka = MinibatchCKA()
        for start in range(0, 60, batch):
            cka.update([X[start : start + batch] for X in xs], [Y[start : start + batch] for Y in ys])
        values.append(cka.result())
        errors.append(cka.standard_error())
    # 200 draws give a spread to within 5 % (one deviation); the linear estimate errs to the safe side.
    ratio = np.mean(errors, axis=0) / np.std(values, axis=0)
    assert (ratio > 0.85).all()
    assert (ratio < 1.3).all()


def test_streaming_agrees_with_all_samples_at_once_within_its_standard_error():
    xs, ys = related(np.random.default_rng(4), 1200)
    whole = accumulated(xs, ys)
    streamed = MinibatchCKA()
    for start in range(0, 1200, 40):
        streamed.update([X[start : start + 40] for X in xs], [Y[start : start + 40] for Y in ys])
    distance = np.abs(streamed.result() - whole.result()) / streamed.standard_error()
    assert distance.max() < 3
    assert (streamed.standard_error() >= 0.95 * whole.standard_error()).all()


def test_the_rows_of_one_image_count_once(xp):
    """Every image four times over: debiasing apart, as much is known as from each once, not twice as much."""
    xs, ys = related(np.random.default_rng(0), 100)
    once = accumulated(xs, ys, debiased=False)
    repeated = [np.repeat(X, 4, axis=0) for X in xs], [np.repeat(Y, 4, axis=0) for Y in ys]
    grouped = accumulated(*(arrays(xp, layers) for layers in repeated), debiased=False, group=4)
    np.testing.assert_allclose(to_numpy(grouped.result()), once.result(), rtol=1e-9)
    np.testing.assert_allclose(to_numpy(grouped.standard_error()), once.standard_error(), rtol=1e-6)
    ungrouped = accumulated(*repeated, debiased=False)
    np.testing.assert_allclose(ungrouped.standard_error(), once.standard_error() / 2, rtol=0.02)


def test_identity_has_no_standard_error(xp):
    xs, _ = related(np.random.default_rng(0), 40)
    cka = accumulated(arrays(xp, xs), None)
    np.testing.assert_allclose(np.diag(to_numpy(cka.result())), 1, atol=1e-12)
    np.testing.assert_allclose(np.diag(to_numpy(cka.standard_error())), 0, atol=1e-7)


# --- permutation tests --------------------------------------------------------------------------------------------


def test_independent_noise_gives_debiased_cka_near_zero_and_even_p_values():
    rng = np.random.default_rng(0)
    values, shares = [], []
    for _ in range(300):
        cka = accumulated([rng.normal(size=(24, 60))], [rng.normal(size=(24, 40))], permutations=19)
        values.append(cka.result()[0, 0])
        shares.append(cka.p_value()[0, 0])
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(300)
    counts = np.bincount(np.round(np.multiply(shares, 20)).astype(int), minlength=21)[1:]
    assert counts.sum() == 300
    # Twenty equally likely values: a chi-squared statistic of 19 degrees of freedom.
    assert np.sum((counts - 15) ** 2 / 15) < 43.8


def test_related_layers_have_the_smallest_p_value_there_is(xp):
    xs, ys = related(np.random.default_rng(0), 40)
    cka = MinibatchCKA(permutations=99)
    for rows in (slice(0, 20), slice(20, 40)):
        cka.update(arrays(xp, [X[rows] for X in xs]), arrays(xp, [Y[rows] for Y in ys]))
    np.testing.assert_array_equal(to_numpy(cka.p_value()), 1 / 100)


def test_permutations_follow_the_seed():
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(20, 5))], [rng.normal(size=(20, 5)) for _ in range(6)]
    first, again, other = (accumulated(*layers, permutations=50, seed=seed).p_value() for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_p_value_needs_permutations_and_room():
    layers = [np.random.default_rng(0).normal(size=(20, 5))]
    with pytest.raises(InputError, match="`permutations` to be at least 1 for a p-value but got 0"):
        accumulated(layers, None).p_value()


def test_permutations_that_do_not_fit_are_an_input_error(monkeypatch):
    monkeypatch.setattr(hsic, "TILE_BYTES", 100)
    monkeypatch.setattr(hsic, "_SHARE_OF_DEVICE", 2**62)
    layers = [np.random.default_rng(0).normal(size=(20, 5))]
    with pytest.raises(InputError, match="`permutations` to be 0 for 1 Gram matrices of 20 samples"):
        accumulated(layers, None, permutations=9)


# --- Gram matrices from elsewhere, merging ------------------------------------------------------------------------


@pytest.mark.parametrize("debiased", [True, False])
def test_gram_matrices_need_not_be_centred_and_are_left_alone(xp, debiased):
    xs, ys = related(np.random.default_rng(0), 30)
    expected = accumulated(xs, ys, debiased=debiased)
    grams = [xp.asarray(np.stack([(X + 3) @ (X + 3).T for X in layers])) for layers in (xs, ys)]
    before = [to_numpy(each).copy() for each in grams]
    cka = MinibatchCKA(debiased=debiased)
    cka.update_grams(*grams)
    np.testing.assert_allclose(to_numpy(cka.result()), expected.result(), atol=1e-9)
    np.testing.assert_allclose(to_numpy(cka.standard_error()), expected.standard_error(), atol=1e-7)
    for each, old in zip(grams, before, strict=True):
        np.testing.assert_array_equal(to_numpy(each), old)


def test_merged_accumulators_know_what_one_would():
    xs, ys = related(np.random.default_rng(0), 60)
    halves = [([X[rows] for X in xs], [Y[rows] for Y in ys]) for rows in (slice(0, 25), slice(25, 60))]
    one = MinibatchCKA(permutations=9, seed=5)
    for half in halves:
        one.update(*half)
    first, second = (MinibatchCKA(permutations=9, seed=seed) for seed in (5, 6))
    first.update(*halves[0])
    second.update(*halves[1])
    first.merge(second)
    np.testing.assert_allclose(first.result(), one.result(), atol=1e-12)
    np.testing.assert_allclose(first.standard_error(), one.standard_error(), atol=1e-12)
    assert first.n_samples == one.n_samples == 60


@pytest.mark.parametrize("settings", [{}, {"debiased": False}, {"group": 5}])
def test_merging_equal_settings_is_exactly_one_stream(settings):
    xs, ys = related(np.random.default_rng(0), 60)
    halves = [([X[rows] for X in xs], [Y[rows] for Y in ys]) for rows in (slice(0, 25), slice(25, 60))]
    one, *parts = (MinibatchCKA(**settings) for _ in range(3))
    for half, part in zip(halves, parts, strict=True):
        one.update(*half)
        part.update(*half)
    parts[0].merge(parts[1])
    np.testing.assert_array_equal(parts[0].result(), one.result())
    np.testing.assert_array_equal(parts[0].standard_error(), one.standard_error())
    assert parts[0].n_samples == one.n_samples


@pytest.mark.parametrize("filled", [True, False])
@pytest.mark.parametrize(
    ("name", "value", "default"), [("debiased", False, True), ("permutations", 9, 0), ("group", 5, 1)]
)
def test_accumulators_of_different_settings_are_not_merged(name, value, default, filled):
    """Not even empty ones: with another `group`, standard errors would be silently wrong."""
    layers = [np.random.default_rng(0).normal(size=(20, 5))]
    one, other = MinibatchCKA(), MinibatchCKA(**{name: value})
    one.update(layers)
    if filled:
        other.update(layers)
    with pytest.raises(InputError, match=f"`{name}` {default} like this accumulator but got {value}"):
        one.merge(other)
    assert one.n_samples == 20
