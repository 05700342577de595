"""Tangent kernels of a cut network, and how well labels are told from a kernel: against plain gradients and refits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from suffix_kernel.kernels import settle_averages, tangent_kernels
from suffix_kernel.leave_one_out import extrapolate, fit_kernel
from suffix_kernel.tangents import tangent_features
from torch import nn
from torch.func import functional_call, grad, vmap

from transferscope.errors import InputError
from transferscope.networks.loading import Network, build_untrained, source_transform
from transferscope.networks.zoo import load_zoo
from transferscope.protocols.cutting.cut import cut

WIDE = 10**9
FACTORY = Path(__file__).parents[2] / "examples" / "cifar_resnet.py"
TRANSFORM = {"size": 16, "mean": [0.5] * 3, "std": [0.25] * 3}


def network(**entry):
    source = load_zoo({"version": 1, "sources": [{"name": "tiny", "transform": TRANSFORM} | entry]})["tiny"]
    return Network("tiny", build_untrained(source, seed=5, trust_code=True), source_transform(source), source)


@pytest.fixture(scope="module")
def resnet():
    layers = ["relu", "layer1", "layer2", "layer3"]
    return network(loader="python", factory=f"{FACTORY}:build", kwargs={"depth": 8}, layers=layers)


@pytest.fixture(scope="module")
def vit():
    options = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
    return network(loader="timm", model="vit_tiny_patch16_224", kwargs=options)


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def centred_gram(blocks):
    features = torch.cat([block.flatten(1) for block in blocks], dim=1).double()
    features = features - features.mean(0)
    return (features @ features.T).detach().numpy()


def assert_near(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_kernels_are_those_of_plain_gradients_with_the_averages_of_the_images(resnet, images, depth):
    found = tangent_kernels(resnet, depth, lambda: [images], width=WIDE, seeds=[3], trust_code=True)

    net = cut(resnet, depth, "finetune" if depth else "scratch", 2, seed=3, trust_code=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # the last batch is all
    net.train()(images)
    weights = {name: weight.detach() for name, weight in net.eval().named_parameters()}
    gradients = vmap(grad(lambda weights, image: functional_call(net, weights, (image[None],))[0, 0]), (None, 0))(
        weights, images
    )
    kept = tuple(f"rest.{name}." for name in ("conv1", "bn1", "layer1", "layer2", "layer3")[: depth and depth + 1])
    assert_near(found.whole, centred_gram(gradients.values()))
    assert_near(found.suffix, centred_gram(block for name, block in gradients.items() if not name.startswith(kept)))


@pytest.mark.parametrize("depth", [1, 2])
def test_the_suffix_is_what_reinit_trains(vit, images, depth):
    """Without batch norm the frozen network of `reinit` has the same gradients."""
    found = tangent_kernels(vit, depth, lambda: images.split(2), width=WIDE)
    trained = tangent_features(cut(vit, depth, "reinit", 2, seed=0), [images], width=WIDE)
    assert_near(found.suffix, centred_gram(trained.values()))
    assert found.suffix.trace() < found.whole.trace()


def test_seeds_are_averaged_and_decide_all_that_is_drawn(resnet, images):
    state, before = torch.random.get_rng_state(), resnet.module.state_dict()["layer1.0.bn1.running_mean"].clone()
    kernels = [
        tangent_kernels(resnet, 1, lambda: [images], width=32, seeds=seeds, trust_code=True)
        for seeds in ([0], [1], [0, 1], [0])
    ]
    first, second, mean, again = ([kernel.suffix, kernel.whole] for kernel in kernels)
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.subtract(first, second)).max() > 0.01 * np.max(first)
    np.testing.assert_allclose(mean, np.mean([first, second], axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.sum(first, axis=1), 0, atol=1e-4 * np.max(first))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(before, resnet.module.state_dict()["layer1.0.bn1.running_mean"])


def test_averages_are_those_of_the_images_batch_by_batch():
    """Which `BatchNorm1d` after a network that leaves one value a channel cannot take image by image."""
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4, momentum=0.3), nn.Linear(4, 2))
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    settle_averages(net, x.split(3))
    torch.testing.assert_close(net[1].running_mean, (x[:3].mean(0) + x[3:6].mean(0)) / 2)
    torch.testing.assert_close(net[1].running_var, (x[:3].var(0) + x[3:6].var(0)) / 2)
    assert net[1].momentum == 0.3
    assert not any(module.training for module in net.modules())
    with pytest.raises(InputError, match="at least two images each, for batch norm, but none does"):
        settle_averages(net, x.split(1))


def test_no_seeds_are_refused(resnet, images):
    with pytest.raises(InputError, match="Expected `seeds` to hold at least one seed, but got none"):
        tangent_kernels(resnet, 1, lambda: [images], seeds=[])


# Leave-one-out of a given kernel -------------------------------------------------------------------


def task(n, p, signal):
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.arange(n) % 3)
    return rng.normal(size=(n, p)) + signal * rng.normal(size=(3, p))[codes] + 2, codes


def refitted(X, T, penalty):
    everyone = np.arange(len(X))
    models = [Ridge(penalty, solver="svd").fit(X[everyone != i], T[everyone != i]) for i in everyone]
    return np.stack([model.predict(X[i : i + 1])[0] for i, model in enumerate(models)])


@pytest.mark.parametrize(("n", "p", "signal"), [(20, 4, 0.8), (20, 19, 0.3), (15, 40, 0.5), (15, 40, 3.0)])
def test_the_fit_is_the_best_of_refits_without_each_sample(xp, n, p, signal):
    X, codes = task(n, p, signal)
    T = np.eye(3)[codes]
    mean_diagonal = np.sum((X - X.mean(axis=0)) ** 2) / n
    predictions = [refitted(X, T, mean_diagonal * penalty) for penalty in np.logspace(-6, 3, 19)]
    best = min(predictions, key=lambda P: np.sum((P - T) ** 2))
    means = (T.sum(axis=0) - T) / (n - 1)
    fit = fit_kernel(xp.asarray(7 * X @ X.T), codes)
    assert fit.squared_error == pytest.approx(np.sum((best - T) ** 2) / np.sum((means - T) ** 2), rel=1e-6)
    assert fit.accuracy == np.mean(best.argmax(axis=1) == codes)
    assert type(fit.squared_error) is type(fit.accuracy) is float


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9])
def test_a_kernel_that_tells_nothing_predicts_the_mean_of_the_others(xp, value):
    fit = fit_kernel(xp.full((10, 10), value), np.arange(10) // 7)
    assert fit.squared_error == pytest.approx(1, rel=1e-12)
    assert fit.accuracy == pytest.approx(0.7)


def test_the_fit_depends_on_no_scale_shift_or_order(xp):
    X, codes = task(25, 6, 0.6)
    fit = fit_kernel(xp.asarray(X @ X.T), codes)
    order = np.random.default_rng(1).permutation(25)
    moved = 1e-4 * (X + 30)[order]
    again = fit_kernel(xp.asarray(moved @ moved.T), codes[order])
    assert again == pytest.approx(fit, rel=1e-6)


def test_what_is_no_kernel_is_refused(xp):
    codes = np.arange(4) % 2
    with pytest.raises(InputError, match=r"but got \(4, 3\); look"):
        fit_kernel(xp.zeros((4, 3)), codes)
    with pytest.raises(InputError, match=r"but got \(4, 4\) with NaN or infinite values"):
        fit_kernel(xp.full((4, 4), float("nan")), codes)
    with pytest.raises(InputError, match="Expected `codes` to be 4 integers"):
        fit_kernel(xp.eye(4), np.arange(3))


def test_errors_are_extrapolated_along_a_line_in_log_n():
    assert extrapolate([0.8, 0.5], [30, 300], 3000) == pytest.approx(0.2)
    assert extrapolate([0.8, 0.5], [30, 300], 300) == pytest.approx(0.5)
    assert extrapolate([0.9, 0.6, 0.6], [10, 100, 1000], 100) == pytest.approx(0.7)
    for errors, sizes, n in (([0.8], [30], 60), ([0.8, 0.5], [30, 30], 60), ([0.8, 0.5], [30, 0], 60)):
        with pytest.raises(InputError, match="Expected an error for each of at least two different sizes"):
            extrapolate(errors, sizes, n)
