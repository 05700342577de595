"""Gram matrices inside the hook: the product written for activations, centring where it matters, non-finite values."""

import itertools

import numpy as np
import pytest
import torch

from transferscope.activations.grams import CENTRE_ABOVE, GramReducer, upper_gram
from transferscope.errors import CaptureError

DOUBLE = torch.float64


def random(*shape, dtype=DOUBLE, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def centred(K):
    """Subtract row and column means: the Gram matrix of centred features from that of shifted ones."""
    K = np.asarray(K, dtype=np.float64)
    return K - K.mean(0) - K.mean(1)[:, None] + K.mean()


def gram_of_centred(features):
    X = features.reshape(len(features), -1).double().numpy()
    X = X - X.mean(axis=0)
    return X @ X.T


# --- the product --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4, 15, 16, 17, 63, 127, 128, 130])
@pytest.mark.parametrize("p", [1, 4095, 4096, 4097, 6143, 2048 * 32 - 1, 2048 * 32 + 7])
def test_the_upper_triangle_is_that_of_the_plain_product(n, p):
    X = torch.randint(-8, 9, (n, p), dtype=torch.int64, generator=torch.Generator().manual_seed(n + p))
    found = upper_gram(X.float())
    assert found.dtype == torch.float32
    # Whole numbers, whose sums float32 holds exactly: no tolerance, and no block left out can hide.
    want = X.double() @ X.double().T
    assert want.abs().max() < 2**24
    assert torch.equal(found.double().triu(), want.triu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_is_that_of_the_dtype(dtype):
    X = random(130, 70001, dtype=dtype)
    want = X.double() @ X.double().T
    error = ((upper_gram(X).double() - want).triu().abs() / 70001).max()
    # How long a run of products is summed in float32 is up to the library: 1.9e-6 on an AMD EPYC.
    assert error < {torch.float32: 3e-6, torch.float64: 1e-13}[dtype]


@pytest.mark.parametrize(
    "view",
    [
        lambda: random(9000, 40).T,
        lambda: random(40, 18000)[:, ::2],
        lambda: random(80, 9000)[::2],
        lambda: random(1, 9000).expand(40, 9000),
        lambda: random(40, 9, 50, 20).contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1).flatten(1),
    ],
)
def test_any_order_of_memory_will_do(view):
    X = view()
    before = X.clone()
    torch.testing.assert_close(upper_gram(X).triu(), (before @ before.T).triu())
    assert torch.equal(X, before)


# --- the reduction ------------------------------------------------------------------------------------------------


NAMES = ["layer0", "layer1", "layer2"]


def grams(reducer, outputs):
    reducer.restart()
    return reducer.stack([reducer(output) for output in outputs])


LAYERS = [
    random(20, 8, 30, 20),
    random(20, 8, 30, 20).contiguous(memory_format=torch.channels_last),
    random(20, 6, 6, 4),
    random(20, 10, 4),
    random(20, 5),
    random(20),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_flattened_layers(dtype):
    layers = [layer.to(dtype) for layer in LAYERS]
    stack = grams(GramReducer("flatten", [str(i) for i in range(6)]), layers)
    assert stack.dtype == np.float64
    assert stack.shape == (6, 20, 20)
    for K, layer in zip(stack, layers, strict=True):
        np.testing.assert_array_equal(K, K.T)
        X = layer.reshape(20, -1).double().numpy()
        np.testing.assert_allclose(K, X @ X.T, atol=1e-5 * X.shape[1])


@pytest.mark.parametrize("reduce", ["mean", None, torch.nn.Flatten()])
def test_other_reductions_come_first(reduce):
    features = {"mean": lambda x: x.mean((2, 3))}.get(reduce, lambda x: x.flatten(1))
    layer = LAYERS[4] if reduce is None else LAYERS[0]
    (K,) = grams(GramReducer(reduce, ["layer"]), [layer])
    X = features(layer)
    np.testing.assert_allclose(K, X @ X.T, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_standardized_features_are_z_scored_in_the_batch(dtype):
    X = random(20, 300, dtype=dtype) * torch.linspace(0.1, 50, 300, dtype=dtype) + 1000
    X[:, 7] = 3
    (K,) = grams(GramReducer("flatten", ["layer"], standardized=True), [X])
    double = X.double().numpy()
    spread = double.std(axis=0)
    Z = (double - double.mean(axis=0)) / np.where(spread > 0, spread, 1)
    np.testing.assert_allclose(K, Z @ Z.T, rtol=1e-3, atol=0.3 if dtype == torch.float32 else 1e-6)


@pytest.mark.parametrize("offset", [0, 1, 3, 10, 100, 1000])
@pytest.mark.parametrize("shape", [(20, 300), (64, 8, 30, 40)])
def test_trap_2_features_far_from_zero_lose_no_digits(offset, shape):
    """float32 features whose mean is that many standard deviations: the centred Gram matrix is that of float64."""
    features = (random(*shape) + offset).float()
    reducer = GramReducer("flatten", ["layer"])
    (K,) = grams(reducer, [features])
    want = gram_of_centred(features)
    assert np.linalg.norm(centred(K) - want) / np.linalg.norm(want) < 2e-5
    naive = (features.flatten(1) @ features.flatten(1).T).numpy()
    if offset == 1000:
        assert np.linalg.norm(centred(naive) - want) / np.linalg.norm(want) > 1e-3


def test_what_is_far_is_told_for_every_layer_and_batch_by_itself():
    """One reducer, three layers, batches that change from near to far: all are right from the first batch on."""
    reducer = GramReducer("flatten", NAMES)
    for batch, offsets in enumerate([(0, 300, 0), (0, 300, 300), (300, 0, 300), (0, 0, 0)]):
        layers = [(random(20, 500, seed=3 * batch + i) + offset).float() for i, offset in enumerate(offsets)]
        for K, layer in zip(grams(reducer, layers), layers, strict=True):
            want = gram_of_centred(layer)
            assert np.linalg.norm(centred(K) - want) / np.linalg.norm(want) < 2e-5


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2])
def test_features_are_shifted_when_the_ratio_passes_the_threshold(factor):
    """Of exactly known mean and variance: half of the samples at mean + 1, half at mean - 1."""
    mean = np.sqrt(CENTRE_ABOVE * factor)
    features = torch.full((10, 50), mean, dtype=DOUBLE) + torch.tensor([1.0, -1.0]).repeat(5)[:, None]
    (K,) = grams(GramReducer("flatten", ["layer"]), [features])
    shifted = features - features[:1] if factor > 1 else features
    np.testing.assert_allclose(K, shifted @ shifted.T, atol=1e-9)


def test_constant_features_have_a_gram_matrix_of_zeros():
    (K,) = grams(GramReducer("flatten", ["layer"]), [torch.full((8, 5000), 7.3)])
    np.testing.assert_array_equal(K, 0)


def test_activations_are_not_written_to():
    for offset in (0, 500):
        output = (random(20, 8, 6, 6) + offset).float()
        before = output.clone()
        for options in ({}, {"standardized": True}):
            GramReducer("flatten", NAMES, **options)(output)
            assert torch.equal(output, before)


@pytest.mark.parametrize(
    ("value", "standardized"),
    [*itertools.product([torch.nan, torch.inf, -torch.inf], [False, True]), (1e30, False)],
)
@pytest.mark.parametrize("offset", [0, 500])
def test_values_that_are_not_finite_name_their_layer(value, offset, standardized):
    """1e30 is finite in float32, but its square is not, unless features are standardised."""
    good, bad = random(6, 40).float() + offset, random(6, 40).float() + offset
    bad[2, 3] = value
    with pytest.raises(CaptureError, match="layer 'layer1' are NaN or infinite"):
        grams(GramReducer("flatten", NAMES, standardized=standardized), [good, bad, good])
