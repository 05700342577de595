"""Distances between weights: against plain arithmetic and a slow reference, in every precision and layout."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferscope.arrays import displacement as module
from transferscope.arrays.displacement import displacement
from transferscope.errors import InputError

SHAPES = [(), (7,), (5, 3), (6, 4, 3, 3), (1, 50), (40, 1, 3, 3)]


def tensors(shape, count=4, *, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(rng.normal(size=shape), dtype) for _ in range(count)]
    for array in arrays:
        array.flags.writeable = False
    return arrays


def mean_distance(x, y):
    return displacement([x], x, y).to_initial[0]


def slow_distance(x, y):
    """One number after the other, summed without rounding."""
    pairs = list(zip(x.ravel().tolist(), y.ravel().tolist(), strict=True))
    return math.fsum(abs(a - b) for a, b in pairs) / len(pairs)


def slow_norm(x):
    return math.sqrt(math.fsum(value**2 for value in x.ravel().tolist()))


def test_by_hand(xp):
    initial, other = xp.asarray([[0.0, 1.0], [2.0, -1.0]]), xp.zeros((2, 2))
    source, weights = xp.asarray([[3.0, 0.0], [0.0, 4.0]]), xp.asarray([[3.0, 1.0], [-2.0, 2.0]])
    found = displacement([initial, other], source, weights)
    assert found.to_initial == (pytest.approx((3 + 0 + 4 + 3) / 4), pytest.approx((3 + 1 + 2 + 2) / 4))
    assert found.to_source == pytest.approx((0 + 1 + 2 + 2) / 4)
    assert found.change == pytest.approx(math.sqrt(0 + 1 + 4 + 4))
    assert found.norm == pytest.approx(5)


@pytest.mark.parametrize("block", [1, 10, module.BLOCK])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_the_slow_reference_however_it_is_cut(xp, shape, block, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", block)
    monkeypatch.setattr(module, "DEVICE_BLOCK", block)
    initial, other, source, weights = tensors(shape)
    found = displacement([xp.asarray(initial), xp.asarray(other)], xp.asarray(source), xp.asarray(weights))
    assert found.to_initial == pytest.approx((slow_distance(initial, weights), slow_distance(other, weights)))
    assert found.to_source == pytest.approx(slow_distance(source, weights))
    assert found.change == pytest.approx(slow_norm(weights.astype(np.float64) - source))
    assert found.norm == pytest.approx(slow_norm(source))


@given(st.integers(0, 2**32 - 1))
def test_a_mean_distance_is_a_metric(seed):
    x, y, z = tensors((3, 4), 3, seed=seed)
    assert mean_distance(x, x) == 0
    assert mean_distance(x, y) == mean_distance(y, x) > 0
    assert mean_distance(x, z) <= mean_distance(x, y) + mean_distance(y, z) + 1e-15
    assert mean_distance(3 * x.astype(float), 3 * y.astype(float)) == pytest.approx(3 * mean_distance(x, y))


def test_small_moves_of_large_single_precision_weights_are_exact():
    """Four million differences of 2^-10, and numbers of 1000, whose sum float32 cannot hold to the last digit."""
    source = np.full((2**11, 2**11), 1000.0, np.float32)
    weights = source + np.float32(2**-10)
    found = displacement([np.zeros_like(source)], source, weights)
    assert found.to_source == 2**-10
    assert found.to_initial == (1000 + 2**-10,)
    assert found.change == pytest.approx(2**-10 * 2**11, rel=1e-14)


def test_half_precision_is_raised():
    x, y = tensors((5, 3), 2, dtype=np.float16)
    assert mean_distance(x, y) == pytest.approx(slow_distance(x, y), rel=1e-14)
    huge = np.full((100, 100), 6e4, np.float16)  # its sum and its squares are infinite in float16
    assert displacement([], np.zeros_like(huge), huge).change == pytest.approx(100 * float(huge[0, 0]))


def test_layout_does_not_matter():
    initial, source, weights = tensors((6, 4, 3, 3), 3)
    last = np.ascontiguousarray(weights.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not last.flags.c_contiguous
    given, plain = displacement([initial], source, last), displacement([initial], source, weights)
    assert given.to_initial == pytest.approx(plain.to_initial, rel=1e-14)
    assert given.change == pytest.approx(plain.change, rel=1e-14)


def test_no_initial_weights_are_no_distances():
    source, weights = tensors((3, 3), 2)
    assert displacement([], source, weights).to_initial == ()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([np.ones((2, 3))], np.ones((2, 3)), np.ones((3, 2))), r"`weights` and `source` .* \(3, 2\) and \(2, 3\)"),
        (([np.ones(6), np.ones(5)], np.ones(6), np.ones(6)), r"`weights` and `initials\[1\]` .* \(6,\) and \(5,\)"),
        (([], np.ones((0, 3)), np.ones((0, 3))), r"`weights` to hold at least one number but got shape \(0, 3\)"),
        (([], [1.0], [2.0]), "Expected NumPy or CuPy arrays but got builtins.list"),
    ],
)
def test_bad_input(arrays, message):
    with pytest.raises(InputError, match=message):
        displacement(*arrays)
